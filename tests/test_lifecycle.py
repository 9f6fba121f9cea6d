from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmkit import Client, get_adapter, get_performance_tracker, lifecycle
from llmkit.connection_pool import get_connection_pool
from llmkit.errors import ConfigurationError
from llmkit.lifecycle import initialize_llm_module, shutdown
from llmkit.process_local import ProcessLocal
from llmkit.settings import reload_settings
from llmkit.testing import ProviderServer

KEY = "sk-proj-Zm9vYmFy0123456789abcd"
ROOT = str(Path(lifecycle.__file__).parents[1])


@pytest.fixture(autouse=True)
def signals_restored() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def configure(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    reload_settings()


# --- the start ------------------------------------------------------------------------------------


def test_nothing_configured_is_no_error() -> None:
    """An application may call this before it knows whether it will ask any model."""
    assert initialize_llm_module() == {"providers": [], "models": [], "warnings": []}


def test_it_says_what_can_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The providers with a key and the configured models come back, each model once."""
    configure(
        monkeypatch,
        OPENAI_API_KEY=KEY,
        PRIMARY_LLM="gpt-6-luna",
        FALLBACK_LLM="openai:gpt-6-sol,gpt-6-luna",
        ENABLED_MODELS="gpt-6-luna",
    )
    report = initialize_llm_module()
    assert report == {
        "providers": ["openai"],
        "models": ["gpt-6-luna", "openai:gpt-6-sol"],
        "warnings": [],
    }
    assert KEY not in repr(report)
    shutdown()


def test_it_warns_of_models_that_cant_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A missing key, an unknown name and a retired model are said at the start, and logged."""
    configure(
        monkeypatch,
        OPENAI_API_KEY=KEY,
        PRIMARY_LLM="claude-haiku-5-5",
        FALLBACK_LLM="gpt-6-lunar,gpt-3.5-turbo",
    )
    with caplog.at_level(logging.WARNING, "llmkit"):
        report = initialize_llm_module()
    assert report["models"] == ["gpt-3.5-turbo"]
    missing, unknown, retired = report["warnings"]
    assert "claude-haiku-5-5 can't be asked" in missing
    assert "ANTHROPIC_API_KEY" in missing
    assert "gpt-6-lunar can't be asked" in unknown
    assert "gpt-6-luna" in unknown
    assert retired == "gpt-3.5-turbo was shut down on 2026-10-23"
    assert [record.getMessage() for record in caplog.records] == report["warnings"]
    shutdown()


def test_a_setting_that_cant_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo in a variable stops the start instead of the first call."""
    monkeypatch.setenv("REQUEST_TIMEOUT", "soon")
    with pytest.raises(ConfigurationError, match="REQUEST_TIMEOUT"):
        initialize_llm_module()


# --- the end --------------------------------------------------------------------------------------


def test_shutdown_closes_and_everything_opens_anew() -> None:
    """Shutting down is no end: a later use opens a new pool, and doing it twice is nothing."""
    pool = get_connection_pool("openai")
    shutdown()
    shutdown()
    again = get_connection_pool("openai")
    assert again is not pool
    assert not again.is_closed
    shutdown()


def test_the_figures_can_be_read_after_the_end(server: ProviderServer) -> None:
    """A summary that is printed after shutdown() shows all calls, and a later call adds to them."""
    tracker = get_performance_tracker()
    adapter = get_adapter("openai:gpt-4o", api_key=KEY, api_base=server.base_url("openai"))
    adapter.generate("hi", use_cache=False)
    shutdown()
    assert Client().stats("gpt-4o")["successes"] == 1
    assert get_performance_tracker() is tracker
    adapter.generate("hi", use_cache=False)
    shutdown()
    assert Client().stats()["gpt-4o"]["requests"] == 2


# --- signals --------------------------------------------------------------------------------------


class Handler:
    """Notes the signals that it gets."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, number: int, frame: Any) -> None:
        self.seen.append(number)


def install(previous: Any, number: int = signal.SIGTERM) -> None:
    signal.signal(number, previous)
    initialize_llm_module(install_signal_handlers=True)


def test_no_handler_is_installed_unasked() -> None:
    """A library leaves the application's signals alone."""
    before = signal.getsignal(signal.SIGTERM)
    initialize_llm_module()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_signal_closes_everything_and_then_does_what_it_did() -> None:
    """The application's own handler still runs, once, however often the start was called."""
    closed: list[str] = []
    shared = ProcessLocal(lambda: "it", closed.append)
    shared.get()
    previous = Handler()
    install(previous)
    initialize_llm_module(install_signal_handlers=True)
    signal.raise_signal(signal.SIGTERM)
    assert closed == ["it"]
    assert previous.seen == [signal.SIGTERM]


def test_ctrl_c_is_still_a_keyboard_interrupt() -> None:
    """Python's own handler is chained to like any other."""
    install(signal.default_int_handler, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_an_ignored_signal_stays_ignored() -> None:
    """Under nohup and the like a signal that means nothing closes nothing."""
    closed: list[str] = []
    shared = ProcessLocal(lambda: "it", closed.append)
    shared.get()
    install(signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    signal.raise_signal(signal.SIGTERM)
    assert closed == []
    shared.close()


def test_a_signal_takes_effect_though_closing_fails(caplog: pytest.LogCaptureFixture) -> None:
    """A connection that can't be closed is logged and doesn't keep a process from ending."""

    def fail(_: str) -> None:
        raise OSError("can't close")

    shared = ProcessLocal(lambda: "it", fail)
    shared.get()
    previous = Handler()
    install(previous)
    with caplog.at_level(logging.ERROR, "llmkit"):
        signal.raise_signal(signal.SIGTERM)
    assert previous.seen == [signal.SIGTERM]
    assert "can't close" in caplog.text


def test_a_signal_doesnt_wait_for_a_lock_of_the_thread_it_interrupts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What its own thread holds, a handler would wait for in vain: it gives up soon."""
    monkeypatch.setattr(lifecycle, "GRACE", 0.05)
    lock = threading.Lock()

    def close(_: str) -> None:
        with lock:
            pass

    shared = ProcessLocal(lambda: "it", close)
    shared.get()
    previous = Handler()
    install(previous)
    began = time.monotonic()
    with lock:
        signal.raise_signal(signal.SIGTERM)
    assert previous.seen == [signal.SIGTERM]
    assert time.monotonic() - began < 2


def test_handlers_belong_into_the_main_thread() -> None:
    """Elsewhere Python can't install one, and the error says what to do."""
    caught: list[ConfigurationError] = []

    def elsewhere() -> None:
        try:
            initialize_llm_module(install_signal_handlers=True)
        except ConfigurationError as error:
            caught.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert "main thread" in caught[0].message


@pytest.mark.skipif(os.name != "posix", reason="another operating system")
def test_sigterm_still_ends_a_process_by_the_signal() -> None:
    """A supervisor sees a death by SIGTERM, and what was open was closed before it."""
    code = (
        "import llmkit, os, signal\n"
        "from llmkit.process_local import ProcessLocal\n"
        "shared = ProcessLocal(lambda: 'it', lambda value: print('closed', flush=True))\n"
        "shared.get()\n"
        "llmkit.initialize_llm_module(install_signal_handlers=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print('still here', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGTERM
    assert done.stdout.split() == ["closed"]
