"""select_models: by name, by what the task needs, by price, speed or size."""

from __future__ import annotations

from typing import Any

import pytest

import llmkit.settings
from llmkit import (
    ConfigurationError,
    InvalidRequestError,
    ModelInfo,
    get_model_info,
    get_performance_tracker,
    register_model,
    select_models,
)
from llmkit.fallback import STRATEGIES

KEY = "sk-test-0123456789"


@pytest.fixture(autouse=True)
def two_keys(monkeypatch: pytest.MonkeyPatch, clean_settings: None) -> None:
    """Two of the three vendors can be had, and no test sees another's models."""
    monkeypatch.setattr("llmkit.models.registry._shared", {})
    use(monkeypatch, OPENAI_API_KEY=KEY, GEMINI_API_KEY=KEY)


def use(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    llmkit.settings.reload_settings()


def chosen(*arguments: Any, **keywords: Any) -> list[str]:
    """All that are chosen, the first one first."""
    first, others = select_models(*arguments, **keywords)
    return [first, *others]


def infos(*arguments: Any, **keywords: Any) -> list[ModelInfo]:
    return [get_model_info(name) for name in chosen(*arguments, **keywords)]


def register(name: str, *capabilities: str, **facts: Any) -> None:
    """A made-up model of a provider that has a key; nobody else can use an abacus."""
    register_model(
        name,
        provider="openai",
        capabilities=["chat", "abacus", *capabilities],
        **facts,
    )


@pytest.fixture
def abacuses() -> dict[str, Any]:
    """Three that differ in price, speed and size; returns the task that only they fit."""
    for name, price, window, speed in (
        ("abacus-1", "5", 10_000, "fast"),
        ("abacus-2", "1", 20_000, "slow"),
        ("abacus-3", "9", 90_000, "medium"),
    ):
        prices = {"input": price, "output": price}
        register(name, context_window=window, prices=prices, speed=speed)
    return {"required_capabilities": "abacus"}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_models_that_can_be_had_are_chosen(strategy: str) -> None:
    """Nobody is sent to a provider without a key, a retired model, or one behind another API."""
    found = infos(strategy=strategy)
    assert len(found) == 3
    for info in found:
        assert info.provider in ("openai", "gemini")
        assert not info.retired()
        assert not info.limited_access
        assert info.api == "chat"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_models_own_machine_is_never_chosen_in_silence(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small embedded model, which needs no key, is no substitute that nobody asked for."""
    providers = {info.provider for info in infos(None, {}, strategy)}
    assert not providers & {"local", "ollama", "vllm"}
    use(monkeypatch, ENABLED_MODELS="local:smollm2-135m")
    if strategy != "default":
        assert chosen(strategy=strategy) == ["smollm2-135m"]


@pytest.mark.parametrize(
    ("strategy", "names"),
    [
        ("cheapest", ["abacus-2", "abacus-1", "abacus-3"]),
        ("fastest", ["abacus-1", "abacus-3", "abacus-2"]),
        ("largest_context", ["abacus-3", "abacus-2", "abacus-1"]),
    ],
)
def test_strategies_sort(strategy: str, names: list[str], abacuses: dict[str, Any]) -> None:
    """Each strategy brings its best model first."""
    assert chosen(None, abacuses, strategy) == names


def test_measured_latencies_count_for_more_than_judgements(abacuses: dict[str, Any]) -> None:
    """What this process has seen, five times at least, is believed before the registry."""
    tracker = get_performance_tracker()
    for _ in range(4):
        tracker.record_success("abacus-2", "openai", 10, 1, 1)
    assert chosen(None, abacuses, "fastest")[0] == "abacus-1"
    tracker.record_success("abacus-2", "openai", 10, 1, 1)
    assert chosen(None, abacuses, "fastest") == ["abacus-2", "abacus-1", "abacus-3"]
    for _ in range(5):
        tracker.record_success("abacus-1", "openai", 60_000, 1, 1)
    assert chosen(None, abacuses, "fastest") == ["abacus-2", "abacus-3", "abacus-1"]


def test_an_unknown_price_is_not_a_low_one(abacuses: dict[str, Any]) -> None:
    """A model without a price comes last among the cheapest, and fits no maximum."""
    register("abacus-0", context_window=50_000)
    assert chosen(None, abacuses, "cheapest") == ["abacus-2", "abacus-1", "abacus-3"]
    task = {**abacuses, "max_cost": 1000}
    assert "abacus-0" not in chosen(None, task, "largest_context")
    assert "abacus-0" in chosen(None, abacuses, "largest_context")


def test_what_the_task_needs_is_needed(abacuses: dict[str, Any]) -> None:
    """Capabilities, tokens and money leave out every model that lacks one."""
    assert chosen(None, {**abacuses, "estimated_tokens": 15_000}, "fastest") == [
        "abacus-3",
        "abacus-2",
    ]
    dear = {**abacuses, "estimated_tokens": 10_000, "max_cost": "0.05"}
    assert chosen(None, dear, "largest_context") == ["abacus-2", "abacus-1"]
    register("abacus-4", "vision", context_window=1_000)
    both = {"required_capabilities": ["abacus", "vision"]}
    assert chosen(None, both, "cheapest") == ["abacus-4"]
    once = {"required_capabilities": iter(both["required_capabilities"])}
    assert chosen(None, once, "cheapest") == ["abacus-4"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_task_that_no_model_fits_is_said(strategy: str) -> None:
    """A wish that can't be met is an error that says where to look, and no arbitrary model."""
    with pytest.raises(ConfigurationError, match="llmkit models"):
        select_models(None, {"estimated_tokens": 10**12}, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_capability_that_no_model_has_is_named(strategy: str, abacuses: dict[str, Any]) -> None:
    """A misspelt capability doesn't read like a missing key: it is shown, with those there are."""
    with pytest.raises(InvalidRequestError) as caught:
        select_models(None, {"required_capabilities": ["abacus", "visoin", "tols"]}, strategy)
    text = str(caught.value)
    assert "no model has the capability 'tols', 'visoin'; there are abacus, " in text
    assert all(f" {word}" in text for word in ("chat", "tools", "vision"))
    assert "key" not in text


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_a_maximum_without_an_estimate_is_for_1000_tokens(
    strategy: str, abacuses: dict[str, Any]
) -> None:
    """`max_cost` alone limits what is chosen, too; it asks for no window."""
    register("abacus-4", context_window=500, prices={"input": "2", "output": "2"})
    found = chosen(None, {**abacuses, "max_cost": "0.002"}, strategy)
    names = {name.rpartition(":")[2] for name in found}
    assert names == {"abacus-2", "abacus-4"}
    free = chosen(None, {**abacuses, "max_cost": "0.002", "estimated_tokens": 0}, "cheapest")
    assert len(free) == 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_requested_model_comes_first(strategy: str, abacuses: dict[str, Any]) -> None:
    """Who names a model gets it, whatever the strategy; others follow, it itself does not."""
    for name in ("gpt-6-luna", "openai:gpt-6-luna", "openai:newer-than-the-list"):
        first, *others = chosen(name, None, strategy)
        assert first == name
        assert len(others) == 2
        names = {get_model_info(other).name for other in others}
        assert name.removeprefix("openai:") not in names


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_model_is_chosen_twice(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model under two names is one model: a fallback to itself would be none."""
    use(monkeypatch, PRIMARY_LLM="openai/gpt-6-luna", FALLBACK_LLM="gpt-6-luna,openai:gpt-6-luna")
    for requested in (None, "gpt-6-luna", "openai:gpt-6-luna"):
        names = [info.full_name for info in infos(requested, None, strategy)]
        assert len(set(names)) == len(names)


def test_the_default_is_what_the_settings_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """PRIMARY_LLM and all of FALLBACK_LLM, in their order, without another's judgement."""
    chain = ["gemini-3.8-flash", "gpt-4o", "gpt-6-luna", "openai:newer-than-the-list"]
    use(monkeypatch, PRIMARY_LLM=chain[0], FALLBACK_LLM=",".join(chain[1:]))
    assert chosen() == chain
    assert chosen("gpt-6-luna") == ["gpt-6-luna", "gpt-4o", "openai:newer-than-the-list"]


def test_the_default_obeys_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the models that the settings name, those are left out that are known not to fit."""
    use(monkeypatch, PRIMARY_LLM="gpt-4o", FALLBACK_LLM="gpt-6-luna, openai:newer-than-the-list")
    assert chosen(None, {"estimated_tokens": 500_000}) == [
        "gpt-6-luna",
        "openai:newer-than-the-list",
    ]


def test_without_fallbacks_in_the_settings_there_are_alternatives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The default model comes first; what stands in for it does not fail with its provider."""
    first, *others = infos()
    assert first.full_name == "gpt-6-luna"
    assert len(others) == 2
    for other in others:
        assert (other.context_window or 0) >= 0.9 * (first.context_window or 0)
    assert others[0].provider == "gemini"  # of whose vendor there is a key, too

    use(monkeypatch, PRIMARY_LLM="gpt-4o")
    first, *others = infos(None, {"estimated_tokens": 500_000})
    assert first.name != "gpt-4o"
    for each in (first, *others):
        assert (each.context_window or 0) >= 500_000


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_enabled_models_are_chosen(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENABLED_MODELS is the list of all that may be chosen."""
    enabled = ("gpt-6-luna", "gemini-3.8-flash")
    use(monkeypatch, ENABLED_MODELS=",".join(enabled))
    assert set(chosen(strategy=strategy)) <= {*enabled, "openai:gpt-6-luna"}


def test_without_any_key_there_is_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be had: that is said, with what to set."""
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("GEMINI_API_KEY")
    llmkit.settings.reload_settings()
    for strategy in STRATEGIES:
        with pytest.raises(ConfigurationError):
            select_models(strategy=strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_model_at_home_is_chosen_where_a_setting_names_it(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PRIMARY_LLM is enough of a wish; no key is needed."""
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("GEMINI_API_KEY")
    use(monkeypatch, PRIMARY_LLM="local:")
    assert [info.provider for info in infos(strategy=strategy)] == ["local"]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({"strategy": "best"}, "cheapest"),
        ({"task_context": {"tokens": 5}}, "estimated_tokens"),
        ({"task_context": {"estimated_tokens": -1}}, "estimated_tokens"),
        ({"task_context": {"estimated_tokens": "many"}}, "estimated_tokens"),
        ({"task_context": {"max_cost": "much"}}, "max_cost"),
        ({"task_context": {"max_cost": -1}}, "max_cost"),
        pytest.param({"task_context": {"max_cost": 10**5000}}, "max_cost", id="huge"),
        ({"task_context": {"max_cost": float("nan")}}, "max_cost"),
        ({"task_context": ["vision"]}, "task_context"),
        ({"task_context": {"required_capabilities": 3}}, "required_capabilities"),
        ({"task_context": {"required_capabilities": [3]}}, "required_capabilities"),
        ({"requested_model": ""}, "requested_model"),
        ({"requested_model": 3}, "requested_model"),
        ({"requested_model": "cheapest"}, "write strategy="),
    ],
)
def test_what_can_not_be_meant_is_refused(arguments: dict[str, Any], names: str) -> None:
    """A misspelt strategy or need is an error that names what there is."""
    with pytest.raises(InvalidRequestError, match=names):
        select_models(**arguments)
