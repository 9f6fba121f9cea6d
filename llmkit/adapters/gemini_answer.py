"""What Google's JSON of an answer says, whole or in a stream's events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llmkit.adapters.content_filters import as_mapping, blocked_ratings, category_of_feedback
from llmkit.adapters.vendor_adapter import VendorAdapter
from llmkit.adapters.wire import count_of, text_of
from llmkit.types import Completion, ToolCall, Usage

__all__ = ["GeminiAnswer"]


class GeminiAnswer:
    """What the one JSON of a plain reply, or a stream's events, add up to."""

    def __init__(self, adapter: VendorAdapter) -> None:
        self._adapter = adapter
        self.raw: dict[str, Any] = {}
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.finish: str | None = None
        self.usage: Mapping[str, Any] = {}
        self._refusal: str | None = None
        self._explanation = ""

    def add(self, event: Mapping[str, Any]) -> str:
        """Takes one JSON.

        Args:
            event: Google's GenerateContentResponse: the whole, or one of a stream.

        Returns:
            The text in it; "" without any.

        Raises:
            KeyError: There is nothing in it that could be an answer.
        """
        self.raw.update(event)
        self.usage = event.get("usageMetadata") or self.usage
        candidates = event.get("candidates")
        if not candidates:
            # A blocked prompt has no answer at all; in a stream it may be blocked half-way.
            feedback = as_mapping(event.get("promptFeedback"))
            blocked = category_of_feedback(feedback)
            if blocked is not None:
                self.cut_off(blocked, feedback.get("blockReasonMessage"))
                return ""
            if not self.usage or not self.raw.get("candidates"):
                raise KeyError("candidates")
            return ""
        candidate = candidates[0]
        if candidate.get("index"):  # of several answers the first one counts
            return ""
        self.finish = candidate.get("finishReason") or self.finish
        if self._adapter.finish_words.get(self.finish or "") == "content_filter":
            rated = blocked_ratings(candidate.get("safetyRatings"))
            self.cut_off(rated or self._refusal, candidate.get("finishMessage"))
        parts = (candidate.get("content") or {}).get("parts") or ()
        text = "".join(_texts(parts))
        if text:
            self.texts.append(text)
        for part in parts:
            call = part.get("functionCall")
            if call:
                arguments = dict(call.get("args") or {})
                self.calls.append(
                    ToolCall(text_of(call.get("id")), text_of(call["name"]), arguments)
                )
        return text

    def cut_off(self, category: str | None, explanation: object = None) -> None:
        """Notes that the vendor's filter ended the answer, and why; None: as the finish says."""
        self.finish = self.finish or category
        self._refusal = category
        if isinstance(explanation, str):
            self._explanation = explanation

    def completion(self) -> Completion:
        """Returns the answer; see `VendorAdapter._completion`, also for what it raises."""
        return self._adapter._completion(
            text="".join(self.texts),
            finish=self.finish,
            usage=_read_usage(self.usage),
            calls=tuple(self.calls),
            request_id=text_of(self.raw.get("responseId")) or None,
            raw=self.raw,
            refusal=self._refusal,
            explanation=self._explanation,
        )


def _texts(parts: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    return (text_of(part.get("text")) for part in parts if not part.get("thought"))


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    """Reads the tokens as Google's total adds them up.

    Thoughts are counted beside the answer's tokens, and what Google's own tools found beside the
    prompt's, of which cached ones are a part.
    """
    asked = count_of(usage, "promptTokenCount")
    found = count_of(usage, "toolUsePromptTokenCount")
    answer = count_of(usage, "candidatesTokenCount")
    thoughts = count_of(usage, "thoughtsTokenCount")
    known = answer is not None or thoughts is not None
    return Usage(
        input_tokens=None if asked is None else asked + (found or 0),
        output_tokens=(answer or 0) + (thoughts or 0) if known else None,
        cache_read_tokens=count_of(usage, "cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )
