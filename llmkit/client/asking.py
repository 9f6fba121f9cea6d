"""What a Client does with a call: finds the models, reads the keywords, goes through middleware."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.client.middleware import Middleware, as_stream, check_middleware, run_through
from llmkit.errors import ConfigurationError, InvalidRequestError, LLMError
from llmkit.log import brief
from llmkit.performance import Observer
from llmkit.request import Prompt, Request
from llmkit.settings import Settings, check_settings, get_settings
from llmkit.types import Completion

if TYPE_CHECKING:
    from llmkit.adapters import BaseLLMAdapter
    from llmkit.budget import Budget
    from llmkit.cache import LLMCache
    from llmkit.fallback import FallbackOn
    from llmkit.parallel import HedgeAfter
    from llmkit.pipeline import Target
    from llmkit.rate_limits import RateLimits
    from llmkit.streams import Stream

__all__ = ["Asking"]

R = TypeVar("R")


class Asking:
    """The calls of one Client.

    Args:
        model: The model where a call names none; None chooses by the settings.
        fallbacks: The models after it; None takes FALLBACK_LLM.
        timeout: Seconds for a whole call; None takes the settings'.
        max_retries: Tries after the first; None takes the settings'.
        fallback_on: Which failures lead to the next model.
        middleware: Functions around every call.
        observers: Who is told of every call.
        budgets: What pays for it.
        rate_limits: What calls have to wait for, as the user wrote it.
        cache: Where answers are kept.
        cache_ttl: Seconds for which.
        stale_ttl: Seconds for which they may be used after that.
        cache_truncated: Whether those that were cut off are kept, too.
        settings: None takes the process's, as they are at each call.
    """

    def __init__(
        self,
        model: str | BaseLLMAdapter | None,
        *,
        fallbacks: Sequence[str | BaseLLMAdapter] | None,
        timeout: float | None,
        max_retries: int | None,
        fallback_on: FallbackOn,
        middleware: Sequence[Middleware],
        observers: Sequence[Observer],
        budgets: Sequence[Budget],
        rate_limits: Mapping[str, Any] | None,
        cache: LLMCache | str | bool | None,
        cache_ttl: float | None,
        stale_ttl: float | None,
        cache_truncated: bool | None,
        settings: Settings | None,
    ) -> None:
        self._model = model
        self._fallbacks = None if fallbacks is None else _checked_names("fallbacks", fallbacks)
        self._timeout = timeout
        self._max_retries = max_retries
        self._fallback_on = fallback_on
        self._middleware = check_middleware(middleware)
        # A list, and so nobody else's: by it the adapters that this Client has made are known.
        self._observers = _checked_observers(observers)
        self._budgets = tuple(budgets)
        self._rate_limits = None if rate_limits is None else _read_limits(rate_limits)
        self._cache = cache
        self._cache_ttl = cache_ttl
        self._stale_ttl = stale_ttl
        self._cache_truncated = cache_truncated
        self._settings = _check_models_file(settings)
        self._adapters: dict[str, BaseLLMAdapter] = {}
        self._closed = False
        if fallback_on is not None:  # said now if it can't be meant
            self._leads_on()

    def complete(
        self,
        prompt: Prompt,
        model: str | BaseLLMAdapter | None,
        fallbacks: Sequence[str | BaseLLMAdapter] | None,
        keywords: Mapping[str, Any],
    ) -> Completion:
        """Makes a call; see `Client.complete`."""
        chain = self._chain(model, fallbacks)
        if self._is_plain(chain):
            return chain[0].run(*chain[0].read_call(prompt, keywords))
        from llmkit.fallback import complete_in_turn

        targets, request = self._read(prompt, chain, keywords)
        return self._through_middleware(
            lambda request: complete_in_turn(targets, request, self._leads_on()), request, targets
        )

    def stream(
        self,
        prompt: Prompt,
        model: str | BaseLLMAdapter | None,
        fallbacks: Sequence[str | BaseLLMAdapter] | None,
        keywords: Mapping[str, Any],
    ) -> Stream:
        """Makes a streamed call; see `Client.stream`."""
        chain = self._chain(model, fallbacks)
        if self._is_plain(chain):
            return chain[0].run_stream(*chain[0].read_call(prompt, keywords, streamed=True))
        from llmkit.fallback import stream_in_turn

        targets, request = self._read(prompt, chain, keywords, streamed=True)
        return self._stream_through_middleware(
            lambda request: stream_in_turn(targets, request, self._leads_on()), request, targets
        )

    def race(
        self,
        prompt: Prompt,
        models: Sequence[str | BaseLLMAdapter],
        hedge_after: HedgeAfter,
        keywords: Mapping[str, Any],
    ) -> Completion:
        """Makes a race; see `Client.race`."""
        from llmkit.parallel import complete_in_race

        targets, request = self._read(prompt, self._racers(models), keywords)
        return self._through_middleware(
            lambda request: complete_in_race(targets, request, hedge_after), request, targets
        )

    def race_stream(
        self,
        prompt: Prompt,
        models: Sequence[str | BaseLLMAdapter],
        hedge_after: HedgeAfter,
        keywords: Mapping[str, Any],
    ) -> Stream:
        """Makes a race of streams; see `Client.race_stream`."""
        from llmkit.parallel import stream_in_race

        targets, request = self._read(prompt, self._racers(models), keywords, streamed=True)
        return self._stream_through_middleware(
            lambda request: stream_in_race(targets, request, hedge_after), request, targets
        )

    def adapter(self, model: str | BaseLLMAdapter | None) -> BaseLLMAdapter:
        """Returns the adapter of a model, which is kept for the next call.

        Args:
            model: Its name, or an adapter of the user's own; None takes the Client's.
        """
        if self._closed:
            raise InvalidRequestError("this Client is closed; make a new one")
        settings = self._settings or get_settings()
        name = self._model if model is None else model
        if name is None and settings.primary_llm is not None:
            with _named_by("PRIMARY_LLM"):
                return self.adapter(settings.primary_llm)
        if isinstance(name, str):
            adapter = self._adapters.get(name)
            if adapter is not None and adapter.settings is settings:  # they may be read again
                return adapter
        return self._new_adapter(name, settings)

    def limits(self, timeout: float | None) -> dict[str, Any]:
        """Returns a request's `timeout` and `max_retries`; a user's own adapter's, too.

        Args:
            timeout: Seconds; None takes the Client's.
        """
        return {
            "timeout": self._timeout if timeout is None else timeout,
            "max_retries": self._max_retries,
        }

    def close(self) -> None:
        """Refuses further calls."""
        self._adapters.clear()
        self._closed = True

    def _new_adapter(
        self, model: str | BaseLLMAdapter | None, settings: Settings
    ) -> BaseLLMAdapter:
        from llmkit.adapters import BaseLLMAdapter, choose_model, get_adapter

        if isinstance(model, BaseLLMAdapter):
            return model
        name = choose_model(settings) if model is None else model
        adapter = get_adapter(
            name, timeout=self._timeout, max_retries=self._max_retries, settings=settings
        )
        adapter.observers = self._observers
        adapter.budgets = self._budgets
        adapter.rate_limits = self._rate_limits
        adapter.cache = self._cache
        adapter.cache_ttl = self._cache_ttl
        adapter.stale_ttl = self._stale_ttl
        adapter.cache_truncated = self._cache_truncated
        self._adapters[name] = adapter
        return adapter

    def _is_plain(self, chain: Sequence[BaseLLMAdapter]) -> bool:
        """Says whether there is nothing around the call but what the adapter knows itself."""
        return len(chain) == 1 and not self._middleware and self._made(chain[0])

    def _made(self, adapter: BaseLLMAdapter) -> bool:
        """Says whether an adapter is this Client's, rather than one that its user has given."""
        # A list, made in one step: other threads add theirs meanwhile.
        return any(adapter is each for each in list(self._adapters.values()))

    def _chain(
        self,
        model: str | BaseLLMAdapter | None,
        fallbacks: Sequence[str | BaseLLMAdapter] | None,
    ) -> list[BaseLLMAdapter]:
        """Returns the adapters to ask, each model once."""
        chain = [self.adapter(model)]
        for adapter in self._stand_ins(fallbacks):
            if not any(adapter.asks_like(each) for each in chain):
                chain.append(adapter)
        return chain

    def _stand_ins(
        self, fallbacks: Sequence[str | BaseLLMAdapter] | None
    ) -> Sequence[BaseLLMAdapter]:
        """Returns the adapters of the call's fallbacks, the Client's, or those of FALLBACK_LLM."""
        given = self._fallbacks if fallbacks is None else _checked_names("fallbacks", fallbacks)
        if given is not None:
            return [self.adapter(each) for each in given]
        names = (self._settings or get_settings()).fallback_llm
        if not names:
            return ()
        with _named_by("FALLBACK_LLM"):
            return [self.adapter(name) for name in names]

    def _racers(self, models: Sequence[str | BaseLLMAdapter]) -> list[BaseLLMAdapter]:
        names = _checked_names("models", models)
        if not names:
            raise InvalidRequestError("models= names no model")
        return [self.adapter(name) for name in names]

    def _read(
        self,
        prompt: Prompt,
        adapters: Sequence[BaseLLMAdapter],
        keywords: Mapping[str, Any],
        streamed: bool = False,
    ) -> tuple[list[Target], Request]:
        from llmkit.pipeline import Target

        keywords = self._with_defaults(keywords, streamed)
        request, options = adapters[0].read_call(prompt, keywords, streamed)
        targets = [Target(adapters[0], options)]
        for adapter in adapters[1:]:
            further = adapter.read_options(streamed=streamed, **keywords)
            targets.append(Target(adapter, further))
        for at, adapter in enumerate(adapters):
            if not self._made(adapter):
                targets[at] = self._owned(targets[at])
        return targets, request

    def _with_defaults(self, keywords: Mapping[str, Any], streamed: bool) -> dict[str, Any]:
        """Fills in this Client's time-out and retries, which hold for a user's own adapter, too."""
        times = ("first_chunk_timeout", "idle_timeout") if streamed else ("timeout",)
        defaults = {**dict.fromkeys(times, self._timeout), "max_retries": self._max_retries}
        given = {name: value for name, value in keywords.items() if value is not None}
        return {**keywords, **defaults, **given}

    def _owned(self, target: Target) -> Target:
        """Puts a user's own adapter under this Client's limits and observers, and its cache."""
        options = target.options
        changes: dict[str, Any] = {
            "observers": _joined(options.observers, self._observers),
            "budgets": _joined(options.budgets, self._budgets),
            "rate_limits": self._rate_limits or options.rate_limits,
        }
        if self._cache is not None and options.cache is not None:
            from llmkit.adapters.call_reader import replies_at

            changes["cache"] = replies_at(self._cache, target.adapter.settings)
        return target._replace(options=options._replace(**changes))

    def _through_middleware(
        self, call: Callable[[Request], Completion], request: Request, targets: Sequence[Target]
    ) -> Completion:
        if not self._middleware:
            return call(request)
        timeout = targets[0].options.timeout
        return run_through(self._middleware, request, call, (Completion,), timeout)

    def _stream_through_middleware(
        self, call: Callable[[Request], Stream], request: Request, targets: Sequence[Target]
    ) -> Stream:
        if not self._middleware:
            return call(request)
        from llmkit.streams import Stream

        kinds = (Stream, Completion)
        timeout = targets[0].options.timeout
        result: Stream | Completion = run_through(self._middleware, request, call, kinds, timeout)
        return as_stream(result) if isinstance(result, Completion) else result

    def _leads_on(self) -> Callable[[BaseException], bool]:
        from llmkit.fallback import falls_back_on

        return falls_back_on(self._fallback_on)


@contextmanager
def _named_by(variable: str) -> Iterator[None]:
    """Says in an error which variable names the model, for nobody has typed it here."""
    try:
        yield
    except LLMError as error:
        error.message += f" ({variable} names it)"
        raise


def _check_models_file(settings: Settings | None) -> Settings | None:
    if settings is None:
        return None
    if check_settings(settings).models_file != get_settings().models_file:
        raise ConfigurationError(
            "models_file: the registry belongs to the process: set LLMKIT_MODELS_FILE, or use "
            "register_model"
        )
    return settings


def _checked_observers(observers: Sequence[Observer]) -> list[Observer]:
    if callable(observers) or not isinstance(observers, Iterable):
        raise InvalidRequestError(f"observers={brief(observers)}: expected a list of functions")
    checked = list(observers)
    for each in checked:
        if not callable(each):
            raise InvalidRequestError(f"observers has {brief(each)}: expected functions")
    return checked


def _read_limits(given: Mapping[str, Any]) -> RateLimits:
    from llmkit.adapters import PROVIDERS
    from llmkit.rate_limits import read_rate_limits

    return read_rate_limits(given, PROVIDERS)


def _checked_names(
    name: str, models: Sequence[str | BaseLLMAdapter]
) -> tuple[str | BaseLLMAdapter, ...]:
    if isinstance(models, str) or not isinstance(models, Sequence):
        raise InvalidRequestError(f"{name}={brief(models)}: expected a list of models")
    if any(each is None for each in models):  # alone it means the Client's own
        raise InvalidRequestError(f"{name}={brief(models)}: None is no model")
    return tuple(models)


def _joined(own: Sequence[R], further: Sequence[R]) -> tuple[R, ...]:
    """Returns both, each once: nobody is to be told, or to pay, twice."""
    return (*own, *(each for each in further if each not in own))
