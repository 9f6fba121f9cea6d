"""`cached`: the cache for the user's own functions."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar

from llmkit.cache.base import LLMCache
from llmkit.cache.entry import decode_value, encode_value
from llmkit.cache.keys import canonical_json, digest_of
from llmkit.cache.leases import Answered, answer_once
from llmkit.cache.opening import get_cache
from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.request import check_seconds
from llmkit.scope import CallInterrupted, current_scope
from llmkit.settings import get_settings

__all__ = ["cached"]

P = ParamSpec("P")
T = TypeVar("T")

# Raised whenever a call or its result is written differently.
_FORMAT: Final = 1


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

    What is kept belongs to the function's module and name (in a script, to its file and name), not
    to its code: `clear_cache()` after a change of what the function returns.

    Args:
        ttl: Seconds for which a result is kept; None takes the cache's default.
        key: Gets the call's arguments and returns the JSON value that tells it from others; None:
            the arguments by their names, which then have to be JSON values themselves.
        cache: Where results are kept; None takes `get_cache()`, unless CACHE_ENABLED says that
            nothing is cached.

    Returns:
        The decorator; the function itself is its result's `__wrapped__`.

    Raises:
        InvalidRequestError: An argument can't be meant. From the decorated function: an argument of
            the call, what `key` returned, or the result is no JSON value.
    """
    if callable(ttl):
        raise InvalidRequestError("cached is to be called: @cached() or @cached(ttl=…)")
    life = check_seconds("ttl", ttl)
    if not (key is None or callable(key)):
        raise InvalidRequestError(f"key={brief(key)}: expected a function of the call's arguments")
    if not (cache is None or isinstance(cache, LLMCache)):
        raise InvalidRequestError(f"cache={brief(cache)}: expected an LLMCache")

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        kinds = (
            inspect.iscoroutinefunction,
            inspect.isgeneratorfunction,
            inspect.isasyncgenfunction,
        )
        if not hasattr(function, "__qualname__") or any(each(function) for each in kinds):
            raise InvalidRequestError(
                f"cached: expected a function that returns its result, got {brief(function)}"
            )
        calls = _Calls(function, life, key, cache)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return calls(args, kwargs)  # type: ignore[no-any-return]

        return wrapper

    return decorate


class _Calls:
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
        self.name = f"{function.__module__}.{function.__qualname__}"
        self.place = [f"llmkit call {_FORMAT}", _home_of(function), function.__qualname__]
        self.place.append(_made_with(function))
        self.signature = None if key is not None else inspect.signature(function)

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
            text = _to_json(result, f"the result of {self.name}")
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
        given: Any
        if self.key is not None:
            given = self.key(*args, **kwargs)
            _to_json(given, f"what key returned for {self.name}")
        elif self.signature is not None:
            bound = self.signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = bound.arguments
            for name, value in given.items():
                _to_json(value, f"{self.name}: the argument {name}", "; give cached(…) key=")
        return f"call:{digest_of([*self.place, canonical_json(given)])}"


def _to_json(value: Any, what: str, advice: str = "") -> str:
    """Returns a value's JSON; raises InvalidRequestError, naming the value, if it has none."""
    try:
        return encode_value(value)
    except InvalidRequestError as error:
        raise InvalidRequestError(
            f"{what} is no JSON value ({error.__cause__}){advice}"
        ) from error.__cause__


def _home_of(function: Callable[..., Any]) -> str:
    """Returns a function's module; for a script's, its file: every script is called __main__."""
    if function.__module__ != "__main__":
        return function.__module__
    return getattr(sys.modules["__main__"], "__file__", None) or "__main__"


def _made_with(function: Callable[..., Any]) -> str:
    """Returns the plain values that a function was made with: a factory makes many of one name."""
    captured = []
    for cell in getattr(function, "__closure__", None) or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not filled in yet
            continue
        if value is None or isinstance(value, str | int | float):
            captured.append(value)
    return canonical_json(captured)
