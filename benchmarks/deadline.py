"""How long a call with a time-out of 0.5 s really takes when the reply drips for 5 s.

python -m benchmarks.deadline
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import anthropic
import openai
from google import genai

from benchmarks.loopback import provider_process
from llmkit import get_adapter
from llmkit.testing import Answer

KEY = "sk-benchmark-0123456789"
TIMEOUT = 0.5
SECONDS = 5.0


def main() -> None:
    """Measures and prints a Markdown table."""
    body_bytes = 600  # about the size of a short reply with its head
    print(f"| vendor | SDK, timeout={TIMEOUT} | llmkit, timeout={TIMEOUT} |")
    print("|---|---|---|")
    with provider_process(Answer("Hello.", drip=SECONDS / body_bytes)) as url:
        for vendor, model, base in (
            ("openai", "gpt-6-luna", f"{url}/v1"),
            ("anthropic", "claude-haiku-5-5", url),
            ("gemini", "gemini-3.8-flash", url),
        ):
            adapter = get_adapter(model, api_key=KEY, api_base=base, timeout=TIMEOUT)
            typed = _typed_call(vendor, model, base)
            theirs, ours = _clock(typed), _clock(functools.partial(adapter.generate, "Hi"))
            print(f"| {vendor} | {theirs} | {ours} |", flush=True)


def _typed_call(vendor: str, model: str, base: str) -> Callable[[], object]:
    chat: Any = [{"role": "user", "content": "Hi"}]
    if vendor == "openai":
        sdk = openai.OpenAI(api_key=KEY, base_url=base, max_retries=0, timeout=TIMEOUT)
        return lambda: sdk.chat.completions.create(model=model, messages=chat)
    if vendor == "anthropic":
        claude = anthropic.Anthropic(api_key=KEY, base_url=base, max_retries=0, timeout=TIMEOUT)
        return lambda: claude.messages.create(model=model, max_tokens=100, messages=chat)
    google = genai.Client(
        api_key=KEY,
        vertexai=False,
        http_options=genai.types.HttpOptions(base_url=base, timeout=int(1000 * TIMEOUT)),
    )
    return lambda: google.models.generate_content(model=model, contents="Hi")


def _clock(call: Callable[[], object]) -> str:
    began = time.perf_counter()
    try:
        call()
        how = "answered"
    except Exception as error:  # whatever it is, its name is the result
        how = type(error).__name__
    return f"{time.perf_counter() - began:.2f} s ({how})"


if __name__ == "__main__":
    main()
