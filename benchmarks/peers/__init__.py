"""One driver for each library that is measured, all of one shape.

A driver is a module that names what pip installs (`PACKAGES`) and what a user imports (`IMPORT`),
and has a function `connect`, which makes the calls that are measured, as the library's own
documentation shows them for a plain synchronous call to an OpenAI-compatible address, with retries
off. What a library doesn't have is None, or isn't there: the module may have `CACHES`, the kinds of
cache that `connect` takes, `ENVIRONMENT`, the variables that its processes get, and `count_tokens`.

Only functions import the library, so that a runner without it can read the rest. For that reason,
and since a start is measured, this package imports next to nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

KEY = "sk-benchmark-0123456789"
MODEL = "gpt-6-luna"
# A server that is told so answers late when it sees this in a model's name.
SLOW = f"{MODEL}-slow"

Messages: TypeAlias = list[dict[str, str]]


class Calls(NamedTuple):
    """What a library is asked to do.

    Attributes:
        complete: Gives the answer to a chat.
        stream: Gives the pieces of the answer; None if the library has no synchronous stream.
        race: Gives the answer of the first of two models, of which `SLOW` is late; None if the
            library has nothing for that.
    """

    complete: Callable[[Messages], str]
    stream: Callable[[Messages], Iterable[str]] | None = None
    race: Callable[[Messages], str] | None = None
