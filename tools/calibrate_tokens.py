"""Fits the rates in `llmkit/tokenizer/rates.py`, and shows how far off they are.

    pip install "llmkit[tokens,local]" django
    python -m tools.calibrate_tokens DIRECTORY…

The directories (such as Django's: `python -c "import django; print(django.__path__[0])"`) are
searched for translations (`.po`: each language by itself), sources (`.py`, `.js`), package
descriptions (`METADATA`) and JSON. Every piece of 1,500 characters counts alike within its kind of
text, and every kind of text alike. The fit minimises the relative error, with no rate below 0.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from llmkit.adapters.local import local_server_url
from llmkit.tokenizer.rates import ASCII_KINDS, LINE_BREAKS, OTHER, WIDE_KINDS, characters
from llmkit.tokenizer.vocabulary import VOCABULARIES, load_encoding

KINDS = (*ASCII_KINDS, LINE_BREAKS, *WIDE_KINDS)
PIECE = 1500
PIECES = 40
SUFFIXES = {".py": "code", ".js": "javascript", ".json": "json"}
EMOJI = "😀😂🥰😎🤔🙏🎉🔥👍❤️🚀🌍🍕⚽️🎵📚💻🧠👨‍👩‍👧‍👦🏳️‍🌈" * 40
# Per 1,000 characters of what the texts hardly have, such as Georgian; measured by hand.
RARE = {"o200k_base": 1000, "cl100k_base": 1500, "smollm2": 2000}

# A program has been translated into far more languages in the Latin script than people ask in.
LANGUAGES = frozenset(
    {
        *("ar", "bg", "cs", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "it"),
        *("ja", "ko", "nl", "pl", "pt", "ru", "th", "tr", "uk", "vi", "zh_Hans", "zh_Hant"),
    }
)

_MESSAGE = re.compile(r'^msgstr(?:\[0\])? ((?:".*"\n?)+)', re.MULTILINE)
# The English file translates nothing.
_ORIGINAL = re.compile(r'^msgid ((?:".*"\n?)+)', re.MULTILINE)


def read_texts(directories: Iterable[Path]) -> dict[str, list[str]]:
    """Returns pieces of text by the kind of text, which for translations is the language."""
    texts: dict[str, list[str]] = defaultdict(list)
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.suffix == ".po":
                language = path.relative_to(directory).parts[-3]
                if language in LANGUAGES:
                    pattern = _ORIGINAL if language == "en" else _MESSAGE
                    texts[language] += _messages(pattern, path.read_text(encoding="utf-8"))
            elif path.suffix in SUFFIXES or path.name == "METADATA":
                kind = SUFFIXES.get(path.suffix, "prose")
                texts[kind].append(path.read_text(encoding="utf-8", errors="replace"))
    texts["emoji"] = [EMOJI]
    return {kind: list(_pieces("\n".join(each))) for kind, each in texts.items()}


def _messages(pattern: re.Pattern[str], text: str) -> Iterator[str]:
    for quoted in pattern.findall(text)[1:]:
        yield "".join(ast.literal_eval(line) for line in quoted.splitlines())


def _pieces(text: str) -> list[str]:
    step = max(PIECE, len(text) // PIECES)
    return [text[at : at + PIECE] for at in range(0, len(text), step)][:PIECES]


def count_locally(text: str) -> int:
    """Asks the embedded model's tokenizer."""
    request = urllib.request.Request(
        f"{local_server_url()}/tokenize",
        json.dumps({"content": text}).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return len(json.load(reply)["tokens"])


def fit(samples: list[tuple[list[int], int, float]]) -> list[float]:
    """Returns the rates that come nearest to the counts, each 0 or more.

    Args:
        samples: For each piece its characters by kind, its tokens, and its weight.
    """
    size = len(KINDS)
    gram = [[0.0] * size for _ in range(size)]
    target = [0.0] * size
    for row, tokens, weight in samples:
        scale = weight / tokens**2
        for i in range(size):
            if row[i]:
                target[i] += scale * row[i] * tokens
                for j in range(size):
                    gram[i][j] += scale * row[i] * row[j]
    rates = [0.0] * size
    for _ in range(5000):  # one coordinate after the other: a convex problem
        for i in range(size):
            if gram[i][i]:
                others = sum(gram[i][j] * rates[j] for j in range(size)) - gram[i][i] * rates[i]
                rates[i] = max(0.0, (target[i] - others) / gram[i][i])
    return rates


def calibrate(name: str, texts: dict[str, list[str]], count: Callable[[str], int]) -> None:
    """Fits one table, and prints it with its errors."""
    rows = {
        kind: [([characters(piece).get(each, 0) for each in KINDS], count(piece)) for piece in each]
        for kind, each in texts.items()
    }
    rates = fit([(row, n, 1 / len(each)) for each in rows.values() for row, n in each if n])
    table = {kind: round(1000 * rate) for kind, rate in zip(KINDS, rates, strict=True)}
    print(f'    "{name}": {json.dumps({**table, OTHER: RARE[name]})},')
    for kind, each in rows.items():
        guessed = [sum(a * b for a, b in zip(row, rates, strict=True)) for row, _ in each]
        errors = sorted(guess / n - 1 for guess, (_, n) in zip(guessed, each, strict=True) if n)
        whole = sum(guessed) / sum(n for _, n in each) - 1
        print(f"#   {kind:10} whole {whole:+.2f}, pieces {errors[0]:+.2f} to {errors[-1]:+.2f}")


def main() -> None:
    """Fits all tables."""
    texts = read_texts(map(Path, sys.argv[1:]))
    for name in VOCABULARIES:
        encoding = load_encoding(name)
        if encoding is None:
            raise SystemExit('pip install "llmkit[tokens]" first')
        calibrate(name, texts, lambda text, it=encoding: len(it.encode_ordinary(text)))  # type: ignore[misc]
    calibrate("smollm2", texts, count_locally)


if __name__ == "__main__":
    main()
