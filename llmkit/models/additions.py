"""Models beyond the built-in ones: from installed packages, and from LLMKIT_MODELS_FILE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llmkit.errors import ConfigurationError
from llmkit.log import get_logger
from llmkit.models.reading import UNREADABLE

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


__all__ = ["add_declared", "add_file"]

Put = Callable[[str, Mapping[str, Any]], object]


def add_declared(put: Put, entries: Iterable[EntryPoint]) -> None:
    """Adds what installed packages declare in the entry point group `llmkit.models`.

    Each is a mapping from names to facts, or a function that returns one. One that is broken is
    logged and skipped, from the model on that can't be read: a package that somebody installed
    for other reasons must not stop all calls.

    Args:
        put: Adds one model: its name and facts.
        entries: Of that group.
    """
    for entry in entries:
        try:
            found = entry.load()
            models = found() if callable(found) else found
            for name, facts in models.items():
                put(name, facts)
        # A stranger's code may raise anything.
        except Exception as error:
            get_logger("models").warning(
                "the entry point %r of llmkit.models (%s) is skipped: %s: %s",
                entry.name,
                entry.value,
                type(error).__name__,
                error,
            )


def add_file(put: Put, file: str) -> None:
    """Adds the models of a file of the form of models.json, of which only `models` counts.

    Args:
        put: Adds one model: its name and facts.
        file: The path; its suffix is `.json` or `.toml`.

    Raises:
        ConfigurationError: The file, or one of its models, can't be read.
    """
    models = _read(file).get("models")
    if not isinstance(models, Mapping):
        raise _broken(file, "expected a table `models` of names with their facts")
    for name, facts in models.items():
        if not isinstance(facts, Mapping):
            raise _broken(file, f"models.{name}: expected a table of facts")
        try:
            put(name, facts)
        except UNREADABLE as error:
            raise _broken(file, f"models.{name}: {error}") from error


def _read(file: str) -> Mapping[str, Any]:
    from decimal import Decimal

    try:
        with open(file, "rb") as stream:
            if file.lower().endswith(".toml"):
                import tomllib

                return tomllib.load(stream, parse_float=Decimal)
            if file.lower().endswith(".json"):
                import json

                document = json.load(stream, parse_float=Decimal)
                if isinstance(document, Mapping):
                    return document
                raise ValueError("expected an object")
    except OSError as error:
        raise _broken(file, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # both parsers name line and column
        raise _broken(file, str(error)) from error
    raise _broken(file, "expected a name that ends in .json or .toml")


def _broken(file: str, what: str) -> ConfigurationError:
    return ConfigurationError(f"LLMKIT_MODELS_FILE ({file}): {what}")
