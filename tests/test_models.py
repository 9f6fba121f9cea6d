from __future__ import annotations

import datetime
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmkit import estimate_cost, get_token_limit, models
from llmkit.adapters import PROVIDERS, get_adapter
from llmkit.errors import InvalidRequestError, ModelNotFoundError
from llmkit.models import (
    ModelInfo,
    default_model,
    get_model_info,
    list_available_models,
    register_model,
    split_model_name,
)

DOCUMENT: dict[str, Any] = json.loads(
    Path(models.__file__).with_name("models.json").read_text(encoding="utf-8")
)
RECORDS: dict[str, Any] = DOCUMENT["models"]
AS_OF = datetime.date.fromisoformat(DOCUMENT["as_of"])

# USD per million tokens, input and output of short prompts, from the vendors' price lists as of
# November 2026 (collected from genai-prices, litellm and model-prices, which agree on them).
FLAGSHIPS = {
    "gpt-6-astra": "10/50",
    "gpt-6.1-sol": "2/10",
    "gpt-6-sol": "2/10",
    "gpt-6.1-terra": "1/5",
    "gpt-6-luna": ".10/.50",
    "gpt-5.6-sol": "4/20",
    "gpt-5.6-terra": "2/12",
    "gpt-5.6-luna": ".20/1.20",
    "gpt-5.5": "5/30",
    "gpt-5.4-mini": ".75/4.5",
    "claude-fable-5-2": "8/40",
    "claude-mythos-5-2": "8/40",
    "claude-opus-5-5": "4/20",
    "claude-sonnet-5-5": "2/10",
    "claude-haiku-5-5": ".10/.50",
    "claude-fable-5-1": "10/50",
    "claude-mythos-5-1": "10/50",
    "claude-opus-5": "5/25",
    "claude-sonnet-5": "2/10",
    "claude-fable-5": "10/50",
    "claude-opus-4-8": "5/25",
    "claude-sonnet-4-6": "3/15",
    "gemini-4-argon": "2/10",
    "gemini-3.8-flash": ".75/3.75",
    "gemini-3.7-flash": ".75/3.75",
    "gemini-3.6-flash": ".75/3.75",
    "gemini-3.5-flash": "1.5/9",
    "gemini-3.5-flash-lite": ".30/2.50",
    "gemini-3.1-pro-preview": "2/12",
    "gemini-3.1-flash-lite": ".25/1.50",
    "gemini-3-flash-preview": ".5/3",
    "gemini-2.5-pro": "1.25/10",
    "gemini-2.5-flash": ".30/2.50",
    "gemini-2.5-flash-lite": ".10/.40",
    "gemini-embedding-2": ".20/0",
}


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.models.registry._shared", {})


# --- the data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_reads(name: str) -> None:
    """No record is found to be broken only when somebody asks for that model."""
    info = get_model_info(name)
    record = RECORDS[name]
    assert (info.full_name, info.provider, info.known) == (name, record["provider"], True)
    assert info.as_of == datetime.date.fromisoformat(record["as_of"])
    assert info.provider in PROVIDERS
    assert info.source
    assert info.speed in (None, "fast", "medium", "slow")
    assert info.quality in (None, "tiny", "basic", "good", "best")
    assert info.api in ("chat", "responses")
    assert info.refuses <= {"temperature", "top_p", "stop", "seed", "reasoning_effort"}
    assert info.context_window is None or info.context_window > 0
    assert info["token_limit"] == info.context_window


@pytest.mark.parametrize("name", RECORDS)
def test_every_alias_leads_to_its_model(name: str) -> None:
    """A dated name is the same model as the plain one, with and without its provider."""
    for alias in RECORDS[name].get("aliases", ()):
        assert alias not in RECORDS
        assert get_model_info(alias) is get_model_info(name)
        assert get_model_info(f"{RECORDS[name]['provider']}:{alias}") is get_model_info(name)


@pytest.mark.parametrize("name", [name for name in RECORDS if "successor" in RECORDS[name]])
def test_every_successor_lives_longer(name: str) -> None:
    """Nobody is sent from one retired model to another, or to a model that doesn't exist."""
    info = get_model_info(name)
    assert info.successor is not None
    successor = get_model_info(info.successor)
    assert successor.provider == info.provider
    assert not successor.retired(AS_OF)
    assert successor.shutdown is None or info.shutdown is None or successor.shutdown > info.shutdown


def test_whoever_is_shut_down_has_a_successor() -> None:
    """A 404 for a retired model can always name what to use instead."""
    infos = [get_model_info(name) for name in RECORDS]
    assert [info.name for info in infos if info.shutdown and not info.successor] == []


@pytest.mark.parametrize(("name", "prices"), FLAGSHIPS.items())
def test_flagship_prices_are_the_published_ones(name: str, prices: str) -> None:
    """A slip in the price table would make every budget wrong."""
    info = get_model_info(name)
    assert info.prices is not None
    assert (info.prices["input"], info.prices["output"]) == tuple(map(Decimal, prices.split("/")))


def test_what_is_published_beyond_prices_is_in_the_registry() -> None:
    """Windows, long-prompt prices and shut-down days are those that the vendors state."""
    luna, haiku = get_model_info("gpt-6-luna"), get_model_info("claude-haiku-5-5")
    assert (luna.context_window, luna.max_output_tokens) == (1_050_000, 128_000)
    assert luna.prices is not None
    (tier,) = luna.price_tiers
    assert tier["above_input_tokens"] == 272_000
    assert tier["input"] == 2 * luna.prices["input"]
    assert (haiku.context_window, haiku.max_output_tokens) == (1_000_000, 128_000)
    assert haiku.price_tiers[0]["above_input_tokens"] == 100_000
    shutdowns = {
        "2026-10-23": ("o4-mini", "o3-mini", "o1", "gpt-4", "gpt-3.5-turbo"),
        "2026-12-11": ("gpt-5", "gpt-5-mini", "o3"),
        "2027-01-14": ("gpt-4o", "gpt-4o-mini", "gpt-4.1"),
        "2026-11-30": ("claude-sonnet-4-5",),
    }
    for day, names in shutdowns.items():
        for name in names:
            assert str(get_model_info(name).shutdown) == day


def test_prices_make_sense() -> None:
    """Cached input is cheaper than fresh, and a long prompt never cheaper than a short one."""
    for name in RECORDS:
        info = get_model_info(name)
        prices = info.prices
        if prices is None:
            continue
        assert prices.get("cache_read", prices["input"]) <= prices["input"]
        assert prices.get("cache_write", prices["input"]) >= prices["input"]
        for tier in info.price_tiers:
            assert all(tier[kind] >= prices[kind] for kind in tier.keys() & prices.keys())


def test_defaults_are_models_that_live_on() -> None:
    """What a call without a model gets is known, priced, able to chat, and not about to end."""
    for provider, name in DOCUMENT["defaults"].items():
        info = get_model_info(name)
        assert default_model(provider) == name
        assert info.provider == provider
        assert {"chat", "streaming"} <= info.capabilities
        assert info.shutdown is None
        assert info.prices is not None
    assert default_model("groq") is None


def test_the_registry_loads_in_milliseconds() -> None:
    """The first question waits for the file only: 5 ms on an idle machine, far less than a call."""
    script = (
        "import json, sys, time, llmkit.models; from llmkit.settings import get_settings;"
        "get_settings(); began = time.process_time(); llmkit.models.get_model_info('gpt-6-luna');"
        "print(time.process_time() - began, 'importlib.metadata' in sys.modules)"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(models.__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(3)
    ]
    answers = [run.stdout.split() for run in runs]
    assert [looked for _, looked in answers] == ["False"] * 3
    assert min(float(seconds) for seconds, _ in answers) < 0.02


# --- asking ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpt-6-luna", "openai:gpt-6-luna", "openai/gpt-6-luna"])
def test_a_model_is_found_by_each_way_to_write_it(name: str) -> None:
    """All spellings that a call takes are also answered by the registry."""
    assert get_model_info(name).name == "gpt-6-luna"


@pytest.mark.parametrize(
    ("name", "near", "asked"),
    [
        ("gpt-6-lunar", "gpt-6-luna", "openai:gpt-6-lunar"),
        ("GPT-6-LUNA", "gpt-6-luna", "openai:GPT-6-LUNA"),
        ("claude-haiku-5.5", "claude-haiku-5-5", "anthropic:claude-haiku-5.5"),
        ("gemini-3.8-flsh", "gemini-3.8-flash", "gemini:gemini-3.8-flsh"),
    ],
)
def test_an_unknown_model_names_near_matches(name: str, near: str, asked: str) -> None:
    """A typo is answered with the right name, and with the provider to ask all the same."""
    with pytest.raises(ModelNotFoundError, match=f"did you mean .*{near}") as caught:
        get_model_info(name)
    assert caught.value.model == name
    assert asked in caught.value.message


def test_a_model_newer_than_the_registry_is_not_sent_in_circles() -> None:
    """Whoever wrote the provider already is not told to write it, nor shown others' models."""
    with pytest.raises(ModelNotFoundError, match="can ask for it all the same") as caught:
        get_model_info("openai:gpt-7")
    assert "did you mean gpt-" in caught.value.message
    assert ":" not in caught.value.message
    with pytest.raises(ModelNotFoundError, match="no model 'new' of ollama"):
        get_model_info("ollama:new")


def test_a_providers_name_is_told_from_a_models() -> None:
    """Whoever writes "openai" for a model reads what it lacks, rather than of o1-preview."""
    with pytest.raises(ModelNotFoundError, match=r"'openai' is a provider.*'openai:' asks"):
        get_model_info("openai")


@pytest.mark.parametrize("model", [None, 5, b"gpt-4o", ["gpt-4o"]])
def test_a_name_that_is_no_text_is_refused(model: Any) -> None:
    """A None out of one's own settings is told in this library's words, whoever looks it up."""
    for look_up in (get_model_info, get_token_limit, lambda name: estimate_cost("Hi", name)):
        with pytest.raises(InvalidRequestError, match="model="):
            look_up(model)


def test_an_absurdly_long_name_is_refused_at_once() -> None:
    """A text in the place of the name costs no minute of searching, and fills no log."""
    began = time.process_time()
    with pytest.raises(ModelNotFoundError) as caught:
        get_model_info("gpt " * 100_000)
    assert time.process_time() - began < 2
    assert len(caught.value.message) < 1_000


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini", "local"])
def test_a_provider_alone_means_its_default_model(provider: str) -> None:
    """`model="local:"`, as README has it, is answered here as a call answers it."""
    assert get_model_info(f"{provider}:").name == default_model(provider)
    with pytest.raises(InvalidRequestError):
        register_model(f"{provider}:", context_window=1)


@pytest.mark.parametrize(
    "name", ["", ":", "groq:", ":gpt-6-luna", "anthropic:gpt-6-luna", "xyz", "openai:x:y", "/"]
)
def test_what_is_no_model_is_not_found(name: str) -> None:
    """Empty parts and contradicting providers find nothing, and crash nothing."""
    with pytest.raises(ModelNotFoundError):
        get_model_info(name)


def test_a_model_reads_like_a_mapping() -> None:
    """Item access, `get`, `in`, `keys` and `dict()` agree with the fields."""
    info = get_model_info("gpt-6-luna")
    assert info["provider"] == info.get("provider") == "openai"
    assert info["token_limit"] == 1_050_000
    assert "token_limit" in info
    assert "colour" not in info
    assert info.get("colour", "?") == "?"
    assert dict(info)["prices"] == info.prices
    with pytest.raises(KeyError, match="there are name, provider"):
        info["colour"]


def test_retired_is_a_question_of_the_day() -> None:
    """A model is retired from its day of shut-down on, and never without such a day."""
    info = get_model_info("gpt-5")
    day = datetime.date(2026, 12, 11)
    assert not info.retired(day - datetime.timedelta(days=1))
    assert info.retired(day)
    assert not get_model_info("gpt-6-luna").retired(datetime.date(2099, 1, 1))


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ("gpt-6-luna", (None, "gpt-6-luna")),
        ("openai:gpt-6-luna", ("openai", "gpt-6-luna")),
        ("openai/gpt-6-luna", ("openai", "gpt-6-luna")),
        ("openrouter:openai/gpt-6-luna", ("openrouter", "openai/gpt-6-luna")),
        ("local:", ("local", "")),
        ("acme/llama:8b", (None, "acme/llama:8b")),
        ("ollama:llama:8b", ("ollama", "llama:8b")),
    ],
)
def test_names_are_split_at_a_known_provider_only(
    model: str, parts: tuple[str | None, str]
) -> None:
    """A colon or slash inside a vendor's own model name is left alone."""
    assert split_model_name(model, PROVIDERS) == parts


# --- registering ----------------------------------------------------------------------------------


def test_a_model_can_be_added_and_overridden() -> None:
    """Own models and negotiated prices are known to everything that asks the registry."""
    added = register_model(
        "own-1",
        provider="ollama",
        context_window=8192,
        prices={"input": 0.1, "output": "0.2"},
        capabilities=["chat"],
        released="2026-01-02",
        aliases=["own-latest"],
    )
    assert get_model_info("own-1") is get_model_info("ollama:own-latest") is added
    assert added.prices == {"input": Decimal("0.1"), "output": Decimal("0.2")}
    assert added.released == datetime.date(2026, 1, 2)
    changed = register_model("own-latest", max_output_tokens=100)
    assert (changed.name, changed.context_window, changed.max_output_tokens) == ("own-1", 8192, 100)
    luna = register_model("gpt-6-luna", prices={"input": "0.09", "output": "0.45"})
    assert get_model_info("gpt-6-luna") is luna
    assert luna.context_window == 1_050_000
    assert register_model("gpt-6-luna", prices=None).prices is None


def test_price_tiers_are_put_in_order() -> None:
    """The tier of the longest prompts wins, in whatever order tiers were written."""
    info = register_model(
        "own",
        provider="local",
        price_tiers=[
            {"above_input_tokens": 20, "input": 3},
            {"above_input_tokens": 10, "input": 2},
        ],
    )
    assert [tier["input"] for tier in info.price_tiers] == [2, 3]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"provider": None},
        {"provider": "p", "colour": "red"},
        {"provider": "p", "aliases": "own-3"},
        {"provider": "p", "context_window": "big"},
        {"provider": "p", "context_window": 0},
        {"provider": "p", "max_output_tokens": 1.5},
        {"provider": "p", "released": "yesterday"},
        {"provider": "p", "shutdown": 2026},
        {"provider": "p", "prices": {"input": "cheap"}},
        {"provider": "p", "prices": {"input": -1}},
        {"provider": "p", "prices": {"input": float("nan")}},
        {"provider": "p", "prices": {"input": "Infinity"}},
        {"provider": "p", "prices": {"imput": 1}},
        {"provider": "p", "prices": 5},
        {"provider": "p", "price_tiers": [{"input": 1}]},
        {"provider": "p", "price_tiers": [5]},
        {"provider": "p", "price_tiers": 5},
        {"provider": "p", "capabilities": "vision"},
        {"provider": "p", "capabilities": 5},
        {"provider": "p", "refuses": "top_p"},
        {"provider": "p", "reasoning_efforts": "low"},
        {"provider": "p", "modalities": {"input": "text"}},
        {"provider": "p", "modalities": ["text"]},
        {"provider": "p", "api": "respones"},
        {"provider": "p", "speed": "swift"},
        {"provider": "p", "quality": "superb"},
    ],
)
def test_a_fact_that_cant_be_read_is_refused_and_nothing_is_kept(facts: dict[str, Any]) -> None:
    """A slip in an own model shows at once, and leaves the registry as it was."""
    with pytest.raises(InvalidRequestError, match="own-2") as caught:
        register_model("own-2", **facts)
    assert ([*facts] or ["provider"])[-1] in caught.value.message
    with pytest.raises(ModelNotFoundError):
        get_model_info("own-2")
    with pytest.raises(InvalidRequestError):
        register_model("gpt-6-luna", **{**facts, "prices": {"imput": 1}})
    assert get_model_info("gpt-6-luna").prices is not None


def test_threads_share_one_registry() -> None:
    """A model registered by one thread at the start isn't lost to the others."""

    def register(number: int) -> None:
        register_model(f"own-{number}", provider="local")

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(register, range(200)))
    assert all(get_model_info(f"own-{number}").provider == "local" for number in range(200))


def test_what_is_unknown_is_none_by_default() -> None:
    """A model that only its provider is known of claims no price, window or date."""
    info = ModelInfo("m", "p")
    unknown = ("context_window", "max_output_tokens", "prices", "released", "shutdown", "successor")
    assert [info[name] for name in unknown] == [None] * 6


# --- one name at several providers ----------------------------------------------------------------


def test_every_listed_name_leads_to_that_very_model() -> None:
    """What the list returns can be given to get_adapter as it stands, and finds the same facts."""
    for name in list_available_models():
        info, adapter = get_model_info(name), get_adapter(name)
        assert (adapter.provider, adapter.model) == (info.provider, info.name)
        assert info.full_name == name


def test_another_providers_record_hides_nobodys_own_model() -> None:
    """OpenAI's model stays OpenAI's, with its price, when a router's record has the same name."""
    own = get_model_info("gpt-6-luna")
    routed = register_model("openrouter:openai/gpt-6-luna", prices={"input": 1, "output": 2})
    renamed = register_model("gpt-6-luna", provider="vllm")
    assert get_model_info("gpt-6-luna") is get_model_info("openai/gpt-6-luna") is own
    assert get_model_info("openrouter:openai/gpt-6-luna") is routed
    assert get_model_info("openrouter/openai/gpt-6-luna") is routed
    assert get_model_info("vllm:gpt-6-luna") is renamed
    assert (routed.provider, routed.name) == ("openrouter", "openai/gpt-6-luna")
    assert {"openrouter:openai/gpt-6-luna", "vllm:gpt-6-luna"} < {*list_available_models()}


def test_a_groq_model_with_another_vendors_name_is_groqs() -> None:
    """The provider in front decides, whatever stands behind it."""
    info = get_model_info("groq:openai/gpt-oss-120b")
    assert (info.provider, info.name) == ("groq", "openai/gpt-oss-120b")
    assert get_model_info("groq/openai/gpt-oss-120b") is info
    with pytest.raises(ModelNotFoundError):
        get_model_info("openai:gpt-oss-120b")


def test_a_bare_name_is_the_makers_own_even_if_it_comes_later() -> None:
    """A model that OpenAI adds later isn't taken for the one that a router had before."""
    register_model("vllm:own-9")
    assert get_model_info("own-9").provider == "vllm"
    register_model("own-9", provider="openai")
    assert get_model_info("own-9").provider == "openai"
    assert get_model_info("vllm:own-9").provider == "vllm"
