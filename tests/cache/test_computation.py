"""What makes up the key of a function's call: nothing that differs may be left out of it."""

from __future__ import annotations

import enum
import functools
import inspect
import itertools
import logging
import math
import os
import subprocess
import sys
import threading
import types
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import llmkit
from llmkit.cache import LLMCache, cached
from llmkit.cache.allowance import Allowance
from llmkit.cache.base import Found
from llmkit.cache.computation import Computation
from llmkit.cache.entry import Entry
from llmkit.cache.memory import MemoryCache
from llmkit.errors import InvalidRequestError
from llmkit.types import Completion
from tests.case_names import case_name

ROOT = Path(llmkit.__file__).parent.parent


@pytest.fixture
def store() -> MemoryCache:
    return MemoryCache()


def text_of(function: Callable[..., Any]) -> str:
    return Computation(function, loose=False).text()


def test_a_decorators_own_parameters_count(store: MemoryCache) -> None:
    """Arguments are those of the decorated function, not of the one that a decorator wraps."""

    def inner(a: int, b: int = 1) -> int:
        return a + b

    @cached(cache=store)
    @functools.wraps(inner)
    def outer(a: int, b: int = 2, *, more: int = 0) -> int:
        return inner(a, b) + more

    assert [outer(5), outer(5, 1), outer(5, more=10)] == [7, 6, 17]


def test_attributes_of_functions_count(store: MemoryCache) -> None:
    """What a function that is closed over carries as an attribute is part of the computation."""

    def make(number: int) -> Any:
        @cached(cache=store)
        def by_itself() -> Any:
            return by_itself.number  # type: ignore[attr-defined]

        by_itself.number = number  # type: ignore[attr-defined]
        return by_itself

    def make_early(number: int) -> Any:
        def helper() -> Any:
            return helper.number  # type: ignore[attr-defined]

        helper.number = number  # type: ignore[attr-defined]
        return cached(cache=store)(lambda: helper())

    assert [make_early(1)(), make_early(2)()] == [1, 2]
    assert [make(1)(), make(2)()] == [1, 2]


# --- functions -----------------------------------------------------------------------------------


def test_lambdas_do_not_share(store: MemoryCache) -> None:
    """Functions of one name in one module are told apart by their code, wherever it differs."""
    keep = cached(cache=store)
    functions = [
        *(keep(lambda x: x + 1), keep(lambda x: x + 2), keep(lambda x: x - 1)),
        *(keep(lambda x: [x]), keep(lambda x: x + 1.0), keep(lambda x: -x)),
        *(keep(lambda x: f"{x}a"), keep(lambda x: (lambda y: y + 3)(x))),
        *(keep(lambda x: x in {1, 2, "a"}), keep(lambda x: x in {1, 2, "b"})),
        *(keep(lambda x: str(x)), keep(lambda x: repr(x) * 2)),
    ]
    expected = [2, 3, 0, [1], 2.0, -1, "1a", 4, True, True, "1", "11"]
    assert [each(1) for each in functions] == expected
    assert [each(1) for each in functions] == expected
    assert store.stats()["entries"] == len(functions)


def test_the_same_code_twice_is_the_same(store: MemoryCache) -> None:
    """Where in a file a function stands changes nothing in what it computes."""
    one = cached(cache=store)(lambda x: x + 1)
    two = cached(cache=store)(lambda x: x + 1)
    assert one(1) == two(1) == 2
    assert store.stats()["entries"] == 1


class Color(enum.Enum):
    RED = 1
    BLUE = 2


def add(x: int) -> int:
    return x + 1


def subtract(x: int) -> int:
    return x - 1


def adder(n: int) -> Callable[[int], int]:
    return lambda x: x + n


@cached(cache=MemoryCache())
def add_cached(x: int) -> int:
    return x + 1


@functools.lru_cache
def add_remembered(x: int) -> int:
    return x + 1


CAPTURED: list[Any] = [
    *(None, True, False, 1, 1.0, 0.0, -0.0, "1", b"1", 1j, ..., math.nan),
    *([], [1], [[1]], (), (1,), {}, {"a": 1}, {"a": [1]}, {"b": 1}, {1: 1}, set(), {1}),
    *(frozenset(), frozenset({1}), range(3), slice(3), types.MappingProxyType({}), bytearray(b"1")),
    *(add, subtract, adder(1), adder(2), adder([1]), lambda x: x),  # type: ignore[arg-type]
    *(functools.partial(add, 1), functools.partial(add, 2), functools.partial(add, x=2)),
    *(len, abs, math.sqrt, "a".join, "b".join, [1].index, dict.fromkeys, math, os, int, Decimal),
    *(Color.RED, Color.BLUE, add_cached, add_remembered, threading.Lock(), threading.Event()),
    *(logging.getLogger("one"), logging.getLogger("two"), inspect.signature),
]


def test_what_a_function_closes_over_tells_it_from_others() -> None:
    """Every two values that differ, in value or in kind, make two functions."""

    def make(value: object) -> Callable[[], object]:
        return lambda: value

    texts = [text_of(make(value)) for value in CAPTURED]
    assert texts == [text_of(make(value)) for value in CAPTURED]
    for (i, one), (j, two) in itertools.combinations(enumerate(texts), 2):
        assert one != two, (CAPTURED[i], CAPTURED[j])


def local_class() -> type:
    class Local:
        pass

    return Local


ENDLESS: list[Any] = []
for _ in range(100):
    ENDLESS = [ENDLESS]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        Decimal(1),
        local_class(),
        local_class()(),
        MemoryCache(),
        iter([1]),
        [{"a": object()}],
        ENDLESS,
        functools.partial(add, object()),  # type: ignore[arg-type]
        adder(object()),  # type: ignore[arg-type]
    ],
    ids=case_name,
)
def test_what_cannot_be_told_apart_is_refused(store: MemoryCache, value: object) -> None:
    """The error names the variable and says what to do; with `key` it is left to the user."""

    def make(**settings: Any) -> Callable[[int], int]:
        @cached(cache=store, **settings)
        def one(x: int) -> int:
            return x if value else 0

        return one

    with pytest.raises(InvalidRequestError, match=r"one from others.*; give cached\(…\) key="):
        make()
    assert make(key=lambda x: x)(3) == 3


def test_with_a_key_what_can_be_told_apart_still_is(store: MemoryCache) -> None:
    """Functions with different values, defaults or keys don't share, though all have a `key`."""
    odd = object()

    def make(n: int, key: Callable[..., Any], start: int = 0) -> Callable[..., int]:
        def scaled(x: int, y: int = start) -> int:
            return (x + 10 * y) * n if odd else 0

        return cached(cache=store, key=key)(scaled)

    def by_first(x: int, y: int = 0) -> int:
        return x

    def by_second(x: int, y: int = 0) -> int:
        return y

    assert make(1, by_first)(1, 1) == 11
    assert make(2, by_first)(1, 1) == 22
    assert make(1, by_second)(2, 1) == 12
    assert make(1, by_first, start=5)(1) == 51
    assert make(1, by_first)(1, 1) == 11


def test_a_variable_that_is_bound_anew_counts(store: MemoryCache) -> None:
    """Functions made in a loop share its variable, and mean its value at the time of the call."""
    made: list[Callable[[str], str]] = []
    language = ""
    for language in ("de", "fr"):

        @cached(cache=store)
        def translate(text: str) -> str:
            return f"{language}: {text}"  # noqa: B023 - that is what this is about

        assert translate("a") == f"{language}: a"
        made.append(translate)
    assert [each("a") for each in made] == ["fr: a", "fr: a"]
    language = "it"
    assert [each("a") for each in made] == ["it: a", "it: a"]


def test_a_variable_that_gets_its_value_later_counts(store: MemoryCache) -> None:
    """What isn't there yet when the function is decorated is looked at when it is called."""

    def make(value: int) -> Callable[[], int]:
        @cached(cache=store)
        def one() -> int:
            return later()

        def later() -> int:
            return number

        number = value
        return one

    assert [make(1)(), make(2)(), make(1)()] == [1, 2, 1]


def test_its_own_notes_do_not_count(store: MemoryCache) -> None:
    """A function that counts its calls in its surroundings is called once all the same."""
    count = 0
    calls: list[int] = []

    @cached(cache=store)
    def one(x: int) -> int:
        nonlocal count
        count += 1
        calls.append(x)
        return x

    assert [one(1), one(1), one(2), one(2)] == [1, 1, 2, 2]
    assert (count, calls) == (2, [1, 2])


def test_functions_that_hold_each_other_end(store: MemoryCache) -> None:
    """Mutual recursion is written once, and tells different ones apart."""

    def make(step: int) -> Callable[[int], bool]:
        def even(n: int) -> bool:
            return True if n == 0 else odd(n - step)

        def odd(n: int) -> bool:
            return False if n == 0 else even(n - step)

        return cached(cache=store)(even)

    assert make(1)(2)
    assert not make(2)(2)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=5,
)


def same(one: Any, two: Any, in_order: bool) -> bool:
    """Whether two values are the same for every function, with or without the order of names."""
    if type(one) is not type(two):
        return False
    if isinstance(one, dict):
        if one.keys() != two.keys() or (in_order and [*one] != [*two]):
            return False
        return all(same(one[name], two[name], in_order) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(
            same(*each, in_order) for each in zip(one, two, strict=True)
        )
    return repr(one) == repr(two)


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES, st.sampled_from(["closure", "default", "constant", "argument", "inner"]))
def test_two_computations_never_share(one: Any, two: Any, place: str) -> None:
    """Wherever a value stands, functions or calls share a result only if it is the same."""

    def make(value: Any) -> Callable[..., Any]:
        def inner() -> Any:
            return value

        def by_default(x: Any = value) -> Any:
            return [repr(x)]

        if place == "default":
            return by_default
        if place == "constant":
            return eval(f"lambda: repr({value!r})", {"__name__": "m"})  # type: ignore[no-any-return]
        return (lambda: repr(value)) if place == "closure" else (lambda: [inner()])

    store = MemoryCache()
    calls: list[Any] = []

    def call(value: Any) -> None:
        if place == "argument":
            cached(cache=store)(repr_of)(value)
        else:
            cached(cache=store, key=lambda: None)(make(value))()

    for value in (one, two):
        call(value)
        calls.append(store.stats()["entries"])
    if same(one, two, in_order=place != "argument"):
        assert calls == [1, 1]
    else:
        assert calls == [1, 2]


def test_the_order_of_a_captured_dict_counts() -> None:
    """What a function closes over it may go through in order; of arguments, only names count."""
    store = MemoryCache()

    def make(table: dict[str, int]) -> Callable[[], list[str]]:
        return cached(cache=store)(lambda: list(table))

    assert make({"a": 1, "b": 2})() == ["a", "b"]
    assert make({"b": 2, "a": 1})() == ["b", "a"]
    listed = cached(cache=store)(repr_of)
    assert listed({"a": 1, "b": 2}) == listed({"b": 2, "a": 1})


def test_global_names_from_elsewhere_are_refused() -> None:
    """Two functions of one code that find other things by a name are not to be told apart."""
    code = eval("lambda: number").__code__
    for number in (1, 2):
        function = types.FunctionType(code, {"__name__": __name__, "number": number}, "same")
        with pytest.raises(InvalidRequestError, match=r"elsewhere than a module.*key="):
            cached(cache=MemoryCache())(function)
        assert cached(cache=MemoryCache(), key=lambda: None)(function)() == number


def test_a_generator_itself_is_refused() -> None:
    """It is no function; nor is anything else that can't be called."""
    wrong: Any
    for wrong in (iter([]), (each for each in [1]), 5, None):
        with pytest.raises(InvalidRequestError, match="expected a function"):
            cached()(wrong)


def repr_of(value: Any) -> str:
    return repr(value)


SCRIPT = """
import sys
from llmkit.cache.computation import Computation
def make(*held):
    def outer(x, *, y={"a": 1}):
        try:
            return [held, x in {"a", "b", "c", 1, 2.5, None}, inner(x), y]
        except KeyError:
            return lambda: held
    def inner(x): return x
    return outer
print(Computation(make({"x", "y", "z"}, {"k": [1, (2,)]}, sys, len), loose=False).text())
"""


def test_the_text_is_the_same_in_every_process() -> None:
    """The hash seed, which orders sets, and a debugger's trace change nothing."""
    texts = set()
    for seed, first in (("1", ""), ("2", ""), ("3", "import sys; sys.settrace(lambda *_: None)\n")):
        done = subprocess.run(
            [sys.executable, "-c", first + SCRIPT],
            env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        texts.add(done.stdout)
    assert len(texts) == 1


# --- what may be decorated -----------------------------------------------------------------------


def test_partials_share_with_nobody_but_their_like(store: MemoryCache) -> None:
    """A partial is its function and what it was given."""
    keep = cached(cache=store)
    one, two, again = (keep(functools.partial(pow, n)) for n in (1, 2, 1))
    add_one = keep(functools.partial(add))
    assert [one(2), two(2), again(2), add_one(2)] == [1, 4, 1, 3]
    assert store.stats()["entries"] == 3


def test_a_wrapped_function_counts_with_its_wrapper(store: MemoryCache) -> None:
    """A decorator below this one is part of the computation, and so is what it wraps."""

    def times(n: int) -> Callable[[Callable[[int], int]], Callable[[int], int]]:
        def decorate(function: Callable[[int], int]) -> Callable[[int], int]:
            @functools.wraps(function)
            def wrapper(x: int) -> int:
                return n * function(x)

            return wrapper

        return decorate

    functions = [times(n)(function) for n in (2, 3) for function in (add, subtract)]
    assert [cached(cache=store)(each)(5) for each in functions] == [12, 8, 18, 12]
    assert [cached(cache=store)(each)(5) for each in functions] == [12, 8, 18, 12]


def test_methods_need_a_key(store: MemoryCache) -> None:
    """`self` is no JSON value, neither as an argument nor in a bound method."""

    class Shop:
        @cached(cache=store)
        def price(self, item: str) -> int:
            return len(item)

        def size(self) -> int:
            return 1

    with pytest.raises(InvalidRequestError, match=r"the argument self .*; give cached"):
        Shop().price("tea")
    with pytest.raises(InvalidRequestError, match="give cached"):
        cached(cache=store)(Shop().size)
    assert cached(cache=store, key=lambda: 1)(Shop().size)() == 1
    assert cached(cache=store)(Decimal.from_float.__class__.__name__.upper)() == (
        "BUILTIN_FUNCTION_OR_METHOD"
    )


class Named:
    @classmethod
    def of_class(cls) -> int:
        return 1

    @staticmethod
    def static() -> int:
        return 1


async def coroutine() -> int:
    return 1


async def async_generator() -> Any:
    yield 1


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    "wrong",
    [
        *(coroutine, async_generator, generator, functools.partial(coroutine)),
        *(
            Named,
            Named(),
            vars(Named)["static"],
            vars(Named)["of_class"],
            5,
            functools.partial(generator),
        ),
    ],
    ids=case_name,
)
def test_what_returns_no_result_is_refused_at_once(wrong: Any) -> None:
    """Coroutines, generators, classes, objects and descriptors are no functions with a result."""
    for key in (None, lambda *_: 1):
        with pytest.raises(InvalidRequestError, match="cached: "):
            cached(key=key)(wrong)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda: Completion("a", "m", "p", "stop"), r"; return its \.text"),
        (lambda: coroutine(), "; cached is for functions that return their result"),
        (lambda: generator(), "; cached is for functions that return their result"),
        (lambda: {1: 2}, "is no JSON value"),
        (lambda: [1, {"a": object()}], "is no JSON value"),
        (lambda: math.nan, "is no JSON value"),
    ],
)
def test_nothing_of_a_result_that_is_no_json_is_stored(
    store: MemoryCache, result: Callable[[], Any], message: str
) -> None:
    """Each call says so, for there is no half of a result to be found by the next one."""
    one = cached(cache=store)(result)
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match=message):
            one()
    assert store.stats()["entries"] == 0


def test_arguments_that_json_would_make_alike_are_told_apart(store: MemoryCache) -> None:
    """A tuple is no list, and a member of an enumeration no text; one of no name is refused."""

    class Local(enum.StrEnum):
        A = "a"

    kind = cached(cache=store)(lambda x: type(x).__name__)
    given: list[Any] = [[1], (1,), [[1]], [(1,)], "a", Word.A, 1, Number.ONE]
    expected = ["list", "tuple", "list", "list", "str", "Word", "int", "Number"]
    assert [kind(each) for each in given] == expected
    assert store.stats()["entries"] == len(given)
    with pytest.raises(InvalidRequestError, match=r"the argument x .*Local.*give cached"):
        kind(Local.A)


class Word(enum.StrEnum):
    A = "a"


class Number(enum.IntEnum):
    ONE = 1


# --- a cache of one's own ------------------------------------------------------------------------


class Broken(LLMCache):
    """Fails in whatever way it is told to."""

    def __init__(self, do: Callable[[], Any], shared: bool) -> None:
        super().__init__()
        self.do = do
        self.shared = shared

    def read(
        self, key: str, *, stale: bool = False, allowance: Allowance | None = None
    ) -> Found | None:
        return self.do()  # type: ignore[no-any-return]

    def read_near(self, key: str) -> Found | None:
        return self.do()  # type: ignore[no-any-return]

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        return self.do()  # type: ignore[no-any-return]

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        return self.do()  # type: ignore[no-any-return]

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        return self.do()  # type: ignore[no-any-return]

    def clear(self) -> bool:
        return False

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Any:
        return self.do()

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        return self.do()  # type: ignore[no-any-return]


def fail() -> None:
    raise RuntimeError("a bug")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(
    "do", [fail, lambda: "odd", lambda: Found(object(), "memory", 1e12, False), lambda: None]
)
def test_a_cache_that_fails_costs_no_result(
    do: Callable[[], Any], shared: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever one's own cache raises or returns, the function's result comes; the log says why."""
    one = cached(cache=Broken(do, shared))(lambda x: [x])
    with caplog.at_level(logging.ERROR, "llmkit"):
        assert [one(1), one(1), one(2)] == [[1], [1], [2]]
    assert ("Broken.read_near" in caplog.text) == (do is fail or do() is not None)
