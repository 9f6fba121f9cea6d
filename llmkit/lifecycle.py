"""Beginning and end of llmkit in a process. Neither is needed: all starts by itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from llmkit.adapters import PROVIDERS, get_adapter
from llmkit.connection_pool import get_connection_pool
from llmkit.errors import ConfigurationError, LLMError
from llmkit.log import get_logger
from llmkit.process_local import close_all
from llmkit.scope import cancel_all
from llmkit.settings import get_settings
from llmkit.threads import run_detached

__all__ = ["initialize_llm_module", "shutdown"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# Seconds that a signal waits for everything to be closed.
GRACE = 2.0


def initialize_llm_module(
    install_signal_handlers: bool = False, *, download_vocabulary: bool = False
) -> dict[str, Any]:
    """Checks the settings and opens the connection pools, so that the first call finds all ready.

    Nothing is sent, unless `download_vocabulary` is given.

    Args:
        install_signal_handlers: Whether SIGTERM and SIGINT close everything, in 2 seconds at most,
            before they do what they did before; one that the process ignores stays ignored. Only
            in the main thread.
        download_vocabulary: Whether OpenAI's vocabulary is fetched, where it is not on disk yet, so
            that tokens are counted rather than estimated; within two minutes, or a warning says
            why not.

    Returns:
        `providers` (those that have a key), `models` (the configured ones that can be asked) and
        `warnings` (what can't be had, and why; logged, too).

    Raises:
        ConfigurationError: A setting can't be read, or handlers are wanted outside the main
            thread.
    """
    settings = get_settings()
    if install_signal_handlers:
        _install_handlers()
    providers = [name for name in PROVIDERS if settings.api_key(name)]
    wanted = [
        settings.primary_llm,
        *settings.fallback_llm,
        *(settings.enabled_models or ()),
    ]
    models: list[str] = []
    warnings: list[str] = []
    for model in dict.fromkeys(name for name in wanted if name):
        try:
            adapter = get_adapter(model)
            adapter.ensure_initialized()
        except LLMError as error:
            warnings.append(f"{model} can't be asked: {error.message}")
            continue
        models.append(model)
        if adapter.info.retired():
            warnings.append(f"{model} was shut down on {adapter.info.shutdown}")
    for provider in providers:
        try:
            get_connection_pool(provider)
        except ConfigurationError as error:
            warnings.append(error.message)
    if download_vocabulary:
        warnings += _fetch_vocabulary("o200k_base")
    for warning in warnings:
        get_logger("lifecycle").warning("%s", warning)
    return {"providers": providers, "models": models, "warnings": warnings}


def _fetch_vocabulary(name: str) -> list[str]:
    from llmkit.tokenizer.vocabulary import download_vocabulary, find_vocabulary

    try:
        if find_vocabulary(name) is None:
            download_vocabulary(name)
    except LLMError as error:
        return [error.message]
    return []


def shutdown() -> None:
    """Ends the calls under way, and closes the connections, SDK clients and the embedded model.

    A call that runs in another thread raises `CancelledError` at once.
    What the calls have taught this process of the vendors is forgotten: circuits, retry budgets and
    rate limits. The tracker's figures stay, and so does what is cached. It may be called any number
    of times: whatever is used afterwards is opened anew.
    """
    cancel_all("llmkit was shut down")
    close_all()


def _install_handlers() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "signal handlers can only be installed in the main thread; call "
            "initialize_llm_module() there, or without install_signal_handlers"
        )
    for number in _SIGNALS:
        previous = signal.getsignal(number)
        if previous is not signal.SIG_IGN and not isinstance(previous, _Handler):
            signal.signal(number, _Handler(previous))


class _Handler:
    """Closes everything, and then does what the handler before it did."""

    def __init__(self, previous: Callable[[int, FrameType | None], Any] | int | None) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        try:
            # Not on this thread: it may hold a lock that closing needs, and only goes on when this
            # handler returns.
            run_detached(shutdown, "shutdown").result(GRACE)
        except Exception:  # whatever goes wrong with closing, the signal must still take effect
            get_logger("lifecycle").exception("not everything was closed at signal %d", number)
        if callable(self._previous):
            self._previous(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
