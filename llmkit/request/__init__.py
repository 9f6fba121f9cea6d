"""Request: what a call asks, checked once, in plain words, before any network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.request.checks import (
    LARGEST,
    check_choice,
    check_filled,
    check_headers,
    check_json,
    check_number,
    check_seconds,
    check_stop,
    check_text,
    check_whole,
    check_word,
)
from llmkit.request.messages import Image, Message, Prompt, read_prompt
from llmkit.request.spelling import check_spelling

__all__ = ["Image", "Message", "OnUnsupported", "Prompt", "Request", "check_seconds"]

OnUnsupported = Literal["warn", "error", "drop"]
_ON_UNSUPPORTED = ("warn", "error", "drop")


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
            system: Instructions, put before the messages; None or an empty text for none.
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
        messages = read_prompt(prompt)
        if system is not None and check_text("system", system).strip():
            messages = (Message("system", system), *messages)
        if metadata is not None and not isinstance(metadata, Mapping):
            raise InvalidRequestError(f"metadata={brief(metadata)}: expected a mapping")
        check_spelling(vendor_parameters)
        further = check_json("parameters for the vendor", vendor_parameters)
        return cls(
            model=check_filled("model", model),
            messages=messages,
            max_tokens=check_whole("max_tokens", max_tokens, 1),
            temperature=check_number("temperature", temperature, 0, 2),
            top_p=check_number("top_p", top_p, 0, 1),
            stop=check_stop(stop),
            seed=check_whole("seed", seed, -LARGEST),
            reasoning_effort=check_word("reasoning_effort", reasoning_effort),
            vendor_parameters=further,
            extra_body=check_json("extra_body", extra_body),
            extra_headers=check_headers(extra_headers),
            metadata=dict(metadata or {}),
            on_unsupported=check_choice("on_unsupported", on_unsupported, _ON_UNSUPPORTED),
        )
