"""Figures of processes that are warm: calls, streams, threads, caches, races, tokens, memory."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llmkit
from benchmarks.bench import (
    LANGCHAIN,
    LITELLM,
    LLMKIT,
    OPENAI,
    PEERS,
    UNCACHED,
    VENDORS,
    Bench,
    Contender,
    alternate,
    baselines,
    say,
)
from benchmarks.cache_hits import PROMPT, memory_floor, redis_floor
from benchmarks.environments import OrderFailed, Worker
from benchmarks.fast_server import CHUNKS
from benchmarks.loopback import provider_process
from benchmarks.report import Figure
from llmkit.testing import Answer

THREADS = (8, 32, 128)
# Seconds of a call's time-out, and of the reply that drips meanwhile.
TIMEOUT, DRIPS = 0.5, 5.0


def calls(bench: Bench) -> list[Figure]:
    """Measures the CPU of calls and of streamed chunks."""
    contenders = (*PEERS, UNCACHED, *VENDORS)
    common: dict[str, Any] = {"baseline": "openai", "baselines": baselines(contenders)}
    few = Figure("call_1", "CPU of a call, 1 message", "ms", **common)
    many = Figure("call_40", "CPU of a call, 40 messages", "ms", **common)
    chunk = Figure("chunk", "CPU of a streamed chunk", "µs", **common)
    scale = bench.scale
    with bench.connected(contenders) as workers:
        for worker in workers.values():
            worker.order("complete", count=30)
        for figure, do, factor, arguments in (
            (few, "complete", 1e3, {"count": scale.calls}),
            (many, "complete", 1e3, {"count": max(10, scale.calls // 3), "messages": 40}),
            (chunk, "stream", 1e6, {"chunks": CHUNKS, "count": max(1, scale.calls // 30)}),
        ):
            turns = {
                row: _turn(worker, do, "cpu", factor, **arguments)
                for row, worker in workers.items()
            }
            alternate(figure, scale.rounds, turns)
    return [few, many, chunk]


def threads(bench: Bench) -> list[Figure]:
    """Measures the answers in a second of many threads, where each call takes 50 ms at least."""
    figures = []
    with bench.connected((*PEERS, UNCACHED), f"{bench.url}/delay-50") as workers:
        for number in THREADS:
            figure = Figure(
                f"threads_{number}",
                f"Calls in a second, {number} threads, answers after 50 ms "
                f"(at most {number * 20:,})",
                "calls/s",
                "openai",
                more_is_better=True,
            )
            failed: dict[str, float] = {}

            def turn(row: str, number: int = number, failed: dict[str, float] = failed) -> float:
                order = {"threads": number, "seconds": bench.scale.seconds}
                found = workers[row].order("threads", **order)
                failed[row] = failed.get(row, 0.0) + found["failed"]
                return float(found["rate"])

            turns = {row: functools.partial(turn, row) for row in workers}
            alternate(figure, bench.scale.thread_rounds, turns, warm=0)
            figure.notes.update(
                {row: f"failed calls: {count:.0f}" for row, count in failed.items() if count}
            )
            figures.append(figure)
    return figures


def hits(bench: Bench, redis_url: str) -> list[Figure]:
    """Measures answers from each kind of cache, beside what the kind costs at least."""
    count = bench.scale.calls
    url = f"{bench.url}/delay-50"
    disk = {"llmkit": ("sqlite", f"{bench.folder}/hits.db"), "litellm": ("disk", "hits")}
    redis = dict.fromkeys(("llmkit", "litellm"), ("redis", redis_url))
    memory = {each.row: ("memory", "") for each in (LLMKIT, LITELLM, LANGCHAIN)}
    figures = []
    for key, title, floor, kinds in (
        ("hit_memory", "A hit in memory", "locked TTLCache", memory),
        ("hit_disk", "A hit on disk", "locked TTLCache", disk),
        ("hit_redis", "A hit in Redis", "bare GET by redis-py", redis),
    ):
        figure = Figure(key, title, "µs", floor)
        turns: dict[str, Callable[[], float]] = {}
        workers: list[Worker] = []
        try:
            for contender in (each for each in PEERS if each.row in kinds):
                cache, store = kinds[contender.row]
                worker = bench.worker(contender.driver)
                workers.append(worker)
                worker.order("connect", url=url, cache=cache, store=store)
                turns[contender.row] = _turn(
                    worker, "hits", "wall", 1e6, count=count, prompt=PROMPT
                )
                if floor not in turns:  # Redis holds llmkit's entry alone, now that it has one
                    turns[contender.row]()
                    bare = redis_floor(redis_url) if key == "hit_redis" else memory_floor()
                    turns[floor] = functools.partial(_median, bare, count)
            alternate(figure, bench.scale.rounds, turns)
        finally:
            for worker in workers:
                worker.close()
        figures.append(figure)
    return figures


def races(bench: Bench) -> list[Figure]:
    """Measures a race of a model that takes 30 ms and one that takes 3,000 ms."""
    figure = Figure(
        "race", "A race of 30 ms against 3,000 ms, beyond the fast call alone", "ms", None
    )
    figure.notes["how"] = (
        "openai by a thread pool and FIRST_COMPLETED, litellm by batch_completion_models; "
        "the others have nothing for it"
    )
    with bench.connected((OPENAI, LLMKIT, LITELLM), f"{bench.url}/delay-30") as workers:
        for worker in workers.values():
            worker.order("complete", count=5)
        turns = {row: _turn(worker, "race", "over", 1e3) for row, worker in workers.items()}
        alternate(figure, bench.scale.races, turns, warm=0)
    return [figure]


def deadlines(bench: Bench) -> list[Figure]:
    """Measures when a call with a time-out of 0.5 s ends whose reply drips for 5 s."""
    figure = Figure(
        "deadline", f"A call with timeout={TIMEOUT} whose reply drips for {DRIPS:.0f} s", "s", None
    )

    say(figure.title)

    def end(contender: Contender) -> tuple[list[float], str]:
        try:
            with bench.connected([contender]) as workers:
                worker = workers[contender.row]
                worker.order("complete")  # what a first call loads is not what is measured here
                worker.order("connect", url=url, timeout=TIMEOUT, **contender.options)
                ended = worker.order("ended")
        except OrderFailed as error:
            return [], str(error)
        return [float(ended["wall"])], str(ended["how"])

    contenders = (*PEERS, *VENDORS)
    # They mostly wait: three at a time leave each other the machine.
    with provider_process(Answer("Hello.", drip=DRIPS / 600)) as url, ThreadPoolExecutor(3) as pool:
        for contender, (seconds, how) in zip(contenders, pool.map(end, contenders), strict=True):
            figure.samples[contender.row], figure.notes[contender.row] = seconds, how
    return [figure]


def tokens(bench: Bench) -> list[Figure]:
    """Measures counting the tokens of a text of 20,000 characters and of a short one."""
    sources = sorted(Path(llmkit.__file__).parent.rglob("*.py"))
    code = "".join(path.read_text(encoding="utf-8") for path in sources)
    figures = []
    for key, size, count in (("tokens_200", 200, 200), ("tokens_20000", 20_000, 10)):
        figure = Figure(key, f"Counting tokens, {size:,} characters", "µs", "tiktoken's encode")
        with bench.connected((LLMKIT, LITELLM, LANGCHAIN)) as workers:
            order = {"text": code[:size], "count": count}
            turns = {
                "tiktoken's encode": _turn(
                    workers["llmkit"], "count_tokens", "cpu", 1e6, function="encode", **order
                ),
                **{
                    row: _turn(worker, "count_tokens", "cpu", 1e6, **order)
                    for row, worker in workers.items()
                },
            }
            alternate(figure, bench.scale.rounds, turns)
        figures.append(figure)
    return figures


def memory(bench: Bench) -> list[Figure]:
    """Watches the memory over many calls; two libraries at a time, for no time is measured."""
    say("Memory")
    figure = Figure("memory", "Memory that many calls add, after 2,000 to warm up", "MB", None)
    scale = bench.scale

    def watch(contender: Contender) -> tuple[list[float], str]:
        count = scale.memory if contender in (OPENAI, LLMKIT) else scale.memory_peers
        try:
            with bench.connected([contender]) as workers:
                warm = min(2000, count)
                found = workers[contender.row].order("memory", warm=warm, count=count)
        except OrderFailed as error:
            return [], str(error)
        held = f"{found['count']:,} calls, {found['after'] / 1e6:.0f} MB in the end"
        return [(found["after"] - found["before"]) / 1e6], held

    with ThreadPoolExecutor(2) as pool:
        for contender, (grown, note) in zip(PEERS, pool.map(watch, PEERS), strict=True):
            figure.samples[contender.row], figure.notes[contender.row] = grown, note
    return [figure]


def _turn(
    worker: Worker, do: str, what: str, factor: float, **arguments: Any
) -> Callable[[], float]:
    """Returns what gives an order once, and reads one figure of the answer."""
    return lambda: factor * float(worker.order(do, **arguments)[what])


def _median(call: Callable[[], object], count: int) -> float:
    """The median µs of a call in this process."""
    seconds = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return 1e6 * statistics.median(seconds)
