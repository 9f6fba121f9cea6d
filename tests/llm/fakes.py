"""Operations that stand in for a model's work, and adapters that answer without a network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from llmkit import BaseLLMAdapter, ErrorCode, LLMError, Request, get_adapter
from llmkit.models import get_model_info
from llmkit.scope import current_scope
from llmkit.testing import ProviderServer
from llmkit.threads import Flag

__all__ = [
    "KEY",
    "Stuck",
    "adapter_at",
    "factory_of",
    "fake_error_operation",
    "fake_success_operation",
    "fake_timeout_operation",
    "mapping",
]

KEY = "sk-test-0123456789"


def fake_success_operation(model: str) -> str:
    """A model's work that is done."""
    return f"answer of {model}"


def fake_error_operation(model: str) -> str:
    """A model's work that fails at the vendor's, as another model's need not."""
    raise LLMError(code="LLM_PROVIDER_ERROR", message="the vendor is down", model=model)


def fake_timeout_operation(model: str) -> str:
    """A model's work that takes too long."""
    raise LLMError(code=ErrorCode.LLM_TIMEOUT, message="no answer in time", model=model)


def mapping(text: str) -> dict[str, Any]:
    """What a test's own `_generate_text` may return: a plain mapping."""
    return {
        "choices": [{"text": text}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    }


class Stuck:
    """A `_generate_text` that doesn't answer; it ends only when its call is cut."""

    def __init__(self) -> None:
        self.was_asked = threading.Event()
        self.was_cut = threading.Event()

    def __call__(self, request: Request) -> Mapping[str, Any]:
        scope = current_scope()
        assert scope is not None, "a try has its Scope"
        self.was_asked.set()
        try:
            scope.wait(Flag(), "answering", timeout=30)
        except BaseException:
            self.was_cut.set()
            raise
        return mapping("far too late")


def adapter_at(model: str, server: ProviderServer, **arguments: Any) -> BaseLLMAdapter:
    """The adapter of a model, which is asked on loopback through its vendor's real SDK."""
    provider: Any = get_model_info(model).provider
    return get_adapter(model, api_key=KEY, api_base=server.base_url(provider), **arguments)


def factory_of(*adapters: BaseLLMAdapter) -> Callable[[str], BaseLLMAdapter]:
    """What `get_adapter` is replaced by: it gives these, by their models' names."""
    by_name = {adapter.model: adapter for adapter in adapters}
    return lambda model: by_name[model]
