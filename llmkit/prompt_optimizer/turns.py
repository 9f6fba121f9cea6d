"""Which messages of a conversation have to stay, and which can only go together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.errors import InvalidRequestError

__all__ = [
    "SYSTEM_ROLES",
    "Conversation",
    "Place",
    "check_messages",
    "read_conversation",
    "texts_of",
    "with_texts",
]

Place = tuple[int, int | None]
"""Where a text stands: the message's index, and its part's or None."""

SYSTEM_ROLES = ("system", "developer")
_RESULTS = ("tool", "function")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What may be dropped of a conversation, in which order. All numbers are indexes of messages.

    Attributes:
        system: The system's messages.
        user: The last message of a user; None when there is none.
        units: What can only go together, the oldest first: turns, each a user's message with all
            that answers it; and, after the last user's message, each call of tools with its
            results.
        latest: How many of the units, at the end, come after the last user's message.
    """

    system: tuple[int, ...]
    user: int | None
    units: tuple[tuple[int, ...], ...]
    latest: int


def check_messages(messages: object) -> list[Mapping[str, Any]]:
    """Checks that it is a sequence of messages in the OpenAI shape.

    Args:
        messages: What the user gave.

    Returns:
        The messages.

    Raises:
        InvalidRequestError: It is something else.
    """
    if isinstance(messages, str | bytes) or not isinstance(messages, Sequence):
        raise InvalidRequestError(
            f"messages: expected a list of messages, got {type(messages).__name__}"
        )
    for at, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InvalidRequestError(f"messages[{at}]: expected {{'role': …, 'content': …}}")
    return list(messages)


def texts_of(message: Mapping[str, Any]) -> list[tuple[int | None, str]]:
    """Returns a message's texts, each with the index of its part, or None for the whole content."""
    content = message.get("content")
    if isinstance(content, str):
        return [(None, content)]
    if not isinstance(content, Sequence):
        return []
    texts = [
        (at, part.get("text") if isinstance(part, Mapping) else part)
        for at, part in enumerate(content)
    ]
    return [(at, text) for at, text in texts if isinstance(text, str)]


def with_texts(message: Mapping[str, Any], texts: Mapping[int | None, str]) -> dict[str, Any]:
    """Returns a copy of a message with some of its texts, named as in `texts_of`, replaced."""
    if not texts:
        return dict(message)
    if None in texts:
        return {**message, "content": texts[None]}
    parts = [
        part
        if at not in texts
        else {**part, "text": texts[at]}
        if isinstance(part, Mapping)
        else texts[at]
        for at, part in enumerate(message["content"])
    ]
    return {**message, "content": parts}


def read_conversation(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Finds out what belongs together.

    A result belongs to the latest call with its id before it; without a known id, to the call of
    tools right before it; without that, to the turn that it stands in.

    Args:
        messages: The messages.

    Returns:
        The order in which they may go.
    """
    system = tuple(at for at, each in enumerate(messages) if each["role"] in SYSTEM_ROLES)
    users = [at for at, each in enumerate(messages) if each["role"] == "user"]
    user = users[-1] if users else None
    older: list[list[int]] = []
    latest: list[list[int]] = []
    unit_of_call: dict[str, list[int]] = {}
    caller: list[int] | None = None
    for at, message in enumerate(messages):
        role = message["role"]
        if role in SYSTEM_ROLES or at == user:
            caller = caller if role in SYSTEM_ROLES else None
            continue
        unit = None
        if role in _RESULTS:
            unit = unit_of_call.get(_key(message.get("tool_call_id")), caller)
        if unit is None:
            unit = _unit_for(at, role, older, latest, user)
            caller = unit if _calls(message) else None
        unit.append(at)
        for call in message.get("tool_calls") or ():
            if isinstance(call, Mapping):
                unit_of_call[_key(call.get("id"))] = unit
    return Conversation(system, user, tuple(map(tuple, (*older, *latest))), len(latest))


def _unit_for(
    at: int, role: str, older: list[list[int]], latest: list[list[int]], user: int | None
) -> list[int]:
    """Returns what a message goes with that is no result: the turn so far, or a new unit."""
    if user is None or at > user:
        latest.append([])
        return latest[-1]
    if role == "user" or not older:
        older.append([])
    return older[-1]


def _calls(message: Mapping[str, Any]) -> bool:
    return bool(message.get("tool_calls") or message.get("function_call"))


def _key(identifier: object) -> str:
    """Returns a name for a call's id that can be looked up, whatever stands there."""
    return f"{type(identifier).__name__}:{identifier}"
