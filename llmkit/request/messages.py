"""The prompt: messages and pictures, read from what a user typed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.request.checks import check_filled, check_text

__all__ = ["Image", "Message", "Prompt", "read_prompt"]

ROLES = ("system", "developer", "user", "assistant")

# A dict is known at once; to ask an abstract class takes ten times as long.
_MAPPING = (dict, Mapping)


@dataclass(frozen=True, slots=True)
class Image:
    """A picture inside a message.

    Attributes:
        url: Where it is; None when its bytes are given.
        data: Its bytes in base64; None when a URL is given.
        media_type: Such as "image/png"; None for a URL.
    """

    url: str | None = None
    data: str | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: "system", "developer", "user" or "assistant".
        content: Its text, or its parts: texts and images.
    """

    role: str
    content: str | tuple[str | Image, ...]

    @property
    def text(self) -> str:
        """The text alone, parts joined by line breaks."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part for part in self.content if isinstance(part, str))


Prompt = str | Sequence[Mapping[str, Any] | Message]


def read_prompt(prompt: object) -> tuple[Message, ...]:
    """Reads a prompt.

    Args:
        prompt: A text, or a sequence of `Message`s and mappings in the OpenAI shape.

    Returns:
        The messages; at least one is the user's or the assistant's.

    Raises:
        InvalidRequestError: It is something else, or says what would be lost on the way.
    """
    if isinstance(prompt, str):
        return (Message("user", check_filled("the prompt", prompt)),)
    if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
        raise InvalidRequestError(
            f"prompt: expected a text or a list of messages, got {type(prompt).__name__}"
        )
    messages = tuple([_read_message(at, each) for at, each in enumerate(prompt)])
    if not any(message.role in ("user", "assistant") for message in messages):
        raise InvalidRequestError("the prompt has no message of a user: nothing to answer")
    return messages


def _read_message(at: int, message: object) -> Message:
    where = f"messages[{at}]"
    role: object
    content: object
    if isinstance(message, Message):
        role, content = message.role, message.content
    elif isinstance(message, _MAPPING):
        role, content = message.get("role"), message.get("content")
        if role is None or content is None or len(message) > 2:
            _check_nothing_is_lost(where, message, ("role", "content"))
    else:
        raise InvalidRequestError(
            f"{where}: expected {{'role': …, 'content': …}}, got {type(message).__name__}"
        )
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequestError(f"{where}: role {brief(role)} is not one of {', '.join(ROLES)}")
    if isinstance(content, str):
        return Message(role, check_filled(where, content))
    if not isinstance(content, Sequence) or isinstance(content, bytes) or not len(content):
        got = "nothing" if content is None else brief(content)
        raise InvalidRequestError(f"{where}: content must be a text or a list of parts, got {got}")
    return Message(
        role, tuple(_read_part(f"{where}, part {at}", part) for at, part in enumerate(content))
    )


def _read_part(where: str, part: object) -> str | Image:
    if isinstance(part, str):
        return check_filled(where, part)
    if isinstance(part, Image):
        return _check_image(where, part)
    if isinstance(part, Mapping):
        if _is_word(part.get("type"), "text"):
            _check_nothing_is_lost(where, part, ("type", "text"))
            return check_filled(where, part.get("text"))
        if _is_word(part.get("type"), "image_url"):
            _check_nothing_is_lost(where, part, ("type", "image_url"))
            return _read_image(where, part.get("image_url"))
    raise InvalidRequestError(
        f"{where}: expected {{'type': 'text', 'text': …}} or "
        "{'type': 'image_url', 'image_url': {'url': …}}"
    )


def _is_word(value: object, word: str) -> bool:
    return isinstance(value, str) and value == word  # an array, say, can't be compared with a word


def _check_nothing_is_lost(where: str, given: Mapping[Any, Any], known: tuple[str, ...]) -> None:
    """Refuses what this version has no place for; empty values, as SDKs write them, say nothing."""
    for name, value in given.items():
        if name in known or value is None:
            continue
        if not isinstance(value, str | list | tuple | dict) or value:
            raise InvalidRequestError(
                f"{where}: {brief(name)} is not understood and would be lost; "
                f"there are {', '.join(known)}"
            )


_DATA_URL = r"data:(image/[\w.+-]+);base64,"
_MEDIA_TYPE = r"image/[\w.+-]+"


def _read_image(where: str, image: object) -> Image:
    if isinstance(image, Mapping):
        known = ("url", "detail") if _is_word(image.get("detail"), "auto") else ("url",)
        _check_nothing_is_lost(where, image, known)
        image = image.get("url")
    url = check_filled(where, image)
    if not url.startswith("data:"):
        return Image(url=url)
    head = re.match(_DATA_URL, url, re.ASCII)
    if head is None:
        raise InvalidRequestError(f"{where}: expected data:image/…;base64,…")
    return _check_image(where, Image(data=url[head.end() :], media_type=head[1]))


def _check_image(where: str, image: Image) -> Image:
    if image.data is None and image.media_type is None:
        check_filled(where, image.url)
        return image
    if image.url is not None or not isinstance(image.data, str) or not image.data:
        raise InvalidRequestError(
            f"{where}: an image has either url=, or data= (in base64) and media_type="
        )
    media_type = check_text(where, image.media_type)
    if not re.fullmatch(_MEDIA_TYPE, media_type, re.ASCII):
        raise InvalidRequestError(f"{where}: {brief(media_type)} is not a picture's media type")
    import base64

    try:
        base64.b64decode(image.data, validate=True)
    except ValueError as error:
        raise InvalidRequestError(f"{where}: the image's base64 is broken: {error}") from error
    return image
