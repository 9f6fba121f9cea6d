"""Budgets: reserve the worst case before each try of a call, settle afterwards."""

from __future__ import annotations

from llmkit.budget.budget import Budget, active_budgets
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
