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
    "Budget": "budget",
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
    "LLMCache": "cache",
    "LLMError": "errors",
    "LLMTimeoutError": "errors",
    "LocalAdapter": "adapters",
    "Message": "request",
    "ModelInfo": "models",
    "ModelNotFoundError": "errors",
    "OpenAIAdapter": "adapters",
    "PermissionDeniedError": "errors",
    "ProviderError": "errors",
    "QuotaExceededError": "errors",
    "RateLimit": "rate_limits",
    "RateLimitError": "errors",
    "Request": "request",
    "ResponseFormatError": "errors",
    "Scope": "scope",
    "Settings": "settings",
    "Stream": "streams",
    "TokenCount": "tokenizer",
    "StreamInterruptedError": "errors",
    "ToolCall": "types",
    "Usage": "types",
    "cache_result": "cache",
    "cached": "cache",
    "cleanup_connection_pools": "connection_pool",
    "clear_cache": "cache",
    "count_tokens": "tokenizer",
    "deadline": "scope",
    "find_alternative_model": "models",
    "estimate_cost": "estimates",
    "execute_llm_with_fallback": "fallback",
    "execute_parallel": "parallel",
    "execute_with_fallbacks": "fallback",
    "Fallback": "types",
    "get_adapter": "adapters",
    "get_cache": "cache",
    "get_connection_pool": "connection_pool",
    "get_llm_factory": "adapters",
    "get_logger": "log",
    "get_model_info": "models",
    "get_performance_tracker": "performance",
    "get_settings": "settings",
    "get_token_limit": "tokenizer",
    "health_check": "connection_pool",
    "initialize_llm_module": "lifecycle",
    "list_available_models": "models",
    "race_models": "parallel",
    "register_model": "models",
    "reload_settings": "settings",
    "retry_with_exponential_backoff": "retry",
    "select_models": "fallback",
    "shutdown": "lifecycle",
}

if TYPE_CHECKING:
    from llmkit.adapters import (
        AnthropicAdapter as AnthropicAdapter,
        BaseLLMAdapter as BaseLLMAdapter,
        GeminiAdapter as GeminiAdapter,
        LocalAdapter as LocalAdapter,
        OpenAIAdapter as OpenAIAdapter,
        get_adapter as get_adapter,
        get_llm_factory as get_llm_factory,
    )
    from llmkit.budget import (
        Budget as Budget,
    )
    from llmkit.cache import (
        LLMCache as LLMCache,
        cache_result as cache_result,
        cached as cached,
        clear_cache as clear_cache,
        get_cache as get_cache,
    )
    from llmkit.client import (
        Client as Client,
    )
    from llmkit.connection_pool import (
        cleanup_connection_pools as cleanup_connection_pools,
        get_connection_pool as get_connection_pool,
        health_check as health_check,
    )
    from llmkit.errors import (
        AllModelsFailedError as AllModelsFailedError,
        APIConnectionError as APIConnectionError,
        Attempt as Attempt,
        AuthenticationError as AuthenticationError,
        BudgetExceededError as BudgetExceededError,
        CancelledError as CancelledError,
        CircuitOpenError as CircuitOpenError,
        ConfigurationError as ConfigurationError,
        ContentFilterError as ContentFilterError,
        ContextLengthError as ContextLengthError,
        ErrorCode as ErrorCode,
        InvalidRequestError as InvalidRequestError,
        LLMError as LLMError,
        LLMTimeoutError as LLMTimeoutError,
        ModelNotFoundError as ModelNotFoundError,
        PermissionDeniedError as PermissionDeniedError,
        ProviderError as ProviderError,
        QuotaExceededError as QuotaExceededError,
        RateLimitError as RateLimitError,
        ResponseFormatError as ResponseFormatError,
        StreamInterruptedError as StreamInterruptedError,
    )
    from llmkit.estimates import (
        estimate_cost as estimate_cost,
    )
    from llmkit.fallback import (
        execute_llm_with_fallback as execute_llm_with_fallback,
        execute_with_fallbacks as execute_with_fallbacks,
        select_models as select_models,
    )
    from llmkit.lifecycle import (
        initialize_llm_module as initialize_llm_module,
        shutdown as shutdown,
    )
    from llmkit.log import (
        get_logger as get_logger,
    )
    from llmkit.models import (
        ModelInfo as ModelInfo,
        find_alternative_model as find_alternative_model,
        get_model_info as get_model_info,
        list_available_models as list_available_models,
        register_model as register_model,
    )
    from llmkit.parallel import (
        execute_parallel as execute_parallel,
        race_models as race_models,
    )
    from llmkit.performance import (
        get_performance_tracker as get_performance_tracker,
    )
    from llmkit.rate_limits import (
        RateLimit as RateLimit,
    )
    from llmkit.request import (
        Image as Image,
        Message as Message,
        Request as Request,
    )
    from llmkit.retry import (
        retry_with_exponential_backoff as retry_with_exponential_backoff,
    )
    from llmkit.scope import (
        Scope as Scope,
        deadline as deadline,
    )
    from llmkit.settings import (
        Settings as Settings,
        get_settings as get_settings,
        reload_settings as reload_settings,
    )
    from llmkit.streams import (
        Stream as Stream,
    )
    from llmkit.tokenizer import (
        TokenCount as TokenCount,
        count_tokens as count_tokens,
        get_token_limit as get_token_limit,
    )
    from llmkit.types import (
        CallRecord as CallRecord,
        Chunk as Chunk,
        Completion as Completion,
        Fallback as Fallback,
        ToolCall as ToolCall,
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
