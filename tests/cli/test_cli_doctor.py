from __future__ import annotations

import configparser
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from llmkit.cli import doctor, main
from tests.cli.cli_process import KEY, ROOT

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever connects or looks a name up fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("doctor touched the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def report(capsys: Capture, expected: int = 0) -> dict[str, Any]:
    """What `doctor --json` says."""
    assert main(["doctor", "--json"]) == expected
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def find(rows: list[dict[str, Any]], **wanted: str) -> dict[str, Any]:
    """The one row that has the wanted value."""
    ((name, value),) = wanted.items()
    (row,) = (row for row in rows if row[name] == value)
    return row


def test_a_sound_setup_has_no_problems(capsys: Capture) -> None:
    """In an empty environment all is well: versions, defaults, direct addresses, weights."""
    found = report(capsys)
    assert found["problems"] == []
    assert find(found["packages"], name="anthropic")["version"]
    assert find(found["settings"], name="request_timeout")["source"] == "default"
    assert find(found["addresses"], provider="openai")["address"] == "https://api.openai.com/v1"
    assert find(found["addresses"], provider="gemini")["proxy"] is None
    assert found["embedded_model"]["megabytes"] > 50
    assert found["tls"]["store"]


def test_the_plain_report_says_the_same(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """The text has each part of the report, on lines that name it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert main(["doctor"]) == 0
    output = capsys.readouterr().out
    for part in ("Packages", "Keys", "Settings", "Addresses", "TLS", "Embedded model", "Models"):
        assert f"\n{part}\n" in output
    assert f"…{KEY[-4:]} (environment OPENAI_API_KEY)" in output
    assert "ANTHROPIC_API_KEY   not set" in output
    assert "by the keys  openai:gpt-6-luna" in output
    assert "Problems" not in output


def test_keys_are_masked_and_their_place_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Of a key only its last characters are shown, with the variable and file it came from."""
    monkeypatch.setenv("LLMKIT_GROQ_API_KEY", f"{KEY}-groq")
    Path(".env").write_text(f"ANTHROPIC_API_KEY={KEY}\nGOOGLE_API_KEY=short\n")
    keys = report(capsys)["keys"]
    assert find(keys, variable="ANTHROPIC_API_KEY")["masked"] == f"…{KEY[-4:]}"
    assert find(keys, variable="ANTHROPIC_API_KEY")["source"] == ".env ANTHROPIC_API_KEY"
    assert find(keys, variable="GEMINI_API_KEY")["masked"] == "…"
    assert find(keys, variable="GEMINI_API_KEY")["source"] == ".env GOOGLE_API_KEY"
    assert find(keys, variable="GROQ_API_KEY")["source"] == "environment LLMKIT_GROQ_API_KEY"
    assert KEY not in json.dumps(report(capsys))


@pytest.mark.parametrize("password", ["pa55word", "pa55/wo@rd", "pa55:word#1"])
def test_passwords_in_addresses_are_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture, password: str
) -> None:
    """Proxies, API addresses and the cache's URL are shown without the passwords in them."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{password}@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "api.anthropic.com")
    monkeypatch.setenv("OPENAI_API_BASE", "https://me:pa55word@gateway/v1")
    monkeypatch.setenv("LLMKIT_CACHE_URL", f"redis://:{password}@cache:6379/0")
    for arguments in (["doctor", "--json"], ["doctor"]):
        assert main(arguments) == 0
        output = capsys.readouterr().out
        assert "pa55" not in output
        assert "http://me:***@proxy:3128" in output
        assert "redis://:***@cache:6379/0" in output
        assert "https://me:***@gateway/v1" in output
    assert find(report(capsys)["addresses"], provider="anthropic")["proxy"] is None


def test_every_broken_setting_is_shown(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """All settings that can't be read are listed at once, and the rest is still shown."""
    monkeypatch.setenv("REQUEST_TIMEOUT", "soon")
    monkeypatch.setenv("OPENAI_API_KEY", "two words 0123456789")
    monkeypatch.setenv("GROQ_API_KEY", "ünusable-0123456789")
    monkeypatch.setenv("OLLAMA_API_BASE", "localhost")
    monkeypatch.setenv("CONNECT_TIMEOUT", "3")
    found = report(capsys, expected=1)
    problems = "\n".join(found["problems"])
    for name in ("REQUEST_TIMEOUT", "OPENAI_API_KEY", "GROQ_API_KEY", "ollama"):
        assert name in problems
    assert "0123456789" not in json.dumps(found)
    assert find(found["settings"], name="connect_timeout")["value"] == 3.0
    assert find(found["keys"], variable="OPENAI_API_KEY")["broken"]
    assert find(found["keys"], variable="GROQ_API_KEY")["broken"]
    assert main(["doctor"]) == 1
    output = capsys.readouterr().out
    assert "OPENAI_API_KEY      can't be used" in output
    assert "120.0 (default: what was set can't be used)" in output


def test_an_unreadable_dotenv_is_shown(capsys: Capture) -> None:
    """A .env file that is not text is one problem, and what needs no settings is still shown."""
    Path(".env").write_bytes(b"OPENAI_API_KEY=\xff\xfe")
    found = report(capsys, expected=1)
    assert len(found["problems"]) == 1
    assert ".env" in found["problems"][0]
    assert found["packages"]
    assert main(["doctor"]) == 1


def test_a_missing_package_names_its_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """An SDK that is not there is no problem by itself; how to install it is said."""
    monkeypatch.setitem(doctor.PACKAGES, "gemini", ("no-such-distribution",))
    assert find(report(capsys)["packages"], extra="gemini") == {
        "extra": "gemini",
        "name": "no-such-distribution",
        "version": None,
        "install": 'pip install "llmkit[gemini]"',
    }


def test_the_packages_are_those_of_the_extras() -> None:
    """What is looked for is what setup.cfg declares."""
    declared = configparser.ConfigParser()
    if not declared.read(ROOT / "setup.cfg"):
        pytest.skip("not a checkout")
    wanted = {
        **{"": declared["options"]["install_requires"]},
        **{name: declared["options.extras_require"][name] for name in doctor.PACKAGES if name},
    }
    for extra, lines in wanted.items():
        names = {line.split(">")[0] for line in lines.split() if ">=" in line}
        assert names == set(doctor.PACKAGES[extra])


def test_missing_weights_name_their_command(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Without the embedded model's weights, the command that installs them is said."""
    monkeypatch.setattr("llmkit.adapters.local.find_weights", lambda: None)
    assert report(capsys)["embedded_model"]["install"] == "llmkit demo"
    assert main(["doctor"]) == 0
    assert "missing: llmkit demo" in capsys.readouterr().out


def test_unreadable_certificates_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A SSL_CERT_FILE that isn't there is said here, before a call fails because of it."""
    monkeypatch.setenv("SSL_CERT_FILE", "no-such-file.pem")
    found = report(capsys, expected=1)
    assert found["tls"]["source"] == "environment SSL_CERT_FILE"
    assert "no-such-file.pem" in found["problems"][0]


def test_configured_models_are_looked_up(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Of each configured model it is said whether it is retired, unlisted, or unheard of."""
    monkeypatch.setenv("PRIMARY_LLM", "gpt-4")
    monkeypatch.setenv("FALLBACK_LLM", "groq:brand-new,claude-haiku-5-5")
    monkeypatch.setenv("ENABLED_MODELS", "no-such-model")
    found = report(capsys, expected=1)
    models = {row["model"]: row for row in found["models"]}
    assert models["gpt-4"]["role"] == "PRIMARY_LLM"
    assert models["gpt-4"]["note"].startswith("retired 2026-10-23; successor ")
    assert "not in the registry" in models["groq:brand-new"]["note"]
    assert models["claude-haiku-5-5"]["note"] == ""
    assert "ENABLED_MODELS: " in found["problems"][0]


def test_without_a_key_nothing_is_wrong(capsys: Capture) -> None:
    """That no model can be chosen yet is said, with what to set."""
    (row,) = report(capsys)["models"]
    assert row["model"] is None
    assert "OPENAI_API_KEY" in row["note"]


def test_a_setting_cannot_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """What the environment holds is printed as harmlessly as a model's answer."""
    monkeypatch.setenv("PRIMARY_LLM", "openai:\x1b[2Jmodel")
    assert main(["doctor"]) == 1  # no model has such a name
    assert "\x1b" not in capsys.readouterr().out
