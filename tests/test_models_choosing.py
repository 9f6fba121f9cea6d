"""Lists, alternatives, and what is said of models that end."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmkit import models
from llmkit.errors import InvalidRequestError, ModelNotFoundError
from llmkit.models import (
    ModelInfo,
    default_model,
    find_alternative_model,
    get_model_info,
    list_available_models,
    notices_of,
    register_model,
)
from llmkit.settings import reload_settings

DOCUMENT: dict[str, Any] = json.loads(
    Path(models.__file__).with_name("models.json").read_text(encoding="utf-8")
)
RECORDS: dict[str, Any] = DOCUMENT["models"]


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.models.registry._shared", {})


def test_the_list_is_the_same_every_time() -> None:
    """Names come by provider, and in the file's order within one; retired ones are left out."""
    names = list_available_models()
    assert names == list_available_models()
    providers = [get_model_info(name).provider for name in names]
    order = ["openai", "anthropic", "gemini", "groq", "openrouter", "local"]
    assert list(dict.fromkeys(providers)) == order
    assert providers == sorted(providers, key=order.index)
    assert names == [name for name in RECORDS if name in names]
    assert not any(get_model_info(name).retired() for name in names)
    register_model("gpt-own", provider="openai")
    assert list_available_models(provider="openai")[-1] == "gpt-own"
    assert list_available_models().index("gpt-own") == providers.count("openai")


def test_the_list_is_narrowed_by_what_is_asked() -> None:
    """Capabilities, window and provider all have to fit; one capability needs no list."""
    vision = list_available_models(required_capabilities=["vision", "tools"])
    assert vision == [
        name
        for name in list_available_models()
        if {"vision", "tools"} <= get_model_info(name).capabilities
    ]
    assert list_available_models("vision") == list_available_models(["vision"])
    assert list_available_models(["telepathy"]) == []
    gemini = list_available_models(provider="gemini")
    assert {get_model_info(name).provider for name in gemini} == {"gemini"}
    assert "gemini-4-argon" in gemini
    assert list_available_models(provider="acme") == []
    large = list_available_models(min_token_limit=1_050_000)
    assert all((get_model_info(name).context_window or 0) >= 1_050_000 for name in large)
    assert "gpt-6-luna" in large
    register_model("own", provider="local")
    assert "own" in list_available_models()
    assert "own" not in list_available_models(min_token_limit=1)


def test_a_capability_that_no_model_has_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt word gives an empty list, but not a silent one."""
    assert list_available_models(["vison", "tools"]) == []
    (record,) = caplog.records
    assert "'vison'" in record.getMessage()
    assert "vision" in record.getMessage()
    caplog.clear()
    assert find_alternative_model("gpt-4o", ["vision"]) is not None
    assert not caplog.records


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_token_limit": "100000"},
        {"min_token_limit": 1.5},
        {"required_capabilities": 5},
        {"max_input_price": "cheap"},
    ],
)
def test_wrong_kinds_are_refused(wrong: dict[str, Any]) -> None:
    """A slip in an argument is an error of this library that names the argument."""
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        list_available_models(**wrong)


def test_a_ceiling_is_for_the_prices_of_today() -> None:
    """A price that has been cut since the registry was written counts as it is now."""
    assert "gpt-6-astra" not in list_available_models(max_input_price="0.5")
    cut = [{"from": datetime.date.today(), "prices": {"input": "0.5", "output": 1}}]
    register_model("gpt-6-astra", price_changes=cut)
    assert "gpt-6-astra" in list_available_models(max_input_price="0.5", min_token_limit=1_000_000)


def test_enabled_models_decide_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """ENABLED_MODELS takes every spelling of a name, retired models included, and nothing else."""
    monkeypatch.setenv(
        "ENABLED_MODELS", "claude-haiku-5-5, openai:gpt-6-luna, gpt-4-0613, groq:llama-x"
    )
    reload_settings()
    assert list_available_models() == ["gpt-6-luna", "gpt-4", "claude-haiku-5-5"]
    assert list_available_models(provider="anthropic") == ["claude-haiku-5-5"]


@pytest.mark.parametrize(
    ("day", "said"),
    [
        ("2026-10-11", None),
        ("2026-10-12", "gpt-5 will be shut down on 2026-12-11; its successor is "),
        ("2026-12-10", "gpt-5 will be shut down on 2026-12-11; its successor is "),
        ("2026-12-11", "gpt-5 was shut down on 2026-12-11; its successor is "),
    ],
)
def test_the_end_is_said_sixty_days_ahead(day: str, said: str | None) -> None:
    """Nobody is surprised by a shutdown, and nobody is bothered years before."""
    notices = notices_of(get_model_info("gpt-5"), datetime.date.fromisoformat(day))
    assert [note.startswith(said or "-") for note in notices] == ([True] if said else [])


def test_notices_are_logged_once_for_each_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A thousand calls leave one line in the log, but each reply can say it."""
    monkeypatch.setattr("llmkit.models.notices._logged", set())
    unknown = [ModelInfo(f"new-{number}", "openai", known=False) for number in range(2)]
    for _ in range(3):
        for info in (*unknown, get_model_info("gpt-6-luna")):
            assert len(notices_of(info)) == (not info.known)
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    assert "new-0" in caplog.text


def test_the_successor_is_the_first_alternative() -> None:
    """The registry's word comes before any reckoning; excluded, it leaves the field to others."""
    info = get_model_info("gpt-5")
    assert info.successor is not None
    assert find_alternative_model("gpt-5") == info.successor
    second = find_alternative_model("openai:gpt-5", exclude=[f"openai:{info.successor}"])
    assert second not in (None, "gpt-5", info.successor)
    assert second == find_alternative_model("gpt-5", exclude=[info.successor])


@pytest.mark.parametrize("name", [name for name in RECORDS if "shutdown" not in RECORDS[name]])
def test_an_alternative_can_do_as_much(name: str) -> None:
    """Whatever is returned is served, open to all, and no smaller in what decides a request."""
    info = get_model_info(name)
    found = find_alternative_model(name)
    assert found != name
    if found is None:
        return
    other = get_model_info(found)
    decisive = {"chat", "embeddings", "streaming", "tools", "structured_output", "vision", "pdf"}
    assert info.capabilities & decisive <= other.capabilities
    assert (other.context_window or 0) >= (info.context_window or 0)
    assert (other.retired(), other.limited_access, other.api) == (False, False, "chat")
    assert found == find_alternative_model(name)


def test_alternatives_stay_near() -> None:
    """The same provider, then the nearest quality and price, and never a worse one if avoidable."""
    for name, price in (("near", "2"), ("far", "9")):
        register_model(f"acme:{name}", quality="good", prices={"input": price, "output": price})
    register_model("acme:worse", quality="basic", prices={"input": "1", "output": "1"})
    register_model("acme:asked", quality="good", prices={"input": "1", "output": "1"})
    tried: list[str] = []
    for _ in range(3):
        found = find_alternative_model("acme:asked", exclude=tried)
        assert found is not None
        tried.append(found)
    assert tried == ["acme:near", "acme:far", "acme:worse"]
    register_model("acme:far", shutdown=datetime.date.today() + datetime.timedelta(days=9))
    register_model("acme:near", shutdown=datetime.date.today())
    assert find_alternative_model("acme:asked") == "acme:worse"


def test_alternatives_obey_what_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    """Required capabilities replace the model's own; impossible ones give None."""
    found = find_alternative_model("smollm2-135m", ["vision", "tools"])
    assert found is not None
    assert {"vision", "tools"} <= get_model_info(found).capabilities
    assert find_alternative_model("gpt-6-luna", ["telepathy"]) is None
    monkeypatch.setenv("ENABLED_MODELS", "gpt-6-luna,claude-haiku-5-5,gpt-4")
    reload_settings()
    assert find_alternative_model("gpt-4o") in ("gpt-6-luna", "claude-haiku-5-5")
    assert find_alternative_model("gpt-6-luna", exclude="claude-haiku-5-5") is None


def test_only_configured_providers_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """With configured_only nothing is named that lacks its key."""
    assert {
        get_model_info(name).provider for name in list_available_models(configured_only=True)
    } == {"local"}
    assert find_alternative_model("gpt-6-luna", configured_only=True) is None
    monkeypatch.setenv("GROQ_API_KEY", "warehouse000000sesame")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "warehouse000000sesame")
    reload_settings()
    listed = list_available_models(configured_only=True)
    assert {get_model_info(name).provider for name in listed} == {"anthropic", "groq", "local"}
    found = find_alternative_model("gpt-5-mini", configured_only=True)
    assert found is not None
    assert get_model_info(found).provider == "anthropic"


def test_an_unknown_model_of_a_known_provider_has_an_alternative() -> None:
    """A model newer than the registry falls back on its provider's default."""
    assert find_alternative_model("openai:brand-new-9") == default_model("openai")
    for keyless in ("ollama:some", "vllm:some"):
        assert find_alternative_model(keyless) is not None
    with pytest.raises(ModelNotFoundError):
        find_alternative_model("brand-new-9")


def test_a_price_ceiling_leaves_out_the_dear_and_the_unpriced() -> None:
    """Whoever names a ceiling gets no model whose price is above it, or unknown."""
    cheap = list_available_models(max_input_price="0.10")
    assert "gpt-6-luna" in cheap
    assert all((get_model_info(name).prices or {})["input"] <= Decimal("0.1") for name in cheap)
    assert list_available_models(max_input_price=0.1) == cheap
    assert "gpt-6.2-astra" not in list_available_models(max_input_price=1e9)
    for price in ("cheap", 10**5000):
        with pytest.raises(InvalidRequestError, match="USD"):
            list_available_models(max_input_price=price)
