"""A script whose answer is cached, from start to end, against `import openai` alone.

    python -m benchmarks.cached_start [rounds]

Every figure is the wall clock of a fresh interpreter. The programs take turns, so that a machine
that slows down slows all of them, and the medians' ratio is what counts. Bytecode is written to a
directory of its own before the first round: an installed package has it, a checkout need not.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.cache_hits import redis_server
from llmkit.testing import Answer, ProviderServer

SCRIPT = """
from llmkit import Client
assert Client().complete("Why is the sky blue?").text
"""
OPENAI = "import openai"
# Shares of `import openai` that llmkit wants to stay under.
BOUNDS = {"SQLite": 0.3, "Redis": 0.5}


def run(program: str, environment: Mapping[str, str], directory: str) -> float:
    """Runs a program in a fresh interpreter; returns its seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=directory, env=environment, check=True)
    return time.perf_counter() - began


def measure(rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each program, all programs once in each round."""
    with (
        tempfile.TemporaryDirectory() as directory,  # without a .env file
        redis_server() as redis_url,
        ProviderServer(Answer("Because of Rayleigh scattering.")) as server,
    ):
        common = {
            **{name: value for name, value in os.environ.items() if "CACHE" not in name},
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONPYCACHEPREFIX": directory,
            "PRIMARY_LLM": "openai:gpt-6-luna",
            "OPENAI_API_KEY": "sk-benchmark-0123456789",
            "OPENAI_API_BASE": server.base_url("openai"),
        }
        common.pop("PYTHONDONTWRITEBYTECODE", None)
        programs = {
            "import openai": (OPENAI, common),
            "SQLite": (SCRIPT, {**common, "LLMKIT_CACHE_URL": f"sqlite:///{directory}/cache.db"}),
            "Redis": (SCRIPT, {**common, "LLMKIT_CACHE_URL": redis_url}),
        }
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(2):  # the first one asks, and what both import gets its bytecode
            for program, environment in programs.values():
                run(program, environment, directory)
        asked = len(server.requests)
        for _ in range(rounds):
            for name, (program, environment) in programs.items():
                seconds[name].append(run(program, environment, directory))
        assert len(server.requests) == asked, "an answer did not come from the cache"
        return seconds


def main() -> None:
    """Prints a Markdown table."""
    seconds = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
    print("| script | ms | of `import openai` (min-max) | aim |")
    print("|---|---|---|---|")
    for name, each in seconds.items():
        ratios = [own / other for own, other in zip(each, seconds["import openai"], strict=True)]
        aim = f"{BOUNDS[name]:.2f}" if name in BOUNDS else ""
        print(
            f"| {name} | {1000 * statistics.median(each):.0f} "
            f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) | {aim} |"
        )


if __name__ == "__main__":
    main()
