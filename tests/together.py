"""Everything at once: many threads, every way to call, random faults, cuts and forks.

    python -m tests.together [seconds] [threads] [redis URL]

Each question has a number, and each answer says its question again, so that an answer that went
astray is noticed. `tests/test_together.py` runs it for some seconds; by hand it also forks, uses a
Redis and a budget in SQLite, and prints how threads, descriptors and memory went.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import llmkit
from llmkit import BaseLLMAdapter, Budget, Client, ErrorCode, LLMError, Request, Scope
from llmkit.breaker import _breakers
from llmkit.connection_pool import cleanup_connection_pools, health_check
from llmkit.errors import StreamInterruptedError
from llmkit.rate_limits import choosing
from llmkit.scope import _outermost
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.deadline.calling import VENDORS, adapter, echo, open_descriptors
from tests.deadline.test_stress import Cutter

# What a call may take beyond its time, besides what the machine was late itself.
LATE: Final = 0.1
WAYS = ("complete", "stream", "fallback", "race", "race_stream", "parallel", "left stream")
STATUSES = (408, 429, 500, 502, 503, 529)
MALFORMED = ("", "{", "[[[", "null", "\x00\xff")

_server_rng = random.Random(11)


def provider(request: RecordedRequest) -> Answer:
    """Says the question again; to one in three of those that are not `calm`, in a faulty way."""
    question = echo(request).text
    text = answer_to(question)
    rng = _server_rng
    sound = Answer(text, chunked=rng.random() < 0.3, chunk_delay=rng.choice((0.0, 0.002)))
    if question.startswith("calm") or rng.random() < 0.67:
        return replace(sound, delay=rng.choice((0.0, 0.0, 0.01, 0.05)))
    headers = {"retry-after": "0"} if rng.random() < 0.5 else {}
    size = rng.randrange(500)
    return rng.choice(
        (
            Answer(status=rng.choice(STATUSES), headers=headers),
            replace(sound, delay=rng.choice((0.1, 0.3, 30.0))),
            replace(sound, drip=rng.choice((0.0002, 0.02))),
            replace(sound, stall_after=size),
            replace(sound, cut_after=size, reset=rng.random() < 0.5),
            replace(sound, body=rng.choice(MALFORMED)),
            replace(sound, malformed_after=rng.randrange(3)),
            replace(sound, error_event_after=rng.randrange(3)),
            replace(sound, end_mark=False),
        )
    )


def answer_to(question: str) -> str:
    """What is the right answer to a question."""
    return f"you asked: {question} and this is the answer to it"


def _serve(pipe: Connection) -> None:
    with ProviderServer(provider) as server:
        pipe.send(server.url)
        while not pipe.poll(1.0):
            with server._lock:
                server._requests.clear()


@contextlib.contextmanager
def provider_process() -> Iterator[str]:
    """Runs the provider in a process of its own, so that only its clients are measured."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    process.start()
    try:
        yield ours.recv()
    finally:
        ours.send(None)
        process.join(10)
        process.kill()


class Lag:
    """Measures how much longer than meant a thread of this process takes to wake up some times.

    What a call does when its time is over takes as many turns of the interpreter: it wakes up,
    shuts a socket, tells another thread, settles what it has reserved.
    """

    STEP, TURNS = 0.001, 5

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []
        self._over = False

    @contextlib.contextmanager
    def running(self) -> Iterator[Lag]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            self._over = True
            thread.join()

    def between(self, began: float, ended: float) -> float:
        """Returns the seconds that were lost in a time."""
        lost = 0.0
        for at, late in reversed(self._seen):
            if at < began:
                break
            lost += late if at - late <= ended else 0.0
        return lost

    def _run(self) -> None:
        while not self._over:
            before = time.monotonic()
            for _ in range(self.TURNS):
                time.sleep(self.STEP)
            now = time.monotonic()
            self._seen.append((now, now - before - self.TURNS * self.STEP))


class Together:
    """Threads that call in every way.

    Args:
        url: Where the provider is.
        threads: How many.
        clients: Whom they ask.
        seed: Of all that is random here.

    Attributes:
        wrong: What must not be.
        outcomes: How many calls ended how, by way and outcome.
        latest: The longest that a call took beyond its time.
        unexplained: The same, but without what the machine itself was late meanwhile.
    """

    def __init__(self, url: str, threads: int, clients: Sequence[Client], seed: int = 1) -> None:
        bases = {"openai": f"{url}/v1", "anthropic": url, "gemini": url}
        self.models = [adapter(vendor, bases[vendor]) for vendor in VENDORS]
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            dead = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        self.gone = adapter("openai", dead)
        self.wrong: list[str] = []
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.latest = self.unexplained = 0.0
        self._threads = threads
        self._clients = clients
        self._seed = seed
        self._over = threading.Event()
        self._cutter = Cutter()
        self._lag = Lag()
        self._late: list[tuple[str, float, float]] = []

    def warm_up(self) -> None:
        """Makes a call of each kind, so that all is loaded and open."""
        for client in self._clients:
            for model in self.models:
                client.complete(f"calm {id(client)}", model=model, fallbacks=[], timeout=60)
                client.stream("calm stream", model=model, fallbacks=[], timeout=60).close()

    def run(self, seconds: float, meanwhile: Callable[[], object] | None = None) -> None:
        """Calls for a time.

        Args:
            seconds: How long.
            meanwhile: Called again and again on this thread; None: nothing.
        """
        threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(self._threads)
        ]
        with self._cutter.running(), self._lag.running():
            for thread in threads:
                thread.start()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                if meanwhile is not None:
                    meanwhile()
                time.sleep(0.02)
            self._over.set()
            for thread in threads:
                thread.join(10)
                if thread.is_alive():
                    self.wrong.append(f"{thread.name} hangs")
        for way, due, ended in self._late:
            lag = self._lag.between(due, ended)
            self.unexplained = max(self.unexplained, ended - due - lag)
            if ended - due - lag > LATE:
                self.wrong.append(f"{way} was {ended - due:.3f} s late, the machine {lag:.3f} s")

    def calm(self) -> None:
        """Checks that afterwards every model answers again, asked by every client."""
        for number, client in enumerate(self._clients):
            for model in self.models:
                question = f"calm afterwards {number}"
                reply = _insist(
                    lambda c=client, m=model, q=question: c.complete(  # type: ignore[misc]
                        q, model=m, fallbacks=[], timeout=10
                    )
                )
                self._check(question, reply.text)

    def _work(self, number: int) -> None:
        rng = random.Random(self._seed * 1000 + number)
        while not self._over.is_set():
            way = rng.choice(WAYS)
            popular = rng.random() < 0.3
            asked = rng.randrange(30) if popular else rng.randrange(10**12)
            question = f"{'popular' if popular else 'single'} question {asked}"
            timeout = rng.uniform(0.1, 1.2)
            began = time.monotonic()
            outcome = self._one(rng, way, question, timeout)
            ended = time.monotonic()
            late = ended - began - timeout
            self.latest = max(self.latest, late)
            if late > LATE:
                self._late.append((way, began + timeout, ended))
            self.outcomes[way, outcome] += 1

    def _one(self, rng: random.Random, way: str, question: str, timeout: float) -> str:
        try:
            with contextlib.ExitStack() as stack:
                if rng.random() < 0.2:
                    scope = stack.enter_context(llmkit.deadline(timeout))
                    self._cutter.cut(scope, rng.uniform(0, timeout))
                if rng.random() < 0.1:
                    stack.enter_context(Budget(tokens=100_000))
                ask: Callable[[random.Random, str, float], str]
                ask = getattr(self, "_" + way.replace(" ", "_"))
                return ask(rng, question, timeout)
        except StreamInterruptedError as error:
            if not answer_to(question).startswith(error.partial_text):
                self.wrong.append(f"{question}: broke off after {error.partial_text!r}")
            return error.code.value
        except LLMError as error:
            if error.code is ErrorCode.INVALID_REQUEST:  # none is
                self.wrong.append(f"{way}: {traceback.format_exc()}")
            return error.code.value
        except BaseException:
            self.wrong.append(f"{way}: {traceback.format_exc()}")
            return "wrong"

    def _complete(self, rng: random.Random, question: str, timeout: float) -> str:
        client, how = self._how(rng, timeout)
        reply = client.complete(question, model=rng.choice(self.models), fallbacks=[], **how)
        return self._check(question, reply.text, reply.cached)

    def _fallback(self, rng: random.Random, question: str, timeout: float) -> str:
        client, how = self._how(rng, timeout)
        chain = self._some(rng, 3)
        reply = client.complete(question, model=chain[0], fallbacks=chain[1:], **how)
        return self._check(question, reply.text, reply.cached)

    def _stream(self, rng: random.Random, question: str, timeout: float) -> str:
        client, how = self._how(rng, timeout)
        chain = self._some(rng, 2)
        stream = client.stream(question, model=chain[0], fallbacks=chain[1:], **how)
        with stream:
            return self._check(question, "".join(stream.text_stream))

    def _left_stream(self, rng: random.Random, question: str, timeout: float) -> str:
        client, how = self._how(rng, timeout)
        stream = client.stream(question, model=rng.choice(self.models), fallbacks=[], **how)
        if rng.random() < 0.3:  # dropped without a word
            return "left"
        got = next(stream).text
        if rng.random() < 0.5:
            stream.close()
        if not answer_to(question).startswith(got):
            self.wrong.append(f"{question}: was told {got!r}")
        return "left"

    def _race(self, rng: random.Random, question: str, timeout: float) -> str:
        client, how = self._how(rng, timeout)
        hedge = rng.choice((None, 0.02, "p95"))
        reply = client.race(question, self._some(rng, 3), hedge_after=hedge, **how)
        return self._check(question, reply.text, reply.cached)

    def _race_stream(self, rng: random.Random, question: str, timeout: float) -> str:
        client, how = self._how(rng, timeout)
        with client.race_stream(question, self._some(rng, 3), **how) as stream:
            return self._check(question, "".join(stream.text_stream))

    def _parallel(self, rng: random.Random, question: str, timeout: float) -> str:
        client, how = self._how(rng, timeout)
        questions = [f"{question} part {part}" for part in range(3)]
        asks = [
            functools.partial(client.complete, each, model=model, fallbacks=[], **how)
            for each, model in zip(questions, self.models, strict=True)
        ]
        replies = llmkit.execute_parallel(asks, timeout=timeout, return_exceptions=True)
        for each, reply in zip(questions, replies, strict=True):
            if isinstance(reply, BaseException):
                if not isinstance(reply, LLMError):
                    self.wrong.append(f"parallel: {reply!r}")
            else:
                self._check(each, reply.text)
        return "answered"

    def _some(self, rng: random.Random, number: int) -> list[BaseLLMAdapter]:
        """Several models, now and then one of them at an address where nobody listens."""
        models = rng.sample(self.models, number)
        if rng.random() < 0.2:
            models[rng.randrange(number)] = self.gone
        return models

    def _how(self, rng: random.Random, timeout: float) -> tuple[Client, dict[str, Any]]:
        how: dict[str, Any] = {"timeout": timeout, "max_retries": rng.randrange(3)}
        how["use_cache"] = rng.choice((True, True, False, "refresh"))
        if rng.random() < 0.2:
            how["attempt_timeout"] = timeout / 2
        return rng.choice(self._clients), how

    def _check(self, question: str, text: str, cached: str | None = None) -> str:
        if text != answer_to(question):
            self.wrong.append(f"{question}: was told {text!r}")
        return "answered" if cached is None else f"from {cached}"


def _insist(call: Callable[[], Any]) -> Any:
    """Makes a call until it succeeds: circuits that are open are so for a while."""
    ends = time.monotonic() + 70
    while True:
        try:
            return call()
        except LLMError as error:
            if time.monotonic() > ends:
                raise
            time.sleep(min(error.retry_after or 0.01, 1.0))


def annotate(request: Request, call_next: Callable[[Request], Any]) -> Any:
    """A middleware that changes something in half of the requests."""
    if len(request.messages[-1].text) % 2:
        request = replace(request, temperature=0.5)
    return call_next(request)


def own_threads() -> list[str]:
    """The threads that calls have started and that are still there."""
    names = [each.name for each in threading.enumerate()]
    servers = "llmkit-provider-server"  # of a test session's own servers
    return [name for name in names if name.startswith("llmkit-") and not name.startswith(servers)]


def living_scopes() -> int:
    """How many Scopes there are, those included that an earlier test's errors still hold."""
    return sum(type(each) is Scope for each in gc.get_objects())


def left_behind(budgets: Sequence[Budget], scopes_before: int = 0) -> list[str]:
    """Says what calls that are all over have left behind, though they must not."""
    ends = time.monotonic() + 5
    while (left := _left_behind(budgets, scopes_before)) and time.monotonic() < ends:
        gc.collect()
        time.sleep(0.02)
    return left


def _left_behind(budgets: Sequence[Budget], scopes_before: int) -> list[str]:
    left = [f"thread {name}" for name in own_threads()]
    left += [f"places of {name}" for name, pool in health_check().items() if pool["in_use"]]
    left += [f"reserved: {each.report()}" for each in budgets if each.reserved_tokens]
    for key, limiter in choosing._limiters.get().items():
        if limiter.waiting or limiter._unsettled:
            left.append(f"{key[0]}: {limiter.waiting} wait, {limiter._unsettled} unsettled")
    left += [f"entered {scope}" for scope in _outermost.get().values()]
    scopes = living_scopes() - scopes_before
    return [*left, f"{scopes} Scopes"] if scopes > 5 else left


def resident() -> float:
    """Returns this process's memory in MB; 0.0 where the system does not say."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(status.read_text().split("VmRSS:")[1].split()[0]) / 1024


def fork_and_ask(together: Together, client: Client) -> None:
    """Has a forked child make some calls; it has 20 s for them."""
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        code = 1
        try:
            for number, model in enumerate(together.models):
                question = f"calm child {os.getpid()} {number}"
                reply = client.complete(question, model=model, fallbacks=[], timeout=10)
                assert reply.text == answer_to(question)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    together.outcomes["fork", str(status)] += 1
    if status:
        together.wrong.append(f"a forked child ended with {status}")


def main() -> None:
    """Runs it by hand, and prints what came of it."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120.0
    threads = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    logging.getLogger("llmkit").setLevel(logging.CRITICAL)
    with provider_process() as url, tempfile.TemporaryDirectory() as folder:
        in_store = Budget(usd="1000000", name="t", store=f"sqlite:///{folder}/budget.db")
        budgets = [Budget(tokens=10**12), in_store]
        limits = {"openai": {"requests_per_minute": 6000, "tokens_per_minute": 10**7}}
        caches = ["sqlite:///" + folder + "/cache.db", *sys.argv[3:4]]
        clients = [
            Client(middleware=[annotate], budget=budgets[0], rate_limits=limits),
            *(Client(cache=cache, budget=budgets[0]) for cache in caches),
            Client(budget=in_store, cache=False),
        ]
        together = Together(url, threads, clients)
        together.warm_up()
        beginning = time.monotonic()
        shown = [0.0, 0.0]

        def meanwhile() -> None:
            now = time.monotonic() - beginning
            if now - shown[1] > 2.0:
                shown[1] = now
                fork_and_ask(together, clients[0])
            if now - shown[0] > 15.0:
                shown[0] = now
                total = sum(together.outcomes.values())
                print(
                    f"{now:6.1f} s: {total} calls, {threading.active_count()} threads, "
                    f"{open_descriptors()} descriptors, {resident():.1f} MB",
                    flush=True,
                )

        together.run(seconds, meanwhile)
        together.calm()
        print("left behind:", left_behind(budgets))
        cleanup_connection_pools()
        print(
            f"{threading.active_count()} threads, {open_descriptors()} descriptors, "
            f"{resident():.1f} MB"
        )
        for (way, outcome), number in sorted(together.outcomes.items()):
            print(f"  {way:12} {outcome:26} {number}")
        for circuit in _breakers.get().values():
            print(circuit, circuit.figures())
        print(f"latest: {together.latest:.3f} s; without the machine's lag: ", end="")
        print(f"{together.unexplained:.3f} s; {len(together.wrong)} wrong")
        for line, times in Counter(together.wrong).most_common(20):
            print(times, line)


if __name__ == "__main__":
    main()
