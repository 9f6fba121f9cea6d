from __future__ import annotations

import io
import json
import sys

import pytest

from llmkit.cli import main
from llmkit.testing import Answer, ProviderServer
from llmkit.types import Completion
from tests.cli.cli_process import KEY, finish, start, use_server

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _openai(monkeypatch: pytest.MonkeyPatch, server: ProviderServer) -> None:
    """The fake provider is the one that has a key."""
    use_server(monkeypatch, server)


class Terminal(io.StringIO):
    """A standard input that somebody sits at."""

    def isatty(self) -> bool:
        return True


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Pipes a text into the command."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def asked(server: ProviderServer) -> str:
    """The prompt that the provider got."""
    return str(server.requests[-1].json["messages"][-1]["content"])


def test_prints_the_answer(server: ProviderServer, capsys: Capture) -> None:
    """The plain command prints the text of the answer, and nothing else."""
    server.answer = Answer("Köln is a city.")
    assert main(["complete", "What is Köln?"]) == 0
    assert capsys.readouterr() == ("Köln is a city.\n", "")
    assert asked(server) == "What is Köln?"


def test_options_reach_the_model(server: ProviderServer, capsys: Capture) -> None:
    """Model, system prompt, length and temperature are sent as they were typed."""
    options = "--model openai:gpt-4o --system Kindly. --max-tokens 9 --temperature 0.5"
    code = main(["complete", "hi", *options.split()])
    assert code == 0
    # The one thing to say of it: it has a successor.
    assert all("shut down" in line for line in capsys.readouterr().err.splitlines())
    sent = server.requests[-1].json
    assert (sent["model"], sent["temperature"]) == ("gpt-4o", 0.5)
    assert sent["max_completion_tokens"] == 9
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


def test_a_cut_off_answer_is_said(server: ProviderServer, capsys: Capture) -> None:
    """An answer that reached the longest allowed is not taken for a whole one."""
    server.answer = Answer("Once upon a", finish_reason="length")
    assert main(["complete", "hi", "--max-tokens", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Once upon a\n"
    assert "cut off" in captured.err


@pytest.mark.parametrize("arguments", [["complete"], ["complete", "-"]])
def test_the_prompt_may_come_from_a_pipe(
    monkeypatch: pytest.MonkeyPatch, server: ProviderServer, arguments: list[str]
) -> None:
    """Without a prompt, or with `-`, what is piped in is asked, without its last line break."""
    give(monkeypatch, "two\nlines\n")
    assert main(arguments) == 0
    assert asked(server) == "two\nlines"


@pytest.mark.parametrize(
    ("arguments", "given", "reason"),
    [
        ([], Terminal("never read"), "no prompt"),
        (["-"], Terminal("never read"), "no prompt"),
        ([], None, "no prompt"),
        ([], io.StringIO(" \n"), "empty"),
        ([""], io.StringIO("never read"), "empty"),
        ([], io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"), "not a text in utf-8"),
    ],
)
def test_without_a_prompt_nothing_is_asked(
    monkeypatch: pytest.MonkeyPatch,
    server: ProviderServer,
    capsys: Capture,
    arguments: list[str],
    given: io.TextIOBase | None,
    reason: str,
) -> None:
    """No prompt, an empty one, or bytes that are no text: a usage error, instead of waiting."""
    monkeypatch.setattr(sys, "stdin", given)
    assert main(["complete", *arguments]) == 2
    assert reason in capsys.readouterr().err
    assert server.requests == []


def test_json_is_the_whole_reply(server: ProviderServer, capsys: Capture) -> None:
    """`--json` prints all that the library knows of the answer, such that it can be read back."""
    server.answer = Answer("Hello", input_tokens=12, output_tokens=3)
    assert main(["complete", "hi", "--json"]) == 0
    reply = Completion.from_dict(json.loads(capsys.readouterr().out))
    assert (reply.text, reply.usage.total_tokens) == ("Hello", 15)
    assert reply.cost is not None


def test_a_stream_is_printed_as_it_comes(server: ProviderServer) -> None:
    """`--stream` prints the first chunk while the model still writes the last one."""
    server.answer = Answer(chunks=["first ", "second"], chunk_delay=0.15)
    process = start("complete", "hi", "--stream")
    assert process.stdout is not None
    assert process.stdout.read(6) == "first "
    assert process.poll() is None
    assert finish(process) == (0, "second\n", "")


def test_a_streamed_json_has_one_object_a_line(server: ProviderServer, capsys: Capture) -> None:
    """`--stream --json` prints each chunk as a line of JSON, and the whole reply as the last."""
    server.answer = Answer(chunks=["a", "b\n"])
    assert main(["complete", "hi", "--stream", "--json"]) == 0
    *chunks, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert chunks == [{"text": "a"}, {"text": "b\n"}]
    assert Completion.from_dict(last["completion"]).text == "ab\n"


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_one_line_break_ends_the_answer(
    server: ProviderServer, capsys: Capture, options: list[str]
) -> None:
    """An answer that ends in a line break gets no second one."""
    server.answer = Answer("done\n")
    assert main(["complete", "hi", *options]) == 0
    assert capsys.readouterr().out == "done\n"


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_warnings_go_to_standard_error(
    server: ProviderServer, capsys: Capture, options: list[str]
) -> None:
    """What the library left out is said, and not in the middle of the answer."""
    server.answer = Answer("Hello")
    model = ["--model", "openai:gpt-6.2-sol", "--temperature", "0"]
    assert main(["complete", "hi", *model, *options]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Hello\n"
    assert captured.err.startswith("llmkit: warning: ")
    assert "temperature" in captured.err


@pytest.mark.parametrize("options", [[], ["--stream"], ["--json"], ["--stream", "--json"]])
def test_an_answer_cannot_steer_the_terminal(
    server: ProviderServer, capsys: Capture, options: list[str]
) -> None:
    """Escape sequences in an answer are shown and not obeyed, also when chunks split them."""
    server.answer = Answer(chunks=["a\x1b", "]0;title\x07", "\x9b2J\u202e\r"])
    assert main(["complete", "hi", *options]) == 0
    output = capsys.readouterr().out
    assert not any(character in output for character in "\x1b\x07\x9b\u202e\r")
    assert "title" in output


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_a_failure_is_one_line(server: ProviderServer, capsys: Capture, options: list[str]) -> None:
    """An error is its code and its message on one line, with exit code 1 and no traceback."""
    server.answer = Answer(status=401, error_message=f"bad key {KEY}\nsee\x1b[31m docs")
    assert main(["complete", "hi", *options]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("llmkit: AUTHENTICATION_ERROR: openai:")
    assert captured.err.count("\n") == 1
    assert KEY not in captured.err
    assert "\x1b" not in captured.err


def test_the_timeout_holds(server: ProviderServer, capsys: Capture) -> None:
    """`--timeout` ends a call whose answer doesn't come."""
    server.answer = Answer(delay=30)
    assert main(["complete", "hi", "--timeout", "0.2"]) == 1
    assert capsys.readouterr().err.startswith("llmkit: LLM_TIMEOUT: ")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_broken_stream_shows_what_came(
    server: ProviderServer, capsys: Capture, options: list[str]
) -> None:
    """A stream that breaks leaves the text so far, then the error, and no completion."""
    server.answer = Answer(chunks=["one ", "two ", "three"], error_event_after=2)
    assert main(["complete", "hi", "--stream", *options]) == 1
    captured = capsys.readouterr()
    lines = ['{"text": "one "}\n{"text": "two "}\n'] if options else ["one two \n"]
    assert captured.out == "".join(lines)
    assert captured.err.startswith("llmkit: LLM_STREAM_INTERRUPTED: ")


def test_a_missing_key_is_explained(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Without a key the message says which variables there are, and that a model needs none."""
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["complete", "hi"]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("llmkit: CONFIGURATION_ERROR: ")
    assert "OPENAI_API_KEY" in errors
    assert "local:" in errors


def test_an_ascii_terminal_shows_what_it_can(
    monkeypatch: pytest.MonkeyPatch, server: ProviderServer
) -> None:
    """Under an ASCII-only output an answer in any script is printed with replacements."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    server.answer = Answer("Köln 東京 \x1b")
    assert finish(start("complete", "hi")) == (0, "K?ln ?? ?\n", "")


def test_a_pipe_feeds_a_real_process(server: ProviderServer) -> None:
    """`echo … | python -m llmkit complete` works as a shell user expects."""
    server.answer = Answer("Hello")
    assert finish(start("complete"), "What is it?\n") == (0, "Hello\n", "")
    assert asked(server) == "What is it?"
