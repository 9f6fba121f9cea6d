"""Says what it would cost to send a file to a model, without sending it."""

from __future__ import annotations

import argparse
from decimal import Decimal

from llmkit.cli.terminal import print_json, print_line
from llmkit.cli.tokens import full_name, read_text

__all__ = ["HELP", "add_arguments", "run"]

HELP = "estimate what a call would cost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument("file", metavar="FILE", help="the prompt; '-' for standard input")
    parser.add_argument(
        "--model", metavar="M", action="append", required=True, help="may be given several times"
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="the longest answer; default: the model's own"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes, and `parser`.

    Returns:
        0; 1 when the file can't be read.

    Raises:
        ModelNotFoundError: The registry does not know a model.
        SystemExit: The longest answer can't be meant.
    """
    from llmkit.estimates import estimate_cost

    limit: int | None = arguments.max_tokens
    if limit is not None and limit < 1:
        arguments.parser.error(f"--max-tokens {limit}: expected 1 or more")
    text = read_text(arguments.file)
    if text is None:
        return 1
    estimates = [estimate_cost(text, full_name(model), limit) for model in arguments.model]
    if arguments.json:
        print_json(
            [
                {
                    "model": each.model,
                    "input_tokens": int(each.input_tokens),
                    "estimated": each.input_tokens.estimated,
                    "output_tokens": each.output_tokens,
                    "input_usd": _plain(each.input_usd),
                    "usd": _plain(each.usd),
                }
                for each in estimates
            ],
            indent=2,
        )
        return 0
    print_line(f"{'MODEL':32}{'INPUT':>12}{'USD':>12}{'OUTPUT':>10}{'USD IN ALL':>13}")
    for each in estimates:
        tokens = f"{'~' if each.input_tokens.estimated else ''}{int(each.input_tokens):,}"
        longest = "-" if each.output_tokens is None else f"{each.output_tokens:,}"
        print_line(
            f"{each.model[:31]:32}{tokens:>12}{_usd(each.input_usd):>12}{longest:>10}"
            f"{_usd(each.usd):>13}"
        )
    print_line("\nINPUT, OUTPUT: tokens (~: estimated), an answer of full length. -: unknown.")
    return 0


def _usd(amount: Decimal | None) -> str:
    return "-" if amount is None else f"{amount:,.6f}"


def _plain(amount: Decimal | None) -> str | None:
    return None if amount is None else f"{amount:f}"
