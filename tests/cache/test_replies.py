from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmkit.cache.base import LLMCache
from llmkit.cache.leases import UNKEPT, flights_of
from llmkit.cache.memory import MemoryCache
from llmkit.cache.replies import CacheUse, ReplyCache, may_be_kept, read_cache_use, replay
from llmkit.cache.sqlite_cache import SQLiteCache
from llmkit.cache.two_level import TwoLevelCache
from llmkit.errors import (
    APIConnectionError,
    Attempt,
    InvalidRequestError,
    LLMError,
)
from llmkit.request import Request
from llmkit.types import Chunk, Completion, ToolCall, Usage

LONG = 20.0
USE = CacheUse()
ATTEMPT = Attempt("gpt-6-luna", "openai", None, 200, 0.0, 0.5, "req-1")


def answer(text: str = "An answer.", **facts: Any) -> Completion:
    return Completion(
        **{
            "text": text,
            "model": "gpt-6-luna",
            "provider": "openai",
            "finish_reason": "stop",
            "usage": Usage(10, 20, 5, None, 0),
            "cost": Decimal("0.00123"),
            "attempts": (ATTEMPT,),
            "warnings": ("the vendor says: deprecated",),
            "latency": 0.5,
            "request_id": "req-1",
            "raw": {"id": "x", "choices": [{"text": text}], "n": [1, 1.5, None, True]},
            **facts,
        }
    )


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def memory(clock: Clock) -> MemoryCache:
    return MemoryCache(clock=clock, rng=lambda: 1.0)


@pytest.fixture(params=["memory", "sqlite", "two levels"])
def store(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[LLMCache]:
    far = SQLiteCache(tmp_path / "cache.db", clock=clock, rng=lambda: 1.0)
    stores: dict[str, LLMCache] = {
        "memory": memory(clock),
        "sqlite": far,
        "two levels": TwoLevelCache(memory(clock), far),
    }
    yield stores[request.param]
    far.close()


def never() -> Completion:
    raise AssertionError("the model was asked")


# --- what a hit is -------------------------------------------------------------------------------


def test_a_hit_is_the_answer_for_nothing(store: LLMCache) -> None:
    """A hit has the answer's text, usage, warnings and raw; it cost nothing, and says what else."""
    replies = ReplyCache(store)
    kept = answer()
    assert replies.answer("k", USE, lambda: kept) is kept
    hit = replies.answer("k", USE, never)
    assert hit.cached in ("memory", "sqlite")
    assert (hit.cost, hit.saved_cost) == (Decimal(0), Decimal("0.00123"))
    assert hit.attempts == ()
    assert hit.latency == 0.0
    for name in ("text", "model", "provider", "finish_reason", "usage", "warnings", "request_id"):
        assert getattr(hit, name) == getattr(kept, name)
    assert hit.raw == kept.raw
    assert hit["usage"]["total_tokens"] == 30
    assert kept.cached is None


def test_an_unknown_cost_stays_unknown(store: LLMCache) -> None:
    """What an answer without a known price would have cost is None, never 0."""
    replies = ReplyCache(store)
    replies.answer("k", USE, lambda: answer(cost=None, usage=Usage()))
    hit = replies.answer("k", USE, never)
    assert hit.saved_cost is None
    assert hit.usage == Usage()
    assert hit.cost == 0


def test_every_field_of_a_completion_is_kept_or_decided_on() -> None:
    """A field that is added to Completion can't be forgotten here."""
    kept = {"text", "model", "provider", "finish_reason", "usage", "warnings", "request_id", "raw"}
    of_the_hit = {"cost", "saved_cost", "cached", "attempts", "latency"}
    kept |= {"tool_calls", "content_filter_category"}  # for those who wait for the same answer
    assert kept | of_the_hit == {each.name for each in dataclasses.fields(Completion)}
    assert len(dataclasses.fields(Usage)) == 5


def test_nobody_else_holds_a_hit(store: LLMCache) -> None:
    """Whatever is done to one hit, the next one is as it was."""
    replies = ReplyCache(store)
    replies.answer("k", USE, answer)
    hit = replies.answer("k", USE, never)
    hit.raw["choices"][0]["text"] = "changed"
    hit.raw["more"] = 1
    hit.text = "changed"
    hit.cost = None
    assert replies.answer("k", USE, never).raw == answer().raw
    assert replies.answer("k", USE, never).text == "An answer."


@pytest.mark.parametrize("find", ["near", "find"])
def test_a_hit_behaves_like_any_completion(find: str, clock: Clock) -> None:
    """It compares, copies, pickles, prints and turns into a dict like an answer that was asked."""
    replies = ReplyCache(memory(clock))
    replies.keep("k", answer(), USE)
    hit = getattr(replies, find)("k")
    like = answer(cached="memory", cost=Decimal(0), saved_cost=Decimal("0.00123"))
    like.attempts, like.latency = (), 0.0
    assert hit == like
    assert like == hit
    assert hit != answer()
    assert hit != 5
    assert repr(hit) == repr(like)
    assert hit.to_dict() == like.to_dict()
    assert Completion.from_dict(hit.to_dict()) == like
    for twin in (pickle.loads(pickle.dumps(hit)), copy.copy(hit), copy.deepcopy(hit)):
        assert twin == like
    assert dataclasses.replace(hit, text="b").text == "b"
    assert isinstance(hit, Completion)
    with pytest.raises(TypeError):
        hash(hit)
    hit.raw = {"own": 1}
    assert hit.raw == {"own": 1}


@pytest.mark.parametrize(
    "text",
    ["\ud83d", "\U0001f600\ud83d\ude00", 'Q"\\\n\t\x00\x7f\u2028', "x" * 100_000, "\ufeff", " "],
    ids=["half a pair", "both", "escapes", "long", "mark", "blank"],
)
def test_every_text_comes_back_as_it_was(store: LLMCache, text: str) -> None:
    """Also what JSON escapes, and what has no UTF-8."""
    replies = ReplyCache(store)
    raw = {"text": text, text: [text]}
    replies.answer("k", USE, lambda: answer(text, raw=raw))
    for _ in range(2):
        hit = replies.answer("k", USE, never)
        assert hit.text == text
        assert hit.raw == raw


def test_an_odd_raw_becomes_text_or_is_not_kept(clock: Clock) -> None:
    """An own adapter's answer may hold anything in its `raw`; a call never fails for that."""
    replies = ReplyCache(memory(clock))
    replies.keep("k", answer(raw={"when": Decimal("1.5"), 5: {1}}), USE)
    hit = replies.near("k")
    assert hit is not None
    assert hit.raw == {"when": "1.5", "5": "{1}"}
    endless: dict[str, Any] = {}
    endless["self"] = endless
    odd = answer(raw=endless)
    assert not replies.keep("odd", odd, USE)
    assert replies.answer("odd", USE, lambda: odd) is odd


# --- what is kept --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [
        {"finish_reason": "length"},
        {"finish_reason": "content_filter"},
        {"finish_reason": "tool_calls"},
        {"finish_reason": None},
        {"text": ""},
        {"tool_calls": (ToolCall("1", "f", {}),)},
        {"cached": "memory"},
        {"cached": "stale"},
    ],
    ids=str,
)
def test_what_is_not_whole_is_not_kept(store: LLMCache, facts: dict[str, Any]) -> None:
    """Cut off, filtered, empty answers, those that call tools, and hits are asked for again."""
    replies = ReplyCache(store)
    reply = answer(**facts)
    assert not may_be_kept(reply)
    assert not replies.keep("k", reply, USE)
    assert replies.answer("k", USE, lambda: reply) is reply
    assert replies.near("k") is replies.find("k") is replies.find_stale("k") is None
    second = answer("second")
    assert replies.answer("k", USE, lambda: second) is second


def test_errors_are_not_kept(store: LLMCache) -> None:
    """A failed call leaves nothing behind."""
    replies = ReplyCache(store)

    def fails() -> Completion:
        raise InvalidRequestError("no")

    for _ in range(2):
        with pytest.raises(InvalidRequestError):
            replies.answer("k", USE, fails)
    assert replies.answer("k", USE, answer).cached is None


def test_modes(store: LLMCache) -> None:
    """To "refresh" asks and replaces; "off" neither looks nor keeps; no key is like "off"."""
    replies = ReplyCache(store)
    replies.answer("k", USE, lambda: answer("first"))
    assert replies.answer("k", CacheUse("off"), lambda: answer("second")).text == "second"
    assert replies.answer("k", USE, never).text == "first"
    assert replies.answer("k", CacheUse("refresh"), lambda: answer("third")).text == "third"
    assert replies.answer("k", USE, never).text == "third"
    assert not replies.keep("other", answer(), CacheUse("off"))
    assert replies.answer(None, USE, lambda: answer("fourth")).text == "fourth"
    assert not replies.keep(None, answer(), USE)
    assert replies.near(None) is replies.find(None) is replies.find_stale(None) is None


def test_a_refresh_that_is_not_kept_drops_the_old_answer(store: LLMCache) -> None:
    """Who refreshes says that the old answer is not to be given again, whatever comes instead."""
    replies = ReplyCache(store)
    replies.answer("k", USE, lambda: answer("first"))
    replies.answer("k", CacheUse("refresh"), lambda: answer("cut", finish_reason="length"))
    assert replies.near("k") is replies.find("k") is replies.find_stale("k") is None
    replies.answer("k", USE, lambda: answer("second"))
    replies.keep("k", answer("a hit", cached="memory"), CacheUse("refresh"))
    assert replies.answer("k", USE, never).text == "second"


def test_a_truncated_answer_is_for_who_asks_for_it(store: LLMCache) -> None:
    """It is kept and found, fresh or stale, with `truncated` alone, and flights mind it, too."""
    replies, wanted = ReplyCache(store), CacheUse(truncated=True, stale_ttl=1000)
    cut = answer("cut", finish_reason="length")
    replies.answer("k", wanted, lambda: cut)
    assert replies.near("k") is replies.find("k") is replies.find_stale("k") is None
    for hit in (replies.find("k", use=wanted), replies.find_stale("k", use=wanted)):
        assert hit is not None
        assert (hit.text, hit.finish_reason) == ("cut", "length")
    assert replies.answer("k", wanted, never).text == "cut"
    assert replies.answer("k", USE, lambda: answer("whole")).text == "whole"
    assert replies.answer("k", wanted, never).text == "whole"


def test_an_answer_that_is_not_kept_leaves_what_others_may_use(
    store: LLMCache, clock: Clock
) -> None:
    """A call that takes no truncated or expired answer does not take them from those that do."""
    replies, cut = ReplyCache(store), lambda: answer("cut", finish_reason="length")
    wanted = CacheUse(truncated=True)
    replies.answer("k", wanted, cut)
    replies.answer("old", CacheUse(ttl=10, stale_ttl=1000), answer)
    replies.answer("k", USE, cut)
    assert replies.find("k", use=wanted) is not None
    clock.now += 11
    replies.answer("old", USE, cut)
    assert replies.find_stale("old") is not None


def test_time_to_live_and_stale_time(store: LLMCache, clock: Clock) -> None:
    """An answer is given for its time, then only when everything fails, then not at all."""
    replies = ReplyCache(store)
    replies.answer("k", CacheUse("use", ttl=100, stale_ttl=50), answer)
    clock.now += 99
    found = replies.find_stale("k")
    assert found is not None
    assert found.cached in ("memory", "sqlite")  # not stale yet
    clock.now += 2
    assert replies.near("k") is replies.find("k") is None
    stale = replies.find_stale("k")
    assert stale is not None
    assert (stale.cached, stale.text, stale.saved_cost) == ("stale", "An answer.", answer().cost)
    clock.now += 50
    assert replies.find_stale("k") is None


def test_a_stale_answer_is_no_hit(store: LLMCache, clock: Clock) -> None:
    """An expired answer is asked for again, and the new one replaces it."""
    replies = ReplyCache(store)
    use = CacheUse("use", ttl=100, stale_ttl=1000)
    replies.answer("k", use, answer)
    clock.now += 101
    assert replies.answer("k", use, lambda: answer("new")).text == "new"
    assert replies.answer("k", use, never).text == "new"


def test_an_answer_that_is_not_kept_spares_the_stale_one(store: LLMCache, clock: Clock) -> None:
    """A cut-off answer does not take away what may still help when every model fails."""
    replies = ReplyCache(store)
    use = CacheUse("use", ttl=100, stale_ttl=1000)
    replies.answer("k", use, answer)
    clock.now += 101
    replies.answer("k", use, lambda: answer("cut", finish_reason="length"))
    stale = replies.find_stale("k")
    assert stale is not None
    assert stale.text == "An answer."


@pytest.mark.parametrize(
    "value",
    [
        None,
        5,
        "text",
        UNKEPT,
        [],
        {},
        {"text": "x", "model": "m", "provider": "p"},
        ["llmkit reply"],
        ["llmkit reply", 1, [], "text", "{}"],
        ["llmkit reply", 1, ["m", "p", "stop", [1, 2, 3, 4, 5], None, [], None, [], None], 5, "{}"],
        ["llmkit reply", 1, ["m", 5, "stop", [1, 2, 3, 4, 5], None, [], None, [], None], "t", "{}"],
        [
            "llmkit reply",
            1,
            ["m", "p", "stop", ["1", 2, 3, 4, 5], None, [], None, [], None],
            "t",
            "{}",
        ],
        ["llmkit reply", 1, ["m", "p", "stop", [1, 2], "x", [], None, [], None], "t", "{}"],
        ["llmkit reply", 1, ["m", "p", "stop", [1, 2, 3, 4, 5], None, [], None, []], "t", "{}"],
        [
            "llmkit reply",
            2,
            ["m", "p", "stop", [1, 2, 3, 4, 5], None, [], None, [], None],
            "t",
            "{}",
        ],
        ["other reply", 1, ["m", "p", "stop", [1, 2, 3, 4, 5], None, [], None, []], "t", "{}"],
    ],
    ids=lambda value: json.dumps(value)[:60],
)
def test_what_cannot_be_read_is_a_miss(store: LLMCache, value: Any) -> None:
    """A foreign, old or damaged value is asked for again and replaced, without an error."""
    replies = ReplyCache(store)
    store.set("k", value)
    assert replies.near("k") is None
    assert replies.find("k") is None
    assert replies.find_stale("k") is None
    assert replies.answer("k", USE, answer).cached is None
    assert replies.answer("k", USE, never).cached is not None


def test_a_damaged_raw_is_empty(clock: Clock) -> None:
    """What nobody looks at is not read; when somebody does, there is no error."""
    store = memory(clock)
    for raw in ("{", "5", "[1]"):
        head = ["m", "p", "stop", [1] * 5, None, [], None, [], None]
        store.set("k", ["llmkit reply", 1, head, "t", raw])
        for hit in (ReplyCache(store).near("k"), ReplyCache(store).find("k")):
            assert hit is not None
            assert hit.raw == {}


# --- concurrent calls ----------------------------------------------------------------------------


class Slow:
    """A model that answers slowly, and counts how often it is asked."""

    def __init__(self, delay: float = 0.02, **facts: Any) -> None:
        self.delay = delay
        self.facts = facts
        self.lock = threading.Lock()
        self.asked: list[str] = []

    def __call__(self, question: str) -> Completion:
        with self.lock:
            self.asked.append(question)
        time.sleep(self.delay)
        return answer(f"To {question}", **self.facts)


def ask_all(replies: list[ReplyCache], model: Slow, threads: int, questions: int) -> list[Any]:
    """Lets many threads ask the same questions at once; returns all answers."""
    barrier = threading.Barrier(threads)
    got: list[Any] = []

    def run(number: int) -> None:
        cache = replies[number % len(replies)]
        barrier.wait(LONG)
        for n in range(questions):
            try:
                reply = cache.answer(f"q{n}", USE, lambda n=n: model(f"q{n}"))  # type: ignore[misc]
            except LLMError as error:
                got.append(error)
                continue
            assert reply.text == f"To q{n}"
            got.append(reply)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    return got


def test_64_threads_over_100_questions_make_100_calls(clock: Clock) -> None:
    """However many ask at once, each question is paid for once."""
    model = Slow(0.005)
    store = memory(clock)
    got = ask_all([ReplyCache(store), ReplyCache(store)], model, 64, 100)  # as two clients do
    assert sorted(model.asked) == sorted(f"q{n}" for n in range(100))
    assert len(got) == 6400
    paid = [reply for reply in got if reply.cached is None]
    assert len(paid) == 100
    assert {reply.cached for reply in got} == {None, "memory"}
    assert sum(reply.cost for reply in got) == 100 * Decimal("0.00123")


def test_two_caches_over_one_file_make_one_call(tmp_path: Path) -> None:
    """As two processes do: of those that share a store one asks."""
    stores = [
        TwoLevelCache(MemoryCache(), SQLiteCache(tmp_path / "cache.db", "n")) for _ in range(2)
    ]
    model = Slow(0.1)
    got = ask_all([ReplyCache(store) for store in stores], model, 8, 5)
    assert sorted(model.asked) == [f"q{n}" for n in range(5)]
    assert {reply.cached for reply in got} <= {None, "memory", "sqlite"}
    for store in stores:
        store.close()


def test_those_who_wait_get_own_copies(pool: ThreadPoolExecutor, clock: Clock) -> None:
    """Nobody's changes reach another, also not those to an answer that is not kept."""
    replies = ReplyCache(memory(clock))
    begun, go = threading.Event(), threading.Event()
    calls = ToolCall("1", "f", {"a": [1]})

    def fresh() -> Completion:
        begun.set()
        assert go.wait(LONG)
        return answer(tool_calls=(calls,), finish_reason="tool_calls")

    asked = [pool.submit(replies.answer, "k", USE, fresh)]
    assert begun.wait(LONG)
    asked += [pool.submit(replies.answer, "k", USE, never) for _ in range(4)]
    while len(flights_of(replies.store)._flights.get()["k"].waiters) < 4:
        time.sleep(0.001)
    go.set()
    got = [each.result(LONG) for each in asked]
    assert [reply.cached for reply in got] == [None, *["memory"] * 4]
    assert [reply.cost for reply in got] == [Decimal("0.00123"), *[Decimal(0)] * 4]
    for reply in got:
        assert reply.tool_calls == (ToolCall("1", "f", {"a": [1]}),)
        reply.tool_calls[0].arguments["a"].append(2)
        assert reply.raw == answer().raw
        reply.raw.clear()


def test_those_who_wait_are_told_why_an_answer_was_filtered(
    pool: ThreadPoolExecutor, clock: Clock
) -> None:
    """A filtered answer is not kept, but all who wait for it are told the vendor's word."""
    replies = ReplyCache(memory(clock))
    begun, go = threading.Event(), threading.Event()

    def fresh() -> Completion:
        begun.set()
        assert go.wait(LONG)
        return answer(finish_reason="content_filter", content_filter_category="violence")

    asked = [pool.submit(replies.answer, "k", USE, fresh)]
    assert begun.wait(LONG)
    asked.append(pool.submit(replies.answer, "k", USE, never))
    while not flights_of(replies.store)._flights.get()["k"].waiters:
        time.sleep(0.001)
    go.set()
    got = [each.result(LONG) for each in asked]
    assert [reply.content_filter_category for reply in got] == ["violence"] * 2
    assert replies.find("k") is None


def test_a_failing_provider_is_not_hidden(clock: Clock) -> None:
    """When every call fails, everybody gets an error of its own, and none waits for long."""
    replies = ReplyCache(memory(clock))
    barrier = threading.Barrier(8)
    asked: list[int] = []

    def fails() -> Completion:
        asked.append(1)
        time.sleep(0.02)
        raise APIConnectionError("gone")

    def run() -> LLMError:
        barrier.wait(LONG)
        with pytest.raises(APIConnectionError) as caught:
            replies.answer("k", USE, fails)
        return caught.value

    with ThreadPoolExecutor(8) as pool:
        errors = [each.result(LONG) for each in [pool.submit(run) for _ in range(8)]]
    assert len({id(error) for error in errors}) == 8
    assert len(asked) == 8


# --- keys, streams, arguments --------------------------------------------------------------------


def test_the_namespace_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMKIT_CACHE_NAMESPACE sets an application's keys apart; an argument goes before it."""
    place = {"provider": "openai", "address": "a"}
    request = Request.build("m", "Hi")
    usual = ReplyCache(MemoryCache()).key_of(request, **place)
    assert usual == ReplyCache(MemoryCache(), "llmkit").key_of(request, **place)
    monkeypatch.setenv("LLMKIT_CACHE_NAMESPACE", "other")
    monkeypatch.setattr("llmkit.settings._shared", {})
    other = ReplyCache(MemoryCache()).key_of(request, **place)
    assert other == ReplyCache(MemoryCache(), "other").key_of(request, **place) != usual


@pytest.mark.parametrize("length", [0, 1, 79, 80, 81, 640, 641, 5000])
def test_a_hit_replays_as_a_stream(length: int) -> None:
    """The chunks, none of them empty, are the text; at their end stands the answer itself."""
    reply = answer("ab\u00e9" * (length // 3) + "x" * (length % 3))
    ended = []

    def read_all() -> Iterator[Chunk]:
        ended.append((yield from replay(reply)))

    chunks = list(read_all())
    assert ended[0] is reply
    assert all(isinstance(chunk, Chunk) and chunk.text for chunk in chunks)
    assert "".join(chunk.text for chunk in chunks) == reply.text
    assert len(chunks) <= 8


@pytest.mark.parametrize(
    ("arguments", "use"),
    [
        ((), CacheUse("use")),
        ((True,), CacheUse("use")),
        ((False,), CacheUse("off")),
        (("refresh",), CacheUse("refresh")),
        ((True, 60), CacheUse("use", 60.0)),
        (("refresh", 0.5, 10), CacheUse("refresh", 0.5, 10.0)),
        ((True, None, 0), CacheUse("use")),
        ((False, 60), CacheUse("off", 60.0)),
    ],
)
def test_reading_what_a_user_typed(arguments: tuple[Any, ...], use: CacheUse) -> None:
    """True, False and "refresh", with a time to live in seconds."""
    assert read_cache_use(*arguments) == use


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("yes",), "use_cache='yes': expected True, False or 'refresh'"),
        ((1,), "use_cache=1"),
        ((None,), "use_cache=None"),
        (([],), "use_cache="),
        ((True, 0), "cache_ttl=0"),
        ((True, -1), "cache_ttl=-1"),
        ((True, True), "cache_ttl=True"),
        ((True, "60"), "cache_ttl='60'"),
        ((True, float("nan")), "cache_ttl=nan"),
        ((True, None, -1), "stale_ttl=-1"),
        ((True, None, "x"), "stale_ttl='x'"),
        ((True, None, False), "stale_ttl=False"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    """A misunderstanding is told in plain words, before any call."""
    with pytest.raises(InvalidRequestError) as caught:
        read_cache_use(*arguments)
    assert message in str(caught.value)


def test_a_hit_counts_as_one(store: LLMCache) -> None:
    """The statistics count questions: a miss for the first, a hit for each further one."""
    replies = ReplyCache(store)
    for _ in range(4):
        replies.answer("k", USE, answer)
    stats = store.stats()
    assert (stats["hits"], stats["misses"]) == (3, 1)


class Sealed(MemoryCache):
    """A user's own cache, which keeps values in a form of its own."""

    def write(self, key: str, value: Any, **how: Any) -> bool:
        return super().write(key, {"sealed": value}, **how)

    def read(self, key: str, **how: Any) -> Any:
        found = super().read(key, **how)
        return found and dataclasses.replace(found, value=found.value["sealed"])

    read_near = LLMCache.read_near


def test_an_own_caches_write_is_not_passed_by() -> None:
    """A cache that seals what it writes and opens what it reads never keeps an answer unsealed."""
    store = Sealed()
    cache = ReplyCache(store, "n")
    assert cache.answer("k", USE, answer).cached is None
    assert cache.answer("k", USE, answer).cached == "memory"
    entry = store.fetch("k")
    assert entry is not None
    assert entry.text.startswith('{"sealed":')
