"""CPU time of one call through llmkit, against the official SDK's own typed method.

    python -m benchmarks.call_cpu

The two take turns in one process, against one loopback server in another process; the medians'
ratio is what counts, for absolute figures move with the machine. No answer comes from the cache:
it is off, or in the rows that say so each prompt is another, so that it is looked for and kept.
The last rows are streams: the figures there are those of one chunk, in µs.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import anthropic
import openai
from google import genai

from benchmarks.loopback import provider_process
from llmkit import Client, Settings
from llmkit.testing import Answer

ROUNDS = 9
CALLS = 100
CHUNKS = 300
STREAMS = 5
KEY = "sk-benchmark-0123456789"


def main() -> None:
    """Measures and prints a Markdown table."""
    print("| call | SDK, ms CPU | llmkit, ms CPU | ratio (min-max) |")
    print("|---|---|---|---|")
    with provider_process(Answer("An answer of a few words.")) as url:
        client = Client(settings=_settings(url))
        for messages in (1, 40):
            chat = [
                {"role": ("user", "assistant")[turn % 2], "content": f"Message number {turn}."}
                for turn in range(messages)
            ]
            for name, model, typed in _typed_calls(url, chat):
                ours = functools.partial(client.complete, chat, model=model, use_cache=False)
                title = f"{name}, {messages} message{'s' * (messages > 1)}"
                _report(title, _alternate(typed, ours))
                _report(f"{title}, cached", _alternate(typed, _missing(client, chat, model)))
    with provider_process(Answer(" ".join(["word"] * CHUNKS))) as url:
        client = Client(settings=_settings(url))
        for name, model, read in _typed_streams(url):
            ours_read = functools.partial(_read_stream, client, model)
            assert read() == ours_read() == CHUNKS
            pairs = [(_cpu(read, STREAMS), _cpu(ours_read, STREAMS)) for _ in range(ROUNDS)]
            per_chunk = [(1000 * a / CHUNKS, 1000 * b / CHUNKS) for a, b in pairs]
            _report(f"{name}, a chunk of a stream (µs)", per_chunk)


def _settings(url: str) -> Settings:
    return Settings(
        openai_api_key=KEY,
        anthropic_api_key=KEY,
        gemini_api_key=KEY,
        openai_api_base=f"{url}/v1",
        anthropic_api_base=url,
        gemini_api_base=url,
        cache_enabled=False,
    )


def _read_stream(client: Client, model: str) -> int:
    return sum(1 for _ in client.stream("Say something.", model=model))


def _missing(client: Client, chat: list[dict[str, str]], model: str) -> Callable[[], object]:
    """Returns a call whose answer is never cached, and is kept."""
    numbers = itertools.count()

    def call() -> None:
        last = {"role": chat[-1]["role"], "content": f"{chat[-1]['content']} {next(numbers)}"}
        assert client.complete([*chat[:-1], last], model=model).cached is None

    return call


def _typed_calls(
    url: str, chat: list[dict[str, str]]
) -> list[tuple[str, str, Callable[[], object]]]:
    openai_sdk, anthropic_sdk, genai_sdk = _sdks(url)
    contents: Any = [
        {
            "role": "model" if turn["role"] == "assistant" else "user",
            "parts": [{"text": turn["content"]}],
        }
        for turn in chat
    ]
    return [
        (
            "openai",
            "gpt-6-luna",
            lambda: openai_sdk.chat.completions.create(model="gpt-6-luna", messages=chat),
        ),
        (
            "anthropic",
            "claude-haiku-5-5",
            lambda: anthropic_sdk.messages.create(
                model="claude-haiku-5-5", max_tokens=4096, messages=chat
            ),
        ),
        (
            "gemini",
            "gemini-3.8-flash",
            lambda: genai_sdk.models.generate_content(model="gemini-3.8-flash", contents=contents),
        ),
    ]


def _typed_streams(url: str) -> list[tuple[str, str, Callable[[], int]]]:
    openai_sdk, anthropic_sdk, genai_sdk = _sdks(url)
    chat = [{"role": "user", "content": "Say something."}]

    def read_openai() -> int:
        stream = openai_sdk.chat.completions.create(model="gpt-6-luna", messages=chat, stream=True)
        return sum(1 for event in stream if event.choices and event.choices[0].delta.content)

    def read_anthropic() -> int:
        stream = anthropic_sdk.messages.create(
            model="claude-haiku-5-5", max_tokens=4096, messages=chat, stream=True
        )
        return sum(1 for event in stream if event.type == "content_block_delta")

    def read_gemini() -> int:
        stream = genai_sdk.models.generate_content_stream(
            model="gemini-3.8-flash", contents="Say something."
        )
        return sum(1 for event in stream if event.text)

    return [
        ("openai", "gpt-6-luna", read_openai),
        ("anthropic", "claude-haiku-5-5", read_anthropic),
        ("gemini", "gemini-3.8-flash", read_gemini),
    ]


def _sdks(url: str) -> tuple[Any, Any, Any]:
    return (
        openai.OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0),
        anthropic.Anthropic(api_key=KEY, base_url=url, max_retries=0),
        genai.Client(
            api_key=KEY, vertexai=False, http_options=genai.types.HttpOptions(base_url=url)
        ),
    )


def _alternate(a: Callable[[], object], b: Callable[[], object]) -> list[tuple[float, float]]:
    for call in (a, b):
        for _ in range(20):
            call()
    return [(_cpu(a), _cpu(b)) for _ in range(ROUNDS)]


def _cpu(call: Callable[[], object], calls: int = CALLS) -> float:
    began = time.process_time()
    for _ in range(calls):
        call()
    return 1000 * (time.process_time() - began) / calls


def _report(name: str, pairs: list[tuple[float, float]]) -> None:
    ratios = sorted(b / a for a, b in pairs)
    typed = statistics.median(a for a, _ in pairs)
    ours = statistics.median(b for _, b in pairs)
    print(
        f"| {name} | {typed:.2f} | {ours:.2f} | {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f}-{ratios[-1]:.2f}) |",
        flush=True,
    )


if __name__ == "__main__":
    main()
