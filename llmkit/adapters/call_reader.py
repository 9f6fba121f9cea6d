"""CallReader: parts the keywords of a call into what is asked and how, and checks both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.budget import Budget
from llmkit.cache import LLMCache, open_cache
from llmkit.cache.replies import CacheUse, ReplyCache, read_cache_use, reply_cache
from llmkit.performance import Observer
from llmkit.pipeline import CallOptions
from llmkit.rate_limits import RateLimits
from llmkit.request import Prompt, Request, check_seconds
from llmkit.request.checks import check_whole
from llmkit.retry import RetryPolicy, retry_budget
from llmkit.settings import Settings

__all__ = ["CallReader"]


_OPTION_NAMES = (
    "timeout",
    "attempt_timeout",
    "max_retries",
    "use_cache",
    "cache_ttl",
    "stale_ttl",
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
    rate_limits: RateLimits | None
    cache: LLMCache | str | bool | None
    cache_enabled: bool
    cache_ttl: float | None
    stale_ttl: float | None

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
        use_cache: object = None,
        cache_ttl: float | None = None,
        stale_ttl: float | None = None,
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
            use_cache: True, False or "refresh"; None does what the adapter and the settings say.
            cache_ttl: Seconds for which a fresh answer is kept.
            stale_ttl: Seconds for which it may be used after that, when every model fails.
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
        use = self._cache_use(use_cache, cache_ttl, stale_ttl)
        return CallOptions(
            timeout=total if streamed else total or usual,
            attempt_timeout=check_seconds("attempt_timeout", attempt_timeout),
            first_chunk_timeout=check_seconds("first_chunk_timeout", first_chunk_timeout) or usual,
            idle_timeout=check_seconds("idle_timeout", idle_timeout) or usual,
            retry=RetryPolicy(max_retries=retries, budget=retry_budget(self.provider)),
            observers=self.observers,
            budgets=self.budgets,
            rate_limits=self.rate_limits,
            cache=None if use.mode == "off" else self._reply_cache(),
            cache_use=use,
        )

    def _cache_use(
        self, use_cache: object, cache_ttl: float | None, stale_ttl: float | None
    ) -> CacheUse:
        if use_cache is None:
            enabled = self.settings.cache_enabled or self.cache not in (None, False)
            use_cache = enabled and self.cache_enabled and self.cache is not False
        return read_cache_use(
            use_cache,
            self.cache_ttl if cache_ttl is None else cache_ttl,
            self.stale_ttl if stale_ttl is None else stale_ttl,
        )

    def _reply_cache(self) -> ReplyCache | None:
        store = open_cache(self.cache or None, self.settings)
        return None if store is None else reply_cache(store, self.settings.cache_namespace)
