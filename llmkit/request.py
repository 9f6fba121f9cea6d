"""Request: what a call asks, checked once, in plain words, before any network."""

from __future__ import annotations

import base64
import binascii
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmkit.errors import InvalidRequestError

__all__ = ["Image", "Message", "OnUnsupported", "Prompt", "Request", "check_seconds"]

Prompt = str | Sequence[Mapping[str, Any]]
OnUnsupported = Literal["warn", "error", "drop"]

ROLES = ("system", "developer", "user", "assistant")


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


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that one call asks of one model.

    `Request.build` checks what a user typed; adapters only say it in their vendor's words.

    Attributes:
        model: The model's bare name.
        messages: The conversation; system messages are among them.
        max_tokens: The longest answer, in tokens; None leaves it to the vendor (or, where the
            vendor insists, to the registry).
        temperature: 0 to 2; None sends none.
        top_p: 0 to 1; None sends none.
        stop: Texts that end the answer.
        seed: For repeatable sampling; None sends none.
        reasoning_effort: Such as "low"; None sends none.
        vendor_parameters: Sent to the vendor as they are.
        extra_body: Fields laid over the request's JSON, last of all.
        extra_headers: HTTP headers to add.
        metadata: The caller's own notes; they reach the observers, never the vendor.
        on_unsupported: What happens with a parameter that the model refuses: "warn" leaves it out
            (or translates it) and says so in the reply's warnings, "drop" is silent, "error"
            raises.
    """

    model: str
    messages: tuple[Message, ...]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    reasoning_effort: str | None = None
    vendor_parameters: Mapping[str, Any] = field(default_factory=dict)
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    on_unsupported: OnUnsupported = "warn"

    @property
    def system_text(self) -> str:
        """All system messages, joined by blank lines; "" when there are none."""
        return "\n\n".join(
            message.text for message in self.messages if message.role in ("system", "developer")
        )

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages without the system's."""
        return tuple(
            message for message in self.messages if message.role not in ("system", "developer")
        )

    @classmethod
    def build(
        cls,
        model: str,
        prompt: Prompt,
        *,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | Iterable[str] | None = None,
        seed: int | None = None,
        reasoning_effort: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        on_unsupported: OnUnsupported = "warn",
        vendor_parameters: Mapping[str, Any] | None = None,
    ) -> Request:
        """Checks everything that a user typed.

        Args:
            model: The model's bare name.
            prompt: A text, or messages `{"role": …, "content": …}` in the OpenAI shape.
            system: Instructions, put before the messages; None for none.
            max_tokens: As in the class; likewise `temperature`, `top_p`, `seed`,
                `reasoning_effort`, `extra_body`, `extra_headers`, `metadata`, `on_unsupported`.
            temperature: See the class.
            top_p: See the class.
            stop: One text or several; None for none.
            seed: See the class.
            reasoning_effort: See the class.
            extra_body: See the class.
            extra_headers: See the class.
            metadata: See the class.
            on_unsupported: See the class.
            vendor_parameters: Any other keywords, for the vendor.

        Returns:
            The request.

        Raises:
            InvalidRequestError: Something is wrong; the message says what, and what was expected.
        """
        messages = _read_prompt(prompt)
        if system is not None:
            messages = (Message("system", _check_text("system", system)), *messages)
        if on_unsupported not in ("warn", "error", "drop"):
            raise InvalidRequestError(
                f"on_unsupported={on_unsupported!r}: expected 'warn', 'error' or 'drop'"
            )
        vendor_parameters = vendor_parameters or {}
        _check_spelling(vendor_parameters)
        return cls(
            model=model,
            messages=messages,
            max_tokens=_check_count("max_tokens", max_tokens),
            temperature=_check_number("temperature", temperature, 0, 2),
            top_p=_check_number("top_p", top_p, 0, 1),
            stop=_check_stop(stop),
            seed=_check_integer("seed", seed),
            reasoning_effort=_check_word("reasoning_effort", reasoning_effort),
            vendor_parameters=_check_json("parameters for the vendor", vendor_parameters),
            extra_body=_check_json("extra_body", extra_body),
            extra_headers=_check_headers(extra_headers),
            metadata=dict(metadata or {}),
            on_unsupported=on_unsupported,
        )


# The keywords of Client.complete and Client.stream: what an unknown one may be a misspelling of.
KNOWN_KEYWORDS = (
    "model",
    "messages",
    "prompt",
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "reasoning_effort",
    "timeout",
    "attempt_timeout",
    "first_chunk_timeout",
    "idle_timeout",
    "max_retries",
    "fallbacks",
    "tools",
    "tool_choice",
    "response_model",
    "cache_prompt",
    "use_cache",
    "cache_ttl",
    "on_unsupported",
    "metadata",
    "extra_body",
    "extra_headers",
    "api_key",
    "base_url",
)
# Parts of the interface that this version does not have; sent to a vendor they would do something
# else than what is meant.
_NOT_YET = frozenset(
    {
        "fallbacks",
        "tools",
        "tool_choice",
        "response_model",
        "cache_prompt",
        "use_cache",
        "cache_ttl",
    }
)
_MISPLACED = {
    "api_key": "give it to Settings(…) or get_adapter(…)",
    "base_url": "give it to Settings(…) or get_adapter(…)",
    "messages": "give the messages as the first argument, `prompt`",
    "stream": "call Client.stream(…)",
}
# Vendors' own parameters that happen to look like one of ours.
_GENUINE = frozenset({"top_k", "top_a", "stop_token_ids", "modalities", "tool_config"})


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
        raise InvalidRequestError(f"{name}={value!r}: expected seconds, as a number")
    if not math.isfinite(value) or value <= 0:
        raise InvalidRequestError(
            f"{name}={value!r}: expected a positive, finite number of seconds"
        )
    return float(value)


def _read_prompt(prompt: Prompt) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        if not prompt.strip():
            raise InvalidRequestError("the prompt is empty")
        return (Message("user", _check_text("prompt", prompt)),)
    if isinstance(prompt, bytes) or not isinstance(prompt, Sequence):
        raise InvalidRequestError(
            f"prompt: expected a text or a list of messages, got {type(prompt).__name__}"
        )
    messages = tuple(_read_message(index, message) for index, message in enumerate(prompt))
    if not any(message.role in ("user", "assistant") for message in messages):
        raise InvalidRequestError("the prompt has no message of a user: nothing to answer")
    return messages


def _read_message(index: int, message: object) -> Message:
    if isinstance(message, Message):
        return message
    where = f"messages[{index}]"
    if not isinstance(message, Mapping):
        raise InvalidRequestError(
            f"{where}: expected {{'role': …, 'content': …}}, got {type(message).__name__}"
        )
    role = message.get("role")
    if role not in ROLES:
        raise InvalidRequestError(f"{where}: role {role!r} is not one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, str):
        if not content.strip():
            raise InvalidRequestError(f"{where}: the content is empty")
        return Message(role, _check_text(where, content))
    if isinstance(content, Sequence) and not isinstance(content, bytes) and content:
        parts = (_read_part(f"{where}, part {at}", part) for at, part in enumerate(content))
        return Message(role, tuple(parts))
    raise InvalidRequestError(
        f"{where}: content must be a text or a list of parts, got "
        + ("an empty list" if content == [] else type(content).__name__)
    )


def _read_part(where: str, part: object) -> str | Image:
    if isinstance(part, Image):
        return part
    if isinstance(part, Mapping):
        if part.get("type") == "text" and isinstance(part.get("text"), str):
            return _check_text(where, part["text"])
        if part.get("type") == "image_url":
            image = part.get("image_url")
            url = image.get("url") if isinstance(image, Mapping) else image
            if isinstance(url, str) and url:
                return _read_image(where, url)
    raise InvalidRequestError(
        f"{where}: expected {{'type': 'text', 'text': …}} or "
        "{'type': 'image_url', 'image_url': {'url': …}}"
    )


_DATA_URL = re.compile(r"data:(image/[\w.+-]+);base64,")


def _read_image(where: str, url: str) -> Image:
    if not url.startswith("data:"):
        return Image(url=_check_text(where, url))
    head = _DATA_URL.match(url)
    if head is None:
        raise InvalidRequestError(f"{where}: expected data:image/…;base64,…")
    data = url[head.end() :]
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"{where}: the image's base64 is broken: {error}") from error
    return Image(data=data, media_type=head[1])


def _check_text(name: str, value: object) -> str:
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


def _check_number(name: str, value: object, low: float, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name}={value!r}: expected a number")
    if not low <= value <= high:  # NaN compares false
        raise InvalidRequestError(f"{name}={value!r}: expected {low:g} to {high:g}")
    return value


def _check_integer(name: str, value: object) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise InvalidRequestError(f"{name}={value!r}: expected a whole number")


def _check_count(name: str, value: object) -> int | None:
    count = _check_integer(name, value)
    if count is not None and count < 1:
        raise InvalidRequestError(f"{name}={value!r}: expected at least 1")
    return count


def _check_word(name: str, value: object) -> str | None:
    if value is None or (isinstance(value, str) and value.isidentifier()):
        return value
    raise InvalidRequestError(f"{name}={value!r}: expected a word such as 'low'")


def _check_stop(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    texts = [stop] if isinstance(stop, str) else stop
    if not isinstance(texts, Iterable):
        raise InvalidRequestError(f"stop={stop!r}: expected a text or several")
    checked = tuple(_check_text("stop", text) for text in texts)
    if not all(checked):
        raise InvalidRequestError("stop: an empty text would end every answer at once")
    return checked


def _check_json(name: str, value: object) -> dict[str, Any]:
    if not value:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidRequestError(f"{name}: expected a mapping with texts as keys")
    plain = dict(value)
    try:
        json.dumps(plain, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{name}: can't be sent as JSON: {error}") from error
    return plain


def _check_headers(headers: object) -> dict[str, str]:
    if not headers:
        return {}
    if not isinstance(headers, Mapping):
        raise InvalidRequestError("extra_headers: expected a mapping of texts")
    for name, value in headers.items():
        fits = isinstance(name, str) and isinstance(value, str) and (name + value).isascii()
        if not fits or not (name + value).replace("\t", " ").isprintable():
            raise InvalidRequestError(
                f"extra_headers: {name!r} and its value must be single lines of ASCII text"
            )
    return dict(headers)


def _check_spelling(keywords: Iterable[str]) -> None:
    for keyword in keywords:
        if keyword in _NOT_YET:
            raise InvalidRequestError(
                f"{keyword}= is not part of this version of llmkit; "
                "what the vendor itself understands can be sent by extra_body"
            )
        if keyword in _MISPLACED:
            raise InvalidRequestError(f"{keyword}= is not a parameter here: {_MISPLACED[keyword]}")
        if keyword not in _GENUINE:
            near = difflib.get_close_matches(keyword, KNOWN_KEYWORDS, n=1, cutoff=0.84)
            if near:
                raise InvalidRequestError(
                    f"{keyword}= is not known; did you mean {near[0]}=? "
                    "(what is really meant for the vendor can be sent by extra_body)"
                )
