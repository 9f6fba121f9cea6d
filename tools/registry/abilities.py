"""What a model can do and what it refuses, read from litellm's flags and the hand-written rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The flags that mean a capability by themselves.
_FLAGS = {
    "supports_function_calling": "tools",
    "supports_parallel_function_calling": "parallel_tools",
    "supports_response_schema": "structured_output",
    "supports_vision": "vision",
    "supports_pdf_input": "pdf",
    "supports_audio_input": "audio",
    "supports_video_input": "video",
    "supports_reasoning": "reasoning",
    "supports_assistant_prefill": "prefill",
    "supports_prompt_caching": "prompt_caching",
}
_MODALITIES = {"vision": "image", "audio": "audio", "video": "video"}
_SAMPLING = ("temperature", "top_p")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_USUAL_EFFORTS = frozenset({"low", "medium", "high"})


def abilities(
    spec: Mapping[str, Any], flags: Mapping[str, Any], refused: Sequence[str]
) -> set[str]:
    """Returns the words for what a model can do.

    Args:
        spec: What was written by hand: `capabilities` instead of the flags, `add` and `drop`
            beside them, and `judged`, which may end in "coding".
        flags: litellm's.
        refused: The request parameters that the model refuses.
    """
    able = set(spec.get("capabilities", ())) or _from_flags(flags, refused)
    if "coding" in str(spec.get("judged", "")).split():
        able.add("coding")
    return (able | set(spec.get("add", ()))) - set(spec.get("drop", ()))


def _from_flags(flags: Mapping[str, Any], refused: Sequence[str]) -> set[str]:
    if flags.get("mode") == "embedding":
        return {"embeddings"}
    able = {"chat"} | {word for flag, word in _FLAGS.items() if flags.get(flag)}
    if flags.get("supports_native_streaming") is not False:
        able.add("streaming")
    if flags.get("supports_tool_choice") and flags.get("supports_forced_tool_use") is not False:
        able.add("forced_tool_choice")
    if flags and not {*_SAMPLING} & {*refused}:
        able.add("sampling")
    return able


def modalities(
    spec: Mapping[str, Any], flags: Mapping[str, Any], able: set[str]
) -> dict[str, list[str]] | None:
    """Returns what goes in and what comes out; None when no source says it."""
    if "modalities" in spec:
        return {side: list(words) for side, words in spec["modalities"].items()}
    if not flags:
        return None
    told = flags.get("supported_modalities") or ["text"]
    taken = {*told, *(_MODALITIES[word] for word in _MODALITIES.keys() & able)}
    given = flags.get("supported_output_modalities") or (["text"] if "chat" in able else ["vector"])
    if flags.get("supports_audio_output"):
        given = [*given, "audio"]
    return {
        "input": [word for word in ("text", "image", "audio", "video") if word in taken],
        "output": [word for word in ("text", "image", "audio", "vector") if word in given],
    }


def refusals(
    provider: str,
    name: str,
    spec: Mapping[str, Any],
    flags: Mapping[str, Any],
    rules: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Returns the request parameters that a model refuses, sampling first.

    Args:
        provider: Who serves it.
        name: The model.
        spec: What was written by hand: `refuses` instead of the rules.
        flags: litellm's.
        rules: Each says whose models (`provider`, and `models` or a `flag` of litellm's) refuse
            what (`refuses`).
    """
    if "refuses" in spec:
        return list(spec["refuses"])
    refused = list(_SAMPLING) if flags.get("supports_sampling_params") is False else []
    for rule in rules:
        if rule["provider"] != provider or name not in rule.get("models", (name,)):
            continue
        if "flag" not in rule or flags.get(rule["flag"]):
            refused += rule["refuses"]
    return list(dict.fromkeys(refused))


def reasoning_efforts(
    provider: str, spec: Mapping[str, Any], flags: Mapping[str, Any]
) -> list[str] | None:
    """Returns the values of reasoning_effort that a model takes; None when no source says it."""
    if "efforts" in spec:
        return list(spec["efforts"])
    if not flags.get("supports_reasoning"):
        return None
    told = {word: flags.get(f"supports_{word}_reasoning_effort") for word in _EFFORTS}
    if provider == "anthropic" and not flags.get("supports_output_config"):
        return []
    if provider != "anthropic" and all(flag is None for flag in told.values()):
        return None
    return [
        word for word, flag in told.items() if flag or (flag is None and word in _USUAL_EFFORTS)
    ]
