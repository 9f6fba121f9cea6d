from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given, strategies as st

from llmkit.cli.terminal import neutralise, print_error, print_json, write

HOSTILE = "\x1b]0;title\x07\x1b[2J a\rb\b\x7f\x9b31m\u202eevil\u2066\u2069 \ud800"
BIDI = {chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))}


def steers(character: str) -> bool:
    """Whether a terminal obeys the character instead of showing it."""
    control = ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0
    return (control and character not in "\n\t") or character in BIDI


def test_escape_sequences_become_visible() -> None:
    """No sequence that clears the screen, colours, renames or reorders reaches a terminal."""
    assert neutralise(HOSTILE) == (
        "␛]0;title␇␛[2J a␍b␈␡\\x9b31m\\u202eevil\\u2066\\u2069 \N{REPLACEMENT CHARACTER}"
    )


def test_ordinary_text_stays_as_it_is() -> None:
    """Line breaks, tabs, other scripts, emoji and joiners are printed as they came."""
    text = "a\tb\nKöln — 東京 \N{FAMILY}\u200d שלום\u200f"
    assert neutralise(text) == text


@given(st.text(st.characters()), st.integers(min_value=0))
def test_a_split_anywhere_changes_nothing(text: str, at: int) -> None:
    """A sequence that is split over two chunks is neutralised like a whole one."""
    safe = neutralise(text)
    assert not any(map(steers, safe))
    assert neutralise(text[:at]) + neutralise(text[at:]) == safe
    safe.encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_no_encoding_of_the_output_crashes(encoding: str) -> None:
    """Whatever a terminal can't show is replaced."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    write(f"Köln 東京 {HOSTILE}", stream)
    stream.seek(0)
    assert stream.read().startswith("K")


def test_a_closed_output_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was started without a standard output prints nothing and goes on."""
    monkeypatch.setattr(sys, "stdout", None)
    write("text")


def test_json_is_safe_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON on a terminal holds no control character, and yet every character of the value."""
    print_json({"text": HOSTILE})
    output = capsys.readouterr().out
    assert output.isascii()
    assert not any(map(steers, output))
    assert json.loads(output) == {"text": HOSTILE}


def test_an_error_is_one_line_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    """A message of several lines that repeats a key is printed as one line without it."""
    print_error("wrong key\n  - sk-proj-0123456789abcdefghij\x1b[31m")
    assert capsys.readouterr().err == "llmkit: wrong key - sk-***␛[31m\n"
