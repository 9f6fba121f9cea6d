"""llmkit: synchronous calls to large language models.

    from llmkit import Client

    reply = Client().complete("Why is the sky blue?", timeout=20)
    print(reply.text)

Importing this package loads nothing but itself: each name is fetched on its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.version import __version__

_HOMES = {
    "AllModelsFailedError": "errors",
    "AnthropicAdapter": "adapters",
    "APIConnectionError": "errors",
    "Attempt": "errors",
    "AuthenticationError": "errors",
    "BaseLLMAdapter": "adapters",
    "BudgetExceededError": "errors",
    "CallRecord": "types",
    "CancelledError": "errors",
    "Chunk": "types",
    "CircuitOpenError": "errors",
    "Client": "client",
    "Completion": "types",
    "ConfigurationError": "errors",
    "ContentFilterError": "errors",
    "ContextLengthError": "errors",
    "ErrorCode": "errors",
    "GeminiAdapter": "adapters",
    "Image": "request",
    "InvalidRequestError": "errors",
    "LLMError": "errors",
    "LLMTimeoutError": "errors",
    "LocalAdapter": "adapters",
    "Message": "request",
    "ModelNotFoundError": "errors",
    "OpenAIAdapter": "adapters",
    "PermissionDeniedError": "errors",
    "ProviderError": "errors",
    "QuotaExceededError": "errors",
    "RateLimitError": "errors",
    "ResponseFormatError": "errors",
    "Scope": "scope",
    "Settings": "settings",
    "Stream": "streams",
    "StreamInterruptedError": "errors",
    "ToolCall": "types",
    "Usage": "types",
    "cleanup_connection_pools": "connection_pool",
    "count_tokens": "tokenizer",
    "deadline": "scope",
    "get_adapter": "adapters",
    "get_connection_pool": "connection_pool",
    "get_llm_factory": "adapters",
    "get_logger": "log",
    "get_model_info": "models",
    "get_performance_tracker": "performance",
    "get_settings": "settings",
    "health_check": "connection_pool",
    "initialize_llm_module": "lifecycle",
    "list_available_models": "models",
    "register_model": "models",
    "retry_with_exponential_backoff": "retry",
    "shutdown": "lifecycle",
}

if TYPE_CHECKING:
    from llmkit.adapters import (
        AnthropicAdapter as AnthropicAdapter,
    )
    from llmkit.adapters import (
        BaseLLMAdapter as BaseLLMAdapter,
    )
    from llmkit.adapters import (
        GeminiAdapter as GeminiAdapter,
    )
    from llmkit.adapters import (
        LocalAdapter as LocalAdapter,
    )
    from llmkit.adapters import (
        OpenAIAdapter as OpenAIAdapter,
    )
    from llmkit.adapters import (
        get_adapter as get_adapter,
    )
    from llmkit.adapters import (
        get_llm_factory as get_llm_factory,
    )
    from llmkit.client import (
        Client as Client,
    )
    from llmkit.connection_pool import (
        cleanup_connection_pools as cleanup_connection_pools,
    )
    from llmkit.connection_pool import (
        get_connection_pool as get_connection_pool,
    )
    from llmkit.connection_pool import (
        health_check as health_check,
    )
    from llmkit.errors import (
        AllModelsFailedError as AllModelsFailedError,
    )
    from llmkit.errors import (
        APIConnectionError as APIConnectionError,
    )
    from llmkit.errors import (
        Attempt as Attempt,
    )
    from llmkit.errors import (
        AuthenticationError as AuthenticationError,
    )
    from llmkit.errors import (
        BudgetExceededError as BudgetExceededError,
    )
    from llmkit.errors import (
        CancelledError as CancelledError,
    )
    from llmkit.errors import (
        CircuitOpenError as CircuitOpenError,
    )
    from llmkit.errors import (
        ConfigurationError as ConfigurationError,
    )
    from llmkit.errors import (
        ContentFilterError as ContentFilterError,
    )
    from llmkit.errors import (
        ContextLengthError as ContextLengthError,
    )
    from llmkit.errors import (
        ErrorCode as ErrorCode,
    )
    from llmkit.errors import (
        InvalidRequestError as InvalidRequestError,
    )
    from llmkit.errors import (
        LLMError as LLMError,
    )
    from llmkit.errors import (
        LLMTimeoutError as LLMTimeoutError,
    )
    from llmkit.errors import (
        ModelNotFoundError as ModelNotFoundError,
    )
    from llmkit.errors import (
        PermissionDeniedError as PermissionDeniedError,
    )
    from llmkit.errors import (
        ProviderError as ProviderError,
    )
    from llmkit.errors import (
        QuotaExceededError as QuotaExceededError,
    )
    from llmkit.errors import (
        RateLimitError as RateLimitError,
    )
    from llmkit.errors import (
        ResponseFormatError as ResponseFormatError,
    )
    from llmkit.errors import (
        StreamInterruptedError as StreamInterruptedError,
    )
    from llmkit.lifecycle import (
        initialize_llm_module as initialize_llm_module,
    )
    from llmkit.lifecycle import (
        shutdown as shutdown,
    )
    from llmkit.log import (
        get_logger as get_logger,
    )
    from llmkit.models import (
        get_model_info as get_model_info,
    )
    from llmkit.models import (
        list_available_models as list_available_models,
    )
    from llmkit.models import (
        register_model as register_model,
    )
    from llmkit.performance import (
        get_performance_tracker as get_performance_tracker,
    )
    from llmkit.request import (
        Image as Image,
    )
    from llmkit.request import (
        Message as Message,
    )
    from llmkit.retry import (
        retry_with_exponential_backoff as retry_with_exponential_backoff,
    )
    from llmkit.scope import (
        Scope as Scope,
    )
    from llmkit.scope import (
        deadline as deadline,
    )
    from llmkit.settings import (
        Settings as Settings,
    )
    from llmkit.settings import (
        get_settings as get_settings,
    )
    from llmkit.streams import (
        Stream as Stream,
    )
    from llmkit.tokenizer import (
        count_tokens as count_tokens,
    )
    from llmkit.types import (
        CallRecord as CallRecord,
    )
    from llmkit.types import (
        Chunk as Chunk,
    )
    from llmkit.types import (
        Completion as Completion,
    )
    from llmkit.types import (
        ToolCall as ToolCall,
    )
    from llmkit.types import (
        Usage as Usage,
    )

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'llmkit' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"llmkit.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
