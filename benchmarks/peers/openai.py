"""The official SDK of OpenAI: what the others are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from benchmarks.peers import KEY, MODEL, SLOW, Calls, Messages

PACKAGES = ("openai==3.54.0",)
IMPORT = "import openai"


def connect(url: str, timeout: float | None = None) -> Calls:
    """Makes the calls; `race` is what a user makes of a thread pool."""
    from openai import OpenAI

    limits: Any = {} if timeout is None else {"timeout": timeout}
    client = OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0, **limits)
    create: Any = client.chat.completions.create

    def complete(messages: Messages, model: str = MODEL) -> str:
        text: str = create(model=model, messages=messages).choices[0].message.content
        return text

    def stream(messages: Messages) -> Iterator[str]:
        for chunk in create(model=MODEL, messages=messages, stream=True):
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    def race(messages: Messages) -> str:
        with ThreadPoolExecutor(2) as threads:
            both = [threads.submit(complete, messages, model) for model in (MODEL, SLOW)]
            done, _ = wait(both, return_when=FIRST_COMPLETED)
            return done.pop().result()

    return Calls(complete, stream, race)
