from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llmkit
from llmkit.cache import cached
from llmkit.cache.memory import MemoryCache
from llmkit.cache.opening import clear_cache, get_cache
from llmkit.errors import ErrorCode, InvalidRequestError, LLMError
from llmkit.scope import CallInterrupted, Scope, cancel_all

ROOT = Path(llmkit.__file__).parent.parent
LONG = 20.0


@pytest.fixture
def store() -> MemoryCache:
    return MemoryCache()


def counted(store: MemoryCache, **settings: Any) -> tuple[Callable[..., Any], list[Any]]:
    """A cached function that returns its arguments, and the list of its calls."""
    calls: list[Any] = []

    @cached(cache=store, **settings)
    def echo(a: Any, b: Any = 2, *rest: Any, c: Any = 3, **more: Any) -> Any:
        """Says it again."""
        calls.append((a, b, rest, c, more))
        return [a, b, rest, c, more]

    return echo, calls


def test_equal_calls_are_made_once(store: MemoryCache) -> None:
    """However the arguments are given, and with their defaults or without, it is one call."""
    echo, calls = counted(store)
    results = [echo(1), echo(a=1), echo(1, 2), echo(1, b=2), echo(c=3, a=1), echo(1, 2, c=3)]
    assert results == [[1, 2, [], 3, {}]] * 6
    assert len(calls) == 1
    assert echo(1, 2, 5, d={"x": 1, "y": 2}) == echo(1, 2, 5, d={"y": 2, "x": 1})
    assert len(calls) == 2


def test_different_calls_are_all_made(store: MemoryCache) -> None:
    """Arguments that differ in value, kind or place are different questions."""
    echo, calls = counted(store)
    given = [1, 1.0, True, "1", None, [1], {"a": 1}, 0, 0.0, -0.0, False, "", []]
    given += ["\u00e9", "e\u0301"]
    for value in given:
        assert echo(value)[0] == value
    assert len(calls) == len(given)
    echo(1, 5)
    echo(1, c=5)
    echo(1, d=5)
    assert len(calls) == len(given) + 3


def test_each_caller_gets_a_result_of_its_own(store: MemoryCache) -> None:
    """A result that is changed, also the first one, changes nobody else's; tuples become lists."""
    echo, calls = counted(store)
    for _ in range(3):
        result = echo((1, {"x": [2]}))
        assert result == [[1, {"x": [2]}], 2, [], 3, {}]
        result[0][1]["x"].append("changed")
    assert len(calls) == 1


def test_none_is_a_result(store: MemoryCache) -> None:
    """A function that returned None is not called again for that."""
    calls: list[int] = []

    @cached(cache=store)
    def nothing() -> None:
        calls.append(1)

    for _ in range(3):
        nothing()
    assert calls == [1]


def test_exceptions_are_not_kept(store: MemoryCache) -> None:
    """What failed is tried again at the next call, and its error is the function's own."""
    calls: list[int] = []

    @cached(cache=store)
    def fails_once() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise LookupError("not yet")
        return "now"

    with pytest.raises(LookupError, match="not yet"):
        fails_once()
    assert fails_once() == fails_once() == "now"
    assert len(calls) == 2


def test_a_result_lives_for_its_time() -> None:
    """`ttl` is the life in seconds; left out, it is the cache's."""
    now = [1_000_000.0]
    store = MemoryCache(ttl=100, clock=lambda: now[0], rng=lambda: 1.0)
    short, short_calls = counted(store, ttl=10)

    @cached(cache=store)
    def usual() -> float:
        return now[0]

    short(1)
    first = usual()
    now[0] += 11
    short(1)
    assert len(short_calls) == 2
    assert usual() == first
    now[0] += 90
    assert usual() == now[0]


def test_a_key_of_ones_own(store: MemoryCache) -> None:
    """`key` says what tells calls apart, so that other arguments can be of any kind."""
    calls: list[object] = []

    class Shop:
        name = "here"

        @cached(cache=store, key=lambda self, item, **_: [self.name, item.lower()])
        def price(self, item: str, log: object = None) -> int:
            calls.append(log)
            return len(item)

    shop = Shop()
    assert shop.price("Tea", log=object()) == shop.price("TEA", log=object()) == 3
    assert len(calls) == 1
    shop.name = "there"
    shop.price("tea")
    assert len(calls) == 2


def named() -> Callable[..., Any]:
    def function() -> str:
        return "a"

    return function


def test_functions_do_not_share_results(store: MemoryCache) -> None:
    """The function's module and name are part of the key, and so is what a factory put into it."""

    @cached(cache=store)
    def one() -> str:
        return "one"

    @cached(cache=store)
    def two() -> str:
        return "two"

    def make(n: int) -> Callable[[int], int]:
        @cached(cache=store)
        def add(x: int) -> int:
            return x + n

        return add

    assert [one(), two(), one()] == ["one", "two", "one"]
    assert [make(1)(10), make(2)(10), make(1)(10)] == [11, 12, 11]


def test_it_looks_like_the_function(store: MemoryCache) -> None:
    """Name, documentation and the function itself stay within reach."""
    echo, calls = counted(store)
    assert echo.__name__ == "echo"
    assert echo.__doc__ == "Says it again."
    echo.__wrapped__(1)  # type: ignore[attr-defined]
    echo.__wrapped__(1)  # type: ignore[attr-defined]
    assert len(calls) == 2
    with pytest.raises(TypeError, match="'a'"):
        echo()


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        ((object(),), {}, "the argument a is no JSON value"),
        ((1, {1, 2}), {}, "the argument b is no JSON value"),
        ((1, 2, b"x"), {}, "the argument rest is no JSON value"),
        ((1,), {"c": float("nan")}, "the argument c is no JSON value"),
        ((1,), {"d": {5: 1}}, "the argument more is no JSON value"),
    ],
)
def test_arguments_that_are_no_json_are_named(
    store: MemoryCache, arguments: tuple[Any, ...], keywords: dict[str, Any], message: str
) -> None:
    """The error says which argument of which function, and what to do."""
    echo, calls = counted(store)
    with pytest.raises(InvalidRequestError) as caught:
        echo(*arguments, **keywords)
    assert message in str(caught.value)
    assert "echo" in str(caught.value)
    assert "key=" in str(caught.value)
    assert calls == []


def test_arguments_in_a_circle_are_refused(store: MemoryCache) -> None:
    """A list that holds itself ends in an error, not in an endless loop."""
    echo, _ = counted(store)
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(InvalidRequestError, match="the argument a"):
        echo(circle)


def test_a_result_that_is_no_json_is_refused(store: MemoryCache) -> None:
    """It can't be kept, and that is said at the first call, not at the first hit."""

    @cached(cache=store)
    def odd() -> object:
        return object()

    with pytest.raises(InvalidRequestError, match=r"the result of .*odd is no JSON value"):
        odd()

    @cached(cache=store, key=lambda: object())
    def oddly_named() -> int:
        return 1

    with pytest.raises(InvalidRequestError, match=r"what key returned for .*oddly_named"):
        oddly_named()


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: cached(named()),  # type: ignore[arg-type]
        lambda: cached(0),
        lambda: cached(key="a"),  # type: ignore[arg-type]
        lambda: cached(cache={}),  # type: ignore[arg-type]
        lambda: cached()(coroutine),
        lambda: cached()(generator),
        lambda: cached()(5),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_use_is_told_at_once(wrong: Callable[[], object]) -> None:
    """Whatever can't be meant is refused when the function is decorated, not when it is called."""
    with pytest.raises(InvalidRequestError):
        wrong()


def test_concurrent_calls_share_one(store: MemoryCache) -> None:
    """32 threads that ask for the same 10 results at once make 10 calls."""
    calls: list[int] = []
    barrier = threading.Barrier(32)

    @cached(cache=store)
    def slow(n: int) -> list[int]:
        calls.append(n)
        time.sleep(0.01)
        return [n]

    def ask() -> list[list[int]]:
        barrier.wait(LONG)
        return [slow(n) for n in range(10)]

    with ThreadPoolExecutor(32) as pool:
        got = [each.result(LONG) for each in [pool.submit(ask) for _ in range(32)]]
    assert got == [[[n] for n in range(10)]] * 32
    assert sorted(calls) == list(range(10))


def test_a_wait_keeps_to_the_deadline_around_it(store: MemoryCache) -> None:
    """Who waits for another's result obeys its own Scope; outside of any it can be cancelled."""
    begun, go = threading.Event(), threading.Event()

    @cached(cache=store)
    def slow() -> int:
        begun.set()
        assert go.wait(LONG)
        return 1

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(slow)
        assert begun.wait(LONG)
        with Scope(0.05).entered(), pytest.raises(CallInterrupted):
            slow()
        waiter = pool.submit(slow)
        error = None
        limit = time.monotonic() + LONG
        while error is None and time.monotonic() < limit:
            cancel_all("shutting down")
            time.sleep(0.01)
            error = waiter.exception(LONG) if waiter.done() else None
        assert isinstance(error, LLMError)
        assert error.code is ErrorCode.LLM_CANCELLED
        go.set()
        assert leader.result(LONG) == 1


def test_a_function_may_call_itself(store: MemoryCache) -> None:
    """Recursion with other arguments is cached, too."""

    @cached(cache=store)
    def fibonacci(n: int) -> int:
        return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

    assert fibonacci(60) == 1548008755920


def test_the_usual_cache_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `cache` the results are where `get_cache` and `clear_cache` find them."""
    calls: list[int] = []

    @cached()
    def one() -> int:
        calls.append(1)
        return 1

    one()
    one()
    assert len(calls) == 1
    assert get_cache().stats()["entries"] == 1
    clear_cache()
    one()
    assert len(calls) == 2
    monkeypatch.setenv("CACHE_ENABLED", "false")
    monkeypatch.setattr("llmkit.settings._shared", {})
    one()
    one()
    assert len(calls) == 4


SCRIPT = """
import llmkit.cache.functions
from llmkit.cache import cached
@cached()
def where():
    return __file__
print(where())
"""


def test_scripts_do_not_share_results(tmp_path: Path) -> None:
    """Two scripts over one file, each with a function of the same name in its `__main__`."""
    for name in ("one.py", "two.py", "one.py"):
        (tmp_path / name).write_text(SCRIPT)
        done = subprocess.run(
            [sys.executable, str(tmp_path / name)],
            env={"PYTHONPATH": str(ROOT), "LLMKIT_CACHE_URL": f"sqlite:///{tmp_path}/c.db"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(tmp_path / name)
