"""CallReader: parts the keywords of a call into what is asked and how, and checks both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.budget import Budget
from llmkit.performance import Observer
from llmkit.pipeline import CallOptions
from llmkit.request import Prompt, Request, check_seconds
from llmkit.request.checks import check_whole
from llmkit.retry import RetryPolicy, retry_budget
from llmkit.settings import Settings

__all__ = ["CallReader"]


_OPTION_NAMES = (
    "timeout",
    "attempt_timeout",
    "max_retries",
)
_STREAM_OPTION_NAMES = ("first_chunk_timeout", "idle_timeout")
_REQUEST_NAMES = (
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "reasoning_effort",
    "extra_body",
    "extra_headers",
    "metadata",
    "on_unsupported",
)


class CallReader:
    """The part of an adapter that fills in its defaults and those of its settings."""

    model: str
    provider: str
    settings: Settings
    timeout: float | None
    max_retries: int | None
    observers: Sequence[Observer]
    budgets: Sequence[Budget]

    def read_call(
        self, prompt: Prompt, keywords: Mapping[str, Any], streamed: bool = False
    ) -> tuple[Request, CallOptions]:
        """Parts what is asked from how, and checks both.

        Args:
            prompt: A text, or messages.
            keywords: Those of `Client.complete`, or of `Client.stream`.
            streamed: Which of the two.

        Returns:
            The request and the options.

        Raises:
            InvalidRequestError: Something can't be meant.
        """
        given = dict(keywords)
        for name in ("max_tokens", "temperature", "top_p"):
            if given.get(name) is None:
                given[name] = getattr(self, name)
        names = (*_OPTION_NAMES, *_STREAM_OPTION_NAMES) if streamed else _OPTION_NAMES
        how = {name: given.pop(name) for name in names if name in given}
        asked = {name: given.pop(name) for name in _REQUEST_NAMES if name in given}
        request = Request.build(self.model, prompt, vendor_parameters=given, **asked)
        return request, self.read_options(streamed=streamed, **how)

    def read_options(
        self,
        *,
        streamed: bool = False,
        timeout: float | None = None,
        attempt_timeout: float | None = None,
        first_chunk_timeout: float | None = None,
        idle_timeout: float | None = None,
        max_retries: int | None = None,
        **_: Any,
    ) -> CallOptions:
        """Checks how a call is to be made, and fills in the adapter's and the settings' defaults.

        Args:
            streamed: Whether it is a stream, for which only a given `timeout` bounds the whole.
            timeout: Seconds for the whole call.
            attempt_timeout: Seconds for each try.
            first_chunk_timeout: Seconds until a stream's first chunk.
            idle_timeout: Seconds between a stream's chunks.
            max_retries: Tries after the first.
            **_: What is asked, rather than how, is not looked at.

        Returns:
            The options.

        Raises:
            InvalidRequestError: One of them can't be meant.
        """
        usual = self.timeout or self.settings.request_timeout
        total = check_seconds("timeout", timeout)
        retries = check_whole("max_retries", max_retries, 0)
        if retries is None:
            retries = self.max_retries
        if retries is None:
            retries = self.settings.llm_retry_max_attempts
        return CallOptions(
            timeout=total if streamed else total or usual,
            attempt_timeout=check_seconds("attempt_timeout", attempt_timeout),
            first_chunk_timeout=check_seconds("first_chunk_timeout", first_chunk_timeout) or usual,
            idle_timeout=check_seconds("idle_timeout", idle_timeout) or usual,
            retry=RetryPolicy(max_retries=retries, budget=retry_budget(self.provider)),
            observers=self.observers,
            budgets=self.budgets,
        )
