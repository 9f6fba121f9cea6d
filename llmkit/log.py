"""The `llmkit` logger and its children, and how keys are kept out of whatever is shown.

As a library should, llmkit adds no handler but a `NullHandler` and sets no level: what is shown,
and where, is the application's choice. What the library chooses is that no API key gets there.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

__all__ = [
    "SHORTEST_KEY",
    "MaskedMapping",
    "brief",
    "get_logger",
    "holds_key",
    "mask",
    "redact",
    "shown",
]

ROOT_NAME: Final = "llmkit"
PLACEHOLDER: Final = "***"

# A shorter text is no key, and could be a part of any word.
SHORTEST_KEY: Final = 8

# Every repetition below is possessive or has a bound, and a failed try costs a bounded number of
# steps: that is what keeps `redact` linear. Each rule has hints, plain lower-case strings of which
# one must occur in the lower-cased text for its pattern to match; most text has none of them.

# From a name to its value, in a header line, a dict, a call, or JSON inside a string; a comma
# (a list of header pairs) counts only after a quoted name.
_TO_VALUE = r"""(?:[\\"']{1,4}\s{0,4}[:=,]|\s{0,4}[:=])\s{0,4}(?:b?[\\"']{1,4})?"""
_VALUE = r"""[^\s"'\\,;)}\]]"""

# A key doesn't start in the middle of a word ("task-force"), but it may follow an escape that
# ends in a letter: \n, \x1b, %3D, the end of a terminal colour.
_START = (
    r"(?:(?<![A-Za-z])|(?<=\\[abfnrtv])|(?<=%[0-9A-Fa-f]{2})"
    r"|(?<=\\x[0-9a-f]{2})|(?<=\\u[0-9a-f]{4})|(?<=[0-9;\[]m))"
)
_PREFIXED = (
    _START
    + r"(?:((?:sk|csk|nvapi)-|gsk_|AIza|AQ\.|ya29\.|tgp_v1_)[A-Za-z0-9_-]{16,}+"
    + r"|((?:xai|pplx)-|(?:hf|r8|fw)_)[A-Za-z0-9]{20,}+)"
)
_PREFIX_HINTS = (
    *("sk-", "nvapi-", "gsk_", "aiza", "aq.", "ya29.", "tgp_v1_"),
    *("xai-", "pplx-", "hf_", "r8_", "fw_"),
)
_ANY_CASE = "(?ai)"

# Hints, pattern and replacement.
_RULES: Final = (
    (
        ("authorization",),
        rf"{_ANY_CASE}(authorization{_TO_VALUE})(?:((?:bearer|basic|token|api-?key)\s{{1,4}})"
        rf"{_VALUE}++|{_VALUE}{{16,}}+)",
        rf"\1\2{PLACEHOLDER}",
    ),
    (
        ("x-api-key", "x-goog-api-key"),
        rf"{_ANY_CASE}(x-(?:goog-)?api-key{_TO_VALUE}){_VALUE}++",
        rf"\1{PLACEHOLDER}",
    ),
    (
        ("api_key", "api-key", "apikey"),
        rf"{_ANY_CASE}(api[_-]?key{_TO_VALUE})[A-Za-z0-9_+/=~-]{{16,}}+[A-Za-z0-9_+/=~.-]*+",
        rf"\1{PLACEHOLDER}",
    ),
    (
        ("key=", "token=", "key%3d", "token%3d"),
        _ANY_CASE
        + r"((?:[?&]|&amp;|\\u0026|%26|%3f)(?:(?:api[_-]?)?key|(?:access[_-]?)?token)(?:=|%3d))"
        + r"""[^\s&#"'<>\\)}\]]++""",
        rf"\1{PLACEHOLDER}",
    ),
    (
        ("://",),
        r"""(://[^\s/:@?#"']{0,64}+:)[^\s/@"']{1,256}+@""",
        rf"\1{PLACEHOLDER}@",
    ),
    (
        ("bearer",),
        _ANY_CASE + r"(bearer(?:\s{1,4}|%20))[A-Za-z0-9._~+/=-]{16,}+",
        rf"\1{PLACEHOLDER}",
    ),
    (_PREFIX_HINTS, _PREFIXED, rf"\1\2{PLACEHOLDER}"),
)

# On first use, since compiling all of them takes longer than importing this module.
_compiled = functools.cache(re.compile)


def redact(text: str) -> str:
    """Replaces everything that looks like an API key by `***`.

    Known by their shape: keys with a vendor's prefix (`sk-…`, `AIza…`, `gsk_…` and others, with at
    least 16 characters after it) and Bearer tokens. Known by their place: the values of the headers
    authorization, x-api-key and x-goog-api-key; long values given to a name that ends in `api_key`;
    the query parameters key, api_key, token and access_token of a URL; the password in a URL.
    Ordinary prose stays as it is. The time is linear in the length of the text, and redacting
    twice is the same as redacting once.

    Args:
        text: Any text.

    Returns:
        The text without keys; the same object when there was nothing to replace.
    """
    lowered = text.lower()
    for hints, pattern, replacement in _RULES:
        for hint in hints:
            if hint in lowered:
                text = _compiled(pattern).sub(replacement, text)
                break
    return text


def mask(secret: str) -> str:
    """Names a key without giving it away.

    Args:
        secret: The key.

    Returns:
        `…` and the last 4 characters, or `…` alone for a secret shorter than 12 characters.
    """
    return f"…{secret[-4:]}" if len(secret) >= 12 else "…"


def holds_key(name: str) -> bool:
    """Says whether a setting or variable holds a key.

    Args:
        name: Its name, in capitals or not.

    Returns:
        Whether the name ends in `_key` or `_token`.
    """
    return name.lower().endswith(("_key", "_token"))


def shown(name: str, value: object) -> str:
    """The repr of a named value, fit to be seen.

    Args:
        name: The name, by which `holds_key` judges.
        value: The value.

    Returns:
        For a key `set (…abcd)`, or `set (callable)` for a callable; else the redacted repr.
    """
    if value is None or not holds_key(name):
        return redact(repr(value))
    return f"set ({mask(value) if isinstance(value, str) else 'callable'})"


def brief(value: object) -> str:
    """What an error message shows of a value that can't be used.

    Args:
        value: Anything, however large or odd.

    Returns:
        The beginning of its redacted repr.
    """
    try:
        text = redact(repr(value))
    except Exception:  # a repr may fail: a very large int's does, and so may a user's own
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= 80 else text[:79] + "…"


class MaskedMapping(Mapping[str, Any]):
    """A read-only mapping whose repr masks the keys in it, and which doesn't pickle.

    Args:
        items: The names and values; item access gives a value as it is.
    """

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, Any]) -> None:
        self._items = dict(items)

    def __getitem__(self, name: str) -> Any:
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"{{{', '.join(f'{n!r}: {shown(n, v)}' for n, v in self._items.items())}}}"

    def __copy__(self) -> MaskedMapping:
        return self

    def __deepcopy__(self, memo: object) -> MaskedMapping:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("holds API keys, so it isn't pickled; pickle the Settings instead")


def get_logger(name: str | None = None) -> logging.Logger:
    """Gives the `llmkit` logger or one of its children, with redaction of keys.

    Redaction covers the message, its arguments, values given as `extra`, the stack and the text of
    an exception, for every handler and formatter that the application adds. It does not cover
    tools that read the variables of a traceback's frames by themselves. It costs nothing for
    records below the level that is set.

    Args:
        name: The child: `"retry"` or `"llmkit.retry"` for `llmkit.retry`. None or an empty string
            means the `llmkit` logger itself.

    Returns:
        The logger; the same object for the same name.
    """
    root = logging.getLogger(ROOT_NAME)
    if not any(isinstance(handler, logging.NullHandler) for handler in root.handlers):
        root.addHandler(logging.NullHandler())
    if not name or name == ROOT_NAME:
        logger = root
    else:
        logger = logging.getLogger(f"{ROOT_NAME}.{name.removeprefix(ROOT_NAME + '.')}")
    # A parent's filter never sees a child's records, so each logger gets it.
    logger.addFilter(_REDACTION)
    return logger


# What `logging` itself puts on a record; anything else came in as `extra`.
_OWN_ATTRIBUTES: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class _Redaction(logging.Filter):
    """Lets every record pass, without the keys in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        _redact_message(record)
        if record.exc_info and record.exc_info[0] is not None and not record.exc_text:
            trace = logging.Formatter().formatException(record.exc_info)
            clean = redact(trace)
            if clean != trace:
                # Some handlers format exc_info themselves; without it they use this text.
                record.exc_text, record.exc_info = clean, None
        elif record.exc_text:
            record.exc_text = redact(record.exc_text)
        if record.stack_info:
            record.stack_info = redact(record.stack_info)
        for name in vars(record).keys() - _OWN_ATTRIBUTES:
            setattr(record, name, _without_keys(getattr(record, name)))
        return True


_REDACTION: Final = _Redaction()


def _redact_message(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception as error:  # arguments that don't fit: logging would print them, keys and all
        message = f"{record.msg} (its arguments can't be filled in: {type(error).__name__})"
        record.msg, record.args = redact(message), ()
        return
    clean = redact(message)
    arguments = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
    # Some handlers send the arguments along, also those that the message shows only in part.
    if clean != message or any(_without_keys(each) is not each for each in arguments):
        record.msg, record.args = clean, ()


def _without_keys(value: object) -> object:
    """The value itself when its text shows no key, else the redacted text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    try:
        text = value if isinstance(value, str) else repr(value)
    except Exception as error:  # a value's own repr may fail; logging must not
        return f"<{type(value).__name__} without a repr: {type(error).__name__}>"
    clean = redact(text)
    return value if clean == text else clean
