"""The registry's data: its form, its prices, and the script that builds it."""

from __future__ import annotations

import datetime
import json
import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmkit.models.info import full_name
from tools.registry.build import main

ROOT = Path(__file__).resolve().parents[1]
MODELS_FILE = ROOT / "llmkit" / "models" / "models.json"
DOCUMENT: dict[str, Any] = json.loads(MODELS_FILE.read_text(encoding="utf-8"))
MODELS: dict[str, dict[str, Any]] = DOCUMENT["models"]
OVERRIDES = tomllib.loads((ROOT / "tools" / "registry_overrides.toml").read_text(encoding="utf-8"))
CHECKED = json.loads((ROOT / "tests" / "data" / "registry_cross_check.json").read_text("utf-8"))

PROVIDERS = ("openai", "anthropic", "gemini", "groq", "openrouter", "local")
KINDS = {"input", "output", "cache_read", "cache_write"}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
TYPES: dict[str, type | tuple[type, ...]] = {
    "provider": str,
    "context_window": int,
    "max_input_tokens": int,
    "max_output_tokens": int,
    "prices": (dict, type(None)),
    "price_tiers": list,
    "batch_prices": dict,
    "batch_price_tiers": list,
    "price_changes": list,
    "modalities": dict,
    "capabilities": list,
    "refuses": list,
    "reasoning_efforts": list,
    "encoding": str,
    "api": str,
    "released": str,
    "shutdown": str,
    "successor": str,
    "aliases": list,
    "limited_access": bool,
    "speed": str,
    "quality": str,
    "as_of": str,
    "source": str,
}
CHOICES = {
    "provider": PROVIDERS,
    "api": ("chat", "responses"),
    "encoding": ("o200k_base", "cl100k_base"),
    "speed": ("fast", "medium", "slow"),
    "quality": ("tiny", "basic", "good", "best"),
}

# USD per million tokens of short prompts: input, output, cache_read, cache_write. Written down by
# hand on 2026-11-22 from genai-prices 0.2.3 and the project's own notes of that day, which cite
# developers.openai.com/api/docs/pricing, platform.claude.com/docs/en/about-claude/pricing and
# ai.google.dev/gemini-api/docs/pricing.
FLAGSHIPS = {
    "gpt-6-astra": ("10", "50", "1", "12.50"),
    "gpt-6.1-sol": ("2", "10", "0.10", "2.50"),
    "gpt-6.1-terra": ("1", "5", "0.05", "1.25"),
    "gpt-6-luna": ("0.10", "0.50", "0.01", "0.125"),
    "gpt-5.6-sol": ("4", "20", "0.40", "5"),
    "gpt-5.4-mini": ("0.75", "4.50", "0.075", None),
    "text-embedding-3-small": ("0.02", "0", None, None),
    "claude-fable-5-2": ("8", "40", "0.20", "10"),
    "claude-opus-5-5": ("4", "20", "0.20", "5"),
    "claude-sonnet-5-5": ("2", "10", "0.10", "2.50"),
    "claude-haiku-5-5": ("0.10", "0.50", "0.01", "0.125"),
    "gemini-4-argon": ("2", "10", "0.10", None),
    "gemini-3.8-flash": ("0.75", "3.75", "0.075", None),
    "gemini-3.5-flash-lite": ("0.30", "2.50", "0.03", None),
    "gemini-embedding-2": ("0.20", "0", None, None),
}


def day(text: str) -> datetime.date:
    assert re.fullmatch(r"\d{4}-\d{2}-\d{2}", text), text
    return datetime.date.fromisoformat(text)


def check_prices(prices: dict[str, str]) -> None:
    assert prices
    assert prices.keys() <= KINDS
    for price in prices.values():
        assert re.fullmatch(r"\d+(\.\d{2,})?", price), price
        assert 0 <= Decimal(price) < 1000


def check_tiers(tiers: list[dict[str, Any]]) -> None:
    starts = [tier["above_input_tokens"] for tier in tiers]
    assert starts == sorted(set(starts))
    assert min(starts) >= 1000
    for tier in tiers:
        check_prices({kind: price for kind, price in tier.items() if kind in KINDS})
        assert tier.keys() <= {*KINDS, "above_input_tokens"}


@pytest.mark.parametrize("name", MODELS)
def test_a_record_has_its_form(name: str) -> None:
    """Every fact has its type, and its word is one of those that the code knows."""
    record = MODELS[name]
    assert record.keys() <= TYPES.keys()
    assert {"provider", "prices", "capabilities", "refuses", "as_of", "source"} <= record.keys()
    for key, value in record.items():
        assert isinstance(value, TYPES[key]), key
        assert value or key in ("prices", "refuses", "reasoning_efforts"), key
        assert key not in CHOICES or value in CHOICES[key], key
    assert set(record["capabilities"]) <= DOCUMENT["capabilities"].keys()
    assert record["capabilities"] == sorted(set(record["capabilities"]))
    assert ("chat" in record["capabilities"]) != ("embeddings" in record["capabilities"])
    assert set(record.get("reasoning_efforts", ())) <= set(EFFORTS)
    assert record.get("modalities", {"input": [], "output": []}).keys() == {"input", "output"}


@pytest.mark.parametrize("name", MODELS)
def test_a_record_has_sensible_numbers(name: str) -> None:
    """Limits are in proportion, prices are exact decimals, days are ISO dates in their order."""
    record = MODELS[name]
    window = record.get("context_window", 10_000_000)
    assert 512 <= window <= 10_000_000
    assert 0 < record.get("max_input_tokens", 1) <= window
    assert 0 < record.get("max_output_tokens", 1) <= window
    for key in ("prices", "batch_prices"):
        if record.get(key) is not None:
            check_prices(record[key])
    for key in ("price_tiers", "batch_price_tiers"):
        if key in record:
            check_tiers(record[key])
    for change in record.get("price_changes", ()):
        assert day(change["from"]) > day(record["as_of"])
        check_prices(change["prices"])
    released = day(record.get("released", "2000-01-01"))
    assert released <= day(record["as_of"]) <= day(DOCUMENT["as_of"])
    assert released < day(record.get("shutdown", "2100-01-01"))


def test_a_retired_name_gets_an_answer() -> None:
    """Whatever ends names a successor, which is served longer and does the same kind of work."""
    for name, record in MODELS.items():
        assert ("shutdown" in record) == ("successor" in record), name
        if "shutdown" in record:
            successor = MODELS[record["successor"]]
            end = successor.get("shutdown", "2100-01-01")
            assert end > max(record["shutdown"], DOCUMENT["as_of"]), name
            assert successor["provider"] == record["provider"], name
            kinds = {"chat", "embeddings"}
            assert kinds & {*successor["capabilities"]} == kinds & {*record["capabilities"]}, name


@pytest.mark.parametrize(
    "name",
    [
        *("gpt-4o", "gpt-4", "gpt-3.5-turbo", "gpt-4-0613", "o1-mini", "gpt-4.5-preview"),
        *("claude-3-5-sonnet-20241022", "claude-3-opus-20240229", "claude-3-haiku-20240307"),
        *("claude-2.1", "claude-sonnet-4-20250514", "gemini-pro", "gemini-1.5-flash"),
        *("gemini-2.0-flash-001", "text-embedding-004", "groq:llama-3.3-70b-versatile"),
    ],
)
def test_names_of_old_code_are_known(name: str) -> None:
    """The names that old programs and tutorials ask for have an end and a successor."""
    owners = {alias: model for model, row in MODELS.items() for alias in row.get("aliases", ())}
    assert "successor" in MODELS[owners.get(name, name)]


def test_no_name_means_two_models() -> None:
    """A full name or alias leads to one model, and is the one that a call would be given."""
    aliases = [
        full_name(row["provider"], alias)
        for row in MODELS.values()
        for alias in row.get("aliases", ())
    ]
    names = [*MODELS, *aliases]
    assert len(names) == len(set(names))
    for name, record in MODELS.items():
        provider = record["provider"]
        assert name == full_name(provider, name.removeprefix(f"{provider}:"))


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *(("gpt-5-mini", "o200k_base"), ("gpt-4o", "o200k_base"), ("gpt-4.1", "o200k_base")),
        *(("o3", "o200k_base"), ("gpt-4", "cl100k_base"), ("gpt-4-turbo", "cl100k_base")),
        *(("gpt-3.5-turbo", "cl100k_base"), ("text-embedding-3-small", "cl100k_base")),
        *(("gpt-6-luna", None), ("claude-haiku-5-5", None), ("gemini-3.8-flash", None)),
    ],
)
def test_encodings_are_those_of_tiktoken(name: str, encoding: str | None) -> None:
    """A vocabulary is claimed only where OpenAI's own table names it."""
    assert MODELS[name].get("encoding") == encoding


def test_the_defaults_can_be_used() -> None:
    """The model that a provider's key alone leads to is priced and not about to end."""
    for provider, name in DOCUMENT["defaults"].items():
        assert MODELS[name]["provider"] == provider
        assert MODELS[name]["prices"] is not None
        assert "shutdown" not in MODELS[name]
        assert "limited_access" not in MODELS[name]


def test_models_stand_newest_first() -> None:
    """By provider, and within one by release, which is the order in which models are listed."""
    order = [PROVIDERS.index(record["provider"]) for record in MODELS.values()]
    assert order == sorted(order)
    for provider in PROVIDERS:
        records = [record for record in MODELS.values() if record["provider"] == provider]
        released = [record["released"] for record in records if "released" in record]
        assert released == sorted(released, reverse=True)


def test_the_file_stays_small() -> None:
    """It is read on the first use of every process."""
    assert MODELS_FILE.stat().st_size < 250_000


@pytest.mark.parametrize("name", FLAGSHIPS)
def test_flagship_prices(name: str) -> None:
    """The prices of the models that most money goes to are what the vendors' tables say."""
    told = zip(("input", "output", "cache_read", "cache_write"), FLAGSHIPS[name], strict=True)
    assert MODELS[name]["prices"] == {kind: price for kind, price in told if price is not None}


@pytest.mark.parametrize("name", OVERRIDES["most_used"])
def test_prices_equal_the_cross_check(name: str) -> None:
    """Two sources that the build does not believe first say the same, or why not is written.

    A reason holds for the one price that it stands at, not for all that is said of the model.
    """
    checked = dict(CHECKED["models"][name])
    reasons = checked.pop("differs", {})
    assert checked
    for source, prices in checked.items():
        for kind, price in prices.items():
            ours = MODELS[name]["prices"].get(kind)
            equal = ours is not None and Decimal(ours) == Decimal(price)
            assert equal != bool(reasons.get(f"{source} {kind}")), (source, kind)


def test_the_cross_check_is_of_thirty_models_on_the_same_day() -> None:
    """The frozen values belong to this registry and cover what it promises."""
    assert CHECKED["as_of"] == DOCUMENT["as_of"]
    assert len(CHECKED["models"]) == len(OVERRIDES["most_used"]) == 30


def test_the_file_was_built_from_the_hand_written_facts() -> None:
    """A change in registry_overrides.toml without a rebuild is noticed without any network."""
    listed = {
        full_name(provider, name): spec
        for provider in PROVIDERS
        for name, spec in OVERRIDES[provider].items()
    }
    assert listed.keys() == MODELS.keys()
    assert OVERRIDES["defaults"] == DOCUMENT["defaults"]
    assert OVERRIDES["as_of"].isoformat() == DOCUMENT["as_of"]
    for name, spec in listed.items():
        record = MODELS[name]
        assert spec["judged"].split()[:2] == [record["speed"], record["quality"]], name
        for key in ("successor", "aliases", "refuses", "max_output"):
            written = record.get({"max_output": "max_output_tokens"}.get(key, key))
            told = spec.get(key)
            if key == "successor" and told:
                told = full_name(record["provider"], told)
            assert key not in spec or told == written, (name, key)
        if "shutdown" in spec:
            assert spec["shutdown"].isoformat() == record["shutdown"], name


# The script, on small made-up sources.

DATA = ROOT / "tests" / "data"


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A folder with the three unpacked packages and the hand-written facts."""
    sources = tmp_path / "sources"
    for package, version in (("genai_prices", 1), ("litellm", 2), ("model_prices", 3)):
        (sources / package).mkdir(parents=True)
        (sources / f"{package}-{version}.0.dist-info").mkdir()
    tables = json.loads((DATA / "registry_made_up.json").read_text(encoding="utf-8"))
    made_up = {
        sources / "genai_prices" / "data.py": DATA / "registry_made_up_genai_prices.txt",
        tmp_path / "overrides.toml": DATA / "registry_made_up.toml",
    }
    for file, original in made_up.items():
        file.write_text(original.read_text(encoding="utf-8"), encoding="utf-8")
    for file, package in (
        (sources / "litellm" / "model_prices_and_context_window_backup.json", "litellm"),
        (sources / "model_prices" / "snapshot.json", "model-prices"),
    ):
        file.write_text(json.dumps(tables[package]), encoding="utf-8")
    return tmp_path


def build(workshop: Path, *more: str) -> int:
    files = {"overrides": "overrides.toml", "output": "models.json", "cross-check": "checked.json"}
    options = [f"--{option}={workshop / name}" for option, name in files.items()]
    return main([f"--sources={workshop / 'sources'}", *options, *more])


def explain(workshop: Path, model: str, reason: str) -> None:
    file = workshop / "overrides.toml"
    text = file.read_text(encoding="utf-8")
    head = f'[gemini."{model}"]\n'
    file.write_text(text.replace(head, f'{head}differs = "{reason}"\n'), encoding="utf-8")


def test_the_build_merges_sources_and_hand_written_facts(workshop: Path) -> None:
    """Prices with tiers, batches and announced changes, limits, flags and rules end in a record."""
    build(workshop)
    models = json.loads((workshop / "models.json").read_text(encoding="utf-8"))["models"]
    assert list(models) == ["gem-2", "gem-1"]
    assert models["gem-2"] == {
        "provider": "gemini",
        "context_window": 1024,
        "max_output_tokens": 64,
        "prices": {"input": "1.50", "output": "10"},
        "price_tiers": [{"above_input_tokens": 200_000, "input": "3", "output": "10"}],
        "batch_prices": {"input": "0.75", "output": "5"},
        "price_changes": [
            {
                "from": "2030-02-01",
                "prices": {"input": "2", "output": "9"},
                "batch_prices": {"input": "0.75", "output": "5"},
            }
        ],
        "modalities": {"input": ["text", "image"], "output": ["text"]},
        "capabilities": ["chat", "coding", "forced_tool_choice", "streaming", "tools", "vision"],
        "refuses": ["temperature", "top_p"],
        "api": "chat",
        "released": "2029-06-01",
        "speed": "slow",
        "quality": "best",
        "as_of": "2030-01-01",
        "source": "prices: genai-prices, litellm; limits and flags: litellm",
    }
    old = models["gem-1"]
    assert old["prices"] == {"input": "0.075", "output": "0.30", "cache_read": "0.0075"}
    assert (old["shutdown"], old["successor"], old["refuses"]) == ("2029-12-01", "gem-2", ["seed"])


def test_the_build_is_the_same_each_time(workshop: Path) -> None:
    """Two builds give the same bytes, so that --check means something."""
    build(workshop)
    first = (workshop / "models.json").read_bytes(), (workshop / "checked.json").read_bytes()
    build(workshop)
    assert first == (
        (workshop / "models.json").read_bytes(),
        (workshop / "checked.json").read_bytes(),
    )


def test_differences_are_reported_until_they_are_explained(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sources that disagree fail the build until someone writes down why one is believed."""
    assert build(workshop) == 1
    table = capsys.readouterr().out
    assert re.search(r"gem-2 +output +10 +litellm +11 +\?", table)
    assert re.search(r"gem-2 +context window +1024 +genai-prices +1000 +\?", table)
    assert "2 differences, 2 unexplained" in table
    assert "gemini: gem-3" in table
    explain(workshop, "gem-2", "a test")
    assert build(workshop) == 0
    assert "0 unexplained" in capsys.readouterr().out


def test_check_finds_what_is_stale(workshop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check writes nothing, passes on what was just built, and fails on anything else."""
    explain(workshop, "gem-2", "a test")
    assert build(workshop, "--check") == 1
    assert not (workshop / "models.json").exists()
    assert build(workshop) == 0
    assert build(workshop, "--check") == 0
    (workshop / "models.json").write_text("{}", encoding="utf-8")
    assert build(workshop, "--check") == 1
    assert "models.json is not what the sources give" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('successor = "gem-2"\n', "", "gem-1: has an end, but no successor"),
        ('successor = "gem-2"', 'successor = "gem-9"', "its successor gem-9 is unknown"),
        ('judged = "fast basic"', 'judged = "fast basic"\ncolour = "red"', "unknown keys"),
        ("released = 2029-06-01", 'aliases = ["gem-1"]', "gem-1: a name of gem-2 and of gem-1"),
    ],
)
def test_contradictions_stop_the_build(workshop: Path, old: str, new: str, message: str) -> None:
    """A slip in the hand-written facts is said, and nothing is written."""
    file = workshop / "overrides.toml"
    file.write_text(file.read_text("utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        build(workshop)
    assert not (workshop / "models.json").exists()


def test_another_version_of_a_source_is_refused(workshop: Path) -> None:
    """The registry says which versions it was built from, so it is built from no others."""
    (workshop / "sources" / "litellm-2.0.dist-info").rename(
        workshop / "sources" / "litellm-2.1.dist-info"
    )
    with pytest.raises(SystemExit, match=r"litellm is 2\.1, not 2\.0"):
        build(workshop)
