"""Ctrl-C at every point of a call's way through its budget.

These tests raise KeyboardInterrupt at each point in turn where a signal could, in everything under
`llmkit/budget`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest

from llmkit import Scope
from llmkit.budget import Budget, Held
from llmkit.scope import CallInterrupted
from tests.budget.calls import held, reply
from tests.interruption import Interruption


class Calling:
    """One call in a budget, and how far it came."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.held: Held | None = None
        self.was_made = False

    def succeed(self) -> None:
        self.held = held(self.budget)
        self.was_made = True
        self.held.settle(reply())

    def fail(self) -> None:
        self.held = held(self.budget)
        self.was_made = True
        with self.held:
            raise ConnectionResetError

    def wait_in_vain(self) -> None:
        with Scope(0.0005).entered():
            self.held = held(self.budget, max_tokens=9_900)


def interrupt_everywhere(budgets: Iterator[Budget], task: Callable[[Calling], None]) -> None:
    """Does a task again and again, each time interrupted a little later, and checks the books."""
    for point in itertools.count(1):
        calling = Calling(next(budgets))
        other = held(calling.budget)
        interruption = Interruption(point, within=("/llmkit/budget/",))
        with (
            contextlib.suppress(KeyboardInterrupt, ConnectionResetError, CallInterrupted),
            interruption.armed(),
        ):
            task(calling)
        calling.held = None
        assert calling.budget.account.first_in_line() is None
        books = calling.budget.account.read()
        assert (books.in_flight, books.reserved.tokens) == (1, 117), point
        assert books.spent.tokens <= 117, point
        assert books.spent.tokens > 0 or not calling.was_made, point
        other.settle(reply())
        if not interruption.has_come:
            assert point > 100
            return


# A call that is interrupted while it is made has no destructor's attributes yet.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("task", [Calling.succeed, Calling.fail, Calling.wait_in_vain])
def test_ctrl_c_leaves_nothing_reserved_or_unpaid(task: Callable[[Calling], None]) -> None:
    """Wherever it strikes, the books are whole, a call that was made is paid, and nobody waits."""
    interrupt_everywhere((Budget(usd="0.1") for _ in itertools.count()), task)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_no_open_transaction(sqlite_url: str) -> None:
    """The file is not locked for everyone else, and this process goes on with it."""
    names = map(str, itertools.count())
    budgets = (Budget(usd="0.1", name=name, store=sqlite_url) for name in names)
    interrupt_everywhere(budgets, Calling.succeed)
    next(budgets).account.ledger.close()
