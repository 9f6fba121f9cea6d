"""Who is measured, how much, and how they take turns."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.environments import Environments, OrderFailed, Worker
from benchmarks.report import Figure


@dataclass(frozen=True)
class Contender:
    """A row of the tables.

    Attributes:
        row: Its name.
        driver: The module of `benchmarks.peers`.
        options: Further arguments of the driver's `connect`.
        baseline: The row that it is compared with.
    """

    row: str
    driver: str
    options: Mapping[str, Any] = field(default_factory=dict)
    baseline: str = "openai"


OPENAI = Contender("openai", "openai")
LLMKIT = Contender("llmkit", "llmkit")
LITELLM = Contender("litellm", "litellm")
LANGCHAIN = Contender("langchain-openai", "langchain_openai")
# All ask a server that speaks OpenAI's protocol.
PEERS = (
    OPENAI,
    LLMKIT,
    LITELLM,
    LANGCHAIN,
    Contender("aisuite", "aisuite"),
    Contender("any-llm-sdk", "any_llm"),
    Contender("pydantic-ai-slim", "pydantic_ai"),
)
UNCACHED = Contender("llmkit, cache off", "llmkit", {"cache": "off"})
VENDORS = (
    Contender("anthropic", "anthropic", baseline="anthropic"),
    Contender("llmkit, Claude", "llmkit", {"model": "claude-haiku-5-5"}, "anthropic"),
    Contender("google-genai", "google_genai", baseline="google-genai"),
    Contender("llmkit, Gemini", "llmkit", {"model": "gemini-3.8-flash"}, "google-genai"),
)
DRIVERS = tuple(dict.fromkeys(each.driver for each in (*PEERS, *VENDORS)))


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: Turns of each in a figure of CPU.
        calls: Calls in a turn.
        starts: Processes of each that are started for a figure.
        thread_rounds: Turns of each with threads.
        seconds: Seconds of such a turn.
        races: Races of each.
        memory: Calls of openai and llmkit, over which their memory is watched.
        memory_peers: The same of the others.
    """

    rounds: int
    calls: int
    starts: int
    thread_rounds: int
    seconds: float
    races: int
    memory: int
    memory_peers: int


FULL = Scale(
    rounds=7,
    calls=60,
    starts=9,
    thread_rounds=5,
    seconds=1.5,
    races=5,
    memory=100_000,
    memory_peers=5_000,
)
QUICK = Scale(
    rounds=2,
    calls=12,
    starts=1,
    thread_rounds=1,
    seconds=0.3,
    races=1,
    memory=500,
    memory_peers=100,
)


@dataclass(frozen=True)
class Bench:
    """What a figure needs to be measured.

    Attributes:
        environments: The libraries.
        scale: How much.
        url: The fast server's address.
        folder: An empty folder to work in.
    """

    environments: Environments
    scale: Scale
    url: str
    folder: Path

    def worker(self, driver: str) -> Worker:
        """Starts a process with that driver's library."""
        return Worker(
            self.environments.python(driver),
            f"benchmarks.peers.{driver}",
            self.environments.variables(driver),
            self.folder,
        )

    @contextmanager
    def connected(
        self, contenders: Iterable[Contender], url: str | None = None, **options: Any
    ) -> Iterator[dict[str, Worker]]:
        """Starts a process for each contender, connected to the server.

        Args:
            contenders: Who.
            url: Another address than the server's own.
            options: Further arguments of every `connect`.

        Yields:
            The processes by row.
        """
        with ExitStack() as stack:
            workers = {}
            for each in contenders:
                worker = stack.enter_context(self.worker(each.driver))
                worker.order("connect", url=url or self.url, **{**each.options, **options})
                workers[each.row] = worker
            yield workers


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A folder of its own for a run."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def alternate(
    figure: Figure, rounds: int, turns: Mapping[str, Callable[[], float]], warm: int = 1
) -> None:
    """Lets each row have its turn in every round, and notes the samples in the figure.

    A row that fails is out, and the figure says why.

    Args:
        figure: Where the samples go.
        rounds: How many count.
        turns: By row, what measures it once.
        warm: Rounds before, that don't count.
    """
    say(figure.title)
    for row in turns:
        figure.samples.setdefault(row, [])
    for number in range(-warm, rounds):
        for row, turn in turns.items():
            if row in figure.notes:
                continue
            try:
                sample = turn()
            except OrderFailed as error:
                figure.notes[row] = str(error)
                figure.samples[row] = []
                continue
            if number >= 0:
                figure.samples[row].append(sample)


def baselines(contenders: Sequence[Contender]) -> dict[str, str]:
    """By row, the row that it is compared with."""
    return {each.row: each.baseline for each in contenders}


def say(what: str) -> None:
    """Tells the person who waits."""
    print(what, file=sys.stderr, flush=True)
