"""The files in examples/: each runs as it stands, and does what it is an example of."""

from __future__ import annotations

import importlib
import json
import logging
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import nbformat
import pytest

from llmkit import Completion, ContentFilterError, Request
from llmkit.testing import Answer, ProviderServer

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "first_steps.ipynb"
SERVERS = ("django_view", "flask_view")

# What each script prints under --fake: texts that would be missing if it did not do its work.
FAKED = {
    "chat_with_fallback": (
        "asked gpt-6-luna: LLM_RATE_LIMIT",
        "asked claude-haiku-5-5: answered",
        "gpt-6-luna answered",
    ),
    "choosing_models": ("cheapest: ", "USD per million tokens: {'input': ", "our-tuned-8b 32768"),
    "content_filter": ("policy: card-number", "policy: competitor", "At the smithy."),
    "error_handling": (
        "Sunlight, scattered by the air.\nThat took too long. Try again.\n",
        "Come back in 60 s.\nWe are out of order.\nI can't answer that.\n",
        "(INVALID_REQUEST)",
    ),
    "initialization": ("keys for ['openai', 'anthropic', 'gemini']", "healthy closed", "Ready."),
    "manual_cache": (
        "'Paris.' from memory",
        "'Paris, of course.' from memory",
        "{'title': 'Rain', 'tags': ['weather']} no such page\ndeleted: True\n  asking for a title",
    ),
    "own_request_over_the_pool": ("HTTP 200, 1 models: fake-model", "'connections': 1"),
    "race_with_optimizing": (
        "made to fit: ",
        "claude-haiku-5-5 won after",
        "gpt-6-luna: LLM_CANCELLED",
        "claude-haiku-5-5 won the second race",
    ),
    "resource_lifecycle": (
        "others may use: {'openai': 1}",
        "nothing more is sent: {'openai': 0}",
        "all connections are closed: {}",
        "opened again: {'openai': 1}\nafter shutdown: {}",
    ),
    "retry_decorator": ("the shop is slow\nI love this phone", "As an assistant", "It is positive"),
    "signals_and_shutdown": ("stopped; to be done next time: a fox, a king, a ship",),
    "simple_generation": ("drops of rain.\ngpt-6-luna took ", "It cost $0.0", "[stop]"),
    "tracker_by_hand": (
        "in-house-1: 3 requests, 1 failed {'ConnectionResetError': 1}",
        "fallbacks {'gpt-6-luna: connection': 1}",
        "\ngpt-6-luna: 1 requests, 0 failed",
    ),
}
# Without --fake and without a key: the embedded model's answers are its own, so that little is
# sure. The others are told what to set.
EMBEDDED = {
    "choosing_models": "cheapest: smollm2-135m",
    "initialization": "models checked ['local:'",
    "simple_generation": "smollm2-135m took ",
}
TOLD = {
    "chat_with_fallback": "Set OPENAI_API_KEY and ANTHROPIC_API_KEY, or run this with --fake.\n",
    "own_request_over_the_pool": "Set OPENAI_API_KEY, or run this with --fake.\n",
    "race_with_optimizing": "Set OPENAI_API_KEY and ANTHROPIC_API_KEY, or run this with --fake.\n",
}

Finished = subprocess.CompletedProcess[str]


class Runs(NamedTuple):
    """What runs, or has run: the scripts by name and argument, and the notebook."""

    scripts: dict[tuple[str, str], Future[Finished]]
    notebook: Future[dict[str, Any]]


def command(name: str, argument: str) -> list[str]:
    """The command that runs an example, with every warning an error."""
    script = str(EXAMPLES / f"{name}.py")
    return [sys.executable, "-W", "error", script, *filter(None, [argument])]


def run(arguments: list[str], folder: Path) -> Finished:
    """Runs a command in a folder."""
    variables = {
        "PYTHONPATH": str(ROOT),
        "PATH": "",
        # Nothing of the user's: neither a profile nor a cache of fonts is read or written.
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
    }
    return subprocess.run(
        arguments,
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def execute_notebook(folder: Path) -> dict[str, Any]:
    """Runs the notebook in a folder, and returns it with its outputs."""
    # As `jupyter execute` does. Not in this process: nbclient leaves its event loop open.
    program = "from nbclient.cli import main; main()"
    output = folder / "executed.ipynb"
    arguments = [sys.executable, "-c", program, str(NOTEBOOK), f"--output={output}"]
    result = run(arguments, folder)
    assert result.returncode == 0, result.stderr
    return read_notebook(output)


def read_notebook(path: Path) -> dict[str, Any]:
    """Reads a notebook that is as the format wants it."""
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(notebook)
    return notebook


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """The runs of all examples, two at a time; the longest begins first."""
    runs = [*((name, "--fake") for name in FAKED), *((name, "") for name in (*EMBEDDED, *TOLD))]
    folder = tmp_path_factory.mktemp("examples")
    with ThreadPoolExecutor(2) as pool:
        notebook = pool.submit(execute_notebook, folder)
        scripts = {each: pool.submit(run, command(*each), folder) for each in runs}
        yield Runs(scripts, notebook)
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("name", FAKED)
def test_it_runs_on_loopback(name: str, finished: Runs) -> None:
    """Each example runs under --fake, without a key or a warning, and shows what it is about."""
    result = finished.scripts[name, "--fake"].result()
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    assert [text for text in FAKED[name] if text not in result.stdout] == [], result.stdout


@pytest.mark.parametrize("name", EMBEDDED)
def test_it_runs_on_the_embedded_model(name: str, finished: Runs) -> None:
    """An example that names no vendor's model runs without a key and without --fake."""
    result = finished.scripts[name, ""].result()
    assert (result.returncode, result.stderr) == (0, "")
    assert EMBEDDED[name] in result.stdout


@pytest.mark.parametrize("name", TOLD)
def test_it_says_what_it_needs(name: str, finished: Runs) -> None:
    """An example that names vendors' models says in one sentence which keys are missing."""
    result = finished.scripts[name, ""].result()
    assert (result.returncode, result.stdout, result.stderr) == (1, "", TOLD[name])


def test_none_is_forgotten() -> None:
    """Every file in examples/ is run here, told of in its README, and free of machine paths."""
    files = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".ipynb")}
    run = {*(f"{name}.py" for name in (*FAKED, *SERVERS)), NOTEBOOK.name}
    assert files == {*run, "_fake.py"}
    told = set(re.findall(r"\(([\w.]+)\)", (EXAMPLES / "README.md").read_text(encoding="utf-8")))
    assert told == {*run, "_fake.py"}
    for file in files:
        assert not re.search(r"/(home|root|Users|tmp|work)/", (EXAMPLES / file).read_text("utf-8"))


@pytest.mark.parametrize("name", [*FAKED, *SERVERS])
def test_it_begins_with_what_it_shows(name: str) -> None:
    """An example says at its top what it shows and how to run it, and is short enough to copy."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert re.match(rf'"""[A-Z].*\n\npython examples/{name}\.py \[--fake\]', text)
    assert len(text.splitlines()) <= 80


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


def load(name: str) -> ModuleType:
    """Imports an example as a WSGI server would, without running it; a second time, the same."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLES))


@pytest.fixture
def vendor(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> ProviderServer:
    """A provider on loopback in every vendor's place."""
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    return server


class Site:
    """The two web examples behind the same questions."""

    def __init__(self, name: str) -> None:
        self.module = load(name)
        if name == "flask_view":
            self.client = self.module.app.test_client()
        else:
            from django.test import Client

            self.client = Client(SERVER_NAME="localhost")

    def ask(self) -> tuple[int, dict[str, Any]]:
        response = self.client.get("/ask?q=Why")
        body = response.json if isinstance(response.json, dict) else response.json()
        return response.status_code, body


@pytest.mark.parametrize("name", SERVERS)
class TestViews:
    """The Flask view and the Django view, by the frameworks' own test clients."""

    def test_it_answers(self, name: str, vendor: ProviderServer) -> None:
        """A question is answered; what is no question is refused before anything is asked."""
        vendor.script(Answer("Weather"), Answer("Because of the weather."))
        site = Site(name)
        answer = {
            "topic": "Weather",
            "answer": "Because of the weather.",
            "model": "gpt-6-luna",
        }
        assert site.ask() == (200, answer)
        assert site.client.get("/ask").status_code == 400
        assert len(vendor.requests) == 2

    def test_its_deadline_holds_for_all_calls_together(
        self, name: str, vendor: ProviderServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A hanging vendor costs a worker no more than the view's deadline, which is below its."""
        site = Site(name)
        assert site.module.DEADLINE < 30
        monkeypatch.setattr(site.module, "DEADLINE", 0.5)
        vendor.script(Answer("Weather"), Answer(delay=30))
        started = time.monotonic()
        assert site.ask()[0] == 504
        assert time.monotonic() - started < 10

    def test_a_limit_becomes_a_503(self, name: str, vendor: ProviderServer) -> None:
        """What the vendor refuses for now, the site's reader is told to ask for later."""
        vendor.script(Answer(status=429, headers={"retry-after": "60"}))
        status, body = Site(name).ask()
        assert (status, body["error"]) == (503, "LLM_RATE_LIMIT")

    def test_it_is_a_server(self, name: str, tmp_path: Path) -> None:
        """Run as a script, it serves on loopback."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        process = subprocess.Popen(
            command(name, "--fake"),
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "PORT": str(port)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            body = fetch(f"http://127.0.0.1:{port}/ask?q=Why", process)
        finally:
            process.terminate()
            process.wait(10)
        assert "Because of the weather." in body


def fetch(url: str, process: subprocess.Popen[bytes], patience: float = 30.0) -> str:
    """Reads a page of a server that is just starting."""
    ended = time.monotonic() + patience
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < ended and process.poll() is None:
        try:
            with opener.open(url, timeout=patience) as response:
                return str(response.read().decode())
        except ConnectionError:
            time.sleep(0.05)
        except OSError as error:
            if not isinstance(getattr(error, "reason", None), ConnectionError):
                raise
            time.sleep(0.05)
    raise AssertionError(f"no server within {patience} s, or it ended: {process.poll()}")


class TestFlaskStream:
    """The streaming view of examples/flask_view.py."""

    def test_it_streams(self, vendor: ProviderServer) -> None:
        """The reader gets the answer's pieces."""
        vendor.script(Answer(chunks=["Rain", " falls."]))
        response = Site("flask_view").client.get("/stream?q=Why")
        assert (response.status_code, response.text) == (200, "Rain falls.")

    def test_an_error_before_the_first_piece_has_its_status(self, vendor: ProviderServer) -> None:
        """The status is not sent before the vendor has begun to answer."""
        vendor.script(Answer(status=429, headers={"retry-after": "60"}))
        response = Site("flask_view").client.get("/stream?q=Why")
        assert (response.status_code, response.headers["Retry-After"]) == (503, "60")

    def test_a_reader_who_leaves_ends_the_vendors_work(self, vendor: ProviderServer) -> None:
        """Whether something was read or not, the request to the vendor is cut."""
        for pieces in (0, 1):
            vendor.script(Answer(chunks=["a"] * 100, chunk_delay=0.2))
            response = Site("flask_view").client.get("/stream?q=Why", buffered=False)
            texts = response.iter_encoded()
            assert [next(texts) for _ in range(pieces)] == [b"a"][:pieces]
            response.close()
            assert vendor.requests[-1].disconnected.wait(10)


class TestNotebook:
    """examples/first_steps.ipynb."""

    def test_it_is_clean(self) -> None:
        """It is kept without outputs, counts and the traces of whoever ran it last."""
        notebook = read_notebook(NOTEBOOK)
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == []
        assert set(notebook["metadata"]) == {"kernelspec", "language_info"}

    def test_it_runs(self, finished: Runs) -> None:
        """Every cell runs on the embedded model, and the latencies are drawn."""
        notebook = finished.notebook.result()
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
        kinds = {output["output_type"] for output in outputs}
        assert kinds == {"stream", "display_data"}
        printed = "".join("".join(output.get("text", ())) for output in outputs)
        (picture,) = (output["data"] for output in outputs if "data" in output)
        assert "image/png" in picture
        assert "LLMTimeoutError('local:smollm2-135m: the time-out of 0.3 s" in printed
        assert re.search(r"requests +14\n +successes +13\n", printed), printed
