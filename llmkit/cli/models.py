"""Lists the models that can be used, with what is known of them."""

from __future__ import annotations

import argparse
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import print_error, print_json, print_line

if TYPE_CHECKING:
    from llmkit.models import ModelInfo

__all__ = ["HELP", "add_arguments", "describe_end", "run"]

HELP = "list the models"

_HEAD = ("NAME", "PROVIDER", "WINDOW", "IN ", "OUT ", "NOTE")
_RIGHT_ALIGNED = _HEAD[2:5]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument("--provider", metavar="P", help="of this provider only")
    parser.add_argument("--json", action="store_true", help="print all that is known of them")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes, and `parser`.

    Returns:
        0.

    Raises:
        ConfigurationError: A setting can't be read.
        SystemExit: There is no such provider.
    """
    from llmkit.adapters import PROVIDERS
    from llmkit.models import get_model_info, list_available_models

    provider: str | None = arguments.provider
    if provider not in (None, *PROVIDERS):
        arguments.parser.error(f"there is no provider {provider!r}; there are {_list(PROVIDERS)}")
    infos = [get_model_info(name) for name in list_available_models(provider=provider)]
    if arguments.json:
        print_json([_to_dict(info) for info in infos], indent=2)
    elif infos:
        _print_table(infos)
        print_line("\nIN, OUT: USD for a million tokens (+: more for long prompts). -: unknown.")
    if not infos:
        whose = f" of {provider}" if provider else ""
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


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names)


def _print_table(infos: list[ModelInfo]) -> None:
    rows = [_HEAD, *(_row(info) for info in infos)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if head in _RIGHT_ALIGNED else cell.ljust(width)
            for head, cell, width in zip(_HEAD, row, widths, strict=True)
        )
        print_line("  ".join(cells).rstrip())


def _row(info: ModelInfo) -> tuple[str, ...]:
    prices = info.prices or {}
    return (
        info.name,
        info.provider,
        _window(info.context_window),
        *(_price(info, prices.get(kind), kind) for kind in ("input", "output")),
        describe_end(info),
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
    return {
        "name": info.name,
        "provider": info.provider,
        "context_window": info.context_window,
        "max_output_tokens": info.max_output_tokens,
        "prices": None if info.prices is None else _plain(info.prices),
        "price_tiers": [_plain(tier) for tier in info.price_tiers],
        "capabilities": sorted(info.capabilities),
        "refuses": sorted(info.refuses),
        "reasoning_efforts": info.reasoning_efforts,
        "api": info.api,
        "released": info.released and info.released.isoformat(),
        "shutdown": info.shutdown and info.shutdown.isoformat(),
        "retired": info.retired(),
        "successor": info.successor,
        "speed": info.speed,
        "quality": info.quality,
        "source": info.source,
    }


def _plain(prices: Any) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, Decimal) else value for name, value in prices.items()
    }
