"""Fitting 1 MB of text to 8,000 tokens, against one tiktoken encode of the same text.

    python -m benchmarks.fit_prompt

Needs the extra `tokens`. The two take turns; the medians' ratio is what counts (CPU time, for the
machine may be busy).
The promise is a ratio of at most 1.5; nearest to it come 50,000 fences or JSON objects of 16
characters. 1 MB against half of it shows that time is linear for all of them (2 at most, or so).
"""

from __future__ import annotations

import json
import random
import statistics
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tiktoken

from llmkit.prompt_optimizer import fit_messages, fit_prompt
from llmkit.tokenizer.vocabulary import load_encoding

ROUNDS = 7
SIZE = 1_000_000
TARGET = 8_000
MODEL = "gpt-6-luna"

HEAD = "Please analyze the following code for potential improvements:\n\n"
TAIL = "\n\nSpecifically focus on:\n1. Speed\n2. Clarity\n\nProvide your answer with examples."


def main() -> None:
    """Measures and prints a Markdown table."""
    encoding = load_encoding("o200k_base")
    if encoding is None:
        raise SystemExit('pip install "llmkit[tokens]" first')

    def count(model: str, prompt: str | Sequence[Mapping[str, Any]]) -> int:
        if isinstance(prompt, str):
            return len(encoding.encode_ordinary(prompt))
        return 3 + sum(4 + len(encoding.encode_ordinary(each["content"])) for each in prompt)

    print("| text | tiktoken, ms | fitting, ms | ratio | 1 MB / half | counted | tokens |")
    print("|---|---|---|---|---|---|---|")
    for name, text in _texts().items():
        _row(name, text, encoding, count)
    _conversation_row(count)


def _row(name: str, text: str, encoding: tiktoken.Encoding, count: Callable[..., int]) -> None:
    counted = 0

    def noting(model: str, prompt: str | Sequence[Mapping[str, Any]]) -> int:
        nonlocal counted
        counted += len(prompt)
        return count(model, prompt)

    fitted = fit_prompt(text, MODEL, TARGET, counter=noting)
    half = text[: len(text) // 2]
    encodes, fits, halves = [], [], []
    for _ in range(ROUNDS):
        encodes.append(_timed(lambda: encoding.encode_ordinary(text)))
        fits.append(_timed(lambda: fit_prompt(text, MODEL, TARGET, counter=count)))
        halves.append(_timed(lambda: fit_prompt(half, MODEL, TARGET, counter=count)))
    encode, fit, half_fit = map(statistics.median, (encodes, fits, halves))
    print(
        f"| {name} | {encode * 1e3:.0f} | {fit * 1e3:.0f} | {fit / encode:.2f} "
        f"| {fit / half_fit:.1f} | {counted / len(text):.0%} | {fitted.tokens:,} |"
    )


def _conversation_row(count: Callable[..., int]) -> None:
    messages = [
        {"role": ("user", "assistant")[at % 2], "content": f"Message number {at}."}
        for at in range(100_000)
    ]
    whole = statistics.median(_timed(lambda: count(MODEL, messages)) for _ in range(3))
    fit = statistics.median(
        _timed(lambda: fit_messages(messages, MODEL, TARGET, counter=count)) for _ in range(3)
    )
    half_fit = statistics.median(
        _timed(lambda: fit_messages(messages[50_000:], MODEL, TARGET, counter=count))
        for _ in range(3)
    )
    tokens = fit_messages(messages, MODEL, TARGET, counter=count).tokens
    print(
        f"| 100,000 messages | {whole * 1e3:.0f} | {fit * 1e3:.0f} | {fit / whole:.2f} "
        f"| {fit / half_fit:.1f} | | {tokens:,} |"
    )


def _timed(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _texts() -> dict[str, str]:
    sources = "\n\n".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    )
    code = sources[: SIZE - len(HEAD) - len(TAIL)]
    chance = random.Random(0)
    words = [word for word in set(code.split()) if word.isalpha()]
    prose = "".join(
        f"{' '.join(chance.choices(words, k=12))}.{chance.choice((' ', ' ', ' ', chr(10) * 2))}"
        for _ in range(SIZE // 60)
    )
    records = [{"id": at, "name": f"name {at}", "tags": ["a", "b"]} for at in range(20_000)]
    return {
        "code": HEAD + code + TAIL,
        "prose": prose[:SIZE],
        "indented JSON": json.dumps(records, indent=2)[:SIZE],
        "JSON in one line": json.dumps(records)[:SIZE],
        "deeply nested JSON": "[" * (SIZE // 2) + "]" * (SIZE // 2),
        "no space or newline": "".join(chance.choices("abcdefghij0123456789", k=SIZE)),
        "one letter": "a" * SIZE,
        "newlines": "\n" * SIZE,
        "spaces": (" " * 99 + "x") * (SIZE // 100),
        "quotes": '"\\' * (SIZE // 2),
        "unclosed fences": "```python\nx = 1\n" * (SIZE // 16),
        "unbalanced brackets": "".join(f"[{at} {{x\n\n" for at in range(100_000, 190_000)),
        "short paragraphs": "".join(f"{at}\n\n" for at in range(100_000, 225_000)),
        "short fences": "".join(f"```py\nx = {at}\n```\n" for at in range(10_000, 60_000)),
        "short JSON": "".join(f'{{\n  "a": {at}\n}}\n' for at in range(10_000, 65_000)),
        "Windows line ends": code.replace("\n", "\r\n")[:SIZE],
        "Chinese": "".join(chance.choices("漢字文語學習日本中國人大小上下", k=SIZE)),
        "emoji": "👩\u200d👩\u200d👧\u200d👦" * (SIZE // 7),
    }


if __name__ == "__main__":
    main()
