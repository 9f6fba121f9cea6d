"""The command line: `llmkit` or `python -m llmkit`, one file for each command.

A command's file has `HELP`, `add_arguments(parser)` and `run(arguments)`, and imports what it needs
inside `run`, so that `llmkit --help` loads nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from llmkit.cli import cache, complete, cost, demo, doctor, models, tokens
from llmkit.cli.terminal import one_line, print_error, print_line, write

__all__ = ["main"]

_COMMANDS = {
    "complete": complete,
    "models": models,
    "doctor": doctor,
    "demo": demo,
    "tokens": tokens,
    "cost": cost,
    "cache": cache,
}

FAILED = 1
USAGE = 2
INTERRUPTED = 130  # 128 and the signal's number, as a shell reports it
PIPE_CLOSED = 141  # likewise

_KEY_OPTION = re.compile(r"--?[a-z_-]*(key|token)", re.IGNORECASE)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The arguments, without the program's name; None takes the process's.

    Returns:
        What the process should exit with: 0; 1 after an `LLMError`, which stands on one line of
        standard error; 2 for arguments that can't be meant; 130 after Ctrl-C; 141 when the reader
        of the output has left.
    """
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        write("")  # argparse's own output may still wait to be flushed
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return PIPE_CLOSED
    return code


def _run(argv: Sequence[str]) -> int:
    if _names_a_key(argv):
        print_error(
            "a key is never given on the command line, where the shell's history and other users "
            "see it: set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY in the environment or "
            "in the file .env"
        )
        return USAGE
    try:
        arguments = _build_parser().parse_args(argv)
    except SystemExit as end:
        return _exit_code(end)
    from llmkit.errors import LLMError

    try:
        return _exit_code(arguments.run(arguments))
    except SystemExit as end:
        return _exit_code(end)
    except LLMError as error:
        print_error(f"{error.code.value}: {error}")
        return FAILED


def _exit_code(outcome: SystemExit | int) -> int:
    code = outcome.code if isinstance(outcome, SystemExit) else outcome
    return code if isinstance(code, int) else 0


def _names_a_key(argv: Sequence[str]) -> bool:
    options = argv[: argv.index("--")] if "--" in argv else argv
    return any(_KEY_OPTION.fullmatch(option.partition("=")[0]) for option in options)


class _Parser(argparse.ArgumentParser):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        # It repeats what was typed: a key by mistake, or a control character.
        super().error(one_line(message))


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from llmkit.version import __version__

        print_line(f"llmkit {__version__}")
        parser.exit()


# Texts of the help are ASCII, since argparse prints them as they are.
def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="llmkit",
        description="Calls large language models.",
        epilog="Keys are read from the environment or from the file .env, such as OPENAI_API_KEY.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="command", required=True)
    for name, command in _COMMANDS.items():
        part = commands.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_arguments(part)
        part.set_defaults(run=command.run, parser=part)
    return parser


def _discard_output() -> None:
    """Lets the interpreter's last flush go nowhere instead of into the closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except BrokenPipeError:
            with contextlib.suppress(OSError, ValueError):  # a stream without a descriptor
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
