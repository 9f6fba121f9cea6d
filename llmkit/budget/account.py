"""An account: one budget's books as a call uses them, and the line of calls that wait."""

from __future__ import annotations

import contextlib
import gc
import time
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from llmkit.budget.amounts import NOTHING, Amount, Limit, shown
from llmkit.budget.ledger import Ledger, Standing, StoreBusy, StoreError, renew_in_child
from llmkit.budget.worst_case import WorstCase
from llmkit.errors import BudgetExceededError
from llmkit.log import get_logger
from llmkit.scope import Scope, current_scope
from llmkit.threads import Flag

__all__ = ["Account", "Place"]

T = TypeVar("T")

# While others are under way, an answer without `max_tokens` waits for room for this many tokens
# rather than be cut shorter.
ENOUGH = 256

# Seconds between two looks at a store by the first in line: other processes can't wake us.
POLL = 0.05

# Seconds after which everyone in line looks, in case Ctrl-C hit who should have called; and after
# which the first in line collects garbage, twice as long each time: a stream that was dropped may
# hang on some error's traceback, and what it holds would stay reserved.
GLANCE = 1.0

# Seconds between two tries, and for all of them, while another process has the store.
BUSY_PAUSE = 0.005
BUSY_PATIENCE = 5.0
SETTLE_PATIENCE = 0.5

# Seconds for which a store that was away is asked by nobody who can do without it.
AWAY = 1.0


class Place:
    """A call's place in an account's line.

    Attributes:
        account: Whose line it is.
        gone: Whether the call waits no longer: set by itself, in one step that nothing interrupts.
        flag: Raised when it is to look at the books again.
    """

    __slots__ = ("_patience", "_since", "account", "flag", "gone")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.gone = False
        self.flag = Flag()
        self._since = time.monotonic()
        self._patience = GLANCE

    @property
    def is_first(self) -> bool:
        """Whether nobody came before."""
        return self.account.first_in_line() is self

    def renew(self) -> None:
        """Gets ready to be called again; what is seen afterwards can't be missed."""
        self.flag = Flag()

    def wait(self, scope: Scope) -> None:
        """Waits until the books may have changed and it is this call's turn.

        Raises:
            CallInterrupted: The Scope ended first.
        """
        is_first = self.is_first
        timeout = POLL if self.account.polls and is_first else GLANCE
        scope.wait(self.flag, f"waiting for {self.account} until other calls have settled", timeout)
        if is_first and time.monotonic() - self._since >= self._patience:
            self._patience *= 2
            gc.collect()

    def line_up(self) -> None:
        """Takes the last place in line."""
        self.account.line_up(self)

    def leave(self) -> None:
        """Gives the place up, and calls the next one."""
        self.account.leave(self)


class Account:
    """One budget's books as a call uses them.

    Args:
        name: The budget's name in the ledger.
        title: How the budget is called in messages.
        limit: What it may come to.
        ledger: Where its books are.
        polls: Whether others than this object change the books.
        allow_store_error: Whether calls are made while the ledger can't be reached.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        name: str,
        title: str,
        limit: Limit,
        ledger: Ledger,
        *,
        polls: bool,
        allow_store_error: bool,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.limit = limit
        self.ledger = ledger
        self.polls = polls
        self.clock = clock
        self._title = title
        self._allow_store_error = allow_store_error
        # Appended to and removed from in one step each, without a lock.
        self._line: deque[Place] = deque()
        # What could not be settled at once: by the garbage collector, which must take no lock, or
        # while the store was away.
        self._late: deque[tuple[str, Amount]] = deque()
        # Calls that were made without a reservation, while the store was away.
        self._unbooked: set[str] = set()
        self._away_until = 0.0
        self._is_copy = False
        renew_in_child(self)

    def __str__(self) -> str:
        return self._title

    def bounds(self, case: WorstCase) -> bool:
        """Says whether this account bounds the answer's length."""
        return self.limit.tokens is not None or (
            self.limit.usd is not None and case.prices is not None
        )

    def try_to_hold(self, key: str, case: WorstCase, most: int, lease: float) -> int | None:
        """Reserves what a call may take, if there is room now.

        Args:
            key: The reservation's name.
            case: The call.
            most: The longest answer that is still possible, in tokens.
            lease: Seconds after which the call counts as lost, if its books are in a store.

        Returns:
            The longest answer that is reserved; None when others must settle first.

        Raises:
            BudgetExceededError: There is no room, and will be none; or the store is away.
            CallInterrupted: The Scope ended.
        """
        if self._is_copy:
            self._is_copy = False
            get_logger("budget").warning(
                "%s was made before this process was forked: it is a copy, and what is spent from"
                " it here the other processes don't see (a budget with name= and store= is shared)",
                self,
            )
        if self._allow_store_error and self._is_away():
            self._unbooked.add(key)
            return most
        now = self.clock()

        def reserve(tokens: int) -> Standing:
            amount = case.amount(tokens)
            return self._reach(
                lambda: self.ledger.reserve(
                    self.name, key, amount, self.limit, now=now, expires=now + lease
                )
            )

        has_asked = False
        try:
            self.catch_up()
            has_asked = True
            standing = reserve(most)
            if standing.granted:
                return most
            tokens = self._share(case, most, standing)
            return tokens if tokens is not None and reserve(tokens).granted else None
        except StoreError as error:
            if not self._allow_store_error:
                if has_asked:
                    self._late.append((key, NOTHING))  # it may have been reserved all the same
                raise self._unreadable(error) from error
            get_logger("budget").warning("%s can't be read, and allows it: %s", self, error)
            self._unbooked.add(key)
            return most

    def refuse_if_hopeless(self, case: WorstCase) -> None:
        """Makes sure that a call could fit once all others have settled.

        Args:
            case: What it may cost at worst.

        Raises:
            BudgetExceededError: It could not, or the books can't be read.
        """
        try:
            standing = self.read()
        except BudgetExceededError:
            if not self._allow_store_error:
                raise
        else:
            self._share(case, case.most, standing)

    def read(self) -> Standing:
        """Reads the books.

        Raises:
            BudgetExceededError: They can't be read.
        """
        try:
            self.catch_up()
            return self._reach(lambda: self.ledger.standing(self.name, now=self.clock()))
        except StoreError as error:
            raise self._unreadable(error) from error

    def settle(self, key: str, spent: Amount) -> None:
        """Replaces a reservation by what the call cost, now or as soon as the store is back.

        Args:
            key: The reservation's name.
            spent: The cost.
        """
        if self._is_away():
            self._late.append((key, spent))
        else:
            try:
                self._settle(key, spent)
            except StoreError as error:
                get_logger("budget").warning("%s will be settled later: %s", self, error)
                self._late.append((key, spent))
        self.call_first()

    def settle_later(self, key: str, spent: Amount) -> None:
        """Does what `settle` does, with the next call; takes no lock and does no I/O."""
        self._late.append((key, spent))
        self.call_first()

    def catch_up(self) -> None:
        """Settles what could not be settled at once.

        Raises:
            StoreError: The store is away.
        """
        while self._late:
            try:
                late = self._late.popleft()
            except IndexError:  # another thread did it
                return
            try:
                self._settle(*late)
            except BaseException as error:  # Ctrl-C, too, must not lose it
                self._late.append(late)
                if isinstance(error, StoreBusy):
                    return
                raise

    def line_up(self, place: Place) -> None:
        """Puts a place at the end of the line."""
        self._line.append(place)

    def leave(self, place: Place) -> None:
        """Takes a place out of the line, and calls the first one of the rest."""
        self._strike(place)
        self.call_first()

    def first_in_line(self) -> Place | None:
        """Returns whose turn it is; None when nobody waits."""
        while True:
            try:
                place = self._line[0]
            except IndexError:
                return None
            if not place.gone:
                return place
            self._strike(place)

    def call_first(self) -> None:
        """Has the first one in line look at the books again; takes no lock."""
        place = self.first_in_line()
        if place is not None:
            place.flag.set()

    def _strike(self, place: Place) -> None:
        with contextlib.suppress(ValueError):  # it never stood there, or another thread did this
            self._line.remove(place)

    def _share(self, case: WorstCase, most: int, standing: Standing) -> int | None:
        """Returns the longest answer that there is room for now; None when it is worth to wait."""
        in_the_end = self.limit.less(standing.spent)
        attainable = min(most, case.affordable(in_the_end))
        if attainable < case.least:
            raise BudgetExceededError(self._refusal(case, in_the_end))
        now = min(most, case.affordable(in_the_end.less(standing.reserved)))
        return now if now >= max(case.least, min(ENOUGH, attainable)) else None

    def _refusal(self, case: WorstCase, left: Limit) -> str:
        needed = case.amount(case.least)
        answer = f"an answer of {case.least} tokens" if case.least > 1 else "the shortest answer"
        if case.answers > 1:
            answer = f"{case.answers} times {answer}"
        parts = []
        if self.limit.usd is not None and left.usd is not None:
            parts.append(
                f"{shown(needed.usd)} of {shown(left.usd)} left ({shown(self.limit.usd)} in all)"
            )
        if self.limit.tokens is not None:
            parts.append(
                f"{needed.tokens} tokens of {left.tokens} left ({self.limit.tokens} in all)"
            )
        counted = ""
        if case.by_bytes and case.input_tokens > case.least * case.answers:
            counted = " (one for each byte; input_margin= reserves less)"
        return (
            f"{self} has no room: up to {case.input_tokens} tokens of input{counted} and {answer} "
            "take " + " and ".join(parts)
        )

    def _settle(self, key: str, spent: Amount) -> None:
        reserved = key not in self._unbooked
        self._reach(
            lambda: self.ledger.settle(self.name, key, spent, reserved=reserved),
            settling=True,
        )
        self._unbooked.discard(key)

    def _unreadable(self, error: StoreError) -> BudgetExceededError:
        return BudgetExceededError(
            f"{self} can't be read, so nothing is spent from it: {error}"
            " (on_store_error='allow' would go on without it)"
        )

    def _reach(self, operation: Callable[[], T], *, settling: bool = False) -> T:
        """Does something with the ledger, waiting while another process has it.

        To settle is no matter of the call's time: it may be over, and the money is spent.
        """
        try:
            return self._reach_in_turn(operation, settling)
        except StoreBusy:
            raise
        except StoreError:
            self._away_until = time.monotonic() + AWAY
            raise

    def _reach_in_turn(self, operation: Callable[[], T], settling: bool) -> T:
        scope = None if settling else current_scope()
        for _ in range(int((SETTLE_PATIENCE if settling else BUSY_PATIENCE) / BUSY_PAUSE)):
            try:
                return operation()
            except StoreBusy:
                if scope is None:
                    Flag().wait(BUSY_PAUSE)
                else:
                    scope.wait(Flag(), f"waiting for the store of {self}", BUSY_PAUSE)
        return operation()

    def _is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def _renew(self) -> None:
        """In a forked child: nobody waits here, and the parent settles its own calls."""
        self._line = deque()
        self._late = deque()
        self._unbooked = set()
        self._is_copy = not self.ledger.shared
