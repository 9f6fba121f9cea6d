"""Cached streams and races, through the Client."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest

import llmkit
from llmkit import CallRecord, Client
from llmkit.cache import MemoryCache
from llmkit.performance import get_performance_tracker
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.cache.client_calls import MODEL, OTHER, counted, make_client

LONG = "A sentence of some length, as they stand in answers. " * 40


@pytest.fixture
def client(server: ProviderServer) -> Client:
    return make_client(server)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What holds back the provider's slow answers; it is set at the latest when the test ends."""
    released = threading.Event()
    yield released
    released.set()


def held_until(released: threading.Event, answer: Answer) -> Callable[[RecordedRequest], Answer]:
    """An answer that comes when a test says so."""

    def answer_to(request: RecordedRequest) -> Answer:
        assert released.wait(20)
        return answer

    return answer_to


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


def read(client: Client, prompt: str = "Why?", **arguments: Any) -> Any:
    """Streams an answer to its end; returns its text and its completion."""
    with client.stream(prompt, **arguments) as stream:
        text = "".join(chunk.text for chunk in stream)
    assert text == stream.completion.text
    return stream.completion


# --- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [MODEL, OTHER, "gemini-3.8-flash"])
@pytest.mark.parametrize("text", ["Yes.", LONG], ids=["short", "long"])
def test_a_whole_stream_is_kept(server: ProviderServer, model: str, text: str) -> None:
    """A stream that was read to its end is a hit for streams and for plain calls."""
    records: list[CallRecord] = []
    client = make_client(server, observers=[records.append], model=model)
    server.answer = Answer(text)
    fresh = read(client)
    hit = read(client)
    assert (hit.text, hit.usage, hit.cached) == (fresh.text, fresh.usage, "memory")
    assert (hit.cost, hit.saved_cost, hit.attempts) == (Decimal(0), fresh.cost, ())
    assert client.complete("Why?").cached == "memory"
    assert len(server.requests) == 1
    assert [each.streamed for each in records] == [True, True, False]
    assert [each.cached for each in records] == [None, "memory", "memory"]
    assert records[1].first_chunk is not None
    assert get_performance_tracker().get_stats(model)["cache_hits"] == 2


def test_a_plain_answer_comes_as_a_stream(server: ProviderServer, client: Client) -> None:
    """What `complete` has kept is streamed, in several chunks when it is long."""
    server.answer = Answer(LONG)
    client.complete("Why?")
    with client.stream("Why?") as stream:
        chunks = list(stream)
    assert len(chunks) > 1
    assert "".join(chunk.text for chunk in chunks) == LONG
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(LONG, cut_after=700),
        Answer(LONG, finish_reason="length"),
        Answer(LONG, finish_reason="content_filter"),
        Answer("Look.", tool_calls=[("look", {})]),
        Answer(""),
    ],
    ids=["cut", "length", "content_filter", "tool_calls", "empty"],
)
def test_a_stream_that_is_no_whole_answer_is_not_kept(
    server: ProviderServer, client: Client, answer: Answer
) -> None:
    """A broken, cut off, filtered, calling or empty stream is asked for again."""
    server.script(answer)
    with contextlib.suppress(llmkit.StreamInterruptedError, llmkit.ProviderError):
        read(client)
    assert read(client).cached is None
    assert read(client).cached == "memory"


def test_a_stream_that_was_left_is_not_kept(server: ProviderServer, client: Client) -> None:
    """Who closes a stream, or only looks at its beginning, has not seen the whole answer."""
    server.answer = Answer(LONG, chunk_delay=0.001)
    with client.stream("Why?") as stream:
        next(iter(stream))
    client.stream("Why?").close()
    assert client.complete("Why?").cached is None


def test_modes_of_streams(server: ProviderServer, client: Client) -> None:
    """False and "refresh" mean for streams what they mean for plain calls."""
    server.answer = counted()
    said = [read(client, use_cache=use).text for use in (None, False, None, "refresh", None)]
    assert said == [f"answer {n}" for n in (1, 2, 1, 3, 3)]


def test_streams_join_no_flight_and_lead_none(
    server: ProviderServer, client: Client, pool: ThreadPoolExecutor, released: threading.Event
) -> None:
    """A consumer that is slow, or never reads on, holds up nobody who asks the same."""
    server.answer = Answer("Yes.")
    with client.stream("Why?") as slow:
        reply = pool.submit(client.complete, "Why?").result(10)
        assert reply.cached is None
        list(slow)
    server.reset()
    server.answer = held_until(released, Answer("Yes."))
    leading = pool.submit(client.complete, "Why not?")
    server.wait_for_requests(1)
    streaming = pool.submit(read, client, "Why not?")
    server.wait_for_requests(2)
    released.set()
    assert leading.result(10).cached is streaming.result(10).cached is None


def test_a_fallbacks_stream_lives_under_its_own_model(server: ProviderServer) -> None:
    """Streams of chains are kept like plain answers of chains."""
    client = make_client(server, fallbacks=[OTHER])
    server.script(Answer(status=500))
    assert read(client).model == OTHER
    server.script(Answer(status=500))
    hit = read(client)
    assert (hit.model, hit.cached) == (OTHER, "memory")
    assert (read(client).model, read(client).cached) == (MODEL, "memory")


# --- flights --------------------------------------------------------------------------------------


def test_equal_calls_share_one(
    server: ProviderServer, client: Client, pool: ThreadPoolExecutor
) -> None:
    """Calls that are under way together cost one request; each has an answer of its own."""
    server.answer = Answer("Yes.", delay=0.3)
    begin = threading.Barrier(16)

    def ask() -> Any:
        begin.wait(10)
        return client.complete("Why?")

    replies = [each.result(10) for each in [pool.submit(ask) for _ in range(16)]]
    assert len(server.requests) == 1
    assert sorted(str(each.cached) for each in replies) == ["None", *["memory"] * 15]
    assert sum(each.cost for each in replies) == max(each.cost for each in replies)
    assert len({id(each) for each in replies}) == 16
    stats = get_performance_tracker().get_stats(MODEL)
    assert (stats["successes"], stats["cache_hits"]) == (16, 15)


def test_who_waits_keeps_its_own_deadline(
    server: ProviderServer, client: Client, pool: ThreadPoolExecutor, released: threading.Event
) -> None:
    """A call that waits for another's answer leaves when its own time is over."""
    server.answer = held_until(released, Answer("Yes."))
    leading = pool.submit(client.complete, "Why?")
    server.wait_for_requests(1)
    with pytest.raises(llmkit.LLMTimeoutError):
        client.complete("Why?", timeout=0.2)
    assert not leading.done()
    released.set()
    assert leading.result(10).cached is None


def test_a_leaders_time_out_is_its_own(
    server: ProviderServer, client: Client, pool: ThreadPoolExecutor
) -> None:
    """When the leader's time ends, one who waits asks in its place."""
    server.script(Answer("too late", delay=0.6))
    leading = pool.submit(client.complete, "Why?", timeout=0.3)
    server.wait_for_requests(1)
    server.answer = Answer("Yes.")
    following = pool.submit(client.complete, "Why?", timeout=30)
    assert isinstance(leading.exception(10), llmkit.LLMTimeoutError)
    assert following.result(10).cached is None
    assert len(server.requests) == 2


def test_a_wrong_request_is_wrong_for_all(
    server: ProviderServer, client: Client, pool: ThreadPoolExecutor
) -> None:
    """The request's own error is everyone's: nobody pays to hear it again."""
    server.answer = Answer(status=400, delay=0.5)
    leading = pool.submit(client.complete, "Why?")
    server.wait_for_requests(1)
    following = [pool.submit(client.complete, "Why?") for _ in range(5)]
    errors = [each.exception(10) for each in (leading, *following)]
    assert all(isinstance(each, llmkit.InvalidRequestError) for each in errors)
    assert len({id(each) for each in errors}) == 6
    assert len(server.requests) <= 2  # one may have come after the flight had landed


# --- races ----------------------------------------------------------------------------------------


def by_model(**answers: Answer) -> Any:
    names = {"first": MODEL, "second": OTHER}
    found = {names[name]: answer for name, answer in answers.items()}
    return lambda request: found[request.model]


def test_a_winner_is_kept_under_its_own_key(server: ProviderServer, client: Client) -> None:
    """The answer that has won is a hit for its model, and for the next race; nobody else's is."""
    server.answer = by_model(first=Answer("slow", delay=0.5), second=Answer("fast"))
    won = client.race("Why?", [MODEL, OTHER])
    assert (won.model, won.cached) == (OTHER, None)
    assert any("lost the race" in each for each in won.warnings)
    asked = len(server.requests)
    server.answer = by_model(first=Answer("slow"), second=Answer("fast"))
    again = client.race("Why?", [MODEL, OTHER])
    assert (again.text, again.cached, again.cost) == ("fast", "memory", Decimal(0))
    assert (again.warnings, again.attempts) == ((), ())
    assert client.complete("Why?", model=OTHER).text == "fast"
    assert len(server.requests) == asked
    assert client.complete("Why?").text == "slow"


def test_a_race_looks_before_it_starts(server: ProviderServer, client: Client) -> None:
    """An answer of any of its models ends a race before a request is sent."""
    client.complete("Why?", model=OTHER)
    asked = len(server.requests)
    assert client.race("Why?", [MODEL, OTHER]).model == OTHER
    with client.race_stream("Why?", [MODEL, OTHER]) as stream:
        assert "".join(stream.text_stream) == stream.completion.text
    assert stream.completion.cached == "memory"
    assert len(server.requests) == asked


def test_a_races_stream_is_kept_without_its_losers(server: ProviderServer, client: Client) -> None:
    """A hit does not say that somebody lost a race that it never took part in."""
    server.answer = by_model(first=Answer("slow", delay=0.5), second=Answer("fast"))
    with client.race_stream("Why?", [MODEL, OTHER]) as stream:
        list(stream)
    assert any("lost the race" in each for each in stream.completion.warnings)
    hit = client.complete("Why?", model=OTHER)
    assert (hit.text, hit.cached, hit.warnings) == ("fast", "memory", ())


def test_racers_join_no_flight(
    server: ProviderServer, client: Client, pool: ThreadPoolExecutor, released: threading.Event
) -> None:
    """A race does not wait for a slow call of one of its models; the same model may race twice."""
    slow = held_until(released, Answer("slow"))
    server.script(slow)
    leading = pool.submit(client.complete, "Why?")
    server.wait_for_requests(1)
    server.script(slow, Answer("fast"))
    reply = client.race("Why?", [MODEL, MODEL])
    assert (reply.text, reply.cached) == ("fast", None)
    assert not leading.done()
    released.set()
    assert leading.result(10).text == "slow"


def test_modes_of_races(server: ProviderServer, client: Client) -> None:
    """False and "refresh" mean for races what they mean for plain calls."""
    server.answer = counted()
    client.complete("Why?")
    assert client.race("Why?", [MODEL], use_cache=False).text == "answer 2"
    assert client.race("Why?", [MODEL]).text == "answer 1"
    assert client.race("Why?", [MODEL], use_cache="refresh").text == "answer 3"
    assert client.complete("Why?").text == "answer 3"


def test_a_race_that_all_lose_gives_an_expired_answer(server: ProviderServer) -> None:
    """An expired answer of any racer is better than no answer."""
    cache = MemoryCache(rng=lambda: 1.0)
    client = make_client(server, cache=cache, cache_ttl=0.05, stale_ttl=100)
    client.complete("Why?", model=OTHER)
    threading.Event().wait(0.1)
    server.answer = Answer(status=503)
    reply = client.race("Why?", [MODEL, OTHER])
    assert (reply.model, reply.cached) == (OTHER, "stale")


def test_the_old_interfaces_use_it_too(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """race_models and execute_llm_with_fallback find each other's answers, and the Client's."""
    from llmkit import Client
    from llmkit.fallback import execute_llm_with_fallback
    from llmkit.parallel import race_models

    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "yes")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url("openai"))
    assert Client(MODEL).complete("Why?").cached is None
    assert race_models([MODEL], "Why?")[1].cached == "memory"
    assert execute_llm_with_fallback("Why?", MODEL)[1].cached == "memory"
    assert llmkit.get_adapter(MODEL).generate("Why?").cached == "memory"
    assert len(server.requests) == 1
