"""Checks of single values that a user typed: the value comes back, or an InvalidRequestError.

`name` is the argument's, for the error; where None may be typed, for what it stands for elsewhere,
it comes back as None (of `check_stop`, `check_json` and `check_headers`: empty).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping
from typing import Any, cast

from llmkit.errors import InvalidRequestError
from llmkit.log import brief

__all__ = [
    "LARGEST",
    "check_address",
    "check_choice",
    "check_filled",
    "check_headers",
    "check_json",
    "check_number",
    "check_seconds",
    "check_stop",
    "check_switch",
    "check_text",
    "check_whole",
    "check_word",
]

# What JSON readers of every language hold in an integer.
LARGEST = 2**63 - 1

# No vendor takes more than a handful; the bound is there for iterators that never end.
MOST_STOPS = 1000

LONGEST_WAIT = 1e9


def check_seconds(name: str, value: object) -> float | None:
    """Checks a duration.

    Args:
        name: Its name, for the message.
        value: Seconds; None means that none was given.

    Returns:
        The seconds, or None.

    Raises:
        InvalidRequestError: It is not a positive, finite number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name}={brief(value)}: expected seconds, as a number")
    if not 0 < value <= LONGEST_WAIT:  # NaN compares false
        raise InvalidRequestError(
            f"{name}={brief(value)}: expected a positive, finite number of seconds (at most 1e9)"
        )
    return float(value)


def check_address(name: str, value: object) -> str | None:
    """Checks a web address; None stays None.

    Args:
        name: Its name, for the message.
        value: The address; None means that none was given.

    Returns:
        The address, or None.

    Raises:
        InvalidRequestError: It is none that begins with http:// or https://, or can't be read.
    """
    if value is None:
        return None
    if isinstance(value, str) and value.startswith(("http://", "https://")):
        import urllib.parse

        try:
            urllib.parse.urlsplit(value).port  # noqa: B018 - raises for what is no port
            return value
        except ValueError:
            pass
    raise InvalidRequestError(f"{name}={brief(value)}: expected http://… or https://…")


def check_switch(name: str, value: object) -> bool | None:
    """Checks a switch.

    Args:
        name: Its name, for the message.
        value: True or False; None means that none was given.

    Returns:
        The value.

    Raises:
        InvalidRequestError: It is none of these.
    """
    if value is None or isinstance(value, bool):
        return value
    raise InvalidRequestError(f"{name}={brief(value)}: expected True or False")


def check_text(name: str, value: object) -> str:
    """Checks that a value is a text that can be encoded."""
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name}: expected a text, got {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequestError(
                f"{name}: the character at {error.start} is a lone surrogate "
                f"({value[error.start]!r}), which has no encoding; read the text with "
                "errors='replace'"
            ) from None
    return value


def check_filled(name: str, value: object) -> str:
    """Checks that a value is a text with more than blanks in it."""
    text = check_text(name, value)
    if not text or text.isspace():
        raise InvalidRequestError(f"{name} is empty")
    return text


def check_number(name: str, value: object, low: float, high: float) -> float | None:
    """Checks a number from `low` to `high`; None stays None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name}={brief(value)}: expected a number")
    if not low <= value <= high:  # NaN compares false
        raise InvalidRequestError(f"{name}={brief(value)}: expected {low:g} to {high:g}")
    return value


def check_whole(name: str, value: object, least: int) -> int | None:
    """Checks a whole number of at least `least`, other libraries' integers included."""
    if value is None:
        return None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InvalidRequestError(f"{name}={brief(value)}: expected a whole number")
    number = operator.index(value)
    if not least <= number <= LARGEST:
        bound = f"at least {least}" if number < least else f"at most {LARGEST}"
        raise InvalidRequestError(f"{name}={brief(value)}: expected {bound}")
    return number


def check_word(name: str, value: object) -> str | None:
    """Checks a single word; None stays None."""
    if value is None or (isinstance(value, str) and value.isascii() and value.isidentifier()):
        return value
    raise InvalidRequestError(f"{name}={brief(value)}: expected a word such as 'low'")


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> Any:
    """Checks that a value is one of a few words."""
    if isinstance(value, str) and value in choices:
        return value
    raise InvalidRequestError(f"{name}={brief(value)}: expected one of {', '.join(choices)}")


def check_stop(stop: object) -> tuple[str, ...]:
    """Checks the texts that end an answer: one, several, or None."""
    if stop is None:
        return ()
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping):
        raise InvalidRequestError(f"stop={brief(stop)}: expected a text or several")
    checked = tuple(check_text("stop", text) for text in itertools.islice(texts, MOST_STOPS + 1))
    if len(checked) > MOST_STOPS:
        raise InvalidRequestError(f"stop: more than {MOST_STOPS} texts")
    if not all(checked):
        raise InvalidRequestError("stop: an empty text would end every answer at once")
    return checked


def check_json(name: str, value: object) -> dict[str, Any]:
    """Checks what is sent as JSON; None means nothing.

    Returns:
        A copy that shares nothing with the value, as the vendor will read it.
    """
    if value is None:
        return {}
    if isinstance(value, Mapping) and not value:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidRequestError(f"{name}: expected a mapping with texts as keys")
    import json

    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False)
        text.encode()
        return cast("dict[str, Any]", json.loads(text))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name}: can't be sent as JSON: {error}") from error


def check_headers(headers: object) -> dict[str, str]:
    """Checks HTTP headers; None means none."""
    if headers is None:
        return {}
    if not isinstance(headers, Mapping):
        raise InvalidRequestError("extra_headers: expected a mapping of texts")
    for name, value in headers.items():
        if not isinstance(name, str) or not _is_token(name):
            raise InvalidRequestError(f"extra_headers: {brief(name)} can't be a header's name")
        if name.lower() in _OF_THE_BODY:
            raise InvalidRequestError(f"extra_headers: {name} follows from what is sent")
        if not isinstance(value, str) or value != value.strip() or not _is_line(value):
            raise InvalidRequestError(
                f"extra_headers: the value of {name} must be a single line of ASCII text, "
                "without blanks around it"
            )
    return dict(headers)


# A wrong one breaks the connection, which looks like the network's fault and is tried again.
_OF_THE_BODY = frozenset({"content-length", "transfer-encoding"})


def _is_token(name: str) -> bool:
    return name.isascii() and name.translate(_MARKS_OF_NAMES).isalnum()


# Besides letters and digits (RFC 9110, 5.6.2).
_MARKS_OF_NAMES = dict.fromkeys(map(ord, "!#$%&'*+-.^_`|~"), "x")


def _is_line(value: str) -> bool:
    return value.isascii() and value.replace("\t", " ").isprintable()
