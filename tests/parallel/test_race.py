"""Races: the first good answer counts, and the others really stop."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import llmkit.parallel.racing
from llmkit import (
    AllModelsFailedError,
    BaseLLMAdapter,
    Budget,
    CallRecord,
    CircuitOpenError,
    Client,
    Completion,
    ErrorCode,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    Request,
    deadline,
    get_adapter,
    get_performance_tracker,
    race_models,
)
from llmkit.adapters.vendor_adapter import VendorAdapter
from llmkit.connection_pool import health_check
from llmkit.errors import CancelledError
from llmkit.parallel.arrivals import Arrivals
from llmkit.parallel.racing import Racer, race
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.streams import ChunkSource
from llmkit.testing import Answer, ProviderServer
from llmkit.threads import TooManyThreadsError, start
from llmkit.types import Chunk
from tests.deadline.calling import MODELS, VENDORS, adapter, best_of, open_descriptors

ROOT = Path(__file__).parents[2]
FAST, SLOW = 0.03, 3.0


def race_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "llmkit-race"]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.001)
    return condition()


def by_model(**answers: Answer | Callable[[], Answer]) -> Callable[[Any], Answer]:
    """Answers by vendor."""

    def answer(request: Any) -> Answer:
        found = answers[request.vendor]
        return found if isinstance(found, Answer) else found()

    return answer


def once_all_ask(server: ProviderServer, answer: Answer, models: int = 3) -> Callable[[], Answer]:
    """Answers when so many models have been asked, so that nobody wins before the race began."""
    before = len(server.requests)

    def wait() -> Answer:
        server.wait_for_requests(before + models, timeout=10)
        return answer

    return wait


def once_done(server: ProviderServer, vendors: Sequence[str], text: str) -> Callable[[], Answer]:
    """Answers when these vendors' requests have been, and their callers had time to read it."""

    def wait() -> Answer:
        for vendor in vendors:
            assert wait_until(
                lambda vendor=vendor: any(  # type: ignore[misc]
                    request.vendor == vendor and request.finished.is_set()
                    for request in server.requests
                )
            )
        return Answer(text, delay=0.2)

    return wait


def field(server: ProviderServer, **arguments: Any) -> list[BaseLLMAdapter]:
    """One adapter of each vendor."""
    return [adapter(vendor, server.base_url(vendor), **arguments) for vendor in VENDORS]


class Own(BaseLLMAdapter):
    """A user's own adapter, which does what it was given; nothing can cut it."""

    def __init__(self, name: str, answer: Callable[[Request], Any], **arguments: Any) -> None:
        super().__init__(name, "own", **arguments)
        self._answer = answer

    def _generate_text(self, request: Request) -> Any:
        return self._answer(request)


def says(text: str, **facts: Any) -> Callable[[Request], Any]:
    return lambda request: {"text": text, **facts}


def fails(code: str, **facts: Any) -> Callable[[Request], Any]:
    def answer(request: Request) -> Any:
        raise LLMError.of_code(code, "it failed", **facts)

    return answer


# --- speed ----------------------------------------------------------------------------------------


def test_a_race_is_as_fast_as_its_fastest(any_server: ProviderServer) -> None:
    """30 ms against 3 s, twice: the answer comes when the fast one has it, plain and over TLS."""
    any_server.answer = by_model(
        openai=Answer("fast", delay=FAST), anthropic=Answer(delay=SLOW), gemini=Answer(delay=SLOW)
    )
    adapters = field(any_server)
    client = Client(fallbacks=[])
    client.complete("warm up", model=adapters[0])

    def extra() -> float:
        began = time.perf_counter()
        client.complete("alone", model=adapters[0])
        alone = time.perf_counter() - began
        began = time.perf_counter()
        reply = client.race("together", adapters)
        together = time.perf_counter() - began
        assert (reply.text, reply.model) == ("fast", MODELS["openai"])
        return together - alone

    # 2 to 5 ms on an idle machine, most of it the losers' own work on the same two cores.
    best_of(8, extra, strict=0.03, loose=2.0)


def test_losers_are_cut_at_once(any_server: ProviderServer) -> None:
    """The losers' threads end and the server sees every one of them leave, plain and over TLS."""
    adapters = field(any_server)
    client = Client(fallbacks=[])
    for each in adapters:  # one by one: a race's loser could still arrive at the server later
        client.complete("warm up", model=each)

    def slowest() -> float:
        any_server.reset()
        any_server.answer = by_model(
            openai=once_all_ask(any_server, Answer("fast", delay=0.1)),
            anthropic=Answer(delay=SLOW),
            gemini=Answer(drip=0.01),
        )
        client.race("hi", adapters)
        ended = time.monotonic()
        assert wait_until(lambda: not race_threads())
        free = time.monotonic() - ended
        left = [0.0]
        for request in any_server.requests:
            if request.vendor != "openai":
                assert request.disconnected.wait(5)
                assert request.disconnected_at is not None
                left.append(request.disconnected_at - ended)
        assert len(left) == 3
        return max(free, *left)

    best_of(8, slowest, strict=0.05, loose=2.0)
    assert sum(pool["in_use"] for pool in health_check().values()) == 0


# --- who wins -------------------------------------------------------------------------------------


def test_a_failure_does_not_win(server: ProviderServer) -> None:
    """The first to arrive with an error is not the winner, nor is it hidden: it is an attempt."""
    server.answer = by_model(
        openai=Answer(status=503),
        anthropic=once_done(server, ["openai"], "second"),
        gemini=Answer(delay=SLOW),
    )
    reply = Client().race("hi", field(server), max_retries=0)

    assert reply.text == "second"
    codes = {attempt.provider: attempt.code for attempt in reply.attempts}
    assert codes == {
        "openai": ErrorCode.LLM_PROVIDER_ERROR,
        "anthropic": None,
        "gemini": ErrorCode.LLM_CANCELLED,
    }
    (warning,) = reply.warnings
    assert "gemini-3.8-flash lost the race" in warning
    assert "gpt-6-luna" not in warning


def test_a_filtered_answer_wins_only_when_there_is_no_other(server: ProviderServer) -> None:
    """A refusal is an answer only when nobody has a better one; of two, the first."""
    refusal = Answer("I can't", finish_reason="content_filter")
    server.answer = by_model(
        openai=refusal,
        anthropic=once_done(server, ["openai", "gemini"], "I can"),
        gemini=Answer(status=500),
    )
    reply = Client().race("hi", field(server), max_retries=0)
    assert reply.text == "I can"
    (warning,) = reply.warnings  # it may name the third one, too, whose failure came too late
    assert "gpt-6-luna" in warning
    assert "lost the race" in warning

    server.reset()
    server.answer = by_model(
        openai=Answer("neither", finish_reason="content_filter", delay=0.5),
        anthropic=refusal,
        gemini=Answer(status=500),
    )
    reply = Client().race("hi", field(server), max_retries=0)
    assert (reply.text, reply.finish_reason) == ("I can't", "content_filter")
    assert reply.model == MODELS["anthropic"]


def test_all_causes_are_shown(server: ProviderServer) -> None:
    """When everybody fails, the error names each with its cause, in the order of the models."""
    server.answer = by_model(
        openai=Answer(status=503, delay=0.1),
        anthropic=Answer(status=401),
        gemini=Answer(status=404),
    )
    records: list[CallRecord] = []
    with pytest.raises(AllModelsFailedError, match="all 3 models failed") as caught:
        Client(observers=[records.append]).race("hi", field(server), max_retries=0)

    error = caught.value
    assert [(each.provider, each.code) for each in error.errors] == [
        ("openai", ErrorCode.LLM_PROVIDER_ERROR),
        ("anthropic", ErrorCode.AUTHENTICATION_ERROR),
        ("gemini", ErrorCode.MODEL_NOT_FOUND),
    ]
    assert [len(each.attempts) for each in error.errors] == [1, 1, 1]
    assert len(error.attempts) == len(server.requests) == 3
    (record,) = records
    assert record.code is ErrorCode.LLM_ALL_MODELS_FAILED
    assert record.attempts == error.attempts


def test_a_race_of_one_is_a_call(server: ProviderServer) -> None:
    """One model's failure is its own error, and its answer an answer without warnings."""
    server.script(Answer(status=401), Answer("yes"))
    one = field(server)[:1]
    with pytest.raises(LLMError) as caught:
        Client().race("hi", one)
    assert caught.value.code is ErrorCode.AUTHENTICATION_ERROR
    assert len(caught.value.attempts) == 1
    reply = Client().race("hi", one)
    assert (reply.text, reply.warnings) == ("yes", ())


@pytest.mark.parametrize("hedge_after", [None, 20.0])
@pytest.mark.parametrize("models", [1, 3])
def test_a_race_ends_with_its_time(
    hedge_after: float | None, models: int, server: ProviderServer
) -> None:
    """When nobody answers, the error comes in time and lists the requests that were sent."""
    server.answer = Answer(delay=30)
    adapters = field(server)[:models]
    client = Client(timeout=0.4)

    def taken() -> float:
        before = len(server.requests)
        began = time.monotonic()
        with pytest.raises(LLMError) as caught:
            client.race("hi", adapters, hedge_after=hedge_after)
        ended = time.monotonic() - began
        asked = models if hedge_after is None else 1
        error = caught.value
        causes = error.errors if isinstance(error, AllModelsFailedError) else (error,)
        assert [type(cause) for cause in causes] == [LLMTimeoutError] * asked
        assert [cause.provider for cause in causes] == list(VENDORS[:asked])
        # A machine under load may not get as far as to send them all.
        assert len(error.attempts) >= len(server.requests) - before
        codes = {attempt.code for attempt in error.attempts}
        assert codes <= {ErrorCode.LLM_TIMEOUT, ErrorCode.LLM_CANCELLED}
        # Nor as far as to say that their time was over, before they were cut.
        return ended if codes == {ErrorCode.LLM_TIMEOUT} else ended + 0.5

    assert best_of(8, taken, strict=0.5, loose=3.0) >= 0.4


def test_a_block_s_deadline_bounds_races(server: ProviderServer) -> None:
    """`with deadline(…)` holds over the race's own, longer time-out."""
    server.answer = Answer(delay=30)
    adapters = field(server)

    def taken() -> float:
        began = time.monotonic()
        with pytest.raises(AllModelsFailedError), deadline(0.3):
            Client().race("hi", adapters, timeout=20)
        return time.monotonic() - began

    assert best_of(8, taken, strict=0.4, loose=3.0) >= 0.3
    assert current_scope() is None


def test_a_cancel_from_another_thread_ends_a_race(server: ProviderServer) -> None:
    """Whoever cancels the Scope around a race cancels every racer."""
    server.answer = Answer(delay=30)
    with deadline(30) as scope:

        def cancel() -> None:
            server.wait_for_requests(3)
            scope.cancel("no longer needed")

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(CancelledError, match="no longer needed") as caught:
            Client().race("hi", field(server))
        canceller.join()
    assert len(caught.value.attempts) == 3
    assert all(request.disconnected.wait(5) for request in server.requests)


def test_a_cancel_is_never_everybodys_failure() -> None:
    """However fast the racers notice a cancel, it is said as one."""

    def waits(forced: bool) -> None:
        scope = current_scope()
        assert scope is not None
        scope.sleep(30)

    for _ in range(100):
        with Scope().entered() as scope:
            threading.Timer(0.0, scope.cancel).start()
            with pytest.raises(CallInterrupted):
                race([Racer("one", waits), Racer("two", waits)], lambda result: True)


# --- hedging --------------------------------------------------------------------------------------


def test_a_hedge_is_asked_only_when_the_first_is_late(server: ProviderServer) -> None:
    """An answer within `hedge_after` costs one request; a late one is raced by the next model."""
    adapters = field(server)
    server.answer = by_model(
        openai=Answer("first"), anthropic=Answer("second"), gemini=Answer("third")
    )
    reply = Client().race("hi", adapters, hedge_after=20)
    assert (reply.text, len(reply.attempts), reply.warnings) == ("first", 1, ())

    server.answer = by_model(
        openai=Answer("first", delay=30), anthropic=Answer("second"), gemini=Answer("third")
    )
    began = time.monotonic()
    reply = Client().race("hi", adapters, hedge_after=0.2)
    assert 0.2 <= time.monotonic() - began < 5
    assert reply.text == "second"
    assert [attempt.provider for attempt in reply.attempts] == ["openai", "anthropic"]
    assert [request.vendor for request in server.requests] == ["openai", "openai", "anthropic"]


def test_whoever_fails_is_followed_at_once(server: ProviderServer) -> None:
    """A hedge does not sit out its time when the model before it has failed."""
    server.answer = by_model(
        openai=Answer(status=401), anthropic=Answer(status=404), gemini=Answer("third")
    )
    began = time.monotonic()
    reply = Client().race("hi", field(server), hedge_after=20, max_retries=0)
    assert reply.text == "third"
    assert time.monotonic() - began < 10


def test_hedges_start_one_after_the_other(server: ProviderServer) -> None:
    """Each further model has to wait for its own `hedge_after`, counted from the last start."""
    server.answer = by_model(
        openai=Answer(delay=30), anthropic=Answer(delay=30), gemini=Answer("third")
    )
    Client().race("hi", field(server), hedge_after=0.2)
    starts = [request.received_at for request in server.requests]
    assert starts[2] - starts[0] >= 0.35


def test_a_late_first_may_still_win(server: ProviderServer) -> None:
    """The hedged model goes on racing: what it has begun is not thrown away."""
    server.answer = by_model(
        openai=once_all_ask(server, Answer("first"), models=2),
        anthropic=Answer(delay=30),
        gemini=Answer(delay=30),
    )
    reply = Client().race("hi", field(server)[:2], hedge_after=0.1)
    assert reply.text == "first"
    assert "claude-haiku-5-5 lost the race" in reply.warnings[0]


def test_p95_is_what_was_measured(server: ProviderServer) -> None:
    """The word "p95" waits as long as 95 % of its calls took, and 2 s while too few are known."""
    server.answer = by_model(
        openai=Answer(delay=30), anthropic=Answer("second"), gemini=Answer("third")
    )
    tracker = get_performance_tracker()
    for _ in range(19):
        tracker.record_success(MODELS["openai"], "openai", 100, 1, 1)
    with pytest.raises(AllModelsFailedError, match="1 of 2"):
        Client().race("hi", field(server)[:2], hedge_after="p95", timeout=0.5)
    tracker.record_success(MODELS["openai"], "openai", 100, 1, 1)
    began = time.monotonic()
    assert Client().race("hi", field(server)[:2], hedge_after="p95").text == "second"
    assert 0.1 <= time.monotonic() - began < 1.9


@pytest.mark.parametrize("hedge_after", ["p50", -1, float("nan"), True, "1.5"])
def test_a_hedge_that_can_not_be_meant_is_refused(hedge_after: Any, server: ProviderServer) -> None:
    """Nothing is sent for a `hedge_after` that is no time."""
    with pytest.raises(InvalidRequestError, match="hedge_after"):
        Client().race("hi", field(server), hedge_after=hedge_after)
    assert not server.requests


# --- the same model twice, own adapters, names ----------------------------------------------------


def test_a_model_may_race_itself(server: ProviderServer) -> None:
    """The same model twice is two requests, and the figures count the lost one, too."""
    server.script(Answer(delay=SLOW), Answer("quick", delay=0.02))
    one = field(server)[0]
    reply = Client().race("hi", [one, one])

    assert reply.text == "quick"
    assert len(server.requests) == len(reply.attempts) == 2
    assert sorted(str(attempt.code) for attempt in reply.attempts) == ["LLM_CANCELLED", "None"]
    assert "lost the race" in reply.warnings[0]
    stats = get_performance_tracker().get_stats(MODELS["openai"])
    assert (stats["requests"], stats["successes"], stats["cancelled"]) == (2, 1, 1)
    assert stats["unpriced"] == 1


def test_figures_of_a_race_are_kept_per_model(server: ProviderServer) -> None:
    """The winner's success and latency are its own; a loser was cancelled, at an unknown price."""
    adapters = field(server)
    server.answer = by_model(
        openai=once_done(server, ["gemini"], "fast"),
        anthropic=Answer(delay=30),
        gemini=Answer(status=500),
    )
    Client().race("hi", adapters, max_retries=0)
    stats = get_performance_tracker().get_stats()
    figures = {
        name: (each["successes"], each["failures"], each["cancelled"], each["unpriced"])
        for name, each in stats.items()
    }
    assert figures == {
        MODELS["openai"]: (1, 0, 0, 0),
        MODELS["anthropic"]: (0, 0, 1, 1),
        MODELS["gemini"]: (0, 1, 0, 0),
    }


def test_what_can_not_be_cut_is_left_behind() -> None:
    """A user's own adapter that sleeps holds nobody: its late answer is dropped."""
    released = threading.Event()

    def sleeps(request: Request) -> Any:
        released.wait(10)
        return {"text": "late"}

    try:
        began = time.monotonic()
        reply = Client().race("hi", [Own("slow", sleeps), Own("fast", says("quick"))])
        assert reply.text == "quick"
        assert time.monotonic() - began < 5
        assert len(race_threads()) == 1
        with pytest.raises(AllModelsFailedError) as caught:
            Client().race("hi", [Own("slow", sleeps), Own("slower", sleeps)], timeout=0.1)
        assert [each.model for each in caught.value.errors] == ["slow", "slower"]
        assert [attempt.model for attempt in caught.value.attempts] == ["slow", "slower"]
    finally:
        released.set()
    assert wait_until(lambda: not race_threads())


def test_a_bug_in_a_racer_does_not_win_and_does_not_hang() -> None:
    """Whatever happens on a racer's thread reaches the caller, by name."""

    def bug(request: Request) -> Any:
        raise KeyError("missing")

    def exits(request: Request) -> Any:
        sys.exit(3)

    reply = Client().race("hi", [Own("broken", bug), Own("sound", says("yes"))])
    assert reply.text == "yes"
    with pytest.raises(AllModelsFailedError, match="KeyError") as caught:
        Client().race("hi", [Own("broken", bug), Own("exits", exits)])
    assert isinstance(caught.value.errors[0].__cause__, KeyError)
    assert [str(each).partition(":")[0] for each in caught.value.errors] == ["own", "own"]
    assert "SystemExit" in str(caught.value)


def test_race_models_takes_names(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documented function returns the winner's name as it was given, and its answer."""
    for vendor in VENDORS:
        monkeypatch.setenv(f"{vendor.upper()}_API_KEY", "sk-test-0123456789")
        monkeypatch.setenv(f"{vendor.upper()}_API_BASE", server.base_url(vendor))
    server.answer = by_model(
        openai=Answer(delay=30), anthropic=Answer("quick"), gemini=Answer(status=503)
    )
    models = [f"{vendor}:{MODELS[vendor]}" for vendor in VENDORS]
    winner, reply = race_models(
        models, "hi", additional_params={"max_tokens": 5, "max_retries": 0, "hedge_after": 0.1}
    )
    assert (winner, reply.text) == (models[1], "quick")
    assert server.requests[0].json["max_completion_tokens"] == 5
    assert get_performance_tracker().get_stats(MODELS["anthropic"])["successes"] == 1

    race_models(models[1:2], "hi", max_tokens=7, track_metrics=False)
    assert server.requests[-1].json["max_tokens"] == 7
    assert get_performance_tracker().get_stats(MODELS["anthropic"])["requests"] == 1
    with pytest.raises(InvalidRequestError):
        race_models([], "hi")
    with pytest.raises(InvalidRequestError):
        race_models("gpt-6-luna", "hi")


def test_a_stale_answer_has_its_models_name(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all fail, the documented function names the model whose expired answer it gives."""
    for vendor in VENDORS:
        monkeypatch.setenv(f"{vendor.upper()}_API_KEY", "sk-test-0123456789")
        monkeypatch.setenv(f"{vendor.upper()}_API_BASE", server.base_url(vendor))
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "yes")
    models = [MODELS["openai"], MODELS["anthropic"]]
    keywords = {"max_retries": 0, "cache_ttl": 0.05, "stale_ttl": 60}
    server.answer = by_model(openai=Answer(status=503), anthropic=Answer("quick"))
    assert race_models(models, "hi", additional_params=keywords)[0] == models[1]
    time.sleep(0.1)
    server.answer = Answer(status=503)
    winner, reply = race_models(models, "hi", additional_params=keywords)
    assert (winner, reply.cached) == (models[1], "stale")


def test_a_racer_that_fails_is_logged(
    server: ProviderServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that could never take part, for want of a key, is not passed over in silence."""
    monkeypatch.setattr(VendorAdapter, "_import_sdk", _no_import)  # not to be waited for
    keyless = get_adapter(MODELS["anthropic"])
    answering = Own("own", lambda request: {"text": "fine"})
    reply = Client().race("hi", [keyless, answering], hedge_after=30)
    assert reply.text == "fine"
    (record,) = [each for each in caplog.records if each.name == "llmkit.parallel"]
    assert "claude-haiku-5-5 failed in a race" in record.getMessage()
    assert "ANTHROPIC_API_KEY" in record.getMessage()


def _no_import(adapter: VendorAdapter) -> None:
    raise AssertionError("the key is looked for first")


def open_circuits(server: ProviderServer) -> None:
    """Lets the circuit of each vendor's model open."""
    server.answer = Answer(status=503)
    for each in field(server):
        for _ in range(10):
            with pytest.raises(LLMError):
                Client().complete("hi", model=each, max_retries=0)
        with pytest.raises(CircuitOpenError):
            Client().complete("hi", model=each, max_retries=0)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_race_of_open_circuits_asks_one_model(server: ProviderServer, streamed: bool) -> None:
    """Where no model may be asked, the one that may be next is, rather than none."""
    open_circuits(server)
    before = len(server.requests)
    with pytest.raises(AllModelsFailedError) as caught:
        Client().race("hi", field(server), max_retries=0)
    codes = [error.code for error in caught.value.errors]
    assert codes.count(ErrorCode.LLM_CIRCUIT_OPEN) == 2
    assert codes.count(ErrorCode.LLM_PROVIDER_ERROR) == 1
    assert len(server.requests) == before + 1
    server.answer = Answer("well again")
    if streamed:
        assert "".join(Client().race_stream("hi", field(server)).text_stream) == "well again"
    else:
        reply = Client().race("hi", field(server))
        assert reply.text == "well again"
        assert len(reply.attempts) == 1
    assert len(server.requests) == before + 2


def test_a_race_of_one_model_leaves_its_open_circuit_alone(server: ProviderServer) -> None:
    """As a plain call does: there a fallback was not asked for."""
    open_circuits(server)
    before = len(server.requests)
    with pytest.raises(CircuitOpenError):
        Client().race("hi", field(server)[:1], max_retries=0)
    assert len(server.requests) == before


@pytest.mark.parametrize("keywords", [{"model": "x"}, {"fallbacks": []}, {"max_token": 5}])
def test_keywords_that_a_race_does_not_have_are_refused(
    keywords: dict[str, Any], server: ProviderServer
) -> None:
    """Nothing that was meant otherwise is sent to the vendors."""
    with pytest.raises(InvalidRequestError):
        Client().race("hi", field(server), **keywords)
    wrong: Any
    for wrong in ([], "gpt-6-luna", None):
        with pytest.raises(InvalidRequestError):
            Client().race("hi", wrong)
    assert not server.requests


# --- money ----------------------------------------------------------------------------------------


def test_a_cut_racer_is_charged_an_estimate(server: ProviderServer) -> None:
    """What a loser cost is unknown, so a budget counts what it may have cost, never nothing."""
    server.answer = by_model(
        openai=once_all_ask(server, Answer("fast", delay=0.1, input_tokens=7, output_tokens=2)),
        anthropic=Answer(delay=30),
        gemini=Answer(status=503),
    )
    with Budget(usd="1") as budget:
        reply = Client().race("hi", field(server), max_tokens=100, max_retries=0)
        assert wait_until(lambda: not race_threads())
    assert reply.cost is not None
    assert reply.cost < budget.spent_usd < Decimal("0.01")
    assert budget.remaining_usd == Decimal(1) - budget.spent_usd  # nothing stays reserved


def test_a_stream_that_came_second_is_charged_at_once() -> None:
    """A stream whose first chunk came too late is settled then, not when it is collected."""
    asked, released = threading.Event(), threading.Event()

    class Late(Own):
        def _stream_text(self, request: Request) -> ChunkSource:
            asked.set()
            released.wait(10)
            yield Chunk("late")
            return Completion("late", self.model, self.provider)

    def answer(request: Request) -> Any:
        assert asked.wait(10)  # else the race may be over before the other has begun
        return {"text": "quick"}

    def held() -> int:
        assert budget.remaining_tokens is not None
        return 100_000 - budget.remaining_tokens - budget.spent_tokens

    with Budget(tokens=100_000) as budget:
        stream = Client().race_stream(
            "hi", [Late("late", says("late")), Own("fast", answer)], max_tokens=1000
        )
        assert held() > 2000
        released.set()
        assert wait_until(lambda: not race_threads())
        assert 1000 < held() < 2000  # the winner's, which has not been read yet
        assert "".join(stream.text_stream) == "quick"
    assert held() == 0
    codes = {attempt.model: attempt.code for attempt in stream.completion.attempts}
    assert codes == {"late": ErrorCode.LLM_CANCELLED, "fast": None}


def test_a_budget_that_one_racer_does_not_fit_bounds_that_racer(server: ProviderServer) -> None:
    """Each racer reserves for itself; one that no longer fits fails, and the others go on."""
    server.answer = by_model(
        openai=Answer("fast", delay=0.8), anthropic=Answer("no"), gemini=Answer("no")
    )
    racers = field(server)[:2]
    with Budget(tokens=10_000):
        Client().complete("hi", model=racers[0])  # a first call takes longer to reserve its tokens
    with Budget(tokens=700):
        reply = Client().race("hi", racers, max_tokens=500, hedge_after=0.4)
    assert reply.text == "fast"
    assert [request.vendor for request in server.requests] == ["openai", "openai"]


# --- streams --------------------------------------------------------------------------------------


def test_the_first_chunk_wins(any_server: ProviderServer) -> None:
    """Of streams, the first to deliver is read on; the others' connections are closed at once."""
    any_server.answer = by_model(
        openai=Answer(chunks=["late"], delay=30),
        anthropic=once_all_ask(any_server, Answer(chunks=["in ", "time"], chunk_delay=0.05)),
        gemini=Answer(stall_after=60),
    )
    records: list[CallRecord] = []
    client = Client(observers=[records.append])
    with client.race_stream("hi", field(any_server)) as stream:
        assert wait_until(lambda: not race_threads())
        for request in any_server.wait_for_requests(3):
            if request.vendor != "anthropic":
                assert request.disconnected.wait(5)
        assert [chunk.text for chunk in stream] == ["in ", "time"]
    reply = stream.completion
    assert reply.model == MODELS["anthropic"]
    assert "gpt-6-luna, gemini-3.8-flash lost the race" in " ".join(reply.warnings)
    assert [(record.ok, record.streamed) for record in records] == [(True, True)]
    assert sum(pool["in_use"] for pool in health_check().values()) == 0


def test_streams_that_begin_together_leave_one(server: ProviderServer) -> None:
    """However close the finish, one stream stays open and every other connection is closed."""
    server.answer = Answer(chunks=["a ", "b"], chunk_delay=0.015)
    one = adapter("openai", server.base_url("openai"))
    client = Client()
    for _ in range(10):
        with client.race_stream("hi", [one] * 4) as stream:
            assert wait_until(lambda: not race_threads())
            in_use = sum(pool["in_use"] for pool in health_check().values())
            assert in_use == 1
            assert "".join(stream.text_stream) == "a b"
    assert sum(pool["in_use"] for pool in health_check().values()) == 0


def test_the_winning_stream_outlives_its_race(server: ProviderServer) -> None:
    """The time to the first chunk bounds the race, not the rest of the winner's stream."""
    server.answer = Answer(chunks=["a", "b", "c"], chunk_delay=0.15)
    stream = Client().race_stream("hi", field(server)[:2], first_chunk_timeout=0.5)
    assert "".join(stream.text_stream) == "abc"


def test_streams_of_which_none_begins(server: ProviderServer) -> None:
    """`race_stream` itself raises, with every cause, when there is no first chunk."""
    server.answer = Answer(status=503)
    with pytest.raises(AllModelsFailedError) as caught:
        Client().race_stream("hi", field(server), max_retries=0)
    assert len(caught.value.attempts) == len(server.requests) == 3


def test_a_stream_that_comes_after_the_finish_is_closed() -> None:
    """A user's own stream that nobody waits for any more is ended: its `finally` runs."""
    released, ended = threading.Event(), threading.Event()

    class Late(Own):
        def _stream_text(self, request: Request) -> ChunkSource:
            released.wait(10)
            try:
                yield Chunk("late")
            finally:
                ended.set()
            return Completion("late", self.model, self.provider)

    late = Late("late", says("late"))
    stream = Client().race_stream("hi", [late, Own("fast", says("quick"))])
    assert "".join(stream.text_stream) == "quick"
    released.set()
    assert wait_until(lambda: not race_threads())
    del stream
    gc.collect()
    assert ended.wait(5)


# --- the engine -----------------------------------------------------------------------------------


def test_a_race_gets_on_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads, those racers that have one race on."""
    refused: list[str] = []

    def scarce(task: Callable[[], Any], name: str) -> Any:
        if len(refused) < limit:
            refused.append(name)
            raise TooManyThreadsError("can't start new thread")
        return start(task, name)

    monkeypatch.setattr(llmkit.parallel.racing, "start", scarce)
    racers = [Racer("one", lambda _: 1), Racer("two", lambda _: 2)]
    limit = 1
    assert race(racers, lambda result: True) == (1, 2)
    refused.clear()
    limit = 2
    with pytest.raises(AllModelsFailedError, match="no thread can be had"):
        race(racers, lambda result: True)


def test_results_that_do_not_win_are_discarded_once() -> None:
    """Every result but the winner's is handed to `discard`, however late it comes."""
    for _ in range(200):
        dropped: list[int] = []
        racers = [Racer(str(number), lambda _, number=number: number + 1) for number in range(6)]  # type: ignore[misc]
        at, won = race(racers, lambda result: result > 3, dropped.append)
        assert won == at + 1 > 3
        assert wait_until(lambda: len(race_threads()) == 0)
        # One that was cut before it began has no result.
        assert len(dropped) == len(set(dropped)) <= 5
        assert won not in dropped


def test_what_comes_after_the_finish_is_discarded() -> None:
    """A result for which nobody waits any more is handed to `discard`, too."""
    released = threading.Event()
    dropped: list[int] = []

    def late(forced: bool) -> int:
        released.wait(10)
        return 2

    racers = [Racer("late", late), Racer("quick", lambda _: 1)]
    assert race(racers, lambda result: True, dropped.append) == (1, 1)
    assert not dropped
    released.set()
    assert wait_until(lambda: dropped == [2])


def test_a_race_leaves_nothing_for_the_collector(server: ProviderServer) -> None:
    """What a race holds is freed when it ends: no cycle of errors and frames keeps it."""
    server.answer = by_model(
        openai=Answer("fast", delay=0.05), anthropic=Answer(delay=30), gemini=Answer(delay=30)
    )
    adapters = field(server)
    Client().race("warm up", adapters)
    watched: list[weakref.ref[Any]] = []
    take_part = llmkit.parallel.racing._Race._take_part

    def noted(self: Any, at: int, scope: Scope) -> None:
        watched.append(weakref.ref(self))
        take_part(self, at, scope)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(llmkit.parallel.racing._Race, "_take_part", noted)
        gc.collect()
        gc.disable()
        try:
            Client().race("hi", adapters)
            assert wait_until(lambda: not race_threads())
            assert wait_until(lambda: all(ref() is None for ref in watched), 1.0)
        finally:
            gc.enable()
    assert len(watched) >= 1


def test_many_races_leave_nothing_behind(server: ProviderServer) -> None:
    """Hundreds of races keep no thread, no connection beyond those in use, and no descriptor."""
    server.answer = by_model(
        openai=Answer("fast"), anthropic=Answer(delay=30), gemini=Answer(delay=30)
    )
    adapters = field(server)[:2]
    client = Client()
    for _ in range(20):
        client.race("warm up", adapters)
    gc.collect()
    assert wait_until(lambda: not race_threads())
    before = open_descriptors()
    for _ in range(200):
        assert client.race("hi", adapters).text == "fast"
    assert wait_until(lambda: not race_threads())
    gc.collect()
    assert wait_until(lambda: server.open_connections <= 2)
    assert open_descriptors() <= before + 4
    assert sum(pool["in_use"] for pool in health_check().values()) == 0


def test_arrivals_lose_nothing_between_threads() -> None:
    """Whatever is put before the end is read or handed back, and refused afterwards."""
    for _ in range(50):
        arrivals: Arrivals[int] = Arrivals()
        refused: list[int] = []

        def put(numbers: Sequence[int], arrivals: Any = arrivals, refused: Any = refused) -> None:
            refused.extend(number for number in numbers if not arrivals.put(number))

        threads = [
            threading.Thread(target=put, args=(range(start, start + 50),))
            for start in range(0, 200, 50)
        ]
        with Scope(10).entered() as scope:
            for thread in threads:
                thread.start()
            read = [arrivals.next(scope, "testing") for _ in range(100)]
            rest = arrivals.close()
        for thread in threads:
            thread.join()
        assert sorted([*read, *rest, *refused]) == list(range(200))  # type: ignore[type-var]


def test_waiting_for_arrivals_ends() -> None:
    """A wait ends with its own time, with its Scope's, and with a cancel."""
    arrivals: Arrivals[int] = Arrivals()
    assert arrivals.next(Scope(10), "testing", 0.01) is None
    assert arrivals.next(None, "testing", 0.01) is None
    with pytest.raises(CallInterrupted, match="testing"):
        arrivals.next(Scope(0.01), "testing")
    scope = Scope()
    threading.Timer(0.02, scope.cancel).start()
    with pytest.raises(CallInterrupted):
        arrivals.next(scope, "testing")


# --- whole programs -------------------------------------------------------------------------------


OWN_ADAPTERS = """
import signal, sys, threading, time
from llmkit import BaseLLMAdapter, Client, LLMError, execute_parallel

class Sleeps(BaseLLMAdapter):
    seconds = 30
    def _generate_text(self, request):
        print("asleep", flush=True)
        time.sleep(self.seconds)
        return {"text": "late"}

class Quick(BaseLLMAdapter):
    def _generate_text(self, request):
        time.sleep(0.1)
        return {"text": "quick"}
"""


def program(text: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", OWN_ADAPTERS + textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def output_of(text: str, seconds: float = 20.0) -> str:
    """Runs a program to its end; one that is held by a loser would take 30 s."""
    with program(text) as running:
        try:
            output, errors = running.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            running.kill()
            raise
        assert running.returncode == 0, errors
        return output


def test_a_scripts_exit_is_not_held_by_a_loser() -> None:
    """A script ends when its race is decided, though a loser that nothing can cut sleeps on."""
    output = output_of(
        """
        reply = Client().race("hi", [Sleeps("slow", "own"), Quick("quick", "own")])
        print(reply.text)
        """
    )
    assert output.split() == ["asleep", "quick"]


def test_a_loser_that_was_cut_is_gone_before_the_interpreter_is() -> None:
    """What it does last is not done in an interpreter that is half taken apart."""
    output = output_of(
        """
        import llmkit.threads
        from llmkit.scope import current_scope

        llmkit.threads.LAST_MOMENT = 10.0  # it ends with the loser, however busy the machine is

        class Waits(BaseLLMAdapter):
            def _generate_text(self, request):
                try:
                    current_scope().sleep(30)
                finally:
                    time.sleep(0.03)
                    print("put away", flush=True)

        print(Client().race("hi", [Waits("slow", "own"), Quick("quick", "own")]).text, flush=True)
        """
    )
    assert output.split("\n") == ["quick", "put away", ""]


def test_a_scripts_exit_is_not_held_by_an_operation() -> None:
    """The same for `execute_parallel`, whose time is over while an operation sleeps."""
    output = output_of(
        """
        try:
            execute_parallel([lambda: time.sleep(30), lambda: time.sleep(30)], timeout=0.1)
        except LLMError as error:
            print(error.code)
        """
    )
    assert output.split() == ["LLM_TIMEOUT"]


def test_ctrl_c_ends_a_race_at_once(server: ProviderServer) -> None:
    """The caller gets its KeyboardInterrupt at once, and every request in flight is cut."""
    server.answer = Answer(delay=30)
    # Of one vendor: to load three SDKs takes seconds, and tests/deadline interrupts each of them.
    models, base = ("gpt-6-luna", "gpt-4o", "gpt-4o-mini"), server.base_url("openai")
    script = f"""
        from llmkit import get_adapter
        adapters = [
            get_adapter(model, api_key="sk-test", api_base={base!r})
            for model in {models!r}
        ]
        try:
            Client().race("hi", [*adapters, Sleeps("slow", "own")])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            ends = time.monotonic() + 5
            while time.monotonic() < ends and any(
                each.name == "llmkit-race" for each in threading.enumerate()
            ) and len(threading.enumerate()) > 2:
                time.sleep(0.01)
            print(sum(each.name == "llmkit-race" for each in threading.enumerate()))
        """
    with program(script) as running:
        assert running.stdout is not None
        server.wait_for_requests(3, timeout=30)
        assert running.stdout.readline() == "asleep\n"
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == "interrupted\n"
        assert time.monotonic() - began < 2
        assert running.stdout.readline() == "1\n"  # the one that sleeps
        assert running.wait(10) == 0
    for request in server.requests:
        assert request.disconnected.wait(5)
