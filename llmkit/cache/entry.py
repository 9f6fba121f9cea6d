"""Entries: a JSON value with its times, and the form in which it lies outside this process."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any, NamedTuple

from llmkit.errors import InvalidRequestError

__all__ = [
    "FORMAT",
    "Entry",
    "decode_value",
    "encode_value",
    "from_utf8",
    "pack",
    "squeeze",
    "stretch",
    "to_utf8",
    "unpack",
]

# The version of everything below. Entries of another one are misses; their keys differ, too.
FORMAT = 1
_BEGIN = b"[%d" % FORMAT

# Bytes above which a value is compressed: smaller ones are carried in less time than it takes to
# unpack them. An answer of 4 kB makes a value of about 9, for the vendor's JSON has it, too.
COMPRESSED_ABOVE = 16 * 2**10

# Bytes that a value may have at most outside this process: nobody's memory is to be filled by a few
# foreign kilobytes.
LARGEST = 32 * 2**20

# Above, a level saves little and costs much: 4 kB of prose take 50 µs here, 150 µs at level 6.
_LEVEL = 1


class Entry(NamedTuple):
    """A value as it is kept.

    Attributes:
        text: Its JSON.
        expires_at: Until when it is fresh, in seconds since the epoch.
        kept_until: Until when it is kept, not before `expires_at`.
    """

    text: str
    expires_at: float
    kept_until: float


# Without escapes: text stays short, and even half a surrogate pair comes back as it went in.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
decode_value = json.JSONDecoder().decode

_NESTING = (dict, list, tuple)


def encode_value(value: Any) -> str:
    """Returns a value's JSON.

    Args:
        value: The value.

    Returns:
        The text, which `decode_value` turns into an equal value (tuples become lists).

    Raises:
        InvalidRequestError: It is no JSON value.
    """
    try:
        text = _encode(value)
        _check_names(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"a cache keeps JSON values only, which this {type(value).__name__} is not: {error}"
        ) from error
    return text


def _check_names(value: Any) -> None:
    """Refuses names other than str, which JSON would quietly turn into such."""
    todo = [value]
    while todo:
        each = todo.pop()
        if isinstance(each, dict):
            for name in each:
                if type(name) is not str and not isinstance(name, str):
                    raise TypeError(f"the key {name!r} is not a str")
            todo += [inner for inner in each.values() if isinstance(inner, _NESTING)]
        elif isinstance(each, list | tuple):
            todo += [inner for inner in each if isinstance(inner, _NESTING)]


def to_utf8(text: str) -> bytes:
    """Returns a text's bytes; half a surrogate pair, too, which JSON allows, has some."""
    return text.encode("utf-8", "surrogatepass")


def from_utf8(data: bytes) -> str:
    """Turns back what `to_utf8` made; raises ValueError for anything else."""
    return data.decode("utf-8", "surrogatepass")


def squeeze(text: str) -> tuple[bytes, bool]:
    """Returns a text's bytes, compressed if that is worth it, and whether they are.

    Raises:
        ValueError: There are too many.
    """
    data = to_utf8(text)
    if len(data) > LARGEST:
        raise ValueError("too large")
    if len(data) <= COMPRESSED_ABOVE:
        return data, False
    small = zlib.compress(data, _LEVEL)
    return (small, True) if len(small) < len(data) else (data, False)


def stretch(data: bytes, compressed: bool) -> str:
    """Turns back what `squeeze` made; raises ValueError for anything else."""
    if compressed:
        unpacking = zlib.decompressobj()
        try:
            data = unpacking.decompress(data, LARGEST)
        except zlib.error as error:
            raise ValueError(str(error)) from error
        if not unpacking.eof:
            raise ValueError("cut off, or too large")
    return from_utf8(data)


def pack(entry: Entry) -> bytes:
    """Returns an entry as one piece of data: a line of JSON with its times, then the value.

    Raises:
        ValueError: It is too large.
    """
    data, compressed = squeeze(entry.text)
    head = f"[{FORMAT},{entry.expires_at!r},{entry.kept_until!r},{int(compressed)}]\n"
    return head.encode() + data


def unpack(data: bytes) -> Entry:
    """Turns back what `pack` made.

    Args:
        data: What lay in the store, whoever wrote it.

    Returns:
        The entry; its text is not yet known to be JSON.

    Raises:
        ValueError: It is no entry, or of another format.
    """
    head, newline, body = data.partition(b"\n")
    if not newline or len(head) > 200:
        raise ValueError("no entry")
    fields = head.split(b",")
    if len(fields) != 4 or fields[0] != _BEGIN or fields[3] not in (b"0]", b"1]"):
        raise ValueError("another format")
    expires_at, kept_until = float(fields[1]), float(fields[2])
    if not (math.isfinite(expires_at) and math.isfinite(kept_until)):
        raise ValueError("no time")
    return Entry(stretch(body, fields[3] == b"1]"), expires_at, kept_until)
