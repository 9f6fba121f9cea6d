"""A package's names that are loaded when somebody asks for them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Makes what a package needs to load some of its names only when they are asked for.

        __getattr__, __dir__ = lazy_names(__name__, {"RedisCache": "redis_cache"})

    Args:
        package: The package's full name.
        homes: By the name, the module inside the package that has it.

    Returns:
        The package's `__getattr__` and its `__dir__`, which shows these names, too.
    """
    names = vars(sys.modules[package])

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{homes[name]}"), name)

    def show() -> list[str]:
        return sorted({*names, *homes})

    return load, show
