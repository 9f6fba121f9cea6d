from __future__ import annotations

import contextlib
import logging
import pickle
import sqlite3
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import llmkit
from llmkit import (
    Budget,
    CallRecord,
    Client,
    Completion,
    InvalidRequestError,
    LLMError,
    Request,
    get_adapter,
)
from llmkit.cache import LLMCache, MemoryCache, close_caches, get_cache
from llmkit.performance import get_performance_tracker
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.cache.client_calls import KEY, MODEL, OTHER, counted, file_at, make_client, settings_for
from tests.cache.servers import Clock, in_child


@pytest.fixture(params=["memory", "sqlite"])
def client(request: pytest.FixtureRequest, server: ProviderServer, tmp_path: Path) -> Client:
    """A Client over each kind of cache that needs no server; each hit is the second level's."""
    if request.param == "memory":
        return make_client(server)
    from llmkit.cache import SQLiteCache

    file_at(tmp_path / "cache.db")
    return make_client(server, cache=SQLiteCache(tmp_path / "cache.db"))


# --- what a hit is --------------------------------------------------------------------------------


def test_a_hit_costs_nothing_and_says_so(server: ProviderServer, client: Client) -> None:
    """An equal question is answered from the cache: for nothing, with the original usage."""
    fresh = client.complete("Why?", system="Briefly.", temperature=None)
    hit = client.complete("Why?", system="Briefly.")
    assert len(server.requests) == 1
    assert fresh.cached is None
    assert fresh.cost
    assert fresh.saved_cost is None
    assert hit.cached in ("memory", "sqlite")
    assert (hit.cost, hit.saved_cost) == (Decimal(0), fresh.cost)
    assert (hit.text, hit.usage, hit.raw) == (fresh.text, fresh.usage, fresh.raw)
    assert (hit.model, hit.provider, hit.request_id) == (MODEL, "openai", fresh.request_id)
    assert hit.attempts == ()
    assert len(fresh.attempts) == 1
    assert 0 < hit.latency < 5


def test_nobody_shares_a_hit(client: Client) -> None:
    """What one caller does to an answer, the next one does not see."""
    client.complete("Why?")
    first = client.complete("Why?")
    first.raw["choices"] = first.text = "changed"
    again = client.complete("Why?")
    assert again.text != "changed"
    assert again.raw["choices"] != "changed"


def test_the_tracker_counts_hits_and_no_spending(client: Client) -> None:
    """A hit is a success and a cache hit, and adds nothing to tokens, cost and latencies."""
    client.complete("Why?")
    before = get_performance_tracker().get_stats(MODEL)
    for _ in range(3):
        client.complete("Why?")
    after = get_performance_tracker().get_stats(MODEL)
    assert after["cache_hits"] == 3
    assert (before["requests"], after["requests"], after["successes"]) == (1, 4, 4)
    for name in ("prompt_tokens", "completion_tokens", "cost", "p50_latency_ms", "unpriced"):
        assert before[name] == after[name]


def test_observers_are_told_of_hits(server: ProviderServer) -> None:
    """An observer's record of a hit says where it came from, and has the caller's own notes."""
    records: list[CallRecord] = []
    client = make_client(server, observers=[records.append])
    client.complete("Why?", metadata={"user": 1})
    client.complete("Why?", metadata={"user": 2})
    assert [(each.cached, each.metadata["user"]) for each in records] == [(None, 1), ("memory", 2)]
    assert records[1].attempts == ()


def test_middleware_sees_hits(server: ProviderServer) -> None:
    """Middleware is around every call, and may tell a hit from a fresh answer."""
    seen: list[str | None] = []

    def watch(request: Request, call_next: Any) -> Completion:
        reply: Completion = call_next(request)
        seen.append(reply.cached)
        return reply

    client = make_client(server, middleware=[watch])
    client.complete("Why?")
    client.complete("Why?")
    assert seen == [None, "memory"]


def test_what_middleware_asks_is_what_is_looked_up(server: ProviderServer) -> None:
    """The key is that of the request that would be sent, not of the one before middleware."""
    from dataclasses import replace

    temperatures = iter((0.1, 0.2))

    def warm(request: Request, call_next: Any) -> Completion:
        return call_next(replace(request, temperature=next(temperatures)))  # type: ignore[no-any-return]

    client = make_client(server, model="gpt-4.1", middleware=[warm])
    assert client.complete("Why?").cached is None
    assert client.complete("Why?").cached is None
    assert len(server.requests) == 2


def test_a_hit_reserves_no_budget(server: ProviderServer) -> None:
    """A budget that is too small for any call still lets hits through."""
    make_client(server).complete("Why?")
    budget = Budget(usd="0.000000001")
    client = make_client(server, budget=budget)
    assert client.complete("Why?").cached == "memory"
    assert budget.spent_usd == 0
    with pytest.raises(llmkit.BudgetExceededError):
        client.complete("Why not?")


def test_a_hit_waits_for_no_rate_limit(server: ProviderServer) -> None:
    """A limit of one request per minute holds up no hit."""
    client = make_client(server, rate_limits={MODEL: {"requests_per_minute": 1}})
    client.complete("Why?")
    began = time.monotonic()
    assert all(client.complete("Why?").cached for _ in range(5))
    assert time.monotonic() - began < 5


# --- what the caller says -------------------------------------------------------------------------


def test_use_cache(server: ProviderServer, client: Client) -> None:
    """False neither reads nor writes, "refresh" replaces, True and None use what is there."""
    server.answer = counted()
    said = [
        client.complete("Why?", use_cache=use).text
        for use in (False, None, False, True, "refresh", None)
    ]
    assert said == [f"answer {n}" for n in (1, 2, 3, 2, 4, 4)]


def test_senseless_cache_options_are_refused(server: ProviderServer, client: Client) -> None:
    """A wrong word or time is said before anything is sent."""
    wrong: list[dict[str, Any]] = [
        {"use_cache": "no"},
        {"use_cache": 1},
        {"cache_ttl": -1},
        {"cache_ttl": 0},
        {"stale_ttl": float("nan")},
        {"cache_truncated": "yes"},
        {"cache_truncated": 1},
    ]
    for each in wrong:
        with pytest.raises(InvalidRequestError):
            client.complete("Why?", **each)
    with pytest.raises(InvalidRequestError, match="cache_truncated"):
        make_client(server, cache_truncated="no")
    assert server.requests == []


def times_to_live(path: Path) -> tuple[float, float]:
    """Seconds that the one entry of a file is fresh, and kept, from about now."""
    with sqlite3.connect(path) as file:
        ((fresh, kept),) = file.execute("SELECT expires, kept FROM llmkit_cache_1").fetchall()
    file.close()
    return fresh - time.time(), kept - time.time()


@pytest.mark.parametrize(
    ("fields", "of_client", "of_call", "ttl"),
    [
        ({}, {}, {}, 3600),
        ({"cache_ttl": 500}, {}, {}, 500),
        ({"cache_ttl": 500}, {"cache_ttl": 50}, {}, 50),
        ({"cache_ttl": 500}, {"cache_ttl": 50}, {"cache_ttl": 5000}, 5000),
    ],
)
def test_how_long_an_answer_is_kept(
    server: ProviderServer,
    tmp_path: Path,
    fields: dict[str, Any],
    of_client: dict[str, Any],
    of_call: dict[str, Any],
    ttl: float,
) -> None:
    """The call's word counts before the Client's, that before the settings'; less 10 % jitter."""
    path = tmp_path / "cache.db"
    client = make_client(server, fields={**fields, "cache_url": file_at(path)}, **of_client)
    client.complete("Why?", **of_call)
    fresh, kept = times_to_live(path)
    assert 0.9 * ttl - 20 < fresh <= ttl
    assert kept == pytest.approx(fresh)
    client.complete("Why?", **of_call, stale_ttl=100, use_cache="refresh")
    fresh, kept = times_to_live(path)
    assert kept - fresh == pytest.approx(100, abs=0.01)


def test_a_cache_that_is_given_keeps_to_its_own_time(server: ProviderServer, clock: Clock) -> None:
    """An LLMCache of the user's has its own default life, not CACHE_TTL; a call's word counts."""
    server.answer = counted()
    own = MemoryCache(clock=clock, ttl=100, rng=lambda: 1.0)
    client = make_client(server, cache=own, fields={"cache_ttl": 5})
    client.complete("Why?")
    client.complete("Who?", cache_ttl=20)
    clock.now += 50
    assert client.complete("Why?").text == "answer 1"
    assert client.complete("Who?").text == "answer 3"
    clock.now += 51
    assert client.complete("Why?").text == "answer 4"


TRUNCATED = Answer("cut o", finish_reason="length")
FILTERED = Answer("I shall n", finish_reason="content_filter")


@pytest.fixture(params=["memory", "two levels"])
def keeping(request: pytest.FixtureRequest, server: ProviderServer, tmp_path: Path) -> Client:
    """A Client with a cache of its own."""
    if request.param == "memory":
        return make_client(server, cache=MemoryCache())
    return make_client(server, cache=file_at(tmp_path / "cache.db"))


@pytest.mark.parametrize("answer", [TRUNCATED, FILTERED, Answer("")], ids=["cut", "filter", "none"])
@pytest.mark.parametrize("how", ["complete", "stream", "race"])
@pytest.mark.usefixtures("patient")
def test_a_refresh_that_is_not_kept_drops_the_old_answer(
    server: ProviderServer, keeping: Client, answer: Answer, how: str
) -> None:
    """Nobody gets again what was to be replaced, from neither level."""
    server.answer = counted()
    keeping.complete("Why?")
    server.answer = answer
    if how == "complete":
        keeping.complete("Why?", use_cache="refresh")
    elif how == "race":
        keeping.race("Why?", [MODEL], use_cache="refresh")
    else:
        with keeping.stream("Why?", use_cache="refresh") as stream:
            list(stream)
    server.answer = Answer("new")
    reply = keeping.complete("Why?")
    assert (reply.text, reply.cached) == ("new", None)


def test_a_refresh_that_fails_leaves_the_old_answer(server: ProviderServer, client: Client) -> None:
    """An error is no answer: what was there stays."""
    server.answer = counted()
    client.complete("Why?")
    server.answer = Answer(status=500)
    with pytest.raises(LLMError):
        client.complete("Why?", use_cache="refresh", fallbacks=[])
    assert client.complete("Why?").text == "answer 1"


@pytest.mark.usefixtures("patient")
def test_truncated_answers_are_kept_for_who_asks_for_them(
    server: ProviderServer, keeping: Client
) -> None:
    """cache_truncated=True keeps and takes them; who doesn't say so never gets one."""
    server.answer = counted("cut", finish_reason="length")
    asked: dict[str, Any] = {"cache_truncated": True}
    assert keeping.complete("Why?").text == "cut 1"
    assert keeping.complete("Why?", **asked).text == "cut 2"
    hit = keeping.complete("Why?", **asked)
    assert (hit.text, hit.finish_reason) == ("cut 2", "length")
    assert hit.cost == 0
    with keeping.stream("Why?", **asked) as stream:
        assert "".join(stream.text_stream) == "cut 2"
        assert stream.completion.finish_reason == "length"
    assert keeping.race("Why?", [MODEL], **asked).cached is not None
    assert keeping.complete("Why?").text == "cut 3"
    assert keeping.complete("Why?", cache_truncated=False).text == "cut 4"
    with keeping.stream("Why?") as stream:
        assert "".join(stream.text_stream) == "cut 5"
    server.answer = Answer("whole")
    assert keeping.complete("Why?").text == "whole"
    assert keeping.complete("Why?", **asked).text == "whole"


def test_a_client_may_keep_truncated_answers(server: ProviderServer) -> None:
    """The Client's word counts for its calls that say nothing; filtered ones are never kept."""
    client = make_client(server, cache_truncated=True)
    server.answer = TRUNCATED
    assert [client.complete("Why?").cached for _ in range(2)] == [None, "memory"]
    assert client.complete("Why?", cache_truncated=False).cached is None
    server.answer = FILTERED
    assert [client.complete("Who?").cached for _ in range(2)] == [None, None]


def test_an_answer_expires(server: ProviderServer, clock: Clock) -> None:
    """After its time an answer is asked for again, and replaced."""
    server.answer = counted()
    client = make_client(server, cache=MemoryCache(clock=clock), cache_ttl=100)
    assert client.complete("Why?").text == client.complete("Why?").text == "answer 1"
    clock.now += 101
    assert client.complete("Why?").text == client.complete("Why?").text == "answer 2"


# --- what isn't kept ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Answer("cut", finish_reason="length"),
        Answer("filtered", finish_reason="content_filter"),
        Answer("", tool_calls=[("look", {"at": 1})]),
        Answer("both", tool_calls=[("look", {"at": 1})]),
        Answer("odd", finish_reason="unheard_of"),
        Answer(status=500),
        Answer(status=400),
        Answer(status=429),
        Answer(status=401),
        Answer(blocked=True),
        Answer(body="{"),
    ],
    ids=lambda answer: answer.text or str(answer.status),
)
@pytest.mark.parametrize("model", [MODEL, OTHER, "gemini-3.8-flash"])
def test_what_is_no_whole_answer_is_not_kept(
    server: ProviderServer, client: Client, model: str, answer: Answer
) -> None:
    """Errors, cut off, filtered and empty answers, and turns that call tools: asked for again."""
    server.script(answer)
    with contextlib.suppress(LLMError):
        assert client.complete("Why?", model=model).cached is None
    again = client.complete("Why?", model=model)
    assert again.cached is None
    assert again.text.startswith("Hello")
    assert client.complete("Why?", model=model).cached


# --- the key --------------------------------------------------------------------------------------


def test_an_answer_to_what_was_asked_not_to_what_was_sent(server: ProviderServer) -> None:
    """What the model refuses is left out and said, on a hit, too; without it the key is another."""
    server.answer = counted()
    client = make_client(server)
    fresh, hit = (client.complete("Why?", temperature=0.5) for _ in range(2))
    assert "temperature" not in server.requests[0].json
    assert hit.cached
    assert hit.warnings == fresh.warnings
    assert any("temperature" in warning for warning in hit.warnings)
    plain = client.complete("Why?")
    assert plain.cached is None
    assert plain.text == "answer 2"
    assert not plain.warnings


def test_on_unsupported_decides_before_the_cache(server: ProviderServer) -> None:
    """A cached answer hides no error that was asked for, and no warning."""
    client = make_client(server)
    silent = client.complete("Why?", temperature=0.5, on_unsupported="drop")
    assert silent.warnings == ()
    assert client.complete("Why?", temperature=0.5).warnings
    with pytest.raises(InvalidRequestError, match="temperature"):
        client.complete("Why?", temperature=0.5, on_unsupported="error")
    assert client.complete("Why?", temperature=0.5, on_unsupported="drop").warnings == ()


@pytest.mark.parametrize(
    "other",
    [
        {"max_tokens": 5},
        {"system": "Briefly."},
        {"seed": 7},
        {"stop": "x"},
        {"model": "gpt-6.1-terra"},
        {"logit_bias": {"5": 1}},
        {"extra_body": {"user": "me"}},
        {"extra_headers": {"x-team": "a"}},
    ],
    ids=str,
)
def test_each_difference_is_asked(server: ProviderServer, other: dict[str, Any]) -> None:
    """A call that differs in anything that is sent never gets the other's answer."""
    client = make_client(server)
    client.complete("Why?")
    assert client.complete("Why?", **other).cached is None
    assert client.complete("Why?", **other).cached
    assert len(server.requests) == 2


def test_other_addresses_and_namespaces_share_nothing(server: ProviderServer) -> None:
    """Clients with other base URLs or namespaces don't get each other's answers."""
    with ProviderServer(Answer("from elsewhere")) as elsewhere:
        clients = [
            make_client(server),
            make_client(elsewhere),
            make_client(server, fields={"cache_namespace": "other"}),
        ]
        assert [each.complete("Why?").cached for each in clients] == [None, None, None]
        assert [each.complete("Why?").cached for each in clients] == ["memory"] * 3
        assert clients[1].complete("Why?").text == "from elsewhere"


def test_equal_clients_share(server: ProviderServer) -> None:
    """A Client in every view is cheap and knows what the others have asked."""
    make_client(server).complete("Why?")
    assert make_client(server).complete("Why?").cached == "memory"


def test_an_adapters_defaults_are_part_of_the_key(server: ProviderServer) -> None:
    """What an adapter fills in is sent, so it counts."""
    short, long = (
        get_adapter(MODEL, max_tokens=n, settings=settings_for(server)) for n in (5, 500)
    )
    short.generate("Why?")
    assert long.generate("Why?").cached is None
    assert short.generate("Why?").cached


# --- chains ---------------------------------------------------------------------------------------


def test_a_fallbacks_answer_lives_under_its_own_model(server: ProviderServer) -> None:
    """While the primary is down the fallback's answer is a hit; when it is back it is asked."""
    client = make_client(server, fallbacks=[OTHER])
    down = [Answer(status=500), Answer("from the second"), Answer(status=500)]
    server.script(*down)
    first, second = client.complete("Why?"), client.complete("Why?")
    assert (first.model, first.cached) == (OTHER, None)
    assert (second.model, second.cached, second.text) == (OTHER, "memory", "from the second")
    assert [each.model for each in second.attempts] == [MODEL]
    third = client.complete("Why?")
    assert (third.model, third.cached) == (MODEL, None)
    assert client.complete("Why?").model == MODEL
    direct = client.complete("Why?", model=OTHER, fallbacks=[])
    assert direct.cached
    assert direct.text == "from the second"


def test_an_open_circuit_hides_no_hit(server: ProviderServer) -> None:
    """A model that is down still answers what it has answered before."""
    client = make_client(server)
    client.complete("Why?")
    server.answer = Answer(status=500)
    for n in range(50):
        with pytest.raises((llmkit.ProviderError, llmkit.CircuitOpenError)):
            client.complete(f"Question {n}")
    with pytest.raises(llmkit.CircuitOpenError):
        client.complete("Why not?")
    assert client.complete("Why?").cached


# --- stale on error -------------------------------------------------------------------------------


@pytest.fixture
def stale(server: ProviderServer, clock: Clock) -> Client:
    """A Client whose one answer, to "Why?", has expired, and is still within its stale time."""
    cache = MemoryCache(clock=clock)
    client = make_client(server, cache=cache, cache_ttl=100, stale_ttl=1000, fallbacks=[OTHER])
    client.complete("Why?")
    clock.now += 200
    return client


def test_an_expired_answer_is_better_than_none(
    server: ProviderServer, stale: Client, caplog: pytest.LogCaptureFixture
) -> None:
    """When every model fails the expired answer is given, marked, and the error is logged."""
    server.answer = Answer(status=503)
    with caplog.at_level(logging.WARNING, "llmkit"):
        reply = stale.complete("Why?")
    assert reply.cached == "stale"
    assert reply.cost == 0
    assert reply.saved_cost
    assert "a cached answer that expired, 20" in reply.warnings[0]
    assert " UTC" in reply.warnings[0]
    assert [each.model for each in reply.attempts] == [MODEL, OTHER]
    assert any("expired answer" in line and "503" in line for line in caplog.messages)
    with stale.stream("Why?") as stream:
        assert "".join(stream.text_stream) == reply.text
        assert stream.completion.cached == "stale"


def test_a_fresh_answer_is_better_than_an_expired_one(
    server: ProviderServer, stale: Client
) -> None:
    """A fallback that answers comes before the primary's expired answer."""
    server.script(Answer(status=503))
    reply = stale.complete("Why?")
    assert (reply.model, reply.cached) == (OTHER, None)


@pytest.mark.parametrize("status", [400, 401, 403])
def test_the_requests_own_errors_are_raised(
    server: ProviderServer, stale: Client, status: int
) -> None:
    """A wrong request, or a refused key, is not covered up by an expired answer."""
    server.answer = Answer(status=status)
    with pytest.raises(LLMError):
        stale.complete("Why?")


def test_the_stale_time_ends(server: ProviderServer, stale: Client, clock: Clock) -> None:
    """After the stale time the error is raised; and for who does not want such answers, at once."""
    server.answer = Answer(status=503)
    plain = make_client(server, cache=stale._asking._cache, fallbacks=[])
    with pytest.raises(LLMError):
        plain.complete("Why?")
    clock.now += 1000
    with pytest.raises(LLMError):
        stale.complete("Why?")


def test_a_time_out_is_a_failure_too(server: ProviderServer, stale: Client) -> None:
    """A provider that hangs until the deadline costs the time-out, and no error."""
    server.answer = Answer(delay=5)
    began = time.monotonic()
    assert stale.complete("Why?", timeout=0.3, fallbacks=[]).cached == "stale"
    assert time.monotonic() - began < 2


def test_who_waited_in_vain_for_another_call_gets_it_too(
    server: ProviderServer, stale: Client
) -> None:
    """A deadline that ends while another call's answer is awaited is no different."""
    import threading

    released = threading.Event()

    def answer(request: RecordedRequest) -> Answer:
        assert released.wait(20)
        return Answer()

    server.answer = answer
    leader = threading.Thread(target=lambda: stale.complete("Why?", fallbacks=[]))
    leader.start()
    server.wait_for_requests(2)
    assert stale.complete("Why?", timeout=0.2, fallbacks=[]).cached == "stale"
    released.set()
    leader.join(10)
    assert len(server.requests) == 2


# --- where, and whether ---------------------------------------------------------------------------


def test_turned_off(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """CACHE_ENABLED=no, cache=False and cache_enabled=False: every call is sent."""
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "no")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url("openai"))
    off = settings_for(server, cache_enabled=False)
    for client in (make_client(server, settings=off), make_client(server, cache=False)):
        assert [client.complete("Why?").cached for _ in range(2)] == [None, None]
    adapter = get_adapter(MODEL, cache_enabled=False, settings=settings_for(server))
    assert [adapter.generate("Why?").cached for _ in range(2)] == [None, None]
    assert [Client(MODEL).complete("Why?").cached for _ in range(2)] == [None, None]
    assert len(server.requests) == 8


@pytest.mark.parametrize("use_cache", [True, "refresh"])
def test_a_client_without_a_cache_has_none(server: ProviderServer, use_cache: Any) -> None:
    """cache=False is nowhere, whatever a call says: nothing is read from the process's cache."""
    make_client(server).complete("Why?")
    off = make_client(server, cache=False)
    assert [off.complete("Why?", use_cache=use_cache).cached for _ in range(2)] == [None, None]
    with off.stream("Why?", use_cache=use_cache) as stream:
        list(stream)
        assert stream.completion.cached is None
    assert get_cache(settings_for(server)).stats()["writes"] == 1


def test_turned_on_for_one_call(server: ProviderServer) -> None:
    """use_cache=True uses the cache where it is off by default."""
    adapter = get_adapter(MODEL, cache_enabled=False, settings=settings_for(server))
    adapter.generate("Why?", use_cache=True)
    assert adapter.generate("Why?", use_cache=True).cached == "memory"
    assert adapter.generate("Why?").cached is None


def test_the_settings_choose_the_second_level(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLMKIT_CACHE_URL names it, and what is there outlives the process's memory."""
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "yes")
    monkeypatch.setenv("LLMKIT_CACHE_URL", file_at(tmp_path / "cache.db"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url("openai"))
    client = Client(MODEL)
    client.complete("Why?")
    assert client.complete("Why?").cached == "memory"
    close_caches()
    assert client.complete("Why?").cached == "sqlite"
    assert client.complete("Why?").cached == "memory"


def test_a_url_of_the_clients_own(server: ProviderServer, tmp_path: Path) -> None:
    """cache=URL puts memory in front of what is there, whatever the settings say."""
    url = file_at(tmp_path / "cache.db")
    make_client(server, cache=url, fields={"cache_enabled": False}).complete("Why?")
    close_caches()
    assert make_client(server, cache=url).complete("Why?").cached == "sqlite"
    assert make_client(server).complete("Why?").cached is None


def test_a_clients_word_holds_for_adapters_that_it_is_given(server: ProviderServer) -> None:
    """cache= of a Client counts for a user's own adapter as for every other model."""
    adapter = get_adapter(MODEL, settings=settings_for(server))
    off = make_client(server, cache=False)
    assert [off.race("Why?", [adapter]).cached for _ in range(2)] == [None, None]
    own = MemoryCache()
    on = make_client(server, cache=own)
    assert [on.race("Why?", [adapter]).cached for _ in range(2)] == [None, "memory"]
    assert own.stats()["writes"] == 1
    assert adapter.generate("Why?").cached is None


def test_a_clients_budget_pays_for_adapters_that_it_is_given(server: ProviderServer) -> None:
    """Budgets and observers of a Client, and the adapter's own, count for a user's own adapter."""
    adapter = get_adapter(MODEL, settings=settings_for(server))
    told: list[str] = []
    adapter.observers = (lambda record: told.append("adapter's"),)
    own, budget = Budget(usd=1), Budget(usd=1)
    adapter.budgets = (own,)
    cost = make_client(server, budget=budget).race("Why?", [adapter]).cost
    assert cost
    assert budget.spent_usd == own.spent_usd == cost
    observed = make_client(server, observers=[lambda record: told.append("client's")])
    observed.race("Why?", [adapter])
    assert told == ["adapter's", "adapter's", "client's"]


def test_adapters_cross_processes(server: ProviderServer, tmp_path: Path) -> None:
    """An adapter that has used its cache can be pickled, without its key, and uses it again."""
    adapter = get_adapter(MODEL, api_key=KEY + "x", settings=settings_for(server))
    adapter.cache = file_at(tmp_path / "cache.db")
    adapter.generate("Why?")
    data = pickle.dumps(adapter)
    assert KEY.encode() not in data
    close_caches()
    assert pickle.loads(data).generate("Why?").cached == "sqlite"


def test_a_pickled_adapter_leaves_its_own_cache_behind(server: ProviderServer) -> None:
    """A cache that is an object can't cross to another process, nor can a URL's password."""
    adapter = get_adapter(MODEL, settings=settings_for(server))
    adapter.cache = MemoryCache()
    adapter.generate("Why?")
    assert pickle.loads(pickle.dumps(adapter)).cache is None
    adapter.cache = "redis://me:pass-word-42@localhost/0"
    assert b"pass-word-42" not in pickle.dumps(adapter)


def test_forks(server: ProviderServer, tmp_path: Path) -> None:
    """A child of a process that has used its cache finds what is there, and adds to it."""
    client = make_client(server, cache=file_at(tmp_path / "cache.db"))
    client.complete("Why?")

    def child(number: int) -> None:
        assert client.complete("Why?").cached == "memory"
        assert client.complete(f"From child {number}").cached is None
        if number:
            assert client.complete(f"From child {number - 1}").cached == "sqlite"

    for number in range(3):
        assert in_child(lambda number=number: child(number)) == 0  # type: ignore[misc]
    assert client.complete("From child 2").cached == "sqlite"


# --- caches that fail -----------------------------------------------------------------------------


class Broken(LLMCache):
    """Raises whatever is asked of it."""

    shared = True

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    clear = fetch = keep = discard = read = write = read_near = stats = _fail
    acquire = renew = release = _fail


class HalfBroken(LLMCache):
    """Raises in what an implementation has to give, and inherits the rest."""

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise ValueError("broken")

    clear = fetch = keep = discard = _fail


@pytest.mark.parametrize("kind", [Broken, HalfBroken])
def test_a_cache_of_ones_own_that_raises(
    server: ProviderServer, kind: type[LLMCache], caplog: pytest.LogCaptureFixture
) -> None:
    """Bugs of a user's own cache cost a line in the log, and no call."""
    client = make_client(server, cache=kind(), stale_ttl=5)
    assert client.complete("Why?").cached is None
    assert client.complete("Why?").text
    with client.stream("Why?") as stream:
        assert "".join(stream.text_stream)
    assert client.race("Why?", [MODEL, OTHER]).text
    assert client.complete("Why?", use_cache="refresh").text
    assert any("broken" in str(each.exc_info) for each in caplog.records)
    server.answer = Answer(status=503)
    with pytest.raises(llmkit.ProviderError):
        client.complete("Why?")


# --- secrets --------------------------------------------------------------------------------------


def test_no_key_gets_into_a_store(
    server: ProviderServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An API key is in no byte of the cache's files, and in no line of the log."""
    caplog.set_level(logging.DEBUG)
    for folder, extra in (
        ("plain", {}),
        ("header", {"extra_headers": {"x-api-key": KEY}}),
        ("body", {"extra_body": {"api_key": KEY}}),
        ("query", {"extra_headers": {"authorization": f"Bearer {KEY}"}}),
    ):
        path = tmp_path / folder / "cache.db"
        client = make_client(server, cache=file_at(path))
        client.complete("Why?", **extra)  # type: ignore[arg-type]
        with client.stream("Why?", model=OTHER, **extra) as stream:  # type: ignore[arg-type]
            list(stream)
        for file in path.parent.glob("*"):
            assert KEY.encode() not in file.read_bytes()
    ours = [each for each in caplog.records if each.name.startswith("llmkit")]
    assert KEY not in repr([(each.getMessage(), each.exc_text) for each in ours])
