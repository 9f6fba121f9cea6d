"""Measures one library inside its own virtual environment, on orders that come line by line.

    python -m benchmarks.session litellm

Every line of the input is a JSON object: `do` names a function of `ORDERS`, the rest are its
arguments. Every line of the output is one: `ok` with what was measured, or `error`. CPU is that of
the whole process, all its threads included, so that other work on the machine disturbs it little.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from benchmarks.peers import Calls, Messages

# A hit that takes longer has asked the server, which answers that late.
HIT_BOUND = 0.04


class Session:
    """One library, connected.

    Args:
        driver: A module of `benchmarks.peers`, or one of the same shape.
    """

    def __init__(self, driver: ModuleType) -> None:
        self.driver = driver
        self.calls: Calls | None = None
        self.numbers = itertools.count()

    def connect(self, **arguments: Any) -> dict[str, float]:
        """Makes the calls by the driver's `connect`."""
        self.calls = self.driver.connect(**arguments)
        return {}

    def complete(self, messages: int = 1, count: int = 1) -> dict[str, float]:
        """Calls so often, each time with a chat of its own.

        Returns:
            `cpu` and `wall`, seconds of one call.
        """
        complete = self._calls.complete
        chats = [self._chat(messages) for _ in range(count)]
        cpu, wall = time.process_time(), time.perf_counter()
        for chat in chats:
            _check(complete(chat))
        return {
            "cpu": (time.process_time() - cpu) / count,
            "wall": (time.perf_counter() - wall) / count,
        }

    def stream(self, chunks: int, count: int = 1) -> dict[str, float]:
        """Reads so many streams, of so many chunks each.

        Returns:
            `cpu`, seconds for one chunk that the server sent.
        """
        if self._calls.stream is None:
            raise NotImplementedError("no synchronous stream")
        cpu = time.process_time()
        for _ in range(count):
            text = "".join(self._calls.stream(self._chat(1)))
            if len(text.split()) != chunks:
                raise ValueError(f"expected {chunks} words, got {len(text.split())}")
        return {"cpu": (time.process_time() - cpu) / count / chunks}

    def threads(self, threads: int, seconds: float) -> dict[str, float]:
        """Calls from so many threads for so long; each has called once before the clock starts.

        Returns:
            `rate`, answers in a second; `cpu`, seconds of one; `failed`, calls with an error.
        """
        ready = threading.Barrier(threads + 1)
        answered, failed = [0] * threads, [0] * threads
        over = threading.Event()

        def work(number: int) -> None:
            _attempt(self._calls.complete, self._chat(1))
            ready.wait()
            ready.wait()
            while not over.is_set():
                good = _attempt(self._calls.complete, self._chat(1))
                (answered if good else failed)[number] += 1

        workers = [threading.Thread(target=work, args=(each,)) for each in range(threads)]
        for worker in workers:
            worker.start()
        ready.wait()
        cpu, wall = time.process_time(), time.perf_counter()
        ready.wait()
        over.wait(seconds)
        over.set()
        for worker in workers:
            worker.join()
        rate = sum(answered) / (time.perf_counter() - wall)
        spent = (time.process_time() - cpu) / max(1, sum(answered))
        return {"rate": rate, "cpu": spent, "failed": float(sum(failed))}

    def hits(self, count: int, prompt: str) -> dict[str, float]:
        """Asks the same again and again; the first time is not measured.

        Returns:
            `wall`, the median seconds of an answer from the cache.

        Raises:
            ValueError: They did not come from there.
        """
        chat = [{"role": "user", "content": prompt}]
        for _ in range(3):
            _check(self._calls.complete(chat))
            time.sleep(0.05)  # a cache may be filled in the background
        wall = statistics.median(_clock(self._calls.complete, chat) for _ in range(count))
        if wall > HIT_BOUND:
            raise ValueError("the answers do not come from the cache")
        return {"wall": wall}

    def race(self) -> dict[str, float]:
        """Calls the fast model alone, then races it.

        Returns:
            `wall`, seconds of the race; `over`, those that it took beyond the call.
        """
        if self._calls.race is None:
            raise NotImplementedError("no race")
        alone = _clock(self._calls.complete, self._chat(1))
        wall = _clock(self._calls.race, self._chat(1))
        return {"wall": wall, "over": wall - alone}

    def ended(self) -> dict[str, Any]:
        """Makes a call that may fail, and says how long it took and how it ended."""
        began = time.perf_counter()
        try:
            self._calls.complete(self._chat(1))
            how = "answered"
        except Exception as error:  # whatever it is, its name is the result
            how = type(error).__name__
        return {"wall": time.perf_counter() - began, "how": how}

    def count_tokens(
        self, text: str, count: int, function: str = "count_tokens"
    ) -> dict[str, float]:
        """Counts a text's tokens so often by a function of the driver.

        Returns:
            `cpu`, seconds of one count; `tokens`.
        """
        counted = getattr(self.driver, function)
        tokens = counted(text)
        cpu = time.process_time()
        for _ in range(count):
            counted(text)
        return {"cpu": (time.process_time() - cpu) / count, "tokens": float(tokens)}

    def memory(self, warm: int, count: int) -> dict[str, float]:
        """Calls so often after a warm-up.

        Returns:
            `before` and `after`, bytes that the process has in memory; `count`.
        """
        self.complete(count=warm)
        gc.collect()
        before = resident()
        for _ in range(count // 100):
            self.complete(count=100)
        gc.collect()
        return {"before": before, "after": resident(), "count": count // 100 * 100}

    @property
    def _calls(self) -> Calls:
        if self.calls is None:
            raise RuntimeError("connect first")
        return self.calls

    def _chat(self, messages: int) -> Messages:
        """A chat of so many messages, unlike all others, of which the last is the user's."""
        last = {"role": "user", "content": f"Question number {next(self.numbers)}, at the end."}
        earlier = [
            {"role": ("user", "assistant")[turn % 2], "content": f"Message number {turn}."}
            for turn in range(messages - 1, 0, -1)
        ]
        return [*earlier, last]


ORDERS = (
    *("connect", "complete", "stream", "threads", "hits", "race", "ended"),
    *("count_tokens", "memory"),
)


def resident() -> float:
    """Bytes that this process has in memory now; where that can't be had, the most it ever had."""
    try:
        with open("/proc/self/statm") as file:
            return float(int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    except FileNotFoundError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else peak * 1024)


def obey(session: Session, order: Mapping[str, Any]) -> dict[str, Any]:
    """Carries out one order; an error becomes the answer."""
    arguments = dict(order)
    name = arguments.pop("do")
    try:
        if name not in ORDERS:
            raise ValueError(f"no such order: {name}")
        return {"ok": getattr(session, name)(**arguments)}
    except Exception as error:  # the runner writes it into the result, and goes on with the others
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def main() -> None:
    """Obeys until the input ends."""
    # What a library prints must not come between the answers.
    with os.fdopen(os.dup(1), "w", buffering=1) as output:
        os.dup2(2, 1)
        session = Session(importlib.import_module(sys.argv[1]))
        for line in sys.stdin:
            print(json.dumps(obey(session, json.loads(line))), file=output, flush=True)
        output.flush()
        os._exit(0)  # nothing that a library left behind holds up the runner


def _check(text: str) -> None:
    if not text:
        raise ValueError("an empty answer")


def _attempt(complete: Callable[[Messages], str], chat: Messages) -> bool:
    try:
        return bool(complete(chat))
    except Exception:  # counted, and reported as `failed`
        return False


def _clock(call: Callable[[Messages], str], chat: Messages) -> float:
    began = time.perf_counter()
    _check(call(chat))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
