"""Fits a request to a model: what the model refuses is left out, and said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llmkit.errors import InvalidRequestError
from llmkit.models import ModelInfo, notices_of
from llmkit.request import Request

__all__ = ["fit_to_model", "say_for"]

# Request fields that a model may refuse, and what stands in their place when they are left out.
_REFUSABLE: Mapping[str, Any] = {
    "temperature": None,
    "top_p": None,
    "stop": (),
    "seed": None,
    "reasoning_effort": None,
}


def fit_to_model(
    request: Request, info: ModelInfo, never_takes: frozenset[str]
) -> tuple[Request, tuple[str, ...]]:
    """Leaves out what the registry says that the model refuses.

    Args:
        request: What was asked.
        info: The model.
        never_takes: Fields that the vendor has no word for.

    Returns:
        The request that can be sent, and what its user should know.

    Raises:
        InvalidRequestError: Something would be left out, and `on_unsupported` is "error".
    """
    warnings: list[str] = []
    refused = _refused(request, info, never_takes)
    if refused:
        said = ", ".join(refused.values())
        if request.on_unsupported == "error":
            raise InvalidRequestError(
                f"the model does not take {said}; leave it out, or call with on_unsupported='warn'",
                provider=info.provider,
                model=info.name,
            )
        request = replace(request, **{name: _REFUSABLE[name] for name in refused})
        if request.on_unsupported == "warn":
            warnings.append(f"{info.name} does not take {said}: left out")
    return request, (*warnings, *notices_of(info))


def say_for(
    request: Request, provider: str, info: ModelInfo, *, same_address: bool = True
) -> tuple[Request, tuple[str, ...]]:
    """Says a request for a model that stands in for the one it was meant for.

    What only the first one's vendor understands stays behind, its extra headers above all: there
    may be a key in them.

    Args:
        request: The request, as it was meant for the first model.
        provider: The first model's provider.
        info: The model that stands in.
        same_address: Whether the two are asked at the same address; where not, the extra headers
            stay behind although the provider is the same.

    Returns:
        The request for this model, and what its user should know.
    """
    changes: dict[str, Any] = {"model": info.name}
    warnings = []
    if info.provider != provider:
        own = [*request.vendor_parameters]
        own += [name for name in ("extra_body", "extra_headers") if getattr(request, name)]
        if own:
            changes.update(vendor_parameters={}, extra_body={}, extra_headers={})
            warnings.append(f"{', '.join(own)}: meant for {provider}, not sent to {info.full_name}")
    elif request.extra_headers and not same_address:
        changes["extra_headers"] = {}
        warnings.append(f"extra_headers: not sent to the other address of {info.full_name}")
    longest = info.max_output_tokens
    if request.max_tokens is not None and longest is not None and request.max_tokens > longest:
        changes["max_tokens"] = longest
        warnings.append(f"max_tokens={longest}: {info.full_name} writes no longer answers")
    return replace(request, **changes), tuple(warnings)


def _refused(request: Request, info: ModelInfo, never_takes: frozenset[str]) -> dict[str, str]:
    """Returns the fields that the model refuses, and how each is named to the user."""
    refused = {
        name: name
        for name, nothing in _REFUSABLE.items()
        if (name in info.refuses or name in never_takes) and getattr(request, name) != nothing
    }
    effort, efforts = request.reasoning_effort, info.reasoning_efforts
    if effort is not None and efforts is not None and effort not in efforts:
        known = f"it takes {', '.join(efforts)}" if efforts else "it takes none"
        refused["reasoning_effort"] = f"reasoning_effort={effort!r} ({known})"
    return refused
