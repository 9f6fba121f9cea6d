"""What installed packages and LLMKIT_MODELS_FILE add to the registry."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmkit.adapters import get_adapter, vendors
from llmkit.errors import ConfigurationError
from llmkit.models import (
    get_model_info,
    list_available_models,
    register_model,
)
from llmkit.settings import reload_settings


@pytest.fixture(autouse=True)
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmkit.models.registry._shared", {})


def use_file(monkeypatch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    monkeypatch.setenv("LLMKIT_MODELS_FILE", str(file))
    reload_settings()


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (
            ".json",
            '{"models": {"acme:own": {"context_window": 99, "prices": {"input": 0.1, "output": 2}},'
            ' "gpt-6-luna": {"max_output_tokens": 7, "shutdown": "2027-02-03"}}}',
        ),
        (
            ".toml",
            '[models."acme:own"]\ncontext_window = 99\nprices = {input = 0.1, output = 2}\n'
            "[models.gpt-6-luna]\nmax_output_tokens = 7\nshutdown = 2027-02-03\n",
        ),
    ],
)
def test_a_file_adds_and_overrides(
    suffix: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LLMKIT_MODELS_FILE is read by its suffix; it wins over the built-in facts only."""
    register_model("gpt-6-luna", max_output_tokens=8)
    use_file(monkeypatch, tmp_path / f"more{suffix}", text)
    own, luna = get_model_info("acme:own"), get_model_info("gpt-6-luna")
    assert own.prices == {"input": Decimal("0.1"), "output": Decimal(2)}
    assert (own.context_window, luna.context_window) == (99, 1_050_000)
    assert str(luna.shutdown) == "2027-02-03"
    assert luna.max_output_tokens == 8
    monkeypatch.delenv("LLMKIT_MODELS_FILE")
    reload_settings()
    assert get_model_info("gpt-6-luna").shutdown is None
    assert get_model_info("gpt-6-luna").max_output_tokens == 8


@pytest.mark.parametrize(
    ("name", "text", "place"),
    [
        ("a.json", "{", "line 1 column 2"),
        ("a.json", "[]", "expected an object"),
        ("a.json", "{}", "`models`"),
        ("a.json", '{"models": {"x": 5}}', "models.x"),
        ("a.json", '{"models": {"x": {}}}', "models.x: provider"),
        ("a.json", '{"models": {"p:x": {"prices": {"imput": 1}}}}', r"x: prices=.*unknown prices"),
        ("a.json", '{"models": {"p:x": {"context_window": true}}}', "context_window=True"),
        ("a.json", '{"models": {"p:x": {"shutdown": "soon"}}}', "shutdown='soon': expected"),
        ("a.json", '{"models": {"p:x": {"price_tiers": [{}]}}}', "tiers=.*above_input"),
        ("a.toml", "x = ?\n", "line 1, column 5"),
        ("a.toml", "[models.x]\ncolour = 1\nprovider = 'p'", "unknown facts"),
        ("a.yaml", "models: {}", r"\.json or \.toml"),
    ],
)
def test_a_broken_file_is_named_with_the_place(
    name: str, text: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote the file is told the variable, the file, and what is wrong where."""
    use_file(monkeypatch, tmp_path / name, text)
    with pytest.raises(ConfigurationError, match=place) as caught:
        get_model_info("gpt-6-luna")
    assert f"LLMKIT_MODELS_FILE ({tmp_path / name})" in caught.value.message


def test_a_file_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A wrong path is no silent lack of models."""
    monkeypatch.setenv("LLMKIT_MODELS_FILE", str(tmp_path / "none.json"))
    reload_settings()
    with pytest.raises(ConfigurationError, match=r"none\.json\): No such file"):
        list_available_models()


def install(folder: Path, name: str, entry_points: str, code: str) -> None:
    """Puts a package with entry points on a folder of the path."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)
    (folder / f"{name}.py").write_text(code)


def test_installed_packages_add_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An entry point's function or mapping counts, and a broken one is logged and harms nothing."""
    install(
        tmp_path,
        "acme_models",
        "[llmkit.models]\na = acme_models:found\nb = acme_models:TABLE\nc = acme_models:broken\n",
        "TABLE = {'acme:table': {'provider': 'acme'}, 'gpt-6-luna': {'max_output_tokens': 5}}\n"
        "def found(): return {'acme:made': {'context_window': 10}}\n"
        "def broken(): raise RuntimeError('no luck')\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert get_model_info("acme:made").context_window == 10
    assert get_model_info("acme:table").provider == "acme"
    assert get_model_info("gpt-6-luna").max_output_tokens == 5
    (record,) = caplog.records
    assert "acme_models:broken" in record.getMessage()
    assert "no luck" in record.getMessage()


def test_installed_packages_add_providers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A provider that nobody knows is looked for in the packages, as a row or as a class."""
    install(
        tmp_path,
        "acme_vendor",
        "[llmkit.adapters]\nacme = acme_vendor:ROW\nbad = acme_vendor:nothing\n"
        "odd = acme_vendor:ODD\n"
        "own = acme_vendor:Own\n",
        "from llmkit.adapters import OpenAIAdapter\nfrom llmkit.adapters.vendors import Vendor\n"
        "ROW = Vendor('acme', 'https://acme.example/v1', 'ACME_API_KEY')\nODD = 5\n"
        "class Own(OpenAIAdapter): pass\n",
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(vendors, "OPENAI_COMPATIBLE", dict(vendors.OPENAI_COMPATIBLE))
    monkeypatch.setattr("llmkit.adapters.OPENAI_COMPATIBLE", vendors.OPENAI_COMPATIBLE)
    monkeypatch.setattr("llmkit.adapters.openai.OPENAI_COMPATIBLE", vendors.OPENAI_COMPATIBLE)
    adapter: Any = get_adapter("acme:some/model")
    assert (adapter.provider, adapter.model) == ("acme", "some/model")
    assert adapter.base_url == "https://acme.example/v1"
    assert get_adapter("own-7", provider="acme").provider == "acme"
    assert vendors.find_declared("own")
    assert vendors.DECLARED_CLASSES.pop("own").__name__ == "Own"
    with pytest.raises(ConfigurationError, match="acme_vendor:nothing"):
        get_adapter("bad:model")
    with pytest.raises(ConfigurationError, match="expected a Vendor"):
        get_adapter("model", provider="odd")
    with pytest.raises(ConfigurationError, match="no provider 'nobody'"):
        get_adapter("model", provider="nobody")


@pytest.mark.parametrize("name", ["acme:own-1", "own-1"])
def test_a_registered_model_of_nobodys_provider_is_explained(name: str) -> None:
    """A model whose provider has no adapter is an error in words, not a KeyError."""
    register_model("acme:own-1")
    with pytest.raises(ConfigurationError, match="no provider 'acme'"):
        get_adapter(name)
