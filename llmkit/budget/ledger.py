"""Ledger: who keeps the books of budgets, and the one that keeps them in this process's memory."""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from llmkit.budget.amounts import NOTHING, Amount, Limit

__all__ = ["Ledger", "MemoryLedger", "Standing", "StoreBusy", "StoreError", "renew_in_child"]


class StoreError(Exception):
    """The store can't be reached or can't be used; the message says why, without any key."""


class StoreBusy(StoreError):
    """Another process has the store for a moment: worth another try in some milliseconds."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the books say of one budget.

    Attributes:
        spent: What settled calls cost, and what was charged for those that never settled.
        reserved: What calls that are under way may cost at worst.
        in_flight: How many calls are under way.
        granted: The answer to `reserve`: whether the amount is reserved now.
    """

    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    in_flight: int = 0
    granted: bool = False


class Ledger(ABC):
    """Keeps the books of any number of budgets, each under its name.

    Every method is atomic, for all threads and (in a store) all processes that use the same books.
    Money is kept exactly in memory; a store keeps nano-USD and rounds each amount up to the next.

    Attributes:
        shared: Whether other processes may keep books in the same place.
    """

    shared: ClassVar[bool] = True

    @abstractmethod
    def reserve(
        self, name: str, key: str, amount: Amount, limit: Limit, *, now: float, expires: float
    ) -> Standing:
        """Reserves an amount, if the limit holds it besides all that is spent and reserved.

        Args:
            name: The budget.
            key: A name for the reservation that nobody else uses.
            amount: How much.
            limit: What the budget may come to.
            now: Seconds since the epoch.
            expires: When a reservation that nobody settled counts as spent in full: the process
                that made it is taken for dead. In memory this has no meaning.

        Returns:
            The books: before the reservation, except for `granted`.

        Raises:
            StoreError: The store can't be used; whether it has reserved is then unknown.
        """

    @abstractmethod
    def settle(self, name: str, key: str, spent: Amount, *, reserved: bool = True) -> None:
        """Replaces a reservation by what the call did cost.

        A reservation that has expired meanwhile was charged in full: that charge is replaced.

        Args:
            name: The budget.
            key: The reservation's name.
            spent: The cost.
            reserved: Whether nothing is to be charged when there is no such reservation: it was
                settled before. False for a call that was made without one.

        Raises:
            StoreError: The store can't be used; whether it has settled is then unknown.
        """

    @abstractmethod
    def standing(self, name: str, *, now: float) -> Standing:
        """Reads the books.

        Args:
            name: The budget.
            now: Seconds since the epoch.

        Returns:
            What they say; nothing spent, for a name that is new.

        Raises:
            StoreError: The store can't be used.
        """

    def close(self) -> None:  # noqa: B027 - not abstract: there may be nothing to close
        """Closes connections; they are opened again when needed."""


@dataclass(frozen=True, slots=True)
class _Book:
    """One budget's books; replaced as a whole, so that Ctrl-C can't leave half an entry."""

    spent: Amount = NOTHING
    reserved: Amount = NOTHING
    held: Mapping[str, Amount] = field(default_factory=dict)


_BLANK = _Book()


class MemoryLedger(Ledger):
    """Keeps the books in this process.

    A forked child has a copy, in which the parent's calls under way count as spent: it can't see
    them settle. Processes that are to share a budget need a store.
    """

    shared = False

    def __init__(self) -> None:
        # Reentrant: a signal handler may make a call.
        self._lock = threading.RLock()
        self._books: dict[str, _Book] = {}
        renew_in_child(self)

    def reserve(
        self, name: str, key: str, amount: Amount, limit: Limit, *, now: float, expires: float
    ) -> Standing:
        """Reserves; see `Ledger.reserve`."""
        with self._lock:
            while True:
                book = self._books.setdefault(name, _BLANK)
                reserved = book.reserved + amount
                granted = limit.holds(book.spent + reserved)
                standing = Standing(book.spent, book.reserved, len(book.held), granted)
                changed = _Book(book.spent, reserved, {**book.held, key: amount})
                if not granted:
                    return standing
                if self._books[name] is book:  # else a signal handler's call has changed it
                    self._books[name] = changed
                    return standing

    def settle(self, name: str, key: str, spent: Amount, *, reserved: bool = True) -> None:
        """Settles; see `Ledger.settle`."""
        with self._lock:
            while True:
                book = self._books.setdefault(name, _BLANK)
                held = book.held.get(key)
                if held is None and reserved:
                    return
                others = {each: book.held[each] for each in book.held if each != key}
                left = book.reserved - (held or NOTHING) if others else NOTHING
                changed = _Book(book.spent + spent, left, others)
                if self._books[name] is book:  # as in `reserve`
                    self._books[name] = changed
                    return

    def standing(self, name: str, *, now: float) -> Standing:
        """Reads; see `Ledger.standing`."""
        with self._lock:
            book = self._books.get(name, _BLANK)
            return Standing(book.spent, book.reserved, len(book.held))

    def _renew(self) -> None:
        self._lock = threading.RLock()
        for name, book in self._books.items():
            self._books[name] = _Book(book.spent + book.reserved)


_renewed: weakref.WeakSet[Any] = weakref.WeakSet()


def renew_in_child(instance: Any) -> None:
    """Has an object's `_renew` called in each forked child, before anything else runs there."""
    _renewed.add(instance)


def _renew_all() -> None:
    for instance in list(_renewed):
        instance._renew()


# Windows cannot fork and has no such hook. A hook cannot be taken back, hence one for all.
if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_renew_all)
