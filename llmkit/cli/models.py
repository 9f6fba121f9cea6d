"""Lists the models that can be used, with what is known of them."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import print_error, print_json, print_line

if TYPE_CHECKING:
    from llmkit.models import ModelInfo

__all__ = ["HELP", "add_arguments", "describe_end", "run"]

HELP = "list the models"

_HEAD = ("NAME", "WINDOW", "IN ", "OUT ", "NOTE")
_RIGHT_ALIGNED = _HEAD[1:4]
_COLUMNS = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument("--provider", metavar="P", help="of this provider only")
    parser.add_argument(
        "--capability",
        metavar="C",
        action="append",
        default=[],
        help="that can do this, such as tools or vision (several: all of them)",
    )
    parser.add_argument("--json", action="store_true", help="print all that is known of them")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes, and `parser`.

    Returns:
        0.

    Raises:
        ConfigurationError: A setting can't be read.
        SystemExit: There is no such provider, or no model has such a capability.
    """
    from llmkit.adapters import PROVIDERS
    from llmkit.models import get_model_info, list_available_models

    provider: str | None = arguments.provider
    every = [get_model_info(name) for name in list_available_models()]
    providers = tuple(dict.fromkeys((*PROVIDERS, *(info.provider for info in every))))
    if provider not in (None, *providers):
        arguments.parser.error(f"there is no provider {provider!r}; there are {_list(providers)}")
    wanted: list[str] = arguments.capability
    able = sorted({word for info in every for word in info.capabilities})
    for word in wanted:
        if word not in able:
            arguments.parser.error(f"no model has the capability {word!r}; there are {_list(able)}")
    infos = [get_model_info(name) for name in list_available_models(wanted, provider=provider)]
    if arguments.json:
        print_json([_to_dict(info) for info in infos], indent=2)
    elif infos:
        _print_table(infos)
        print_line("\nIN, OUT: USD for a million tokens (+: more for long prompts). -: unknown.")
    if not infos:
        whose = (f" of {provider}" if provider else "") + (" with all of this" if wanted else "")
        print_error(
            f"the registry lists no models{whose}; any can be asked by its full name, such as "
            f"{provider or 'openai'}:NAME"
        )
    return 0


def describe_end(info: ModelInfo) -> str:
    """Says when a model stops to be served, such as "until 2026-12-11"; "" when unknown."""
    if info.shutdown is None:
        return ""
    return f"{'retired' if info.retired() else 'until'} {info.shutdown}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(names)


def _print_table(infos: list[ModelInfo]) -> None:
    """Prints a row for each model; a name that leaves no room for the rest has its own line."""
    rows = [_row(info.priced_on()) for info in infos]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    widths[0] = min(widths[0], _COLUMNS - sum(width + 2 for width in widths[1:]))
    print_line(_join(_HEAD, widths))
    provider = None
    for info, row in zip(infos, rows, strict=True):
        if info.provider != provider:
            provider = info.provider
            print_line(f"{provider}:")
        if len(row[0]) > widths[0]:
            print_line(row[0])
            row = ("", *row[1:])
        print_line(_join(row, widths))


def _join(row: Iterable[str], widths: Iterable[int]) -> str:
    cells = (
        cell.rjust(width) if head in _RIGHT_ALIGNED else cell.ljust(width)
        for head, cell, width in zip(_HEAD, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()


def _row(info: ModelInfo) -> tuple[str, ...]:
    prices = info.prices or {}
    return (
        f"  {info.full_name}",
        _window(info.context_window),
        *(_price(info, prices.get(kind), kind) for kind in ("input", "output")),
        describe_end(info) or ("limited access" if info.limited_access else ""),
    )


def _window(tokens: int | None) -> str:
    if tokens is None:
        return "-"
    if tokens >= 1_000_000:
        return f"{tokens / 1_000_000:.2f}M"
    return f"{tokens // 1000}k" if tokens >= 10_000 else str(tokens)


def _price(info: ModelInfo, price: Decimal | None, kind: str) -> str:
    if price is None:
        return "- "
    dearer = any(tier.get(kind, price) > price for tier in info.price_tiers)
    cents = Decimal("0.01")
    exact = price.quantize(cents) if price == price.quantize(cents) else price
    return f"{exact:f}{'+' if dearer else ' '}"


def _to_dict(info: ModelInfo) -> dict[str, Any]:
    """Returns all that is known of a model, prices as those of today."""
    facts = {key: _plain(getattr(info.priced_on(), key)) for key in info if key != "token_limit"}
    del facts["known"]
    return {**facts, "full_name": info.full_name, "retired": info.retired()}


def _plain(value: Any) -> Any:
    """Turns a fact into JSON: prices into strings, days into ISO dates, sets into sorted lists."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    return value
