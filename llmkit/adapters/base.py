"""BaseLLMAdapter: what every adapter shares; the vendors' own files add five small jobs each."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.call_reader import CallReader
from llmkit.cache import LLMCache
from llmkit.errors import InvalidRequestError, LLMError
from llmkit.log import redact
from llmkit.models import ModelInfo
from llmkit.models.registry import get_registry
from llmkit.performance import Observer
from llmkit.pipeline import CallOptions, complete, open_stream, read_answer
from llmkit.request import Message, Prompt, Request, check_seconds
from llmkit.request.checks import check_address, check_whole
from llmkit.retry import call_with_retries
from llmkit.scope import CallInterrupted, Scope
from llmkit.settings import Settings, check_settings, get_settings
from llmkit.streams import ChunkSource, Stream
from llmkit.tokenizer import TokenCount, count_tokens
from llmkit.types import Chunk, Completion

if TYPE_CHECKING:
    from llmkit.budget import Budget
    from llmkit.rate_limits import RateLimits

__all__ = ["BaseLLMAdapter", "Key"]

Key = str | Callable[[], str] | None

# Seconds that a health check may take.
HEALTH_TIMEOUT = 10.0


class BaseLLMAdapter(CallReader, ABC):
    """One model of one provider.

    A subclass implements `_generate_text(request)`, which returns a `Completion`, or a mapping
    such as `{"text": …}`; it may implement `_stream_text` for real streaming. `generate` and
    `stream` add the deadline, the retries and the figures.

    Args:
        model: The model's bare name.
        provider: Its provider.
        api_key: The key, or a function that returns it (asked at each call, so that keys can
            rotate); None takes it from the settings.
        api_base: The provider's address; None takes it from the settings, or the vendor's own.
        timeout: Seconds for a whole call; None takes REQUEST_TIMEOUT.
        max_retries: Tries after the first; None takes LLM_RETRY_MAX_ATTEMPTS.
        cache_enabled: Whether calls that don't say `use_cache` use the cache, where the settings
            don't turn it off.
        max_tokens: The longest answer, where a call does not say; None leaves it to the vendor.
        temperature: Likewise.
        top_p: Likewise.
        settings: Where the rest comes from; None takes the process's settings.

    Raises:
        InvalidRequestError: An argument can't be meant.
    """

    # Fields of a Request that the vendor has no word for, whatever the model.
    never_takes: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        model: str,
        provider: str,
        api_key: Key = None,
        api_base: str | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        cache_enabled: bool = True,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        *,
        settings: Settings | None = None,
    ) -> None:
        self.settings = get_settings() if settings is None else check_settings(settings)
        self.model = model
        self.provider = provider
        self.api_base = check_address("api_base", api_base)
        self.timeout = check_seconds("timeout", timeout)
        self.max_retries = check_whole("max_retries", max_retries, 0)
        self.cache_enabled = cache_enabled
        self.max_tokens = max_tokens
        self.temperature = temperature
        self.top_p = top_p
        self.initialized = False
        self.observers: Sequence[Observer] = ()
        self.budgets: Sequence[Budget] = ()
        self.rate_limits: RateLimits | None = None
        self.cache: LLMCache | str | bool | None = None  # the process's
        self.cache_ttl: float | None = None
        self.stale_ttl: float | None = None
        self.cache_truncated: bool | None = None
        self.kept_options: dict[bool, tuple[tuple[object, ...], CallOptions]] = {}
        self._api_key = api_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r}, provider={self.provider!r})"

    def __getstate__(self) -> dict[str, Any]:
        # A key never gets into a pickle; where that is read, the settings have to have one. Nor
        # does a cache that is an object, or whose URL has a password.
        cache = self.cache
        if isinstance(cache, LLMCache) or (isinstance(cache, str) and redact(cache) != cache):
            cache = None
        return {**self.__dict__, "_api_key": None, "kept_options": {}, "cache": cache}

    @property
    def info(self) -> ModelInfo:
        """What the registry knows of the model; little, for one it does not know of this provider.

        Another provider's model of the same name may have other prices and limits.
        """
        # Not `get_model_info`, which looks for near matches of a name that it does not find.
        info = get_registry().find(f"{self.provider}:{self.model}")
        if info is None or info.provider != self.provider:
            return ModelInfo(self.model, self.provider, known=False)
        return info

    @property
    def address(self) -> str:
        """Where the model is asked: what is learnt of it there does not hold elsewhere."""
        return self.api_base or ""

    def ensure_initialized(self) -> bool:
        """Makes sure that a call could be made: the SDK is installed and there is a key.

        Returns:
            True.

        Raises:
            ConfigurationError: Something is missing; the message says what, and how to mend it.
        """
        if not self.initialized:
            self._prepare()
            self.initialized = True
        return True

    def asks_like(self, other: BaseLLMAdapter) -> bool:
        """Says whether another adapter was made to ask the same model, place and account.

        Args:
            other: The other one.

        Returns:
            True only if they are of one class, and were given the same key, address and settings:
            settings have keys and addresses, too.
        """
        return self is other or (
            type(self) is type(other)
            and (self.provider, self.model, self.api_base, self._api_key)
            == (other.provider, other.model, other.api_base, other._api_key)
            and self.settings == other.settings
        )

    def load_ahead(self) -> None:
        """Begins to load what a first call needs, without waiting for it; here, nothing."""

    def generate(
        self,
        prompt: Prompt,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop_sequences: str | Iterable[str] | None = None,
        retry_on_failure: bool = True,
        use_cache: bool | str | None = None,
        **kwargs: Any,
    ) -> Completion:
        """Asks the model.

        Args:
            prompt: A text, or messages `{"role", "content"}`.
            max_tokens: The longest answer, in tokens; None takes the adapter's.
            temperature: 0 to 2; None takes the adapter's.
            top_p: 0 to 1; None takes the adapter's.
            stop_sequences: Texts that end the answer; None for none.
            retry_on_failure: Whether a failure is tried again.
            use_cache: True, False, or "refresh" for a fresh answer that replaces the cached one;
                None takes what the adapter and CACHE_ENABLED say.
            **kwargs: Anything else that `Client.complete` takes, but `model` and `fallbacks`.

        Returns:
            The answer.

        Raises:
            LLMError: Whatever went wrong, by its class and code.
        """
        given = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        further = _renamed(kwargs, stop_sequences, retry_on_failure)
        return self.run(*self.read_call(prompt, {**further, **given, "use_cache": use_cache}))

    def stream(
        self,
        prompt: Prompt,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop_sequences: str | Iterable[str] | None = None,
        retry_on_failure: bool = True,
        **kwargs: Any,
    ) -> Stream:
        """Asks the model and streams the answer.

        Args:
            prompt: A text, or messages `{"role", "content"}`.
            max_tokens: As in `generate`; likewise the next four.
            temperature: See `generate`.
            top_p: See `generate`.
            stop_sequences: See `generate`.
            retry_on_failure: See `generate`.
            **kwargs: Anything else that `Client.stream` takes, but `model` and `fallbacks`.

        Returns:
            The stream; its first chunk has arrived.

        Raises:
            LLMError: There was no first chunk.
        """
        given = {"max_tokens": max_tokens, "temperature": temperature, "top_p": top_p}
        further = _renamed(kwargs, stop_sequences, retry_on_failure)
        return self.run_stream(*self.read_call(prompt, {**further, **given}, streamed=True))

    def run(self, request: Request, options: CallOptions) -> Completion:
        """Makes a checked request; see `pipeline.complete`, for both arguments, too."""
        return complete(self, request, options)

    def run_stream(self, request: Request, options: CallOptions) -> Stream:
        """Makes a checked request as a stream; see `pipeline.open_stream`, likewise."""
        return open_stream(self, request, options)

    def tokenize(self, text: str) -> int:
        """Counts a text's tokens, without the network.

        Args:
            text: The text, without the framing that a message has.

        Returns:
            How many; an estimate where `llmkit.tokenizer.count_tokens` says so.
        """
        return count_tokens(self.model, text)

    def count_tokens(
        self,
        prompt: Prompt,
        *,
        system: str | None = None,
        exact: bool = False,
        timeout: float | None = None,
        max_retries: int | None = None,
    ) -> TokenCount:
        """Counts a prompt's tokens.

        Args:
            prompt: A text, or messages `{"role", "content"}`.
            system: Instructions, counted as the message that they become; None for none.
            exact: Whether the vendor's counting endpoint is asked, which costs a request, but no
                money. A text is then counted as the message that it would be sent as, so its
                framing is included. False never opens a connection, see
                `llmkit.tokenizer.count_tokens`.
            timeout: Seconds for the request and its further tries; None takes the adapter's.
            max_retries: Tries after the first; None takes the adapter's.

        Returns:
            The tokens; `.estimated` says whether they are an estimate.

        Raises:
            InvalidRequestError: The prompt can't be meant, or the vendor has no such endpoint.
            LLMError: The vendor did not answer with a count.
        """
        if not exact:
            messages = prompt
            if system:
                user = (Message("user", prompt),) if isinstance(prompt, str) else tuple(prompt)
                messages = (Message("system", system), *user)
            return count_tokens(self.model, messages)
        options = self.read_options(timeout=timeout, max_retries=max_retries)
        request = Request.build(self.model, prompt, system=system)
        self.ensure_initialized()
        try:
            with Scope(options.timeout).entered():
                return call_with_retries(lambda _: self._count_exactly(request), options.retry)
        except CallInterrupted as interruption:
            error = interruption.to_error()
        except LLMError as failure:
            error = failure
        error.provider, error.model = error.provider or self.provider, error.model or self.model
        raise error

    def health_check(self) -> dict[str, Any]:
        """Asks the provider for something that costs nothing.

        Returns:
            `status` ("healthy" or "unhealthy"), `provider`, `model`, `latency_ms`, and `error`
            (None, or what is wrong). Never raises an `LLMError`; takes 10 s at most.
        """
        began = time.perf_counter()
        error: str | None = None
        try:
            with Scope(HEALTH_TIMEOUT).entered():
                self.ensure_initialized()
                self._ping()
        except LLMError as failure:
            error = str(failure)
        except CallInterrupted as interruption:
            error = interruption.message
        return {
            "status": "unhealthy" if error else "healthy",
            "provider": self.provider,
            "model": self.model,
            "latency_ms": 1000 * (time.perf_counter() - began),
            "error": error,
        }

    def close(self) -> None:
        """Ends this adapter's use; what it shares with the process stays open."""
        self.initialized = False

    def __enter__(self) -> BaseLLMAdapter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _generate_text(self, request: Request) -> Completion | Mapping[str, Any]:
        """Makes one HTTP request: the only vendor-specific step of a call.

        It is called once for each try, inside the call's Scope.

        Args:
            request: What is asked, as the model takes it.

        Returns:
            The answer, or a mapping that `Completion.from_mapping` can read.

        Raises:
            LLMError: The vendor failed; `retryable` decides on further tries, `code` on fallbacks.
            Exception: Of others, `ConnectionError` and `TimeoutError` are tried again and lead to
                a fallback; all the rest are mistakes in the program, and passed on as they are.
        """

    def _stream_text(self, request: Request) -> ChunkSource:
        """Makes one streamed HTTP request; here, for vendors that don't stream, a plain one.

        Args:
            request: What is asked, as the model takes it.

        Yields:
            The answer's pieces, none of them empty.

        Returns:
            The whole answer, as the generator's value.

        Raises:
            LLMError: As in `_generate_text`.
        """
        answer = read_answer(self, self._generate_text(request))
        if answer.text:
            yield Chunk(answer.text)
        return answer

    def _prepare(self) -> None:
        """Checks what a first call needs."""

    def _count_exactly(self, request: Request) -> TokenCount:
        """Asks the vendor for the number of a prompt's tokens: one HTTP request."""
        raise InvalidRequestError(
            f"{self.provider} has no endpoint that counts tokens, or none that llmkit knows; "
            "exact=False gives an estimate",
            provider=self.provider,
            model=self.model,
        )

    def _ping(self) -> None:
        """Asks the provider for something that costs nothing."""


def _renamed(
    kwargs: dict[str, Any], stop_sequences: object, retry_on_failure: bool
) -> dict[str, Any]:
    """Says by `Client.complete`'s words what `generate` has others for."""
    if stop_sequences is not None:
        if kwargs.get("stop") is not None:
            raise InvalidRequestError("stop and stop_sequences are the same: give one of them")
        kwargs["stop"] = stop_sequences
    if not retry_on_failure:
        kwargs["max_retries"] = 0
    return kwargs
