"""A call ends at its deadline, and on cancel at once, whatever it is blocked in."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from types import FrameType

import httpx2
import pytest

import llmkit
from llmkit.connection_pool import get_connection_pool, health_check
from llmkit.errors import (
    APIConnectionError,
    CancelledError,
    LLMError,
    LLMTimeoutError,
    RateLimitError,
)
from llmkit.testing import Answer, ProviderServer
from llmkit.threads import MAX_DETACHED, run_detached
from tests.deadline.calling import VENDORS, Background, Vendor, adapter, best_of, echo
from tests.deadline.probe import Probe, signal_main_thread
from tests.deadline.states import (
    FOREVER,
    PLAIN,
    TLS,
    Blocked,
    Stage,
    State,
    shaking_hands_through_a_proxy,
    waiting,
)
from tests.network_faults import TLSAuthority, black_hole

TIMEOUT = 0.2
# What a call may take beyond its deadline: on a quiet machine, and at all.
LATE, VERY_LATE = 0.1, 1.0
# Seconds from cancel to the caller's exception, likewise.
CANCEL, SLOW_CANCEL = 0.02, 0.5

each_state = pytest.mark.parametrize(
    ("state", "is_tls"),
    [(state, False) for state in PLAIN] + [(state, True) for state in TLS],
    ids=[f"{state.__name__}-plain" for state in PLAIN] + [f"{state.__name__}-tls" for state in TLS],
)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, probe: Probe) -> Stage:
    return Stage(monkeypatch, probe, tls=None)


@pytest.fixture
def blocked(
    state: State, is_tls: bool, stage: Stage, request: pytest.FixtureRequest
) -> Iterator[Blocked]:
    if is_tls:
        stage.tls = request.getfixturevalue("trusted")
    with state(stage) as blocked:
        yield blocked


def seen_leaving(server: ProviderServer | None) -> None:
    """Makes sure that the provider sees us go."""
    for request in server.requests[-1:] if server else ():
        assert request.disconnected.wait(2)


@each_state
def test_the_deadline_ends_a_call_in_every_state(blocked: Blocked, is_tls: bool) -> None:
    """A time-out is wall clock, whatever the call is waiting for."""

    def measure() -> float:
        began = time.monotonic()
        with pytest.raises(LLMError) as caught:
            blocked.call(timeout=TIMEOUT)
        took = time.monotonic() - began
        assert isinstance(caught.value.__cause__ or caught.value, LLMTimeoutError)
        assert took >= TIMEOUT
        return took

    best_of(8, measure, strict=TIMEOUT + LATE, loose=TIMEOUT + VERY_LATE)
    seen_leaving(blocked.server)


@each_state
def test_a_cancel_ends_a_call_in_every_state(blocked: Blocked, is_tls: bool) -> None:
    """`cancel()` from another thread is as fast as a keystroke, and the provider sees us go."""

    def measure() -> float:
        scopes = []

        def call() -> object:
            with llmkit.deadline(FOREVER) as scope:
                scopes.append(scope)
                return blocked.call()

        background = Background(call)
        blocked.wait()
        began = time.monotonic()
        scopes[0].cancel()
        outcome = background.outcome()
        assert isinstance(outcome.error, CancelledError)
        seen_leaving(blocked.server)
        return outcome.ended - began

    best_of(8, measure, strict=CANCEL, loose=SLOW_CANCEL)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_drip_ends_at_the_deadline(any_server: ProviderServer, vendor: Vendor) -> None:
    """A reply that drips for seconds under timeout=0.3 ends between 0.3 and 0.4 s."""
    dripping = adapter(vendor, any_server.base_url(vendor))
    dripping.generate("warm up", timeout=FOREVER)  # so that the request is sent at once
    any_server.answer = Answer("x" * 400, drip=0.01)

    def measure() -> float:
        began = time.monotonic()
        with pytest.raises(LLMTimeoutError):
            dripping.generate("hi", timeout=0.3)
        return time.monotonic() - began

    assert best_of(8, measure, strict=0.4, loose=1.3) >= 0.3
    assert any_server.requests[-1].disconnected.wait(2)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_cancel_is_seen_by_every_vendor(
    any_server: ProviderServer, probe: Probe, vendor: Vendor
) -> None:
    """A cancel is no SDK's to wrap, to retry or to delay."""
    any_server.answer = Answer(delay=FOREVER)

    def measure() -> float:
        any_server.reset()
        any_server.answer = Answer(delay=FOREVER)
        scopes = []

        def call() -> object:
            with llmkit.deadline(FOREVER) as scope:
                scopes.append(scope)
                return adapter(vendor, any_server.base_url(vendor)).generate("hi")

        background = Background(call)
        (asked,) = any_server.wait_for_requests(1)
        probe.wait_until_stuck()
        began = time.monotonic()
        scopes[0].cancel()
        outcome = background.outcome()
        assert isinstance(outcome.error, CancelledError)
        assert asked.disconnected.wait(2)
        assert len(any_server.requests) == 1
        return outcome.ended - began

    best_of(8, measure, strict=CANCEL, loose=SLOW_CANCEL)


def test_a_pause_before_a_retry_is_cancelled(server: ProviderServer, probe: Probe) -> None:
    """Backing off is a wait like any other."""
    server.answer = Answer(status=429, headers={"retry-after": "20"})

    def measure() -> float:
        scopes = []

        def call() -> object:
            with llmkit.deadline(FOREVER) as scope:
                scopes.append(scope)
                return adapter("openai", server.base_url("openai")).generate("hi")

        background = Background(call)
        probe.wait_until_stuck()
        began = time.monotonic()
        scopes[0].cancel()
        outcome = background.outcome()
        assert isinstance(outcome.error, CancelledError)
        return outcome.ended - began

    best_of(8, measure, strict=CANCEL, loose=SLOW_CANCEL)


def test_a_pause_that_would_pass_the_deadline_is_not_begun(server: ProviderServer) -> None:
    """Nobody waits for a retry that can't come."""
    server.answer = Answer(status=429, headers={"retry-after": "20"})
    began = time.monotonic()
    with pytest.raises(RateLimitError):
        adapter("openai", server.base_url("openai")).generate("hi", timeout=5)
    assert time.monotonic() - began < 2


def test_a_signal_handler_may_cancel(
    server: ProviderServer, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that cancels the very call it interrupted neither hangs nor is lost."""
    server.answer = Answer(delay=FOREVER)
    with llmkit.deadline(FOREVER) as scope:
        interrupted = threading.Thread(target=signal_main_thread, args=(probe, signal.SIGUSR1))

        def handle(number: int, frame: FrameType | None) -> None:
            scope.cancel("by a signal")

        previous = signal.signal(signal.SIGUSR1, handle)
        try:
            interrupted.start()
            with pytest.raises(CancelledError, match="by a signal"):
                adapter("openai", server.base_url("openai")).generate("hi")
        finally:
            signal.signal(signal.SIGUSR1, previous)
            interrupted.join()
    assert server.requests[0].disconnected.wait(2)


@pytest.mark.parametrize("vendor", VENDORS)
def test_ctrl_c_ends_a_blocked_call(
    any_server: ProviderServer, probe: Probe, vendor: Vendor
) -> None:
    """Ctrl-C ends a call at once, and its connection, with a reply still due, is not used again."""
    any_server.script(Answer("for the first"), Answer("too late", delay=FOREVER))
    asked = adapter(vendor, any_server.base_url(vendor))
    asked.generate("first")
    interrupting = threading.Thread(target=signal_main_thread, args=(probe, signal.SIGINT))
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        asked.generate("second")
    interrupting.join()
    assert any_server.requests[1].disconnected.wait(2)
    any_server.script(Answer("for the third"))
    assert asked.generate("third").text == "for the third"
    first, second, third = any_server.requests
    assert first.connection == second.connection != third.connection


def test_ctrl_c_ends_a_wait_for_a_place(
    server: ProviderServer, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is interrupted in the queue takes nobody's turn along."""
    monkeypatch.setenv("OPENAI_CONNECTION_POOL_SIZE", "1")
    release = threading.Event()

    def hold(request: object) -> Answer:
        release.wait(FOREVER)
        return Answer("held")

    server.script(hold)
    asked = adapter("openai", server.base_url("openai"))
    first = Background(lambda: asked.generate("first").text)
    server.wait_for_requests(1)
    interrupting = threading.Thread(target=signal_main_thread, args=(probe, signal.SIGINT, 2))
    interrupting.start()
    with pytest.raises(KeyboardInterrupt):
        asked.generate("second")
    interrupting.join()
    release.set()
    assert first.outcome().result == "held"
    assert asked.generate("third", timeout=5).text


def test_a_late_cancel_does_not_touch_the_next_call(any_server: ProviderServer) -> None:
    """A Scope whose call is over can't cut the connection that another call has taken over."""
    asked = adapter("openai", any_server.base_url("openai"))
    with llmkit.deadline(FOREVER) as scope:
        asked.generate("first")
    answering = threading.Event()

    def answer(request: object) -> Answer:
        answering.wait(FOREVER)
        return Answer("unharmed")

    any_server.script(answer)
    second = Background(lambda: asked.generate("second").text)
    any_server.wait_for_requests(2)
    scope.cancel()
    answering.set()
    assert second.outcome().result == "unharmed"
    assert len({request.connection for request in any_server.requests}) == 1


def test_a_cancel_between_two_operations_leaves_no_broken_connection(
    any_server: ProviderServer, probe: Probe
) -> None:
    """Wherever a cancel falls between a call's operations, the next call gets its own answer."""
    any_server.answer = echo
    asked = adapter("openai", any_server.base_url("openai"))
    operations = probe.count
    asked.generate("warm up")
    operations = probe.count - operations
    for fatal in range(1, operations + 1):
        with llmkit.deadline(FOREVER) as scope:
            last = probe.count + fatal
            probe.on_unblock = lambda _: scope.cancel() if probe.count >= last else None  # noqa: B023
            try:
                asked.generate("cut")
            except CancelledError:
                pass
            finally:
                probe.on_unblock = None
        assert asked.generate(f"question {fatal}", max_retries=0).text == f"question {fatal}"


def test_a_scope_that_is_cancelled_early_sends_nothing(server: ProviderServer) -> None:
    """A cancel that comes before the call is not lost."""
    with llmkit.deadline(FOREVER) as scope:
        scope.cancel()
        with pytest.raises(CancelledError):
            adapter("openai", server.base_url("openai")).generate("hi")
    assert server.connections_accepted == 0


def test_a_second_address_gets_its_share_of_the_time(
    server: ProviderServer, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose first address is dead is reached by its second, inside a short deadline."""
    with black_hole() as dead:
        alive = ("127.0.0.1", int(server.url.rpartition(":")[2]))

        def look_up(host: str, *_: object, **options: object) -> list[tuple[object, ...]]:
            if options.get("flags"):
                raise socket.gaierror(socket.EAI_NONAME, "not an address")
            stream = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*stream, dead), (*stream, alive)]

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        reply = adapter("openai", "http://two.test/v1").generate("hi", timeout=1, max_retries=0)
    assert reply.text


def test_calls_outside_a_scope_keep_the_default_time_outs(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bare pool, used without a deadline, is bounded all the same."""
    monkeypatch.setenv("REQUEST_TIMEOUT", "0.2")
    server.answer = Answer(delay=FOREVER)
    pool = get_connection_pool("openai")
    with pytest.raises(httpx2.ReadTimeout):
        pool.post(server.base_url("openai") + "/chat/completions", json={})


def test_the_bare_pool_obeys_a_deadline(server: ProviderServer) -> None:
    """Who uses a pool directly gets an `LLMError`, never the internal interruption."""
    server.answer = Answer(delay=FOREVER)
    pool = get_connection_pool("openai")
    with pytest.raises(LLMTimeoutError), llmkit.deadline(TIMEOUT):
        pool.post(server.base_url("openai") + "/chat/completions", json={})


def test_a_hanging_name_service_is_bounded(server: ProviderServer) -> None:
    """Look-ups that hang pile up to a limit, and beyond it calls fail at once."""
    over = threading.Event()
    for _ in range(MAX_DETACHED):
        run_detached(over.wait, "hanging")
    try:
        with pytest.raises(APIConnectionError, match="name service"):
            adapter("openai", "http://localhost:9/v1").generate("hi", max_retries=0)
        numeric = adapter("openai", server.base_url("openai"))
        assert numeric.generate("an address needs no look-up").text
    finally:
        over.set()


def test_a_broken_tunnel_is_forgotten(stage: Stage, trusted: TLSAuthority) -> None:
    """A handshake that fails behind a proxy leaves no connection on the pool's books."""
    stage.tls = trusted
    with shaking_hands_through_a_proxy(stage) as blocked:
        for _ in range(3):
            with pytest.raises(LLMTimeoutError):
                blocked.call(timeout=0.1)
        (pool,) = health_check("openai").values()
    assert pool["connections"] == 0
    assert pool["in_use"] == 0


def test_a_cut_call_gives_its_connection_up(stage: Stage) -> None:
    """A connection whose reply is still due is closed, never kept."""
    with waiting(stage) as blocked:
        with pytest.raises(LLMTimeoutError):
            blocked.call(timeout=TIMEOUT)
        (pool,) = health_check("openai").values()
    assert (pool["in_use"], pool["connections"]) == (0, 0)
