"""Asks a model and prints its answer."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import print_error, print_json, print_line, write

if TYPE_CHECKING:
    from llmkit.client import Client
    from llmkit.types import Completion

__all__ = ["HELP", "add_arguments", "run"]

HELP = "ask a model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "prompt", nargs="?", help="the question; left out or '-', it is read from standard input"
    )
    parser.add_argument("--model", metavar="M", help="such as openai:gpt-6-luna or local:")
    parser.add_argument("--system", metavar="S", help="instructions for the model")
    parser.add_argument("--stream", action="store_true", help="print the answer while it comes")
    parser.add_argument("--json", action="store_true", help="print all that is known of the answer")
    parser.add_argument("--max-tokens", type=int, metavar="N", help="the longest answer")
    parser.add_argument("--temperature", type=float, metavar="T", help="0 to 2")
    parser.add_argument(
        "--timeout", type=float, metavar="S", help="seconds for everything together"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes, and `parser`.

    Returns:
        0.

    Raises:
        LLMError: There is no answer, or only a part of it, which has been printed.
        SystemExit: There is no prompt.
    """
    prompt = _read_prompt(arguments)
    from llmkit.client import Client

    options = {
        name: getattr(arguments, name)
        for name in ("system", "max_tokens", "temperature", "timeout")
    }
    with Client(arguments.model) as client:
        if arguments.stream:
            reply = _print_stream(client, prompt, options, as_json=arguments.json)
        else:
            reply = client.complete(prompt, **options)
            if arguments.json:
                print_json(reply.to_dict(), indent=2)
            else:
                print_line(reply.text.removesuffix("\n"))
    for warning in reply.warnings:
        print_error(f"warning: {warning}")
    if reply.finish_reason == "length":
        print_error("warning: the answer is cut off: it reached the longest that was allowed")
    return 0


def _read_prompt(arguments: argparse.Namespace) -> str:
    parser: argparse.ArgumentParser = arguments.parser
    prompt: str | None = arguments.prompt
    if prompt in (None, "-"):
        # None: the process was started with its standard input closed.
        if sys.stdin is None or sys.stdin.isatty():
            parser.error("no prompt: give it as an argument, or pipe it in")
        try:
            prompt = sys.stdin.read().removesuffix("\n")
        except UnicodeDecodeError as error:
            parser.error(f"standard input is not a text in {error.encoding}")
    if not prompt or not prompt.strip():
        parser.error("the prompt is empty")
    return prompt


def _print_stream(
    client: Client, prompt: str, options: dict[str, Any], *, as_json: bool
) -> Completion:
    last = ""
    with client.stream(prompt, **options) as stream:
        try:
            for chunk in stream:
                last = chunk.text
                if as_json:
                    print_json({"text": chunk.text})
                else:
                    write(chunk.text)
        finally:
            if not as_json and not last.endswith("\n"):
                print_line()
        if as_json:
            print_json({"completion": stream.completion.to_dict()})
        return stream.completion
