"""What was measured, its ratios, and how it's written: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

# What stands where a library has nothing to measure.
NONE = "–"  # noqa: RUF001 - a dash, as tables have it


class Spread(NamedTuple):
    """A median, and the least and most of what it was taken from."""

    median: float
    least: float
    most: float


@dataclass
class Figure:
    """One thing measured, of several libraries that took turns.

    Attributes:
        key: A name for programs.
        title: What it is, for people.
        unit: The unit of the samples.
        baseline: The row that the others are compared with; a row may have another in `baselines`.
            None where a ratio says nothing.
        more_is_better: Whether a ratio above 1 is good.
        samples: By row, one sample for each round; none for what can't be measured.
        notes: By row, what has to be said about it.
        baselines: By row, the row that it is compared with.
    """

    key: str
    title: str
    unit: str
    baseline: str | None
    more_is_better: bool = False
    samples: dict[str, list[float]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, str] = field(default_factory=dict)

    def value(self, row: str) -> Spread | None:
        """The spread of a row's samples; None if there are none."""
        return spread(self.samples.get(row, ()))

    def ratio(self, row: str) -> Spread | None:
        """The spread of a row's ratios to its baseline, round by round; None if there are none."""
        baseline = self.baselines.get(row, self.baseline)
        if baseline is None or baseline == row:
            return None
        pairs = zip(self.samples.get(row, ()), self.samples.get(baseline, ()), strict=False)
        return spread([own / other for own, other in pairs if other])


def spread(samples: Sequence[float]) -> Spread | None:
    """Returns the median with the least and the most; None of nothing."""
    if not samples:
        return None
    return Spread(statistics.median(samples), min(samples), max(samples))


def to_json(about: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """Writes everything: what was measured where and with what, every sample, every spread."""
    written = [
        {
            **asdict(figure),
            "values": {row: _as_dict(figure.value(row)) for row in figure.samples},
            "ratios": {row: _as_dict(figure.ratio(row)) for row in figure.samples},
        }
        for figure in figures
    ]
    return json.dumps({**about, "figures": written}, indent=1, ensure_ascii=False) + "\n"


def to_markdown(about: Mapping[str, Any], figures: Sequence[Figure]) -> str:
    """Writes a heading, the table for README, and a table for each figure, ratios first."""
    lines = [
        "# llmkit and its peers, measured",
        "",
        f"{about['date']}, {about['mode']} run; Python {about['python']}, {about['cores']} cores, "
        f"load {about['load_before']:.1f} before and {about['load_after']:.1f} after; "
        f"{about['minutes']:.0f} minutes. Written by `python -m benchmarks`; what each figure is, "
        "and what it isn't, stands in `benchmarks/README.md`. Medians, with the least and the most "
        "of the rounds. Ratios are of rounds in which both took turns; they are what counts.",
        "",
        f"The server's own floor, by a raw socket: {1e6 * about['floor']['round_trip']:.0f} µs for "
        f"a round trip, {about['floor']['calls_per_second']:,.0f} calls/s.",
        "",
        "Versions: "
        + ", ".join(f"{name} {each}" for name, each in about["versions"].items())
        + ".",
        "",
        "## In short",
        "",
        *summary(figures),
    ]
    for figure in figures:
        lines += ["", f"## {figure.title}", "", *table(figure)]
    return "\n".join(lines) + "\n"


def table(figure: Figure) -> list[str]:
    """Writes a figure as a Markdown table, and its notes below."""
    better = "more is better" if figure.more_is_better else "less is better"
    own = set(figure.baselines.values()) - {figure.baseline}
    compared = f" to {figure.baseline}" if figure.baseline and not own else ""
    head = [better, f"ratio{compared} (min-max)", f"{figure.unit} (min-max)"]
    rows = [head, ["---"] * len(head)]
    for row in figure.samples:
        is_baseline = figure.baselines.get(row, figure.baseline) == row
        ratio = "1" if is_baseline else show(figure.ratio(row), 2)
        rows.append([row, ratio, show(figure.value(row))])
    if figure.baseline is None:
        rows = [[row, value] for row, _, value in rows]
    lines = [
        "|" + "|".join(row) + "|" if "---" in row else f"| {' | '.join(row)} |" for row in rows
    ]
    notes = [f"- {row}: {note}" for row, note in figure.notes.items()]
    return [*lines, "", *notes] if notes else lines


# The columns of README's table: key of the figure, heading.
SUMMARY = {
    "import": "import",
    "first_answer": "start to first answer",
    "call_1": "CPU, 1 message",
    "call_40": "CPU, 40 messages",
    "chunk": "CPU, streamed chunk",
    "threads_32": "calls/s, 32 threads",
    "threads_128": "calls/s, 128 threads",
}


def summary(figures: Sequence[Figure]) -> list[str]:
    """Writes the table that README quotes: the ratios to the openai SDK, and nothing else."""
    known = {figure.key: figure for figure in figures}
    shown = {key: title for key, title in SUMMARY.items() if key in known}
    rows = [
        row
        for row in dict.fromkeys(row for key in shown for row in known[key].samples)
        if all(known[key].baselines.get(row, "openai") == "openai" for key in shown)
    ]
    lines = [
        f"| to the openai SDK | {' | '.join(shown.values())} |",
        "|---" * (len(shown) + 1) + "|",
    ]
    for row in sorted(rows, key=lambda row: not row.startswith("llmkit")):
        cells = {key: _short(known[key], row) for key in shown}
        if any(cell != NONE for key, cell in cells.items() if key != "import"):
            lines.append(f"| {row} | {' | '.join(cells.values())} |")
    return lines


def show(measured: Spread | None, digits: int | None = None) -> str:
    """Writes a spread, with so many decimals; None for as many as its size needs, a count none."""
    if measured is None:
        return NONE
    if digits is None:
        size = abs(measured.median)
        digits = 0 if size >= 100 or isinstance(size, int) else 1 if size >= 10 else 2
    median, least, most = (f"{each:,.{digits}f}" for each in measured)
    return median if least == most == median else f"{median} ({least}-{most})"


def _short(figure: Figure, row: str) -> str:
    ratio = figure.ratio(row)
    return NONE if ratio is None else f"{ratio.median:.2f}"


def _as_dict(measured: Spread | None) -> dict[str, float] | None:
    return None if measured is None else measured._asdict()
