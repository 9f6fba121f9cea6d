"""Measures llmkit, the official SDKs and the libraries like it, side by side in one go.

python -m benchmarks [--quick] [--cache-dir DIR] [--output DIR] [--only FIGURES]
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import figures, starts
from benchmarks.bench import DRIVERS, FULL, QUICK, Bench, empty_folder, say
from benchmarks.cache_hits import redis_server
from benchmarks.environments import Environments, OrderFailed
from benchmarks.fast_server import fast_server, measure_floor
from benchmarks.report import Figure, to_json, to_markdown

RESULTS = Path(__file__).parent / "results"
FIGURES = (
    *("imports", "first_answers", "cached_answers", "calls", "threads", "hits", "races"),
    *("deadlines", "tokens", "memory"),
)
# What the versions in the heading are those of; the JSON has all of each environment.
NAMED = {
    "openai": "openai",
    "anthropic": "anthropic",
    "google_genai": "google-genai",
    "litellm": "litellm",
    "langchain_openai": "langchain-openai",
    "aisuite": "aisuite",
    "any_llm": "any-llm-sdk",
    "pydantic_ai": "pydantic-ai-slim",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Builds what is missing, measures, and writes the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less of everything, 3 to 5 minutes")
    parser.add_argument("--cache-dir", type=Path, help="where the virtual environments are kept")
    parser.add_argument("--output", type=Path, default=RESULTS, help="where the results go")
    parser.add_argument("--only", default=",".join(FIGURES), help=f"of {', '.join(FIGURES)}")
    options = parser.parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := set(chosen) - set(FIGURES):
        parser.error(f"no such figures: {', '.join(sorted(unknown))}")
    environments = Environments(options.cache_dir)
    for driver in DRIVERS:
        environments.build(driver)
    about = _about(environments, quick=options.quick)
    began = time.monotonic()
    with fast_server() as url, empty_folder() as folder:
        about["floor"] = measure_floor(url)._asdict()
        bench = Bench(environments, QUICK if options.quick else FULL, url, folder)
        measured = measure(bench, chosen)
    about["load_after"] = os.getloadavg()[0]
    about["minutes"] = (time.monotonic() - began) / 60
    options.output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("peers.md", to_markdown(about, measured)),
        ("peers.json", to_json(about, measured)),
    ):
        (options.output / name).write_text(text, encoding="utf-8")
        say(f"written: {options.output / name}")


def measure(bench: Bench, chosen: Iterable[str]) -> list[Figure]:
    """Measures the figures of those names, one group after the other."""
    measured: list[Figure] = []
    for name in chosen:
        with ExitStack() as stack:
            group: Callable[..., list[Figure]] = getattr(starts, name, None) or getattr(
                figures, name
            )
            further = (
                [stack.enter_context(redis_server())] if name in ("hits", "cached_answers") else []
            )
            try:
                measured += group(bench, *further)
            except OrderFailed as error:  # the other groups don't hang on one group
                say(f"{name} could not be measured: {error}")
    return measured


def _about(environments: Environments, *, quick: bool) -> dict[str, Any]:
    """When, with what and how busy; nothing that names the machine."""
    installed = {driver: environments.versions(driver) for driver in DRIVERS}
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "mode": "quick" if quick else "full",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "versions": {name: installed[driver][name] for driver, name in NAMED.items()},
        "installed": installed,
    }


if __name__ == "__main__":
    main()
