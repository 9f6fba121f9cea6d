"""What the tests of the command line share: the fake provider's settings, and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import llmkit
from llmkit.testing import ProviderServer

ROOT = Path(llmkit.__file__).parent.parent
KEY = "sk-test-0123456789abcdef"


def use_server(monkeypatch: pytest.MonkeyPatch, server: ProviderServer) -> None:
    """Makes the fake provider the one that is asked when no model is named; nothing is retried."""
    monkeypatch.setenv("OPENAI_API_BASE", server.base_url("openai"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LLM_RETRY_MAX_ATTEMPTS", "0")


def start(*arguments: str, program: tuple[str, ...] = ("-m", "llmkit")) -> subprocess.Popen[str]:
    """Starts `python -m llmkit` (or another program) in the test's environment and directory."""
    return subprocess.Popen(
        [sys.executable, *program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def finish(process: subprocess.Popen[str], given: str = "") -> tuple[int, str, str]:
    """Waits for a process: its exit code, its output, its errors."""
    with process:
        output, errors = process.communicate(given, timeout=30)
    return process.returncode, output, errors
