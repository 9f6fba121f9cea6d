"""Counts the tokens of files, or downloads a vocabulary so that counts become exact."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from llmkit.cli.terminal import one_line, print_error, print_json, print_line

if TYPE_CHECKING:
    from llmkit.tokenizer import TokenCount

__all__ = ["HELP", "add_arguments", "full_name", "read_text", "run"]

HELP = "count tokens"

_DOWNLOAD = "download"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="texts in UTF-8, '-' for standard input; or the word 'download', and which "
        "vocabularies (o200k_base unless named)",
    )
    parser.add_argument("--model", metavar="M", help="whose tokens; default: the usual model's")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes, and `parser`.

    Returns:
        0; 1 when a file can't be read.

    Raises:
        LLMError: A vocabulary can't be downloaded, or there is none of that name.
    """
    if arguments.files[0] == _DOWNLOAD:
        return _download(arguments.files[1:] or ["o200k_base"])
    from llmkit.tokenizer import count_tokens

    model = full_name(arguments.model) if arguments.model else _usual_model()
    counts: list[tuple[str, TokenCount]] = []
    for name in arguments.files:
        text = read_text(name)
        if text is not None:
            counts.append((name, count_tokens(model, text)))
    if arguments.json:
        print_json(
            {
                "model": model,
                "files": [
                    {"file": name, "tokens": int(count), "estimated": count.estimated}
                    for name, count in counts
                ],
            },
            indent=2,
        )
    else:
        _print_table(counts, model)
    return 0 if len(counts) == len(arguments.files) else 1


def read_text(name: str) -> str | None:
    """Reads a file; None, after a line of standard error, when it can't be read.

    Args:
        name: Its path; "-" is standard input.
    """
    try:
        if name == "-":
            return sys.stdin.read() if sys.stdin is not None else ""
        with open(name, encoding="utf-8", newline="") as file:  # line ends count as they are
            return file.read()
    except UnicodeDecodeError:
        print_error(f"{name}: not a text in UTF-8")
    except OSError as error:
        print_error(f"{name}: {error.strerror}")
    return None


def full_name(model: str) -> str:
    """Returns a model's name; of a provider alone, such as "local:", that of its default model."""
    from llmkit.models import default_model

    provider = model.removesuffix(":")
    usual = default_model(provider) if provider != model else None
    return model if usual is None else f"{provider}:{usual}"


def _usual_model() -> str:
    from llmkit.adapters import choose_model
    from llmkit.errors import ConfigurationError
    from llmkit.models import default_model

    try:
        return choose_model()
    except ConfigurationError:  # counting needs no key
        return default_model("openai") or "openai:"


def _print_table(counts: list[tuple[str, TokenCount]], model: str) -> None:
    rows = [*counts]
    if len(rows) > 1:
        total = sum(int(count) for _, count in rows)
        count = type(rows[0][1])(total, estimated=any(each.estimated for _, each in rows))
        rows.append(("total", count))
    width = max((len(_shown(count)) for _, count in rows), default=0)
    for name, count in rows:
        # A long path is cut at its front, so that the line fits 80 columns.
        path, room = one_line(name), 78 - width
        path = path if len(path) <= room else f"...{path[3 - room :]}"
        print_line(f"{_shown(count):>{width}}  {path}")
    if any(count.estimated for _, count in rows):
        print_line(f"\n~: an estimate for {model}")


def _shown(count: TokenCount) -> str:
    return f"{'~' if count.estimated else ''}{int(count):,}"


def _download(names: list[str]) -> int:
    from llmkit.tokenizer.vocabulary import download_vocabulary, load_encoding

    for name in names:
        print_line(f"{name}: {download_vocabulary(name)}")
        if load_encoding(name) is None:
            print_error('counting with it takes tiktoken: pip install "llmkit[tokens]"')
    return 0
