from __future__ import annotations

import json

import pytest

from llmkit.cli import main
from llmkit.models import get_model_info, list_available_models, register_model

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.models.registry._shared", {})


def rows(output: str) -> dict[str, list[str]]:
    """The table's lines by their first word."""
    return {line.split()[0]: line.split()[1:] for line in output.splitlines() if line}


def test_lists_every_model_within_80_columns(capsys: Capture) -> None:
    """The table has a line for each model that can be used, and fits a plain terminal."""
    assert main(["models"]) == 0
    output = capsys.readouterr().out
    assert set(list_available_models()) < set(rows(output))
    assert {"openai:", "groq:", "local:"} < set(rows(output))
    assert max(map(len, output.splitlines())) <= 80


def test_shows_window_prices_and_end(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Prices, windows and the day of a shutdown are those of the registry; unknown is "-"."""
    names = "gpt-4,gpt-4o,gpt-6-luna,gpt-6.2-astra,smollm2-135m"
    monkeypatch.setenv("ENABLED_MODELS", names)
    assert main(["models"]) == 0
    table = rows(capsys.readouterr().out)
    assert table["gpt-6-luna"] == ["1.05M", "0.10+", "0.50+"]
    assert table["gpt-6.2-astra"] == ["1.05M", "-", "-"]
    assert table["gpt-4o"][:3] == ["128k", "2.50", "10.00"]
    assert table["gpt-4o"][-1] == str(get_model_info("gpt-4o").shutdown)
    assert table["gpt-4"][-2:] == ["retired", str(get_model_info("gpt-4").shutdown)]
    assert table["smollm2-135m"] == ["2048", "0.00", "0.00"]


def test_every_model_ever_known_fits(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The longest names of models that are no longer served don't widen the table."""
    retired = [
        "gpt-4-turbo",
        "claude-3-5-haiku-latest",
        "groq:meta-llama/llama-4-maverick-17b-128e-instruct",
    ]
    monkeypatch.setenv("ENABLED_MODELS", ",".join([*list_available_models(), *retired]))
    assert main(["models"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_one_provider_only(capsys: Capture) -> None:
    """`--provider` leaves out all others."""
    assert main(["models", "--provider", "anthropic", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    assert {model["provider"] for model in models} == {"anthropic"}
    assert [model["name"] for model in models] == list_available_models(provider="anthropic")


def test_json_has_all_facts(capsys: Capture) -> None:
    """`--json` gives prices as exact decimals, dates in ISO form, and null for unknown."""
    assert main(["models", "--json"]) == 0
    models = {model["name"]: model for model in json.loads(capsys.readouterr().out)}
    assert models["gpt-6-luna"]["prices"]["input"] == "0.10"
    assert models["gpt-6.2-astra"]["prices"] is None
    assert models["gpt-4o"]["shutdown"] == "2027-01-14"
    assert models["smollm2-135m"]["shutdown"] is None


def test_a_provider_without_models_is_explained(capsys: Capture) -> None:
    """A vendor whose models the registry doesn't list is no error; how to ask them is said."""
    assert main(["models", "--provider", "vllm"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "vllm:NAME" in captured.err


def test_only_what_can_do_all_that_is_asked(capsys: Capture) -> None:
    """`--capability` may be given several times, and each narrows the list."""
    assert main(["models", "--capability", "vision", "--capability", "video", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)
    names = [model["full_name"] for model in models]
    assert names == list_available_models(["vision", "video"])
    assert 0 < len(names) < len(list_available_models("vision"))


def test_an_unknown_capability_names_the_known_ones(capsys: Capture) -> None:
    """A misspelt capability is not answered with an empty list."""
    assert main(["models", "--capability", "visoin"]) == 2
    assert "vision" in capsys.readouterr().err


def test_an_own_providers_models_can_be_listed(capsys: Capture) -> None:
    """`--provider` also takes a provider that only a registered model has."""
    register_model("acme:own-1", prices={"input": "1", "output": "2"})
    assert main(["models", "--provider", "acme"]) == 0
    assert rows(capsys.readouterr().out)["acme:own-1"] == ["-", "1.00", "2.00"]
