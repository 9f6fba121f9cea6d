"""The SDKs by which Gemini can be asked, and which of them is taken."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from llmkit.errors import InvalidRequestError

__all__ = ["BACKENDS", "adapter_class"]

# By their names on PyPI: the SDK's module, and where its adapter stands. The first one that is
# installed is taken, and the first of all when none is.
BACKENDS = {
    "google-genai": ("google.genai", "llmkit.adapters.gemini", "GeminiAdapter"),
    "google-generativeai": (
        "google.generativeai",
        "llmkit.adapters.gemini_legacy",
        "LegacyGeminiAdapter",
    ),
}


def adapter_class(backend: str | None) -> Any:
    """Returns the class that asks Gemini by an SDK, without loading the SDK.

    Args:
        backend: The SDK's name on PyPI; None takes the first one that is installed.

    Raises:
        InvalidRequestError: There is no such backend.
    """
    if backend is None:
        ready = (name for name, (sdk, _, _) in BACKENDS.items() if _is_installed(sdk))
        backend = next(ready, next(iter(BACKENDS)))
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise InvalidRequestError(
            f"backend={backend!r:.100}: gemini has {' and '.join(BACKENDS)}", provider="gemini"
        )
    _, home, name = BACKENDS[backend]
    return getattr(importlib.import_module(home), name)


def _is_installed(module: str) -> bool:
    """Says whether a module could be imported, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nothing of Google's is there
        return False
