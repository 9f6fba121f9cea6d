"""What counting tokens costs, against tiktoken's own `encode`, and what an estimate costs.

    python -m benchmarks.token_counting [rounds]

The programs take turns; the medians' ratio is what counts.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import llmkit
from llmkit.tokenizer import count_tokens, fits
from llmkit.tokenizer.vocabulary import load_encoding

# `count_tokens` may take so much longer than the engine by itself.
BOUND = 1.10


def repeat(program: Callable[[], object], times: int) -> None:
    """Runs a program so many times."""
    for _ in range(times):
        program()


def measure(programs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Returns the median seconds of each program."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            began = time.perf_counter()
            program()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    """Measures, and prints a table for each text."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    began = time.perf_counter()
    encoding = load_encoding("o200k_base")
    if encoding is None:
        raise SystemExit('pip install "llmkit[tokens]" first')
    print(f"loading the vocabulary: {time.perf_counter() - began:.2f} s")
    sources = Path(llmkit.__file__).parent.rglob("*.py")
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    for title, text, times in (
        ("source code", code, 1),
        ("2,000 characters", code[:2000], 100),
        ("30,000 Chinese characters", "外婆每天清晨去菜市场买一块豆腐。\n" * 1700, 1),
    ):
        programs: dict[str, Callable[[], object]] = {
            "tiktoken's encode": partial(encoding.encode, text, disallowed_special=()),
            "count_tokens": partial(count_tokens, "gpt-4o", text),
            "an estimate": partial(count_tokens, "claude-haiku-4-5", text),
            "fits, certainly": partial(fits, "gpt-4o", text, 10_000_000),
        }
        repeated = {name: partial(repeat, program, times) for name, program in programs.items()}
        found = measure(repeated, rounds)
        size = len(text.encode()) * times
        print(f"\n{title}, {size // times:,} bytes")
        for name, seconds in found.items():
            ratio = seconds / found["tiktoken's encode"]
            speed, each = size / seconds / 1e6, seconds / size * 1024 * 1e6
            print(f"  {name:20}{speed:9.1f} MB/s {each:8.2f} us/kB   x {ratio:.3f}")
        if found["count_tokens"] > BOUND * found["tiktoken's encode"]:
            print(f"  count_tokens takes more than {BOUND} times as long as tiktoken")


if __name__ == "__main__":
    main()
