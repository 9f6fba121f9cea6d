"""What is printed: text that can't steer the terminal, and JSON.

A model's answer, a vendor's error message and a file's content are all other people's text. Printed
raw they could move the cursor, rename the window, or show something else than what is there.
"""

from __future__ import annotations

import json
import sys
from typing import Any, TextIO

__all__ = ["neutralise", "one_line", "print_error", "print_json", "print_line", "write"]

# A picture or the number of each character that a terminal obeys instead of showing it. One by one,
# so that a sequence split over two chunks is caught like any other.
_SHOWN: dict[int, int | str] = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x7F: 0x2421,
    **{code: f"\\x{code:02x}" for code in range(0x80, 0xA0)},
    # Embeddings, overrides and isolates reorder what follows them, beyond their own text.
    **{code: f"\\u{code:04x}" for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))},
    **dict.fromkeys(range(0xD800, 0xE000), 0xFFFD),  # lone surrogates, which no encoding has
}


def neutralise(text: str) -> str:
    r"""Makes a text safe to print.

    Args:
        text: Anything, or any part of it: nothing depends on what comes before or after.

    Returns:
        The text with control characters (C0 except line break and tab, DEL, C1) and those that
        reorder text made visible: ESC becomes the picture U+241B, U+009B becomes `\x9b`. A lone
        surrogate becomes U+FFFD.
    """
    return text.translate(_SHOWN)


def one_line(text: str) -> str:
    """Returns the text without keys, on one line, safe to print."""
    from llmkit.log import redact

    return neutralise(" ".join(redact(text).split()))


def write(text: str, to: TextIO | None = None) -> None:
    """Prints a text at once and without a line break at its end.

    Args:
        text: Anything; it is neutralised, and what the stream's encoding lacks is replaced.
        to: The stream; None is standard output.
    """
    stream = sys.stdout if to is None else to
    if stream is None:  # the process was started with it closed
        return
    encoding = stream.encoding or "utf-8"
    stream.write(neutralise(text).encode(encoding, "replace").decode(encoding))
    stream.flush()


def print_line(text: str = "") -> None:
    """Prints a text and a line break, as `write` does."""
    write(f"{text}\n")


def print_error(text: str) -> None:
    """Prints a message on one line of standard error, after the program's name."""
    write(f"llmkit: {one_line(text)}\n", sys.stderr)


def print_json(value: Any, *, indent: int | None = None) -> None:
    """Prints a value as JSON in ASCII, which every terminal and encoding takes.

    Args:
        value: A JSON value.
        indent: Spaces for each level; None puts all on one line.
    """
    # DEL is the one control character that JSON leaves as it is.
    print_line(json.dumps(value, indent=indent).replace("\x7f", "\\u007f"))
