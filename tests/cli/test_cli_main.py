from __future__ import annotations

import signal
import time

import pytest

from llmkit import __version__
from llmkit.cli import main
from llmkit.testing import Answer, ProviderServer
from tests.cli.cli_process import finish, start, use_server


@pytest.mark.parametrize("command", ["", "complete", "models", "doctor", "demo"])
def test_help_is_ascii_and_ends_well(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command describes itself in text that any terminal can show."""
    assert main([*command.split(), "--help"]) == 0
    output = capsys.readouterr().out
    assert output.startswith(f"usage: llmkit {command}".rstrip())
    assert output.isascii()


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    """`llmkit --version` tells what is installed."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"llmkit {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["no-such-command"],
        ["complete", "hi", "--no-such-option"],
        ["complete", "hi", "--max-tokens", "many"],
        ["complete", "hi", "--max", "3"],
        ["models", "--provider", "nobody"],
    ],
)
def test_arguments_that_cannot_be_meant(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong command, option or value is a usage error with exit code 2 and no output."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: llmkit" in captured.err


@pytest.mark.parametrize(
    "given",
    [
        ["--api-key", "secret-value"],
        ["--api-key=secret-value"],
        ["--api_key", "secret-value"],
        ["--APIKEY=secret-value"],
        ["--openai-api-key", "secret-value"],
        ["--token", "secret-value"],
        ["-key", "secret-value"],
    ],
)
def test_a_key_on_the_command_line_is_refused(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Who gives a key by habit is told where keys belong, and the key is not shown again."""
    assert main(["complete", "hi", *given]) == 2
    captured = capsys.readouterr()
    assert "OPENAI_API_KEY" in captured.err
    assert ".env" in captured.err
    assert "secret-value" not in captured.out + captured.err


def test_usage_errors_repeat_neither_keys_nor_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    """A usage error that quotes what was typed hides keys and control characters in it."""
    assert main(["complete", "hi", "sk-proj-0123456789abcdefghij", "\x1b[2J"]) == 2
    errors = capsys.readouterr().err
    assert "0123456789" not in errors
    assert "\x1b" not in errors


def test_help_loads_nothing_heavy() -> None:
    """`llmkit --help` loads no SDK, no HTTP client, and nothing of llmkit but its command line."""
    code, output, errors = finish(
        start(
            program=(
                "-c",
                "import sys; from llmkit.cli import main; main(['--help']);"
                "print([name for name in sys.modules if name.startswith('llmkit.')"
                " and not name.startswith(('llmkit.cli', 'llmkit.version'))"
                " or name in ('openai', 'httpx2', 'dotenv', 'asyncio', 'tenacity')])",
            )
        )
    )
    assert (code, errors) == (0, "")
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["doctor", "--json"]])
def test_a_reader_that_left_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """`llmkit … | head` ends quietly, with the exit code that a shell gives to a closed pipe."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it, argparse hides the failure
    process = start(*arguments)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process:
        assert process.stderr.read() == ""
        assert process.wait(30) == 141


def test_a_reader_that_leaves_ends_the_stream(
    monkeypatch: pytest.MonkeyPatch, server: ProviderServer
) -> None:
    """A stream whose reader leaves in the middle stops at once, without a word."""
    use_server(monkeypatch, server)
    server.answer = Answer(chunks=["word "] * 500, chunk_delay=0.02)
    process = start("complete", "hi", "--stream")
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.read(5) == "word "
        process.stdout.close()
        started = time.monotonic()
        assert process.stderr.read() == ""
        assert process.wait(30) == 141
    assert time.monotonic() - started < 5


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, server: ProviderServer) -> None:
    """Ctrl-C while a model keeps its caller waiting ends at once, with exit code 130."""
    use_server(monkeypatch, server)
    server.answer = Answer(delay=60)
    # A test run in the background ignores the signal, and its children would, too.
    process = start(
        *("complete", "hi"),
        program=(
            "-c",
            "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
            "from llmkit.cli import main; sys.exit(main(sys.argv[1:]))",
        ),
    )
    server.wait_for_requests(1, timeout=20)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert finish(process) == (130, "", "llmkit: interrupted\n")
    assert time.monotonic() - started < 5
