"""The key of a request: a digest of everything that goes on the wire.

The digest is taken of a text in which every piece stands behind its length, so that no two requests
have one text in common. Pieces are written as JSON writes them: `1`, `1.0` and `true` differ, so do
`0.0` and `-0.0`, and so do two texts that only look alike (NFC and NFD); the order of a mapping's
names doesn't count. Pictures count by their bytes, or by their URL.
"""

from __future__ import annotations

import binascii
import functools
import hashlib
import json
import operator
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Final

from llmkit.log import get_logger, holds_key, redact
from llmkit.request import Image, Message, Request

__all__ = ["FORMAT", "NOT_ON_THE_WIRE", "canonical_json", "digest_of", "request_key"]

FORMAT: Final = 1
"""Raised whenever a request is written differently, or a field's default gets another meaning."""

NOT_ON_THE_WIRE: Final = frozenset({"metadata"})
"""Fields of a Request that change nothing in its answer; every other one is part of the key.

`on_unsupported` says which warnings the answer has, and whether there is to be one.
"""


def request_key(request: Request, *, provider: str, address: str, namespace: str) -> str | None:
    """Gives the key under which a request's answer is cached.

    It is the same in every process, on every version of Python, and whatever the order of a
    mapping's names; requests that differ in anything that goes on the wire have different keys.

    Args:
        request: The request as it was asked.
        provider: Who is asked.
        address: The base URL; a password in it does not count, as a key does not.
        namespace: What sets this application's entries apart.

    Returns:
        The key, in ASCII; None for a request that is not to be cached: it carries what looks like
        an API key, or something that has no canonical form.
    """
    pieces: list[str] = [*_place(provider, address, namespace)]
    try:
        for name, value, default in zip(_NAMES, _values_of(request), _DEFAULTS, strict=True):
            if value == default or (default is _EMPTY and not value):
                continue
            kind = type(value)
            if kind is str:
                pieces += (name, "s", value)
            elif kind is int or kind is float:
                pieces += (name, "n", repr(value))
            else:
                text = canonical_json(value)
                if _shows_a_key(value, text):
                    get_logger("cache").debug("not cached: %s carries what looks like a key", name)
                    return None
                pieces += (name, "j", text)
        pieces.append("messages")
        for message in request.messages:
            content = message.content
            if type(content) is str:
                pieces += (message.role, "s", content)
            else:
                pieces += (message.role, "j", canonical_json(content))
            if _FURTHER_OF_MESSAGE:
                pieces.append(canonical_json(_facts_of(message, _FURTHER_OF_MESSAGE)))
    except (TypeError, ValueError, RecursionError) as error:
        get_logger("cache").debug("not cached: the request can't be written as JSON (%s)", error)
        return None
    return f"reply:{digest_of(pieces)}"


def digest_of(pieces: list[str]) -> str:
    """Returns a digest, in hexadecimal digits, that no other list of texts has."""
    # Half a surrogate pair has no UTF-8; two halves are kept apart from the character they make.
    text = f"{[*map(len, pieces)]}{''.join(pieces)}".encode("utf-8", "surrogatepass")
    return hashlib.sha256(text, usedforsecurity=False).hexdigest()


def _facts_of(value: Any, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Returns a dataclass's fields; those that say nothing (None) are left out."""
    names = tuple(each.name for each in fields(value)) if names is None else names
    facts = {name: getattr(value, name) for name in names}
    return {name: fact for name, fact in facts.items() if fact is not None}


def _describe(value: object) -> object:
    """Says in JSON's own kinds what JSON has no form for."""
    if isinstance(value, Image):
        facts = _facts_of(value)
        if "data" in facts:
            facts["data"] = hashlib.sha256(binascii.a2b_base64(facts["data"])).hexdigest()
        return ["Image", facts]
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return [type(value).__name__, _facts_of(value)]
    raise TypeError(f"a {type(value).__name__} has no canonical form")


canonical_json = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=_describe
).encode
"""Writes a value as JSON in one way only; a TypeError or ValueError says that it can't."""


@functools.lru_cache(maxsize=256)
def _place(provider: str, address: str, namespace: str) -> tuple[str, ...]:
    return (f"llmkit {FORMAT}", namespace, provider, redact(address))


# Names of headers and parameters that hold a key without ending in `_key` or `_token`.
_SECRETS = frozenset(
    {"authorization", "proxy_authorization", "cookie", "password", "secret", "client_secret"}
    | {"apikey", "key", "token", "auth"}
)
# Names that end like a key's and hold none: OpenAI's hint of which prompts begin alike.
_HARMLESS = frozenset({"prompt_cache_key"})


def _shows_a_key(value: object, text: str) -> bool:
    """Whether a field carries a key, by a name in it or by the look of its text."""
    if redact(text) is not text:
        return True
    return any(
        isinstance(held, str) and held and _names_a_key(name) for name, held in _named(value)
    )


def _names_a_key(name: str) -> bool:
    word = name.lower().replace("-", "_")
    return word in _SECRETS or (holds_key(word) and word not in _HARMLESS)


def _named(value: object) -> Iterator[tuple[str, object]]:
    """Yields every name with what stands under it, at whatever depth."""
    if isinstance(value, Mapping):
        for name, held in value.items():
            for each in held if isinstance(held, list | tuple) else (held,):
                yield str(name), each
            yield from _named(held)
    elif isinstance(value, list | tuple):
        for held in value:
            yield from _named(held)


_EMPTY: Final[Any] = object()  # stands for a default that is an empty mapping or sequence


def _default_of(field: Any) -> Any:
    """Returns a field's default if it says that nothing was asked; else something never met."""
    if field.default is None or field.default == "warn":
        return field.default
    return _EMPTY if field.default == () or field.default_factory is dict else MISSING


# What is at its default is left out, so that a field which is added later changes no key.
_FIELDS = [
    each for each in fields(Request) if each.name not in NOT_ON_THE_WIRE and each.name != "messages"
]
_NAMES = tuple(each.name for each in _FIELDS)
_DEFAULTS = tuple(_default_of(each) for each in _FIELDS)
_values_of = operator.attrgetter(*_NAMES)
_FURTHER_OF_MESSAGE = tuple(
    each.name for each in fields(Message) if each.name not in ("role", "content")
)
