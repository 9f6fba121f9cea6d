"""How what was measured becomes ratios, tables and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.bench import alternate
from benchmarks.environments import OrderFailed
from benchmarks.report import Figure, Spread, show, summary, table, to_json, to_markdown

ABOUT: dict[str, Any] = {
    "date": "2026-11-23",
    "mode": "quick",
    "python": "3.11.7",
    "cores": 2,
    "load_before": 0.25,
    "load_after": 1.5,
    "minutes": 2.6,
    "floor": {"round_trip": 0.00004, "calls_per_second": 29000.0},
    "versions": {"openai": "3.54.0"},
}


def figure(**changes: Any) -> Figure:
    samples = {"openai": [1.0, 2.0, 4.0], "llmkit": [0.5, 1.5, 1.0], "aisuite": []}
    arguments: dict[str, Any] = {"samples": samples, "notes": {"aisuite": "no stream"}, **changes}
    return Figure("call_1", "CPU of a call", "ms", "openai", **arguments)


def test_a_ratio_is_taken_round_by_round() -> None:
    """What slows down one round slows down both of its turns, and leaves their ratio alone."""
    assert figure().ratio("llmkit") == Spread(0.5, 0.25, 0.75)
    assert figure().value("llmkit") == Spread(1.0, 0.5, 1.5)


def test_there_is_no_ratio_where_there_is_nothing_to_compare() -> None:
    """A missing feature, the baseline itself and a figure without one have no ratio, not 0 or 1."""
    assert figure().ratio("aisuite") is None
    assert figure().ratio("openai") is None
    assert figure().ratio("unheard of") is None
    assert Figure("memory", "Memory", "MB", None, samples={"openai": [1.0]}).ratio("openai") is None
    assert figure(samples={"openai": [0.0], "llmkit": [1.0]}).ratio("llmkit") is None


def test_a_row_can_have_a_baseline_of_its_own() -> None:
    """Calls to Claude are compared with Anthropic's SDK, though they stand in OpenAI's table."""
    samples = {"openai": [1.0], "anthropic": [4.0], "llmkit, Claude": [2.0]}
    vendors = {"anthropic": "anthropic", "llmkit, Claude": "anthropic"}
    own = figure(samples=samples, baselines=vendors, notes={})
    assert own.ratio("llmkit, Claude") == Spread(0.5, 0.5, 0.5)
    assert summary([own]) == ["| to the openai SDK | CPU, 1 message |", "|---|---|"]


def test_a_table_has_the_ratio_first_and_a_dash_where_nothing_is() -> None:
    """Readers see what counts, and a missing feature as such, with the reason below."""
    assert table(figure()) == [
        "| less is better | ratio to openai (min-max) | ms (min-max) |",
        "|---|---|---|",
        "| openai | 1 | 2.00 (1.00-4.00) |",
        "| llmkit | 0.50 (0.25-0.75) | 1.00 (0.50-1.50) |",
        "| aisuite | \N{EN DASH} | \N{EN DASH} |",
        "",
        "- aisuite: no stream",
    ]


def test_a_table_without_a_baseline_has_no_ratios() -> None:
    """A column of dashes would say that something is missing."""
    memory = Figure("memory", "Memory", "MB", None, samples={"openai": [1.0]})
    assert table(memory)[1:] == ["|---|---|", "| openai | 1.00 |"]


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        (Spread(1234.5, 1000.0, 2000.0), "1,234 (1,000-2,000)"),
        (Spread(12.34, 12.34, 12.34), "12.3"),
        (Spread(0.123, 0.1, 0.2), "0.12 (0.10-0.20)"),
        (Spread(54, 54, 54), "54"),
        (None, "\N{EN DASH}"),
    ],
)
def test_figures_have_the_digits_that_mean_something(measured: Spread | None, text: str) -> None:
    """A spread is said where there is one, and no false precision."""
    assert show(measured) == text


def test_the_summary_has_the_ratios_to_openai() -> None:
    """README's table: one row for each library, one column for each of a few figures."""
    chunk = Figure("chunk", "Chunks", "ms", "openai", samples={"openai": [2.0], "llmkit": [0.5]})
    assert summary([figure(samples={**figure().samples, "litellm": [4.0] * 3}), chunk]) == [
        "| to the openai SDK | CPU, 1 message | CPU, streamed chunk |",
        "|---|---|---|",
        "| llmkit | 0.50 | 0.25 |",
        "| litellm | 2.00 | \N{EN DASH} |",
    ]


def test_both_files_hold_everything() -> None:
    """The Markdown says when and with what, the JSON has every sample besides."""
    text = to_markdown(ABOUT, [figure()])
    for part in ("2026-11-23", "quick run", "openai 3.54.0", "40 µs", "29,000 calls/s", "load 0.2"):
        assert part in text
    assert "## CPU of a call" in text
    written = json.loads(to_json(ABOUT, [figure()]))
    assert written["versions"] == {"openai": "3.54.0"}
    (one,) = written["figures"]
    assert one["samples"] == figure().samples
    assert one["ratios"]["llmkit"] == {"median": 0.5, "least": 0.25, "most": 0.75}
    assert one["values"]["aisuite"] is None


def test_rows_take_turns_and_one_that_fails_is_out() -> None:
    """Every round has one turn of each row; the warm-up doesn't count; a failure is said."""
    order: list[str] = []

    def turn(row: str) -> Callable[[], float]:
        def measured() -> float:
            order.append(row)
            if row == "b" and order.count("b") == 2:
                raise OrderFailed("out of breath")
            return float(len(order))

        return measured

    found = Figure("x", "X", "ms", "a")
    alternate(found, 2, {"a": turn("a"), "b": turn("b")}, warm=1)
    assert order == ["a", "b", "a", "b", "a"]
    assert found.samples == {"a": [3.0, 5.0], "b": []}
    assert found.notes == {"b": "out of breath"}
