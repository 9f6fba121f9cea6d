"""Budgets: reserve the worst case before each try of a call, settle afterwards."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from llmkit.budget.blocks import active_budgets

if TYPE_CHECKING:
    from llmkit.budget.budget import Budget
    from llmkit.budget.calls import hold
    from llmkit.budget.held import Held
    from llmkit.budget.ledger import Ledger, MemoryLedger, Standing, StoreBusy, StoreError

__all__ = [
    "Budget",
    "Held",
    "Ledger",
    "MemoryLedger",
    "Standing",
    "StoreBusy",
    "StoreError",
    "active_budgets",
    "hold",
]

# Loaded when they are asked for: most programs have no budget.
_HOMES = {
    "Budget": "budget",
    "Held": "held",
    "Ledger": "ledger",
    "MemoryLedger": "ledger",
    "Standing": "ledger",
    "StoreBusy": "ledger",
    "StoreError": "ledger",
    "hold": "calls",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
