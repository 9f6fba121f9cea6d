"""The budgets of the `with` blocks that a call is made in."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from llmkit.log import get_logger
from llmkit.threads import Once

if TYPE_CHECKING:  # every call looks here, and few have a budget
    from llmkit.budget.budget import Budget

__all__ = ["active_budgets", "enter", "leave", "put_on", "take_off"]

_current: ContextVar[tuple[Budget, ...]] = ContextVar("llmkit_budgets", default=())

# The blocks that threads are in: budget, thread, and all threads that there were at its entry.
_blocks: list[tuple[Budget, int, frozenset[int | None]]] = []
_told = Once()


def enter(budget: Budget) -> None:
    """Begins a block of the running thread, inside of those that it is in already."""
    put_on(budget)
    threads = frozenset(each.ident for each in threading.enumerate())
    _blocks.append((budget, threading.get_ident(), threads))


def leave(budget: Budget) -> None:
    """Ends the innermost block of a budget that the running thread is in."""
    take_off(budget)
    mine = (budget, threading.get_ident())
    for block in [each for each in tuple(_blocks) if each[:2] == mine][-1:]:
        _blocks.remove(block)


def put_on(budget: Budget) -> None:
    """Has the calls that follow in this context paid by a budget, too."""
    _current.set((*_current.get(), budget))


def take_off(budget: Budget) -> None:
    """Takes back what `put_on` did."""
    # By hand and not by a token: several threads may be in the block at once.
    budgets = _current.get()
    last = max((at for at, each in enumerate(budgets) if each is budget), default=None)
    if last is not None:
        _current.set(budgets[:last] + budgets[last + 1 :])


def active_budgets(standing: Iterable[Budget] = ()) -> tuple[Budget, ...]:
    """Returns the budgets that hold for a call made here, innermost first.

    Args:
        standing: Those that hold anyway, such as the Client's.

    Returns:
        Each once, also when two of them keep the same books: there the innermost one's limit holds.
    """
    entered = _current.get()
    if not entered and not standing:
        if _blocks:
            _tell_of_thread()
        return ()
    found: dict[tuple[int, str], Budget] = {}
    for budget in (*reversed(entered), *standing):
        found.setdefault((id(budget.account.ledger), budget.account.name), budget)
    return tuple(found.values())


def _tell_of_thread() -> None:
    """Logs once that a call is paid by nobody whose thread was started inside a block."""
    here = threading.get_ident()
    for budget, _, threads in tuple(_blocks):
        if here not in threads and not _told.happened and _told.is_first():
            get_logger("budget").warning(
                "a call in %s is not paid by %s, in whose block the thread was started: threads"
                " don't inherit it (start them with budget.wrap(function), or give the budget to a"
                " Client)",
                *(threading.current_thread().name, budget.account),
            )
