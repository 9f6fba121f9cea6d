"""Client: the facade."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from llmkit.client.asides import Asides
from llmkit.client.asking import Asking
from llmkit.client.middleware import Middleware
from llmkit.client.racing import Racing
from llmkit.performance import Observer
from llmkit.request import OnUnsupported, Prompt, check_seconds
from llmkit.request.checks import check_switch, check_whole
from llmkit.settings import Settings
from llmkit.types import Completion

# What only a call needs is loaded by the first one: a Client is made in every process of a program,
# and many of them never call.
if TYPE_CHECKING:
    from llmkit.adapters import BaseLLMAdapter
    from llmkit.budget import Budget
    from llmkit.cache import LLMCache
    from llmkit.fallback import FallbackOn
    from llmkit.streams import Stream

__all__ = ["Client", "Middleware"]


class Client(Racing, Asides):
    """Talks to language models.

        reply = Client().complete("Why is the sky blue?", model="openai:gpt-6-luna")
        print(reply.text, reply.usage.total_tokens, reply.cost)

    A Client is cheap to make and safe to share between threads: connections, SDK clients and
    figures belong to the process, and every Client uses the same.

    Args:
        model: The model to ask where a call names none, or an adapter of your own; None takes
            PRIMARY_LLM, or else the default model of the first provider that has a key.
        timeout: Seconds of wall clock for a whole call; None takes REQUEST_TIMEOUT.
        max_retries: Tries after the first; None takes LLM_RETRY_MAX_ATTEMPTS.
        fallbacks: The models to ask when one fails in a way in which another need not; None takes
            FALLBACK_LLM, an empty list asks no other.
        fallback_on: Which failures lead to the next model: error codes, or a function of an
            exception; None for those of `llmkit.fallback.FALLBACK_CODES`: limits, quotas,
            time-outs, connections, the vendor's own failures, an unknown model, too small a window.
        middleware: Functions `middleware(request, call_next)` around every call, the first one
            outermost. Each returns what `call_next(request)` gives it (a `Completion`, or a
            `Stream`), or its own `Completion`; it may change the request by `dataclasses.replace`.
        observers: Functions that are given the `CallRecord` of each call that ends.
        rate_limits: Requests and tokens per minute that calls keep to, waiting inside their
            deadline: `{"gpt-6-luna": {"requests_per_minute": 60, "tokens_per_minute": 90_000}}`,
            by model, by provider (all its models together), or "*" for each model; None for none.
        cache: Where answers are kept, for equal questions: an `LLMCache`, a URL (`redis://…`,
            `sqlite:///…`) of what stands behind memory, or False for nowhere, whatever a call's
            `use_cache` says; None takes the process's own, see `llmkit.cache.get_cache`, unless
            CACHE_ENABLED is off.
        cache_ttl: Seconds that an answer is kept; None takes CACHE_TTL, or the `ttl` of an
            `LLMCache` that is given.
        stale_ttl: Seconds that it is kept after that, to be given, as `reply.cached == "stale"`,
            when every model fails; None for none.
        cache_truncated: Whether answers that were cut off at `max_tokens` are kept, too; None for
            no.
        budget: What pays for every call of this Client: a `Budget`, or an amount in USD; None sets
            no limit.
        settings: None takes the process's settings. CONNECT_TIMEOUT and the pools' sizes are always
            the process's, for the pools are.

    Raises:
        InvalidRequestError: An argument can't be meant.
    """

    def __init__(
        self,
        model: str | BaseLLMAdapter | None = None,
        *,
        fallbacks: Sequence[str | BaseLLMAdapter] | None = None,
        timeout: float | None = None,
        max_retries: int | None = None,
        fallback_on: FallbackOn = None,
        middleware: Sequence[Middleware] = (),
        observers: Sequence[Observer] = (),
        rate_limits: Mapping[str, Any] | None = None,
        cache: LLMCache | str | bool | None = None,
        cache_ttl: float | None = None,
        stale_ttl: float | None = None,
        cache_truncated: bool | None = None,
        budget: Budget | Decimal | float | str | None = None,
        settings: Settings | None = None,
    ) -> None:
        self.model = model
        self._asking = Asking(
            model,
            fallbacks=fallbacks,
            timeout=check_seconds("timeout", timeout),
            max_retries=check_whole("max_retries", max_retries, 0),
            fallback_on=fallback_on,
            middleware=middleware,
            observers=observers,
            budgets=() if budget is None else (_as_budget(budget),),
            rate_limits=rate_limits,
            cache=cache,
            cache_ttl=check_seconds("cache_ttl", cache_ttl),
            stale_ttl=check_seconds("stale_ttl", stale_ttl),
            cache_truncated=check_switch("cache_truncated", cache_truncated),
            settings=settings,
        )

    def __repr__(self) -> str:
        return f"Client(model={self.model!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def complete(
        self,
        prompt: Prompt,
        *,
        model: str | BaseLLMAdapter | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | Iterable[str] | None = None,
        seed: int | None = None,
        reasoning_effort: str | None = None,
        timeout: float | None = None,
        attempt_timeout: float | None = None,
        fallbacks: Sequence[str | BaseLLMAdapter] | None = None,
        max_retries: int | None = None,
        use_cache: bool | Literal["refresh"] | None = None,
        cache_ttl: float | None = None,
        stale_ttl: float | None = None,
        cache_truncated: bool | None = None,
        on_unsupported: OnUnsupported = "warn",
        metadata: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **vendor_parameters: Any,
    ) -> Completion:
        """Asks a model and waits for its answer.

        Args:
            prompt: A text, or messages `{"role": …, "content": …}` in the OpenAI shape.
            model: Such as "gpt-6-luna" or "anthropic:claude-haiku-5-5", or an adapter of your own;
                None takes the Client's.
            system: Instructions, put before the messages; None for none.
            max_tokens: The longest answer; None leaves it to the vendor.
            temperature: 0 to 2; None sends none.
            top_p: 0 to 1; None sends none.
            stop: Texts that end the answer; None for none.
            seed: For repeatable sampling, where the vendor offers it; None sends none.
            reasoning_effort: Such as "low"; None sends none.
            timeout: Seconds of wall clock for everything together: waiting for a connection, every
                try, every byte of the answer. None takes the Client's.
            attempt_timeout: Seconds for each single try, and with fallbacks for all tries of one
                model together; None: as long as the call may last, but with fallbacks two thirds of
                what is left while others wait.
            fallbacks: The models to ask when this one fails; None takes the Client's.
            max_retries: Tries after the first, of each model; None takes the Client's.
            use_cache: True, False, or "refresh" for a fresh answer that replaces the cached one;
                None takes the Client's. A Client without a cache has none for True, either.
            cache_ttl: Seconds that the answer is kept; None takes the Client's.
            stale_ttl: Seconds that it is kept after that, for when every model fails; None takes
                the Client's.
            cache_truncated: Whether an answer that was cut off at `max_tokens` is kept, too, and a
                cached one is taken; None takes the Client's.
            on_unsupported: What happens with a parameter that the registry says the model refuses:
                "warn" leaves it out and says so in `reply.warnings`, "drop" is silent, "error"
                raises.
            metadata: Your own notes, for the observers; never sent.
            extra_body: Fields laid over the JSON that is sent.
            extra_headers: HTTP headers to add.
            **vendor_parameters: Anything else is sent to the vendor as it is.

        Returns:
            The answer.

        Raises:
            LLMError: Whatever went wrong; the subclass and `.code` say what, `.attempts` what was
                tried.
        """
        keywords = {
            "system": system,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop": stop,
            "seed": seed,
            "reasoning_effort": reasoning_effort,
            "timeout": timeout,
            "attempt_timeout": attempt_timeout,
            "max_retries": max_retries,
            "use_cache": use_cache,
            "cache_ttl": cache_ttl,
            "stale_ttl": stale_ttl,
            "cache_truncated": cache_truncated,
            "on_unsupported": on_unsupported,
            "metadata": metadata,
            "extra_body": extra_body,
            "extra_headers": extra_headers,
            **vendor_parameters,
        }
        return self._asking.complete(prompt, model, fallbacks, keywords)

    def stream(
        self,
        prompt: Prompt,
        *,
        model: str | BaseLLMAdapter | None = None,
        system: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        stop: str | Iterable[str] | None = None,
        seed: int | None = None,
        reasoning_effort: str | None = None,
        timeout: float | None = None,
        attempt_timeout: float | None = None,
        first_chunk_timeout: float | None = None,
        idle_timeout: float | None = None,
        fallbacks: Sequence[str | BaseLLMAdapter] | None = None,
        max_retries: int | None = None,
        use_cache: bool | Literal["refresh"] | None = None,
        cache_ttl: float | None = None,
        stale_ttl: float | None = None,
        cache_truncated: bool | None = None,
        on_unsupported: OnUnsupported = "warn",
        metadata: Mapping[str, Any] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        extra_headers: Mapping[str, str] | None = None,
        **vendor_parameters: Any,
    ) -> Stream:
        """Asks a model and hands out its answer while it is being written.

            with client.stream("Tell me a story") as stream:
                for chunk in stream:
                    print(chunk.text, end="", flush=True)
            print(stream.completion.cost)

        The request is sent at once, and tried again as `complete` does while nothing has arrived.
        After the first chunk nothing is tried again: a stream that breaks raises
        `StreamInterruptedError` with the text so far.

        Args:
            prompt: As in `complete`, and likewise all arguments that are not named here.
            model: See `complete`.
            system: See `complete`.
            max_tokens: See `complete`.
            temperature: See `complete`.
            top_p: See `complete`.
            stop: See `complete`.
            seed: See `complete`.
            reasoning_effort: See `complete`.
            timeout: Seconds for the whole stream; None sets no limit, so that a long answer is not
                cut off (the two below still hold).
            attempt_timeout: Seconds of each try until the first chunk; None: as long as
                `first_chunk_timeout`.
            first_chunk_timeout: Seconds until the first chunk, all tries together; None takes the
                Client's `timeout`.
            idle_timeout: Seconds between two chunks; None takes the Client's `timeout`.
            fallbacks: See `complete`; they are asked until a first chunk has arrived.
            max_retries: See `complete`.
            use_cache: See `complete`; a cached answer comes as a stream, too.
            cache_ttl: See `complete`.
            stale_ttl: See `complete`.
            cache_truncated: See `complete`.
            on_unsupported: See `complete`.
            metadata: See `complete`.
            extra_body: See `complete`.
            extra_headers: See `complete`.
            **vendor_parameters: See `complete`.

        Returns:
            The stream; its first chunk has arrived.

        Raises:
            LLMError: There was no first chunk.
        """
        keywords = {
            "system": system,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop": stop,
            "seed": seed,
            "reasoning_effort": reasoning_effort,
            "timeout": timeout,
            "attempt_timeout": attempt_timeout,
            "first_chunk_timeout": first_chunk_timeout,
            "idle_timeout": idle_timeout,
            "max_retries": max_retries,
            "use_cache": use_cache,
            "cache_ttl": cache_ttl,
            "stale_ttl": stale_ttl,
            "cache_truncated": cache_truncated,
            "on_unsupported": on_unsupported,
            "metadata": metadata,
            "extra_body": extra_body,
            "extra_headers": extra_headers,
            **vendor_parameters,
        }
        return self._asking.stream(prompt, model, fallbacks, keywords)

    def close(self) -> None:
        """Ends the use of this Client; what belongs to the process stays open for others."""
        self._asking.close()


def _as_budget(budget: Budget | Decimal | float | str) -> Budget:
    from llmkit.budget import Budget

    return budget if isinstance(budget, Budget) else Budget(usd=budget)
