"""aisuite: `Client` with a provider's configuration, which it gives to the vendor's SDK."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, MODEL, Calls, Messages

PACKAGES = ("aisuite[openai]==0.2.0",)
IMPORT = "import aisuite"


def connect(url: str, timeout: float | None = None) -> Calls:
    """Makes the calls."""
    import aisuite

    limits: Any = {} if timeout is None else {"timeout": timeout}
    config = {"api_key": KEY, "base_url": f"{url}/v1", "max_retries": 0, **limits}
    client: Any = aisuite.Client({"openai": config})
    create = client.chat.completions.create
    name = f"openai:{MODEL}"

    def complete(messages: Messages) -> str:
        text: str = create(model=name, messages=messages).choices[0].message.content
        return text

    def stream(messages: Messages) -> Iterator[str]:
        for chunk in create(model=name, messages=messages, stream=True):
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return Calls(complete, stream)
