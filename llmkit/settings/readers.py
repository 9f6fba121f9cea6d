"""How the text of a variable, or an argument, becomes a setting's value."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

from llmkit.errors import ConfigurationError
from llmkit.log import brief

__all__ = [
    "AGE",
    "CACHE",
    "COUNT",
    "KEY",
    "NAME",
    "NAMES",
    "RETRIES",
    "SWITCH",
    "WAIT",
    "WEB",
    "WORD",
    "Reader",
    "read_value",
]


class Reader(NamedTuple):
    """How one kind of value is read.

    Attributes:
        read: Gives the value; None means not set. What it can't read is a ValueError, TypeError
            or OverflowError.
        expected: What it reads, in words.
    """

    read: Callable[[Any], Any]
    expected: str


def read_value(reader: Reader, raw: Any, written: str, *, secret: bool) -> Any:
    """Reads a value.

    Args:
        reader: How.
        raw: What was given.
        written: How to name it in an error: the way its user wrote it.
        secret: Whether an error must not show the value.

    Returns:
        The value; None for not set.

    Raises:
        ConfigurationError: It can't be read.
    """
    try:
        return reader.read(raw)
    except (ValueError, TypeError, OverflowError):
        problem = "can't be used" if secret else f"is {brief(raw)}"
    # Outside the handler, since what the reader raised may show the value.
    raise ConfigurationError(f"{written} {problem}; expected {reader.expected}.")


def _text(raw: Any) -> str | None:
    if not isinstance(raw, str):
        raise TypeError
    return raw.strip() or None


def _url(*schemes: str) -> Callable[[Any], Any]:
    def read(raw: Any) -> str | None:
        url = _text(raw)
        start = (url or "").lower()
        if url and (not start.startswith(schemes) or start in schemes):
            raise ValueError
        if url and url.split() != [url] and not start.startswith("sqlite:"):  # a path may
            raise ValueError
        if start.startswith("http"):
            import urllib.parse

            urllib.parse.urlsplit(start).port  # noqa: B018 - raises ValueError for what is no port
        return url

    return read


def _key(raw: Any) -> Any:
    if callable(raw):
        return raw
    key = _text(raw)
    if key and not all("!" <= character <= "~" and character not in "\"'" for character in key):
        raise ValueError
    return key


def _names(raw: Any) -> tuple[str, ...] | None:
    if isinstance(raw, str):
        names = tuple(name.strip() for name in raw.split(",") if name.strip())
        if raw.strip() and not names:
            raise ValueError
        return names or None
    if not isinstance(raw, list | tuple) or not all(_text(name) for name in raw):
        raise TypeError
    return tuple(name.strip() for name in raw)


def _switch(raw: Any) -> bool:
    word = str(raw).strip().lower()
    if word not in ("1", "true", "yes", "on", "0", "false", "no", "off"):
        raise ValueError
    return word in ("1", "true", "yes", "on")


def _seconds(longest: float) -> Callable[[Any], Any]:
    def read(raw: Any) -> float:
        seconds = float(raw)
        if isinstance(raw, bool) or not 0 < seconds <= longest:
            raise ValueError
        return seconds

    return read


def _whole(least: int) -> Callable[[Any], Any]:
    def read(raw: Any) -> int:
        number = int(raw) if isinstance(raw, str) else operator.index(raw)
        if isinstance(raw, bool) or number < least:
            raise ValueError
        return number

    return read


NAME = Reader(_text, "a model's name")
NAMES = Reader(_names, "model names, separated by commas")
KEY = Reader(_key, "a key of printable ASCII characters without spaces, line breaks and quotes")
WEB = Reader(_url("http://", "https://"), "a URL that starts with http:// or https://")
CACHE = Reader(
    _url(
        *("redis://", "rediss://", "unix://", "sqlite:///"),
        *("redis+cluster://", "rediss+cluster://", "redis+sentinel://", "rediss+sentinel://"),
    ),
    "redis://…, rediss://…, unix://…, redis+cluster://…, redis+sentinel://… or sqlite:///…",
)
WAIT = Reader(_seconds(1e6), "a number of seconds above 0, at most 1000000")
AGE = Reader(
    _seconds(1e9), "a number of seconds above 0, at most 1e9 (CACHE_ENABLED=false: no cache)"
)
COUNT = Reader(_whole(1), "a whole number, 1 or more")
RETRIES = Reader(_whole(0), "a whole number, 0 or more")
SWITCH = Reader(_switch, "true or false (or 1, 0, yes, no, on, off)")
WORD = Reader(_text, "a text")
