"""CallReader: parts the keywords of a call into what is asked and how, and checks both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmkit.cache import LLMCache, generation, open_cache
from llmkit.cache.replies import CacheUse, ReplyCache, read_cache_use, reply_cache
from llmkit.errors import InvalidRequestError
from llmkit.performance import Observer
from llmkit.pipeline import CallOptions
from llmkit.request import Prompt, Request, check_seconds
from llmkit.request.checks import check_whole
from llmkit.retry import RetryPolicy
from llmkit.settings import Settings

if TYPE_CHECKING:
    from llmkit.budget import Budget
    from llmkit.rate_limits import RateLimits

__all__ = ["CallReader", "replies_at"]


# How a call is made, and what it asks, by the names that `Client.complete` has for them.
_HOW = frozenset(
    {
        "timeout",
        "attempt_timeout",
        "max_retries",
        "use_cache",
        "cache_ttl",
        "stale_ttl",
        "cache_truncated",
    }
)
_HOW_STREAMED = _HOW | {"first_chunk_timeout", "idle_timeout"}
_WHAT = frozenset(
    {
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
    }
)


class CallReader:
    """The part of an adapter that fills in its defaults and those of its settings."""

    model: str
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
    cache_truncated: bool | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    # Of calls that say nothing of them, by whether they are streams, with what they rest on.
    kept_options: dict[bool, tuple[tuple[object, ...], CallOptions]]

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
        names = _HOW_STREAMED if streamed else _HOW
        how: dict[str, Any] = {}
        what: dict[str, Any] = {}
        further: dict[str, Any] = {}
        for name, value in keywords.items():
            if name in _WHAT:
                if value is not None:
                    what[name] = value
            elif name in names:
                if value is not None:
                    how[name] = value
            else:
                further[name] = value
        for name in ("max_tokens", "temperature", "top_p"):
            usual = getattr(self, name)
            if usual is not None and name not in what:
                what[name] = usual
        request = Request.build(self.model, prompt, vendor_parameters=further, **what)
        body = request.extra_body
        if "stream" in body and body["stream"] and not streamed:
            raise InvalidRequestError("extra_body: a stream is asked for by Client.stream(…)")
        options = self.read_options(streamed=streamed, **how) if how else self._usual(streamed)
        return request, options

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
        cache_truncated: bool | None = None,
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
            cache_truncated: Whether an answer that was cut off is kept, too.
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
        use = self._cache_use(use_cache, cache_ttl, stale_ttl, cache_truncated)
        return CallOptions(
            timeout=total if streamed else total or usual,
            attempt_timeout=check_seconds("attempt_timeout", attempt_timeout),
            first_chunk_timeout=check_seconds("first_chunk_timeout", first_chunk_timeout) or usual,
            idle_timeout=check_seconds("idle_timeout", idle_timeout) or usual,
            retry=RetryPolicy(max_retries=retries),
            observers=self.observers,
            budgets=self.budgets,
            rate_limits=self.rate_limits,
            cache=None if use.mode == "off" else replies_at(self.cache, self.settings),
            cache_use=use,
        )

    def _usual(self, streamed: bool) -> CallOptions:
        """Returns the options of a call that says nothing of them, kept from the last such call."""
        basis = (
            self.timeout,
            self.max_retries,
            self.observers,
            self.budgets,
            self.rate_limits,
            self.cache,
            self.cache_enabled,
            self.cache_ttl,
            self.stale_ttl,
            self.cache_truncated,
            generation(),
        )
        kept = self.kept_options.get(streamed)
        if kept is None or kept[0] != basis:
            kept = self.kept_options[streamed] = basis, self.read_options(streamed=streamed)
        return kept[1]

    def _cache_use(
        self,
        use_cache: object,
        cache_ttl: float | None,
        stale_ttl: float | None,
        cache_truncated: bool | None,
    ) -> CacheUse:
        if use_cache is None:
            enabled = self.settings.cache_enabled or self.cache not in (None, False)
            use_cache = enabled and self.cache_enabled and self.cache is not False
        return read_cache_use(
            use_cache,
            self.cache_ttl if cache_ttl is None else cache_ttl,
            self.stale_ttl if stale_ttl is None else stale_ttl,
            self.cache_truncated if cache_truncated is None else cache_truncated,
        )


def replies_at(place: LLMCache | str | bool | None, settings: Settings) -> ReplyCache | None:
    """Returns the answers that are kept somewhere.

    Args:
        place: Where, as `Client` takes it for `cache`.
        settings: Whose namespace counts, and what `place` leaves open.
    """
    store = open_cache(place, settings)
    return None if store is None else reply_cache(store, settings.cache_namespace)
