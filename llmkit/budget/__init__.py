"""Budgets: reserve the worst case before each try of a call, settle afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmkit.budget.blocks import active_budgets
from llmkit.lazy import lazy_names

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
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
