from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path

import pytest

from llmkit.cli import main
from llmkit.errors import APIConnectionError, InvalidRequestError, ModelNotFoundError
from llmkit.estimates import estimate_cost
from llmkit.models import get_model_info, register_model
from llmkit.models.registry import get_registry
from llmkit.tokenizer import count_tokens, vocabulary

Capture = pytest.CaptureFixture[str]


def written(name: str, text: str) -> str:
    """The name of a file in the working directory that holds this text."""
    Path(name).write_text(text, encoding="utf-8")
    return name


# --- llmkit tokens --------------------------------------------------------------------------------


def test_one_file_is_one_line(capsys: Capture) -> None:
    """An exact count stands without a mark."""
    assert main(["tokens", written("a.txt", "Hi there"), "--model", "gpt-4o"]) == 0
    assert capsys.readouterr().out == "2  a.txt\n"


def test_windows_line_ends_are_counted_as_they_are(capsys: Capture) -> None:
    """A file's count is that of what stands in it, not of what Python makes of it."""
    text = "a\r\n \r\n\tb\r\n" * 9
    Path("a.txt").write_bytes(text.encode())
    assert count_tokens("gpt-4o", text) != count_tokens("gpt-4o", text.replace("\r\n", "\n"))
    assert main(["tokens", "a.txt", "--model", "gpt-4o"]) == 0
    assert capsys.readouterr().out == f"{count_tokens('gpt-4o', text)}  a.txt\n"


def test_several_files_have_a_total_within_80_columns(capsys: Capture) -> None:
    """A long path is cut at its front; estimates are marked, and the total adds up."""
    Path("d" * 90).mkdir()
    names = [written("a.txt", "word " * 3000), written(f"{'d' * 90}/b.txt", "Hi there")]
    assert main(["tokens", *names, "--model", "claude-haiku-4-5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    counts = [count_tokens("claude-haiku-4-5", Path(name).read_text()) for name in names]
    assert lines[0].split() == [f"~{counts[0]:,}", "a.txt"]
    assert lines[1].startswith(f"    ~{counts[1]}  ...ddd")
    assert lines[1].endswith("d/b.txt")
    assert lines[2].split() == [f"~{sum(counts):,}", "total"]
    assert lines[4] == "~: an estimate for claude-haiku-4-5"
    assert max(map(len, lines)) == 80


def test_json_says_what_is_an_estimate(capsys: Capture) -> None:
    """`--json` has plain numbers."""
    assert main(["tokens", written("a.txt", "Hi there"), "--model", "gpt-4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "model": "gpt-4",
        "files": [{"file": "a.txt", "tokens": 2, "estimated": False}],
    }


def test_no_model_and_no_key_are_needed(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name it is the model that a call would ask, or else OpenAI's default."""
    assert main(["tokens", written("a.txt", "Hi there"), "--json"]) == 0
    assert get_model_info(json.loads(capsys.readouterr().out)["model"]).provider == "openai"
    monkeypatch.setenv("PRIMARY_LLM", "claude-haiku-4-5")
    monkeypatch.setattr("llmkit.settings._shared", {})
    assert main(["tokens", "a.txt", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "claude-haiku-4-5"


def test_a_provider_alone_is_its_default_model(capsys: Capture) -> None:
    """`local:` is understood as everywhere else."""
    name = written("a.txt", "Hi there")
    assert main(["cost", name, "--model", "local:", "--max-tokens", "5"]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[0] == "smollm2-135m"
    assert main(["tokens", name, "--model", "local:", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "local:smollm2-135m"


def test_standard_input(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-` reads what is piped in."""
    monkeypatch.setattr("sys.stdin", io.StringIO("Hi there"))
    assert main(["tokens", "-", "--model", "gpt-4o"]) == 0
    assert capsys.readouterr().out == "2  -\n"


def test_a_file_that_cannot_be_read_does_not_hide_the_others(capsys: Capture) -> None:
    """What is missing or no text is said on standard error, and the exit code tells."""
    Path("b.bin").write_bytes(b"\xff\xfe")
    names = ["missing\x1b", "b.bin", written("a.txt", "Hi there")]
    assert main(["tokens", *names, "--model", "gpt-4o"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "2  a.txt\n"
    assert captured.err.splitlines() == [
        "llmkit: missing\u241b: No such file or directory",
        "llmkit: b.bin: not a text in UTF-8",
    ]


def test_download(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tokens download` fetches the usual vocabulary, or those that are named."""
    asked: list[str] = []

    def download(name: str) -> Path:
        asked.append(name)
        return Path("/cache") / name

    monkeypatch.setattr(vocabulary, "download_vocabulary", download)
    assert main(["tokens", "download"]) == 0
    assert capsys.readouterr().out == "o200k_base: /cache/o200k_base\n"
    assert main(["tokens", "download", "cl100k_base", "o200k_base"]) == 0
    assert asked == ["o200k_base", "cl100k_base", "o200k_base"]
    monkeypatch.setattr(vocabulary, "load_encoding", lambda _: None)
    assert main(["tokens", "download"]) == 0
    assert 'pip install "llmkit[tokens]"' in capsys.readouterr().err


@pytest.mark.parametrize("error", [APIConnectionError("no way"), InvalidRequestError("no such")])
def test_a_failed_download_is_one_line(
    error: Exception, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps a vocabulary away is said with its code, and the exit code is 1."""

    def download(name: str) -> Path:
        raise error

    monkeypatch.setattr(vocabulary, "download_vocabulary", download)
    assert main(["tokens", "download"]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert str(error) in captured.err


# --- llmkit cost ----------------------------------------------------------------------------------


def test_the_cost_of_a_file(capsys: Capture) -> None:
    """A line for each model: tokens, prices, and the whole, in 80 columns."""
    name = written("a.txt", "Hi there")
    models = ["gpt-4o", "claude-haiku-4-5", "gpt-6.2-astra"]
    options = [word for model in models for word in ("--model", model)]
    assert main(["cost", name, *options, "--max-tokens", "1000"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["gpt-4o", "9", "0.000022", "1,000", "0.010022"]
    assert lines[2].split()[1].startswith("~")
    assert lines[3].split()[2:] == ["-", "1,000", "-"]
    assert max(map(len, lines)) <= 80


def test_every_model_fits_the_table(capsys: Capture) -> None:
    """The longest names and the highest prices keep to 80 columns."""
    name = written("a.txt", "word " * 100_000)
    models = [info.name for info in get_registry().all() if info.provider != "local"]
    known = [model for model in models if get_registry().find(model)]
    assert main(["cost", name, *[word for each in known for word in ("--model", each)]]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_the_cost_as_json(capsys: Capture) -> None:
    """`--json` has exact decimals as texts, and null for unknown."""
    arguments = ["cost", written("a.txt", "Hi there"), "--model", "gpt-4o", "--max-tokens", "1000"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "model": "gpt-4o",
            "input_tokens": 9,
            "estimated": False,
            "output_tokens": 1000,
            "input_usd": "0.0000225",
            "usd": "0.0100225",
        }
    ]


def test_what_cannot_be_meant(capsys: Capture) -> None:
    """A missing file, an unknown model and a length below 1 have the usual exit codes."""
    name = written("a.txt", "Hi there")
    assert main(["cost", "missing", "--model", "gpt-4o"]) == 1
    assert main(["cost", name, "--model", "gpt-4oo"]) == 1
    assert "gpt-4o" in capsys.readouterr().err
    assert main(["cost", name, "--model", "gpt-4o", "--max-tokens", "0"]) == 2
    assert main(["cost", name]) == 2


# --- estimate_cost --------------------------------------------------------------------------------


def test_an_estimate_before_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt counts with its framing, the answer at its longest; unknown is None."""
    prices = {"input": "2", "output": "10"}
    register_model("shed:a", provider="openai", prices=prices, max_output_tokens=100)
    estimate = estimate_cost("Hi there", "shed:a", 1000)
    assert estimate.input_tokens == count_tokens(
        "shed:a", [{"role": "user", "content": "Hi there"}]
    )
    assert estimate.output_tokens == 100
    assert estimate.input_usd == Decimal(2) * estimate.input_tokens / 1_000_000
    assert estimate.usd == estimate.input_usd + Decimal("0.001")
    assert estimate_cost("Hi there", "shed:a", 10).output_tokens == 10
    register_model("shed:b", provider="openai", prices=prices)
    unknown = estimate_cost([{"role": "user", "content": "Hi there"}], "shed:b")
    assert (unknown.output_tokens, unknown.usd) == (None, None)
    assert unknown.input_usd == estimate.input_usd
    with pytest.raises(ModelNotFoundError):
        estimate_cost("Hi there", "shed:c")
