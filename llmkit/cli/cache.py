"""Shows or clears the cache that processes share (LLMKIT_CACHE_URL)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import one_line, print_error, print_json, print_line

if TYPE_CHECKING:
    from llmkit.cache import LLMCache

__all__ = ["HELP", "add_arguments", "run"]

HELP = "show or clear the cache"

_COLUMNS = 80
_ALONE = (
    "LLMKIT_CACHE_URL is not set: each process caches in its own memory, which no other one "
    "can see or clear"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument(
        "what",
        choices=("stats", "clear"),
        metavar="stats|clear",
        help="stats: where it is, whether it can be used, what is in it (of an SQLite file; Redis "
        "could only say so by reading all keys); clear: remove all entries of this application's "
        "namespace, and no others",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Args:
        arguments: What `add_arguments` describes.

    Returns:
        0; 1 when the cache can't be used, or could not be cleared.

    Raises:
        ConfigurationError: The cache's URL can't be read, or needs an extra that isn't installed.
    """
    from llmkit.cache import get_cache

    with _warnings() as warnings:
        cache = get_cache()
        return (_clear if arguments.what == "clear" else _show)(cache, warnings, arguments.json)


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Yields what llmkit warns of in the block: the cache raises nothing and logs why it failed."""
    import logging

    warnings: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    logger, listener = logging.getLogger("llmkit"), Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield warnings
    finally:
        logger.removeHandler(listener)


def _show(cache: LLMCache, warnings: list[str], as_json: bool) -> int:
    from llmkit.log import redact
    from llmkit.settings import get_settings

    settings = get_settings()
    usable = _usable(cache)
    stats = cache.stats()
    facts: dict[str, Any] = {
        "enabled": settings.cache_enabled,
        "url": None if settings.cache_url is None else redact(settings.cache_url),
        "namespace": settings.cache_namespace,
        "ttl": settings.cache_ttl,
        "usable": usable,
        "reason": warnings[-1] if warnings and not usable else None,
        "entries": stats["entries"] if cache.shared else None,
        "bytes": stats["bytes"] if cache.shared else None,
    }
    if as_json:
        print_json(facts, indent=2)
    else:
        _print_facts(facts)
    return 0 if usable else 1


def _usable(cache: LLMCache) -> bool:
    """Asks the cache for something, which raises nothing and counts what failed."""
    cache.read("llmkit cache stats")
    stats = cache.stats()
    return not stats["errors"] and not stats["skipped"]


def _print_facts(facts: dict[str, Any]) -> None:
    import textwrap

    enabled = "on" if facts["enabled"] else "off (CACHE_ENABLED)"
    _print_fact("calls use it", f"{enabled}, answers live {facts['ttl']:g} s")
    if facts["url"] is None:
        print_line(f"\n{_ALONE}.".replace(": each", ":\neach"))
        return
    _print_fact("place", facts["url"])
    _print_fact("namespace", facts["namespace"])
    _print_fact("can be used", "yes" if facts["usable"] else "no")
    if facts["reason"]:
        print_line(textwrap.fill(one_line(facts["reason"]), _COLUMNS))
    _print_fact("entries", "-" if facts["entries"] is None else f"{facts['entries']:,}")
    _print_fact("bytes", "-" if facts["bytes"] is None else f"{facts['bytes']:,}")
    if facts["url"].lower().startswith("sqlite:"):
        print_line("\nIn an SQLite file all namespaces count.")
    else:
        print_line("\n-: not counted, for Redis would have to read all its keys.")


def _print_fact(name: str, value: str) -> None:
    """Prints one line; of a long value the middle is left out."""
    room = _COLUMNS - 14
    text = one_line(value)
    if len(text) > room:
        text = f"{text[: room // 2]}…{text[room // 2 + 1 - room :]}"
    print_line(f"{name:14}{text}")


def _clear(cache: LLMCache, warnings: list[str], as_json: bool) -> int:
    from llmkit.settings import get_settings

    settings = get_settings()
    cleared = cache.shared and cache.clear()
    if as_json:
        print_json({"cleared": cleared, "namespace": settings.cache_namespace})
    if not cache.shared:
        print_error(_ALONE)
        return 0
    if not cleared:
        reason = warnings[-1] if warnings else "it took too long"
        print_error(f"the cache could not be cleared: {reason}")
        return 1
    if not as_json:
        print_line(f"cleared: all entries of the namespace {settings.cache_namespace}")
        print_line(
            "Running processes keep what they have in memory until it expires, "
            f"{settings.cache_ttl:g} s\nafter it was written at most."
        )
    return 0
