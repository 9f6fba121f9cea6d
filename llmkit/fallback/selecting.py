"""Choosing the models of a call: by name, by what the task needs, by price, speed or size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from llmkit.adapters import choose_model
from llmkit.errors import ConfigurationError, InvalidRequestError, ModelNotFoundError
from llmkit.log import brief
from llmkit.models import (
    ModelInfo,
    find_alternative_model,
    get_model_info,
    list_available_models,
)
from llmkit.models.choosing import KEYLESS
from llmkit.models.registry import get_registry
from llmkit.performance import get_performance_tracker
from llmkit.request.checks import check_filled, check_whole
from llmkit.settings import get_settings

__all__ = ["STRATEGIES", "select_models"]

STRATEGIES = ("default", "cheapest", "fastest", "largest_context")

# Models to try after the first, where FALLBACK_LLM names none.
FALLBACKS = 2

# The part of a model's window that a stand-in has at least: vendors count differently anyway.
ABOUT_AS_LARGE = 0.9

_UNFIT = (
    "no model fits: none of a provider whose key is set can do what task_context asks for "
    "(see `llmkit models`)"
)
_NONE = (
    "no model can be chosen: no provider's key is set (such as OPENAI_API_KEY), and no setting "
    "names a model on this machine (PRIMARY_LLM, FALLBACK_LLM or ENABLED_MODELS)"
)

# Tokens of input that `max_cost` is for, where `estimated_tokens` is not given: a page and a half.
USUAL_TOKENS = 1_000

# Successes from which a measured latency counts for more than the registry's judgement.
ENOUGH = 5

# Typical seconds of an answer by the registry's judgement, to be compared with measured ones.
_TYPICAL = {"fast": 2.0, "medium": 5.0, "slow": 15.0}


@dataclass(frozen=True, slots=True)
class _Task:
    """What a task asks of its model."""

    capabilities: frozenset[str]
    tokens: int  # that the window must hold; 0 where it was not said
    max_cost: Decimal | None
    paid_tokens: int

    @classmethod
    def read(cls, context: Mapping[str, Any] | None) -> _Task:
        if context is not None and not isinstance(context, Mapping):
            raise InvalidRequestError(f"task_context={brief(context)}: expected a mapping")
        given = dict(context or {})
        capabilities = _words(given.pop("required_capabilities", None))
        tokens = check_whole("estimated_tokens", given.pop("estimated_tokens", None), 0)
        ceiling = given.pop("max_cost", None)
        if given:
            raise InvalidRequestError(
                f"task_context has {', '.join(map(brief, given))}; it may have "
                "required_capabilities, estimated_tokens and max_cost"
            )
        _check_known(capabilities)
        return cls(
            capabilities,
            tokens or 0,
            None if ceiling is None else _usd(ceiling),
            USUAL_TOKENS if tokens is None else tokens,
        )

    def fits(self, info: ModelInfo) -> bool:
        """Says whether a model is known to be able to do it, within its cost."""
        if not self.capabilities <= info.capabilities:
            return False
        if self.tokens and (info.context_window or 0) < self.tokens:
            return False
        return self.max_cost is None or self._cost(info) <= self.max_cost

    def _cost(self, info: ModelInfo) -> Decimal:
        """Returns what the tokens cost as input, for nobody knows how long the answer gets."""
        price = (info.priced_on().prices or {}).get("input")
        return Decimal("Infinity") if price is None else price * self.paid_tokens / 1_000_000


def select_models(
    requested_model: str | None = None,
    task_context: Mapping[str, Any] | None = None,
    strategy: str = "default",
) -> tuple[str, list[str]]:
    """Chooses the model to ask first, and those to ask when it fails.

    Only models are chosen that can be had: current ones, of providers whose key is set (a model on
    the user's own machine only where a setting names it).

    Args:
        requested_model: The model to ask first, whatever the strategy; None lets it choose.
        task_context: What the task needs: `required_capabilities` (such as "vision"),
            `estimated_tokens` (of prompt and answer: the context window must hold them) and
            `max_cost` (USD for so many tokens of input, or for 1,000 where `estimated_tokens` is
            not given; models without a known price are left out). None asks for nothing.
        strategy: "default": PRIMARY_LLM (or the default model of the first provider that has a key)
            and FALLBACK_LLM, or else the nearest alternatives, of other providers where they have
            keys; "cheapest": by the prices of input and output; "fastest": by the latencies
            measured in this process, or else by the registry's judgement; "largest_context". Equal
            ones keep the registry's order.

    Returns:
        The first model's name, and the others' in their order.

    Raises:
        InvalidRequestError: An argument can't be meant, such as a capability that no model has.
        ConfigurationError: There is no model that fits.
    """
    if strategy not in STRATEGIES:
        raise InvalidRequestError(
            f"strategy={brief(strategy)}: expected one of {', '.join(STRATEGIES)}"
        )
    if requested_model is not None:
        check_filled("requested_model", requested_model)
    if requested_model in STRATEGIES:
        raise InvalidRequestError(
            f"requested_model={brief(requested_model)} is a strategy: write strategy="
        )
    task = _Task.read(task_context)
    chosen = _by_default(task, requested_model) if strategy == "default" else None
    if chosen is None:
        chosen = _sorted_by(strategy, task)
    if requested_model is not None:
        chosen = [requested_model, *chosen]
    by_full_name: dict[str, str] = {}
    for name in chosen:
        by_full_name.setdefault(_full_name(name), name)
    names = list(by_full_name.values())
    if not names:
        raise ConfigurationError(_UNFIT if task_context else _NONE)
    return names[0], names[1:] if strategy == "default" else names[1 : 1 + FALLBACKS]


def _by_default(task: _Task, requested: str | None) -> list[str]:
    settings = get_settings()
    named = list(settings.fallback_llm)
    if requested is None:
        named.insert(0, choose_model())
    fit = [name for name in named if _may_fit(task, name)]
    if settings.fallback_llm:
        return fit
    first = requested or (fit[0] if fit else named[0])
    chosen = [] if requested else fit[:1]
    while len(chosen) < FALLBACKS + (requested is None):
        other = _alternative(first, task, chosen)
        if other is None:
            break
        chosen.append(other)
    return chosen


def _alternative(model: str, task: _Task, chosen: list[str]) -> str | None:
    """Finds a model to stand in, if possible of a provider that does not fail with the others."""
    chain = [model, *chosen]
    providers = {_full_name(name).partition(":")[0] for name in chain}
    of_theirs = [name for each in providers for name in list_available_models(provider=each)]
    return _nearest(model, task, [*chain, *of_theirs]) or _nearest(model, task, chain)


def _nearest(model: str, task: _Task, tried: list[str]) -> str | None:
    exclude, window = list(tried), _window(model, task)
    wanted = task.capabilities or None
    while True:
        try:
            other = find_alternative_model(
                model, wanted, exclude, min_token_limit=window, configured_only=True
            )
        except ModelNotFoundError:
            return None
        if other is None or (_may_be_chosen(get_model_info(other)) and _may_fit(task, other)):
            return other
        exclude.append(other)


def _window(model: str, task: _Task) -> int | None:
    """Returns the tokens that a stand-in has to take; None when nothing is known of them."""
    try:
        own = get_model_info(model).context_window
    except ModelNotFoundError:
        own = None
    return task.tokens or (None if own is None else int(own * ABOUT_AS_LARGE))


def _sorted_by(strategy: str, task: _Task) -> list[str]:
    infos = [
        info
        for info in map(get_model_info, list_available_models(("chat",), configured_only=True))
        if _may_be_chosen(info) and task.fits(info)
    ]
    infos.sort(key=_ORDERS[strategy])
    return [info.full_name for info in infos]


def _may_be_chosen(info: ModelInfo) -> bool:
    """Leaves out what nobody asked for: small models at home, and what can't be called."""
    if info.limited_access or info.api != "chat":
        return False
    if info.provider not in KEYLESS:
        return True
    settings = get_settings()
    named = (settings.primary_llm or "", *settings.fallback_llm)
    return settings.enabled_models is not None or any(
        _full_name(name) == f"{info.provider}:{info.name}" for name in named if name
    )


def _may_fit(task: _Task, name: str) -> bool:
    try:
        return task.fits(get_model_info(name))
    except ModelNotFoundError:
        return True  # of which nothing is known; the user named it


def _full_name(name: str) -> str:
    """Returns the one name of a model, which may be written in several ways."""
    try:
        info = get_model_info(name)
    except ModelNotFoundError:
        return name
    return f"{info.provider}:{info.name}"


def _price(info: ModelInfo) -> Decimal:
    prices = info.priced_on().prices or {}
    if {"input", "output"} <= prices.keys():
        return prices["input"] + prices["output"]
    return Decimal("Infinity")


def _latency(info: ModelInfo) -> float:
    """Returns the median latency in seconds, measured or typical."""
    stats = get_performance_tracker().get_stats(info.name)
    if stats["successes"] >= ENOUGH and stats["p50_latency_ms"] is not None:
        return float(stats["p50_latency_ms"]) / 1000
    return _TYPICAL.get(info.speed or "", _TYPICAL["slow"])


def _size(info: ModelInfo) -> int:
    return -(info.context_window or 0)


_ORDERS: Mapping[str, Callable[[ModelInfo], Any]] = {
    "cheapest": _price,
    "fastest": _latency,
    "largest_context": _size,
}


def _words(words: Any) -> frozenset[str]:
    given = (words,) if isinstance(words, str) else words or ()
    read = tuple(given) if isinstance(given, Iterable) else (given,)  # once: it may be an iterator
    if not all(isinstance(word, str) for word in read):
        raise InvalidRequestError(f"required_capabilities={brief(words)}: expected words")
    return frozenset(read)


def _check_known(words: frozenset[str]) -> None:
    known = get_registry().capabilities() if words else frozenset()
    unknown = ", ".join(map(brief, sorted(words - known)))
    if unknown:
        raise InvalidRequestError(
            f"task_context: no model has the capability {unknown}; "
            f"there are {', '.join(sorted(known))}"
        )


def _usd(amount: object) -> Decimal:
    try:
        read = Decimal(str(amount))
    except (InvalidOperation, ValueError):  # the latter for a very large int
        read = Decimal("nan")
    if read.is_nan() or read < 0:
        raise InvalidRequestError(f"max_cost={brief(amount)}: expected USD, 0 or more")
    return read
