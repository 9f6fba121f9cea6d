from __future__ import annotations

import json
from pathlib import Path

import pytest

import llmkit.settings
from llmkit.cache import close_caches, get_cache
from llmkit.cli import main

Capture = pytest.CaptureFixture[str]
PASSWORD = "hunter2hunter2"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that LLMKIT_CACHE_URL names."""
    path = tmp_path / "cache.db"
    use(f"sqlite:///{path}", monkeypatch)
    return path


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMKIT_CACHE_URL", url)
    monkeypatch.setattr(llmkit.settings, "_shared", {})


@pytest.fixture(autouse=True)
def usual_caches(clean_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LLMKIT_CACHE_ENABLED")
    close_caches()


def rows(output: str) -> dict[str, str]:
    """The lines of the output by what they are called."""
    return {line[:14].strip(): line[14:] for line in output.splitlines() if line}


def test_shows_what_is_in_the_shared_cache(file: Path, capsys: Capture) -> None:
    """Entries that another process has written are counted, and the place is named."""
    get_cache().set("a", 1)
    get_cache().set("b", "x" * 5000)
    close_caches()
    assert main(["cache", "stats"]) == 0
    output = capsys.readouterr().out
    shown = rows(output)
    assert shown["entries"] == "2"
    assert shown["can be used"] == "yes"
    assert shown["namespace"] == "llmkit"
    assert shown["place"].startswith("sqlite:///")
    assert int(shown["bytes"].replace(",", "")) > 1000
    assert max(map(len, output.splitlines())) <= 80


def test_json_has_all_facts(file: Path, capsys: Capture) -> None:
    """`--json` gives the same as plain values."""
    get_cache().set("a", 1)
    assert main(["cache", "stats", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["entries"] == 1
    assert facts["bytes"] > 0
    assert facts["url"] == f"sqlite:///{file}"
    assert (facts["usable"], facts["enabled"], facts["reason"]) == (True, True, None)
    assert (facts["namespace"], facts["ttl"]) == ("llmkit", 3600.0)


def test_clears_this_namespace_alone(
    file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another application has in the same file stays."""
    get_cache().set("a", 1)
    monkeypatch.setenv("LLMKIT_CACHE_NAMESPACE", "other")
    monkeypatch.setattr(llmkit.settings, "_shared", {})
    get_cache().set("a", 2)
    assert main(["cache", "clear"]) == 0
    output = capsys.readouterr().out
    assert "namespace other" in output
    assert max(map(len, output.splitlines())) <= 80
    close_caches()
    assert get_cache().get("a") is None
    monkeypatch.delenv("LLMKIT_CACHE_NAMESPACE")
    monkeypatch.setattr(llmkit.settings, "_shared", {})
    assert get_cache().get("a") == 1
    assert main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"cleared": True, "namespace": "llmkit"}
    close_caches()
    assert get_cache().get("a") is None


def test_without_a_shared_cache_it_says_so(capsys: Capture) -> None:
    """Memory belongs to each process; nobody is told that it was cleared."""
    assert main(["cache", "stats"]) == 0
    output = capsys.readouterr().out
    assert "LLMKIT_CACHE_URL is not set" in output
    assert max(map(len, output.splitlines())) <= 80
    assert main(["cache", "clear"]) == 0
    captured = capsys.readouterr()
    assert "LLMKIT_CACHE_URL is not set" in captured.err
    assert "cleared" not in captured.out
    assert main(["cache", "clear", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cleared"] is False


def test_a_store_that_is_gone_is_told(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command fails, says why, and shows no password."""
    use(f"redis://user:{PASSWORD}@127.0.0.1:1/0", monkeypatch)
    assert main(["cache", "stats"]) == 1
    output = capsys.readouterr().out
    assert rows(output)["can be used"] == "no"
    assert max(map(len, output.splitlines())) <= 80
    assert "127.0.0.1" in output
    assert "can't be used" in output
    assert main(["cache", "stats", "--json"]) == 1
    facts = capsys.readouterr().out
    assert json.loads(facts)["usable"] is False
    assert json.loads(facts)["entries"] is None
    close_caches()
    assert main(["cache", "clear"]) == 1
    errors = capsys.readouterr().err
    assert "could not be cleared" in errors
    assert PASSWORD not in output + facts + errors


def test_a_long_place_fits_the_terminal(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long URL the beginning and the end are shown."""
    path = tmp_path / ("d" * 90) / "cache.db"
    use(f"sqlite:///{path}", monkeypatch)
    assert main(["cache", "stats"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    assert rows(output)["place"].endswith("d/cache.db")


def test_an_unknown_word_is_refused(capsys: Capture) -> None:
    """There is nothing else to do with a cache, and nothing is done by default."""
    assert main(["cache", "empty"]) == 2
    assert main(["cache"]) == 2
    assert "stats" in capsys.readouterr().err
