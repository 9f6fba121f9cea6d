"""Figures of fresh processes: importing a library, and its first answer."""

from __future__ import annotations

import functools
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.bench import LITELLM, LLMKIT, PEERS, VENDORS, Bench, Contender, alternate, baselines
from benchmarks.environments import OrderFailed, driver_of
from benchmarks.report import Figure

WEIGHT = """
import json, os, sys
from benchmarks.session import resident
modules, memory = len(sys.modules), resident()
{statement}
print(json.dumps([len(sys.modules) - modules, resident() - memory]))
"""
ANSWER = """
import json, sys
from benchmarks.peers.{driver} import connect
calls = connect(**json.loads(sys.argv[1]))
print(calls.complete([{{"role": "user", "content": "Why is the sky blue?"}}]), flush=True)
"""
# How late the server answers, in ms, where no answer may come from it; and seconds of that.
LATE, LATE_SECONDS = 6000, 6.0


def imports(bench: Bench) -> list[Figure]:
    """Measures the time of an import, the modules that it loads, and their memory."""
    statements = {
        each.row: (each.driver, driver_of(each.driver).IMPORT) for each in (*PEERS, *VENDORS)
    }
    statements = {row: each for row, each in statements.items() if not row.startswith("llmkit,")}
    statements["llmkit, with Client()"] = ("llmkit", "import llmkit; llmkit.Client()")
    seconds = Figure("import", "Import, net of the interpreter", "ms", "openai")
    turns = {
        row: functools.partial(_net, bench, driver, statement)
        for row, (driver, statement) in statements.items()
    }
    alternate(seconds, bench.scale.starts, turns)
    modules = Figure("import_modules", "Modules that an import loads", "modules", "openai")
    memory = Figure("import_memory", "Memory that an import takes", "MB", "openai")
    for row, (driver, statement) in statements.items():
        counted, taken = json.loads(_run(bench, driver, WEIGHT.format(statement=statement)))
        modules.samples[row], memory.samples[row] = [counted], [taken / 1e6]
    return [seconds, modules, memory]


def first_answers(bench: Bench) -> list[Figure]:
    """Measures the time from the start of a process to its first answer, fresh or cached."""
    contenders = (*PEERS, *VENDORS)
    fresh = Figure(
        "first_answer",
        "Process start to first answer",
        "ms",
        "openai",
        baselines=baselines(contenders),
    )
    turns = {
        each.row: functools.partial(_until_answer, bench, each, {"url": bench.url})
        for each in contenders
    }
    alternate(fresh, bench.scale.starts, turns)
    return [fresh]


def cached_answers(bench: Bench, redis_url: str) -> list[Figure]:
    """Measures the time from the start of a process to an answer from a cache on disk, or Redis."""
    url = f"{bench.url}/delay-{LATE}"
    folder = bench.folder
    stores: list[tuple[str, Contender, dict[str, Any]]] = [
        ("llmkit, SQLite", LLMKIT, {"cache": "url", "store": f"sqlite:///{folder}/start.db"}),
        ("llmkit, Redis", LLMKIT, {"cache": "url", "store": redis_url}),
        ("litellm, disk", LITELLM, {"cache": "disk", "store": f"{folder}/start"}),
        ("litellm, Redis", LITELLM, {"cache": "redis", "store": redis_url}),
    ]
    cached = Figure("cached_answer", "Process start to a cached answer", "ms", "openai, asked anew")
    turns = {
        "openai, asked anew": functools.partial(_until_answer, bench, PEERS[0], {"url": bench.url})
    }
    for row, contender, options in stores:
        arguments = {"url": url, **options}
        turns[row] = functools.partial(_until_cached, bench, contender, arguments)
    with ThreadPoolExecutor() as threads:  # each of these waits for the server
        for _, contender, options in stores:
            threads.submit(_until_answer, bench, contender, {"url": url, **options})
    alternate(cached, bench.scale.starts, turns)
    return [cached]


def _net(bench: Bench, driver: str, statement: str) -> float:
    """The ms of a statement, less those of an interpreter that does nothing."""
    seconds = []
    for program in ("pass", statement):
        began = time.perf_counter()
        _run(bench, driver, program)
        seconds.append(time.perf_counter() - began)
    return 1000 * (seconds[1] - seconds[0])


def _until_cached(bench: Bench, contender: Contender, arguments: dict[str, Any]) -> float:
    milliseconds = _until_answer(bench, contender, arguments)
    if milliseconds >= LATE:
        raise OrderFailed("the answer did not come from the cache")
    return milliseconds


def _until_answer(bench: Bench, contender: Contender, arguments: dict[str, Any]) -> float:
    """The ms from the start of a process until it has printed an answer."""
    program = ANSWER.format(driver=contender.driver)
    options = json.dumps({**contender.options, **arguments})
    command = [bench.environments.python(contender.driver), "-c", program, options]
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=bench.environments.variables(contender.driver),
        cwd=bench.folder,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        ended = time.perf_counter()
        if not line.strip():
            raise OrderFailed((process.stderr.read().strip() or "no answer").splitlines()[-1])
    return 1000 * (ended - began)


def _run(bench: Bench, driver: str, program: str) -> str:
    """Runs a program in a driver's environment; returns what it printed."""
    done = subprocess.run(
        [bench.environments.python(driver), "-c", program],
        capture_output=True,
        text=True,
        env=bench.environments.variables(driver),
        cwd=bench.folder,
    )
    if done.returncode:
        raise OrderFailed(done.stderr.strip().splitlines()[-1])
    return done.stdout
