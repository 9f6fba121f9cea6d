"""Random scripts of faults against the whole stack: real adapters, SDKs, sockets.

A cell is a fault, its position in the call, and the vendor that has it. In each cell, calls of
every way (plain, streamed, with a fallback, as a race) are made against scripts that hypothesis
draws. Whatever happens, a call ends in time, with an answer or an `LLMError`, and lists the
requests that the server saw.
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings, strategies as st

import llmkit.adapters.call_reader
from llmkit import Attempt, BaseLLMAdapter, Client, ErrorCode, LLMError, Stream
from llmkit.connection_pool import cleanup_connection_pools, health_check
from llmkit.http_transport import PooledTransport
from llmkit.retry import RetryPolicy
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.deadline.calling import VENDORS, Vendor, adapter
from tests.machine import Lag

FAULTS = (
    "status",
    "status with Retry-After",
    "delay",
    "drip",
    "stall",
    "cut",
    "malformed",
    "refuse",
)
POSITIONS = ("first request", "retry", "every request")
WAYS = ("plain", "stream", "fallback", "race", "stream fallback", "stream race")
NEXT: dict[Vendor, Vendor] = {"openai": "anthropic", "anthropic": "gemini", "gemini": "openai"}

# Of each way, in each example; and the examples of each cell, besides the first one: the simplest
# script there is, in all places, which hypothesis always begins with.
TIMES, EXAMPLES = 2, 1
LEAST = 10
# What a call may take beyond its time-out.
LATE = 0.1
# How often a call that was late beside others is made anew, alone: the machine may be to blame.
AGAIN = 4

CUT = (ErrorCode.LLM_TIMEOUT, ErrorCode.LLM_CANCELLED)
MALFORMED = (
    "",
    "{",
    "[]",
    "null",
    "true",
    '"text"',
    "{}",
    '{"choices": []}',
    '{"choices": [{"message": null}]}',
    '{"choices": 7, "content": 7, "candidates": 7}',
    '{"content": [{"type": "text"}], "candidates": [{"content": {"parts": [7]}}]}',
    '{"error": "no object"}',
    "\x00\xff",
    "[" * 5000,
)


@dataclass(repr=False)
class Script:
    """One call, what goes wrong in it, and what became of it.

    Attributes:
        way: How the call is made.
        fault: What goes wrong.
        position: Where.
        vendor: With whom.
        answer: What is answered there; None refuses the connection.
        retries: Tries after the first, of each model.
        timeout: Seconds for the call.
        beside: What the other model answers, in the ways that have one.
    """

    way: str
    fault: str
    position: str
    vendor: Vendor
    answer: Answer | None
    retries: int
    timeout: float
    beside: Answer
    hits: int = 0
    refused: Counter[Vendor] = field(default_factory=Counter)
    arrived: Counter[Vendor] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __repr__(self) -> str:  # short: hypothesis shows three dozen of them
        return f"<{self.way}, {self.vendor}, {self.retries} retries, {self.timeout} s>"

    def is_at(self, vendor: Vendor, number: int) -> bool:
        """Says whether a vendor's request of this number, from 0, has the fault."""
        places = {"first request": number == 0, "retry": number == 1, "every request": True}
        return vendor == self.vendor and places[self.position]

    def refuses(self, vendor: Vendor) -> bool:
        with self.lock:
            number = self.arrived[vendor] + self.refused[vendor]
            if self.answer is not None or not self.is_at(vendor, number):
                return False
            self.hits += 1
            self.refused[vendor] += 1
            return True

    def answer_to(self, vendor: Vendor) -> Answer:
        with self.lock:
            number = self.arrived[vendor] + self.refused[vendor]
            self.arrived[vendor] += 1
            if vendor != self.vendor:
                return self.beside
            if self.answer is not None and self.is_at(vendor, number):
                self.hits += 1
                return self.answer
            if self.position == "retry" and number == 0:
                return Answer(status=503, headers={"retry-after": "0"})
            return Answer("a sound answer")

    def anew(self) -> Script:
        return Script(
            self.way,
            self.fault,
            self.position,
            self.vendor,
            self.answer,
            self.retries,
            self.timeout,
            self.beside,
        )


def faulty_answers(fault: str) -> st.SearchStrategy[Answer | None]:
    statuses = st.sampled_from((400, 401, 403, 404, 408, 409, 413, 429, 500, 502, 503, 529))
    offsets = st.integers(0, 700)
    if fault == "status":
        return st.builds(Answer, status=statuses)
    if fault == "status with Retry-After":
        waits = st.sampled_from(("0", "0.01", "60", "-5", "soon", "Wed, 21 Oct 2015 07:28:00 GMT"))
        headers = st.fixed_dictionaries({"retry-after": waits})
        return st.builds(Answer, status=st.sampled_from((408, 429, 503)), headers=headers)
    if fault == "delay":
        return st.builds(Answer, delay=st.sampled_from((0.02, 0.2, 30.0)))
    if fault == "drip":
        return st.builds(Answer, drip=st.sampled_from((0.0002, 0.005, 0.05)))
    if fault == "stall":
        return st.builds(Answer, stall_after=offsets, chunked=st.booleans())
    if fault == "cut":
        return st.builds(Answer, cut_after=offsets, reset=st.booleans(), chunked=st.booleans())
    if fault == "malformed":
        whole = st.builds(
            Answer,
            body=st.sampled_from(MALFORMED),
            content_type=st.sampled_from(("application/json", "text/event-stream", "text/html")),
        )
        parts = st.builds(Answer, malformed_after=st.integers(0, 3))
        errors = st.builds(Answer, error_event_after=st.integers(0, 3))
        return whole | parts | errors | st.builds(Answer, end_mark=st.just(False))
    return st.none()


def scripts(fault: str, position: str, vendor: Vendor, way: str) -> st.SearchStrategy[Script]:
    beside: st.SearchStrategy[Answer] = st.builds(
        Answer, st.just("from beside"), delay=st.sampled_from((0.12, 0.2))
    )
    if position == "every request":
        beside |= st.just(Answer(status=503)) | st.just(Answer(delay=30.0))
    return st.builds(
        Script,
        way=st.just(way),
        fault=st.just(fault),
        position=st.just(position),
        vendor=st.just(vendor),
        answer=faulty_answers(fault),
        retries=st.integers(1 if position == "retry" else 0, 2),
        timeout=st.sampled_from((0.3, 0.4)),
        beside=beside,
    )


# --- the stage ------------------------------------------------------------------------------------


_running: ContextVar[Script | None] = ContextVar("script", default=None)


class Stage:
    """A provider that follows scripts, and a model of each vendor there."""

    def __init__(self, server: ProviderServer) -> None:
        self.models: dict[Vendor, BaseLLMAdapter] = {
            vendor: adapter(vendor, server.base_url(vendor)) for vendor in VENDORS
        }
        self.client = Client(fallbacks=[], cache=False)
        self.tally: Counter[tuple[str, str, Vendor]] = Counter()
        self.late: list[tuple[Script, float]] = []
        self._scripts: dict[int, Script] = {}
        server.answer = self._answer

    def _answer(self, request: RecordedRequest) -> Answer:
        number = re.search(rb"script (\d+)", request.body)
        if number is None or request.vendor is None:
            return Answer()
        return self._scripts[int(number[1])].answer_to(request.vendor)

    def play(self, script: Script) -> float:
        """Makes a script's call; returns its seconds."""
        self._scripts[id(script)] = script
        token = _running.set(script)
        attempts: tuple[Attempt, ...]
        began = time.monotonic()
        try:
            attempts = self._call(script, f"script {id(script)}")
        except LLMError as error:
            attempts = error.attempts
        finally:
            taken = time.monotonic() - began
            _running.reset(token)
        self._compare(script, attempts)
        del self._scripts[id(script)]
        return taken

    def _call(self, script: Script, prompt: str) -> tuple[Attempt, ...]:
        first, other = self.models[script.vendor], self.models[NEXT[script.vendor]]
        how: dict[str, Any] = {"timeout": script.timeout, "max_retries": script.retries}
        result: Any
        if script.way.endswith("race"):
            race = self.client.race_stream if "stream" in script.way else self.client.race
            result = race(prompt, [first, other], **how)
        else:
            ask: Any = self.client.stream if "stream" in script.way else self.client.complete
            others = [other] if script.way.endswith("fallback") else []
            result = ask(prompt, model=first, fallbacks=others, **how)
        if isinstance(result, Stream):
            with result as stream:
                for _ in stream:
                    pass
            result = stream.completion
        assert isinstance(result.text, str)
        assert result.attempts[-1].code is None or "race" in script.way
        return tuple(result.attempts)

    def _compare(self, script: Script, attempts: tuple[Attempt, ...]) -> None:
        """Holds the attempts that a call lists against the requests that arrived."""
        for vendor in VENDORS:
            listed = [each for each in attempts if each.provider == vendor]
            sent = len(listed) - script.refused[vendor]
            # Those that were cut may not have got as far as to be sent.
            cut = sum(each.code in CUT for each in listed)
            ends = time.monotonic() + 2  # the server may be a moment behind
            while script.arrived[vendor] < sent - cut and time.monotonic() < ends:
                time.sleep(0.002)
            assert sent - cut <= script.arrived[vendor] <= sent, (script, attempts)
            assert len(listed) <= script.retries + 1, (script, attempts)


@pytest.fixture(scope="module")
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with pytest.MonkeyPatch.context() as patch, ProviderServer() as server:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            dead_port = unused.getsockname()[1]
        handle = PooledTransport.handle_request

        def directed(transport: PooledTransport, asked: httpx2.Request) -> httpx2.Response:
            """Sends what a script refuses to a port where nobody listens."""
            script = _running.get()
            if script is not None and script.refuses(_vendor_of(asked)):
                asked.url = asked.url.copy_with(port=dead_port)
            return handle(transport, asked)

        patch.setattr(PooledTransport, "handle_request", directed)
        quick = functools.partial(RetryPolicy, base_delay=0.02, rng=lambda: 0.5)
        patch.setattr(llmkit.adapters.call_reader, "RetryPolicy", quick)
        patch.setattr("llmkit.settings._shared", {})
        stage = Stage(server)
        for model in stage.models.values():
            model.generate("warm up")
            model.stream("warm up").close()
        yield stage
        cleanup_connection_pools()
        _report(request.config, stage)


def _vendor_of(asked: httpx2.Request) -> Vendor:
    path = asked.url.path
    if path.endswith("/chat/completions"):
        return "openai"
    return "anthropic" if path.endswith("/messages") else "gemini"


def _report(config: pytest.Config, stage: Stage) -> None:
    lines = ["", f"faults met, by position and vendor ({', '.join(VENDORS)}):"]
    for fault in FAULTS:
        cells = (
            f"{position} " + "/".join(str(stage.tally[fault, position, each]) for each in VENDORS)
            for position in POSITIONS
        )
        lines.append(f"  {fault:24} {'   '.join(cells)}")
    lines.append(f"  {len(stage.late)} calls were late beside others, and in time alone")
    capture = config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
        print("\n".join(lines))


# --- the property ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("endless_patience")
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_call_ends_in_time_and_lists_its_requests(
    fault: str, position: str, stage: Stage
) -> None:
    """Whatever goes wrong wherever: an answer or an LLMError, in time, and no request unlisted."""
    every = [(vendor, way) for way in WAYS * TIMES for vendor in VENDORS]
    simplest: list[tuple[Script, ...]] = []

    @settings(
        max_examples=1 + EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.tuples(*(scripts(fault, position, vendor, way) for vendor, way in every)))
    def hold(drawn: tuple[Script, ...]) -> None:
        if not simplest:
            simplest.append(drawn)
            return
        with ThreadPoolExecutor(len(drawn) // 2) as threads:
            times = list(threads.map(stage.play, drawn))
        for script, taken in zip(drawn, times, strict=True):
            if script.hits:
                stage.tally[fault, position, script.vendor] += 1
            if taken > script.timeout + LATE:
                stage.late.append((script, taken))
                again = []
                for _ in range(AGAIN):
                    with Lag() as lag:  # a call waits in several places, one after the other
                        again.append(stage.play(script.anew()))
                    allowed = script.timeout + LATE + 3 * lag.worst
                    if again[-1] <= allowed:
                        break
                assert again[-1] <= allowed, (script, script.answer, taken, again)

    for _ in range(3):  # a call that ended before its fault was met doesn't count
        if any(stage.tally[fault, position, vendor] < LEAST for vendor in VENDORS):
            hold()
    ends = time.monotonic() + 5
    while any(pool["in_use"] for pool in health_check().values()) and time.monotonic() < ends:
        time.sleep(0.005)
    assert not any(pool["in_use"] for pool in health_check().values())
    for vendor in VENDORS:
        assert stage.tally[fault, position, vendor] >= LEAST
