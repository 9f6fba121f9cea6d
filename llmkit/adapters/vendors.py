"""Vendors that speak OpenAI's protocol, one row each."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OPENAI_COMPATIBLE", "Vendor"]


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor.

    Attributes:
        name: The provider's name, as in "groq:llama-3.3-70b-versatile".
        base_url: Where it is; `<NAME>_API_BASE` in the settings overrides it.
        key_variable: The setting that holds its key; None when it asks for none.
        key_required: Whether it can't be asked without a key.
        max_tokens_field: What it calls the longest answer.
    """

    name: str
    base_url: str
    key_variable: str | None
    key_required: bool = True
    max_tokens_field: str = "max_tokens"


OPENAI_COMPATIBLE = {
    vendor.name: vendor
    for vendor in (
        Vendor(
            "openai",
            "https://api.openai.com/v1",
            "OPENAI_API_KEY",
            # `max_tokens` is deprecated, and refused by all models since o1; every chat model
            # takes the newer name.
            max_tokens_field="max_completion_tokens",
        ),
        Vendor("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        Vendor("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        Vendor("ollama", "http://localhost:11434/v1", None, key_required=False),
        Vendor("vllm", "http://localhost:8000/v1", "VLLM_API_KEY", key_required=False),
    )
}
