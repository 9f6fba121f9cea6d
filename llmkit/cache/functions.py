"""`cached`: the cache for the user's own functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from llmkit.cache.base import LLMCache
from llmkit.cache.computation import Computation, NoTextError, Parts, exact_text
from llmkit.cache.entry import decode_value, encode_value
from llmkit.cache.guarded import guarded
from llmkit.cache.keys import canonical_json, digest_of
from llmkit.cache.leases import Answered, answer_once
from llmkit.cache.opening import get_cache
from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.request import check_seconds
from llmkit.scope import CallInterrupted, current_scope
from llmkit.settings import get_settings
from llmkit.types import Completion

__all__ = ["cached"]

P = ParamSpec("P")
T = TypeVar("T")

# Raised whenever a call or its result is written differently.
_FORMAT: Final = 2


def cached(
    ttl: float | None = None,
    *,
    key: Callable[..., Any] | None = None,
    cache: LLMCache | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes a decorator that calls a function once for the same arguments, and keeps its result.

        @cached(ttl=600)
        def summary(path, length=200):
            ...

    Concurrent calls with the same arguments share one, also in other processes if they share the
    cache. Results are JSON: each caller gets a value of its own, and a tuple comes back as a list.
    An exception is not kept. In front of a method, give `key`, since `self` is no JSON value.

    Two calls share a result only if all of this is the same: the function's module and name (in a
    script, its file and name), its code, the values that it closes over, its defaults, and its
    arguments. Arguments are compared as what they are (`1`, `1.0` and `True` differ, so do a tuple
    and a list), but for the order of a dict's names, which counts only in what it closes over.
    Functions that it closes over count by their own code and values. Another version of Python
    finds nothing of what this one has kept.

    Not looked at is what it finds by name in its module (other functions, constants), and what
    changes inside of a list or dict that it closes over: `clear_cache()` when that matters.

    Args:
        ttl: Seconds for which a result is kept; None takes the cache's default.
        key: Gets the call's arguments and returns the JSON value that tells it from others; None:
            the arguments by their names, which then have to be JSON values themselves. With it,
            what the function closes over may be of any kind: what has no exact text (an object, a
            client) is left out, and up to `key`.
        cache: Where results are kept; None takes `get_cache()`, unless CACHE_ENABLED says that
            nothing is cached. One of your own that fails costs no result.

    Returns:
        The decorator; the function itself is its result's `__wrapped__`.

    Raises:
        InvalidRequestError: An argument can't be meant; the decorated thing is no function that
            returns its result (a generator, a coroutine, a class), or closes over something that
            the key can't tell from another. From the decorated function: an argument of the call,
            what `key` returned, or the result is no JSON value.
    """
    if callable(ttl):
        raise InvalidRequestError("cached is to be called: @cached() or @cached(ttl=…)")
    life = check_seconds("ttl", ttl)
    if not (key is None or callable(key)):
        raise InvalidRequestError(f"key={brief(key)}: expected a function of the call's arguments")
    if not (cache is None or isinstance(cache, LLMCache)):
        raise InvalidRequestError(f"cache={brief(cache)}: expected an LLMCache")

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        calls = _Calls(_checked(function), life, key, None if cache is None else guarded(cache))

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return calls(args, kwargs)  # type: ignore[no-any-return]

        return wrapper

    return decorate


def _checked(function: Any) -> Any:
    """Returns a function; raises InvalidRequestError for what can't be meant."""
    if isinstance(function, staticmethod | classmethod):
        raise InvalidRequestError(f"cached: write @cached below @{type(function).__name__}")
    kinds = (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    )
    usual = hasattr(function, "__qualname__") or isinstance(function, functools.partial)
    if (
        not (usual and callable(function))
        or isinstance(function, type)
        or any(each(function) for each in kinds)
    ):
        raise InvalidRequestError(
            f"cached: expected a function that returns its result, got {brief(function)}"
        )
    return function


class _Calls(Parts):
    """The calls of one function."""

    def __init__(
        self,
        function: Callable[..., Any],
        ttl: float | None,
        key: Callable[..., Any] | None,
        cache: LLMCache | None,
    ) -> None:
        self.function = function
        self.ttl = ttl
        self.key = key
        self.cache = cache
        named: Any = function
        while isinstance(named, functools.partial):
            named = named.func
        self.name = f"{named.__module__}.{getattr(named, '__qualname__', brief(named))}"
        try:
            # Its own: what a decorator wraps may have other defaults, and other parameters.
            self.signature = (
                None if key is not None else inspect.signature(function, follow_wrapped=False)
            )
            self._computation = Computation(function, loose=key is not None)
        except (NoTextError, ValueError) as error:
            raise _no_key(self.name, error) from error
        self._key_computation = None if key is None else Computation(key, loose=True)

    def parts(self) -> list[Any]:
        """Returns what makes a cached function what it is, when another one closes over it."""
        return [self.function, self.key]

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        cache = self.cache
        if cache is None:
            if not get_settings().cache_enabled:
                return self.function(*args, **kwargs)
            cache = get_cache()
        key = self.key_of(args, kwargs)
        found = cache.read_near(key)
        if found is not None:
            return found.value

        def ask() -> Answered:
            result = self.function(*args, **kwargs)
            text = _to_json(result, f"the result of {self.name}", _advice_on(result))
            cache.write(key, result, ttl=self.ttl)
            return Answered(text, None)

        try:
            text, _ = answer_once(cache, key, encode_value, ask)
        except CallInterrupted as interrupted:
            if current_scope() is not None:
                raise
            raise interrupted.to_error() from None
        return decode_value(text)

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """Returns the key of a call; raises InvalidRequestError when there is none."""
        try:
            pieces = [f"llmkit call {_FORMAT}", self._computation.text()]
        except NoTextError as error:
            raise _no_key(self.name, error) from error
        if self.key is not None and self._key_computation is not None:
            given = self.key(*args, **kwargs)
            _to_json(given, f"what key returned for {self.name}")
            pieces += ["key", self._key_computation.text(), canonical_json(given)]
        elif self.signature is not None:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            for name, value in bound.arguments.items():
                pieces += [name, *self._argument(name, value)]
        return f"call:{digest_of(pieces)}"

    def _argument(self, name: str, value: Any) -> tuple[str, str]:
        """Returns the text of an argument, and how it is written."""
        what = f"{self.name}: the argument {name}"
        _to_json(value, what, _ADVICE)
        if _is_plain(value):
            return "plain", canonical_json(value)
        try:
            return "exact", exact_text(value, "it")
        except NoTextError as error:
            raise InvalidRequestError(f"{what} is no JSON value ({error}){_ADVICE}") from error


_ADVICE: Final = "; give cached(…) key="


def _no_key(name: str, error: Exception) -> InvalidRequestError:
    return InvalidRequestError(f"cached can't tell {name} from others: {error}{_ADVICE}")


_LEAVES: Final = frozenset({str, int, float, bool, type(None)})


def _is_plain(value: Any) -> bool:
    """Whether JSON writes a value as no other one."""
    todo = [value]
    while todo:
        each = todo.pop()
        kind = type(each)
        if kind is dict:
            if not all(type(name) is str for name in each):
                return False
            todo.extend(each.values())
        elif kind is list:
            todo.extend(each)
        elif kind not in _LEAVES:
            return False
    return True


def _advice_on(result: Any) -> str:
    """Says what to return instead, where that is known; ends what nobody will run."""
    if isinstance(result, Completion):
        return "; return its .text"
    if inspect.iscoroutine(result) or inspect.isgenerator(result):
        result.close()
        return "; cached is for functions that return their result"
    return ""


def _to_json(value: Any, what: str, advice: str = "") -> str:
    """Returns a value's JSON; raises InvalidRequestError, naming the value, if it has none."""
    try:
        return encode_value(value)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"{what} is no JSON value ({error.__cause__}){advice}"
        ) from error.__cause__
