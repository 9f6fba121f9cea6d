"""Which limits hold for which model, and the process's limiters that keep them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.models import split_model_name
from llmkit.models.entry_points import declared
from llmkit.models.registry import get_registry
from llmkit.process_local import ProcessLocal
from llmkit.rate_limits.limit import RateLimit
from llmkit.rate_limits.limiter import Limiter, LimiterChain

__all__ = ["RateLimits", "read_rate_limits", "reset_rate_limits"]

EACH_MODEL = "*"

# Limiters that a process keeps, and names that a RateLimits does: both may come from outside.
MAX_LIMITERS = 1024
MAX_NAMES = 1024

_Fields = ("requests_per_minute", "tokens_per_minute")
_Model = tuple[str, str]
# The limit's own name (a model's or a provider's), the address, and the limit.
_Key = tuple[str, str | None, RateLimit]

_limiters: ProcessLocal[dict[_Key, Limiter]] = ProcessLocal(dict)


class RateLimits:
    """What a user allows, by model. `read_rate_limits` makes it.

    Args:
        each: The limit of each model that has none of its own; None for no such limit.
        models: Limits by provider and model.
        providers: Limits of all of a provider's models together.
    """

    def __init__(
        self,
        each: RateLimit | None = None,
        models: Mapping[_Model, RateLimit] | None = None,
        providers: Mapping[str, RateLimit] | None = None,
    ) -> None:
        self._each = each
        self._models = dict(models or {})
        self._providers = dict(providers or {})
        self._found: dict[_Model, tuple[tuple[str, RateLimit], ...]] = {}

    def __bool__(self) -> bool:
        return bool(self._each or self._models or self._providers)

    def __repr__(self) -> str:
        limits = {EACH_MODEL: self._each} if self._each else {}
        limits |= self._providers
        limits |= {f"{provider}:{name}": limit for (provider, name), limit in self._models.items()}
        shown = ", ".join(f"{name}: {limit}" for name, limit in limits.items())
        return f"RateLimits({shown})"

    def limiter_for(
        self, provider: str, model: str, address: str | None = None
    ) -> Limiter | LimiterChain | None:
        """Returns what a call to a model has to wait for; it belongs to the process.

        Args:
            provider: The model's provider.
            model: Its bare name, or an alias of it.
            address: The base URL it is asked at; None for the provider's own.

        Returns:
            The limiter; None when there is no limit. Equal limits of any two Clients have the same.
        """
        if not self:
            return None
        found = self._found.get((provider, model))
        if found is None:
            found = self._find(provider, model)
            if len(self._found) >= MAX_NAMES:
                self._found.clear()
            self._found[provider, model] = found
        limiters = [_shared_limiter((name, address, limit)) for name, limit in found]
        if len(limiters) < 2:
            return limiters[0] if limiters else None
        return LimiterChain(limiters)

    def _find(self, provider: str, model: str) -> tuple[tuple[str, RateLimit], ...]:
        info = get_registry().find(f"{provider}:{model}")
        name = model if info is None or info.provider != provider else info.name
        limits = (
            (f"{provider}:{name}", self._models.get((provider, name), self._each)),
            (provider, self._providers.get(provider)),
        )
        return tuple((name, limit) for name, limit in limits if limit is not None)


def read_rate_limits(given: object, providers: Collection[str] = ()) -> RateLimits:
    """Checks the rate limits that a user wrote.

    Args:
        given: Limits by name, each a `RateLimit` or a mapping of its fields. A name is a model's in
            any of its forms, a provider's (all of its models together), or "*" (each model that
            has no limit of its own). A model's limit and its provider's both hold. None for none;
            what this function returned may be given, too.
        providers: The names of providers, besides those that the registry has models of.

    Returns:
        The limits.

    Raises:
        InvalidRequestError: A name or a limit can't be meant.
        ConfigurationError: The registry, or a setting, can't be read.
    """
    if given is None:
        return RateLimits()
    if isinstance(given, RateLimits):
        return given
    if not isinstance(given, Mapping):
        raise InvalidRequestError(
            f"rate_limits={brief(given)}: expected a mapping such as "
            "{'openai:gpt-6-luna': {'requests_per_minute': 60}}"
        )
    each: RateLimit | None = None
    models: dict[_Model, RateLimit] = {}
    of_providers: dict[str, RateLimit] = {}
    for name, value in given.items():
        limit = _read_limit(name, value)
        if name == EACH_MODEL:
            each = limit
            continue
        provider, model = _read_name(name, providers)
        if model is None:
            of_providers[provider] = limit
        elif (provider, model) in models:
            raise InvalidRequestError(f"rate_limits: {provider}:{model} has two limits")
        else:
            models[provider, model] = limit
    return RateLimits(each, models, of_providers)


def reset_rate_limits() -> None:
    """Forgets all limiters of this process, as between two tests; calls under way go on."""
    _limiters.close()


def _read_limit(name: object, value: object) -> RateLimit:
    if isinstance(value, RateLimit):
        return value
    if not isinstance(value, Mapping) or not set(value) <= set(_Fields):
        raise InvalidRequestError(
            f"rate_limits: {brief(name)}: {brief(value)}: expected a mapping with "
            f"{' and/or '.join(_Fields)}, or a RateLimit"
        )
    fields: dict[str, Any] = dict(value)
    try:
        return RateLimit(**fields)
    except InvalidRequestError as error:
        raise InvalidRequestError(f"rate_limits: {brief(name)}: {error.message}") from None


def _read_name(name: object, providers: Collection[str]) -> tuple[str, str | None]:
    """Finds the model, or the provider (with None), that a name means."""
    if not isinstance(name, str) or not name.strip():
        raise InvalidRequestError(f"rate_limits: {brief(name)}: expected a name")
    name = name.strip()
    registry = get_registry()
    # With nothing behind the colon, all of the provider's models are meant, not its default one.
    info = None if name.endswith(":") else registry.find(name)
    if info is not None:
        return info.provider, info.name
    known = {
        *registry.providers(),
        *providers,
        *(entry.name for entry in declared("llmkit.adapters")),
    }
    provider, model = (name, "") if name in known else split_model_name(name, known)
    if provider is None:
        import difflib

        near = difflib.get_close_matches(name, [*known, *registry.names()], n=1)
        hint = f"; {near[0]} is near" if near else ""
        raise InvalidRequestError(
            f"rate_limits: there is no model or provider {brief(name)}{hint}. A model that the "
            "registry does not know is written 'provider:model'"
        )
    return provider, model or None


def _shared_limiter(key: _Key) -> Limiter:
    limiters = _limiters.get()
    limiter = limiters.get(key)
    if limiter is None:
        if len(limiters) >= MAX_LIMITERS:
            _make_room(limiters)
        # setdefault: threads that come here together all get the same one.
        limiter = limiters.setdefault(key, Limiter(key[2], key[0]))
    return limiter


def _make_room(limiters: dict[_Key, Limiter]) -> None:
    """Forgets the oldest limiter, of those for which nobody waits if there are any."""
    entries = tuple(limiters.items())
    idle = (key for key, limiter in entries if not limiter.waiting)
    limiters.pop(next(idle, entries[0][0]), None)
