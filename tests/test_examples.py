"""The files in examples/: each runs as it stands, and does what it is an example of."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from llmkit import Completion, ContentFilterError, Request

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def load(name: str) -> ModuleType:
    """Imports an example without running it."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    """Each example runs without a key, a warning or a network beyond loopback."""
    result = subprocess.run(
        [sys.executable, "-W", "error", str(example)],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


class TestContentFilter:
    """The middleware of examples/content_filter.py, around a stand-in for the call."""

    def ask(self, prompt: str, answer: str) -> tuple[list[Request], Completion]:
        sent: list[Request] = []

        def call_next(request: Request) -> Completion:
            sent.append(request)
            return Completion(answer, "m", "p")

        request = Request.build("m", prompt, system="Be brief.")
        return sent, load("content_filter").content_filter(request, call_next)

    def test_what_keeps_to_the_policy_passes(self) -> None:
        """The request goes on, and the answer comes back, as they are."""
        sent, reply = self.ask("Where do I get an anvil?", "At the smithy.")
        assert [request.messages[-1].text for request in sent] == ["Where do I get an anvil?"]
        assert reply.text == "At the smithy."

    @pytest.mark.parametrize(
        ("prompt", "answer", "category"),
        [
            ("My card is 4111 1111 1111 1111.", "fine", "card-number"),
            ("Where do I get an anvil?", "At Acme's.", "competitor"),
        ],
    )
    def test_what_is_against_it_is_refused(
        self, prompt: str, answer: str, category: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Prompt and answer are refused with the policy's category; the log has no text."""
        with (
            caplog.at_level(logging.WARNING, "llmkit"),
            pytest.raises(ContentFilterError) as caught,
        ):
            self.ask(prompt, answer)
        assert caught.value.category == category
        assert category in caplog.text
        assert prompt not in caplog.text
        assert answer not in caplog.text
