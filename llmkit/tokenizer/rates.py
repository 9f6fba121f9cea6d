"""How many tokens a text probably has, from the kinds of its characters alone.

The rates were fitted by `tools/calibrate_tokens.py` to what can be measured without a vendor:
OpenAI's two vocabularies and the embedded model's, on the interface texts of a large program in 26
languages, on its source code, on package descriptions and on JSON.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

__all__ = ["ASCII_KINDS", "LINE_BREAKS", "OTHER", "RATES", "WIDE_KINDS", "characters", "estimate"]

# Kinds of characters, by what a byte-level vocabulary makes of them.
ASCII_KINDS: Mapping[str, bytes] = {
    "lower": b"abcdefghijklmnopqrstuvwxyz",
    "upper": b"ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "digit": b"0123456789",
    "space": b" \t",
    "punctuation": bytes(code for code in range(0x21, 0x7F) if not chr(code).isalnum()),
}
WIDE_KINDS: Mapping[str, str] = {
    "latin": "\u0080-\u024f\u1e00-\u1eff",  # with accents
    "greek": "\u0370-\u03ff",
    "cyrillic": "\u0400-\u052f",
    "hebrew_arabic": "\u0590-\u08ff",
    "indic_thai": "\u0900-\u0eff",
    "hangul": "\u1100-\u11ff\uac00-\ud7af",
    "kana": "\u3040-\u30ff",
    "han": "\u2e80-\u303f\u3400-\u9fff\uf900-\ufaff\uff00-\uffef",
    "symbol": "\u2000-\u2e7f\ufe00-\ufe0f",
    "astral": "\U00010000-\U0010ffff",  # emoji, and whatever is rare
}
LINE_BREAKS = "line_breaks"  # runs of them, not characters
OTHER = "other"

# Tokens per 1,000 characters. Whole numbers, so that a sum does not depend on its order.
RATES: Mapping[str, Mapping[str, int]] = {
    "o200k_base": {
        "lower": 211,
        "upper": 256,
        "digit": 1038,
        "space": 0,
        "punctuation": 469,
        "line_breaks": 1806,
        "latin": 818,
        "greek": 392,
        "cyrillic": 306,
        "hebrew_arabic": 356,
        "indic_thai": 352,
        "hangul": 603,
        "kana": 562,
        "han": 674,
        "symbol": 684,
        "astral": 1948,
        "other": 1000,
    },
    "cl100k_base": {
        "lower": 238,
        "upper": 249,
        "digit": 1136,
        "space": 0,
        "punctuation": 384,
        "line_breaks": 1704,
        "latin": 1599,
        "greek": 1044,
        "cyrillic": 508,
        "hebrew_arabic": 894,
        "indic_thai": 1010,
        "hangul": 1018,
        "kana": 880,
        "han": 988,
        "symbol": 687,
        "astral": 3264,
        "other": 1000,
    },
    "smollm2": {
        "lower": 307,
        "upper": 345,
        "digit": 1414,
        "space": 0,
        "punctuation": 481,
        "line_breaks": 1219,
        "latin": 2883,
        "greek": 1013,
        "cyrillic": 915,
        "hebrew_arabic": 1229,
        "indic_thai": 1576,
        "hangul": 2823,
        "kana": 1725,
        "han": 1846,
        "symbol": 2191,
        "astral": 2876,
        "other": 2000,
    },
}

_ASCII = bytes(range(0x80))


def estimate(text: str, encoding: str) -> int:
    """Estimates a text's tokens.

    More text never takes fewer tokens, and two texts together never more than each by itself.

    Args:
        text: Anything.
        encoding: A key of `RATES`.

    Returns:
        The number; 0 only for an empty text.
    """
    if not text:
        return 0
    rates = RATES[encoding]
    thousandths = sum(rates[kind] * number for kind, number in characters(text).items())
    return max(1, -(-thousandths // 1000))


def characters(text: str) -> dict[str, int]:
    """Counts a text's characters by kind.

    Args:
        text: Anything, lone surrogates included.

    Returns:
        For each kind that occurs, the number of its characters; of line breaks, that of their runs.
    """
    raw = text.encode("utf-8", "surrogatepass")
    counts = {LINE_BREAKS: len(_line_breaks().findall(raw))}
    known = 0
    for kind, letters in ASCII_KINDS.items():
        counts[kind] = len(raw) - len(raw.translate(None, letters))
        known += counts[kind]
    known += raw.count(b"\n") + raw.count(b"\r")
    if len(raw) != len(text):
        wide = raw.translate(None, _ASCII).decode("utf-8", "surrogatepass")
        for kind, pattern in _wide_patterns():
            rest = pattern.sub("", wide)
            counts[kind] = len(wide) - len(rest)
            known += counts[kind]
            wide = rest
            if not wide:
                break
    counts[OTHER] = len(text) - known
    return counts


@functools.cache
def _line_breaks() -> re.Pattern[bytes]:
    return re.compile(rb"[\r\n]+")


@functools.cache
def _wide_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((kind, re.compile(f"[{letters}]+")) for kind, letters in WIDE_KINDS.items())
