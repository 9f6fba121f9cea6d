"""Budget: how much money, or how many tokens, calls may take together."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from llmkit.budget.account import Account
from llmkit.budget.amounts import Limit, shown
from llmkit.budget.blocks import enter, leave, put_on, take_off
from llmkit.budget.ledger import Ledger, MemoryLedger
from llmkit.errors import InvalidRequestError
from llmkit.log import brief

__all__ = ["Budget", "OnStoreError", "OnUnknownPrice", "open_ledger"]

P = ParamSpec("P")
T = TypeVar("T")

OnUnknownPrice = Literal["error", "warn", "ignore"]
OnStoreError = Literal["error", "allow"]


class Budget:
    """How much money, or how many tokens, calls may take together.

        with Budget(usd="0.50") as budget:
            replies = [client.complete(prompt) for prompt in prompts]
        print(budget.spent_usd, budget.remaining_usd)

    Before each try of a call its worst case is reserved: the input and `max_tokens`. Afterwards
    what it did cost takes the reservation's place. A call without `max_tokens` is given what is
    affordable as its `max_tokens`, and a warning says so where that is less than the model's own
    maximum; one such call may hold all that is left until it is over, so give `max_tokens` where
    calls are to run side by side. A call that
    doesn't fit waits, inside its deadline and in the order of arrival, until others have settled;
    if it would not fit even then, a `BudgetExceededError` says so and nothing is spent.

    A try that failed before the vendor could work costs nothing. One that was cancelled, timed out
    or broke off is charged by estimate: its input, and what has arrived or may have been written.

    A stream that is open holds its part until it ends: a call made while it is read may wait for it
    in vain. In a store, a call whose process was killed counts as spent at its worst case as soon
    as its reservation has expired: a minute after its deadline, or an hour for a stream.

    Inside the block the budget holds for all calls, of whatever Client, that the block's thread
    makes, and those that llmkit makes for it in other threads. **A thread that you start yourself
    does not know of it**, nor does one of a `ThreadPoolExecutor`, unless it is given
    `budget.wrap(function)`, has a `with budget:` of its own, or uses a `Client(budget=budget)`,
    which needs no block. Blocks inside each other all count. A block may be entered again, also in
    several threads, and goes on with what is left.

    A forked process has a copy of a budget in memory and spends it once more; processes share a
    budget in a store, which can also be handed to another process (it can be pickled).

    Args:
        usd: USD at most, as a `Decimal`, a text, or a number (0.1 means exactly ten cents); None
            sets no limit.
        tokens: Tokens at most, input and output together; None sets no limit.
        name: Whose budget it is, in the store and in messages: a tenant, a user, a month. In a
            store, all budgets of one name are the same, and a new name begins anew; without a
            store, each budget is one of its own. None: it has no name, and is kept in memory.
        store: Where it is kept so that it outlives the process and holds for all processes that
            name it: `sqlite:///relative.db`, `sqlite:////absolute.db`, `redis://…`, `rediss://…`,
            `unix://…`, or a `Ledger`. None keeps it in memory.
        on_unknown_price: What happens with a model whose price the registry does not know, when
            there is a limit in USD: "error" refuses the call, "warn" makes it without counting
            money and says so in the reply's warnings, "ignore" does so silently.
        on_store_error: What happens when the store can't be reached: "error" refuses the call,
            "allow" makes it without any limit, and charges it when the store is back (if this
            process still lives). One that hangs costs half a second, also beyond a deadline.
        input_margin: How many times its estimated tokens the input may have, such as 1.5, where the
            exact count isn't known. None reserves a token for each byte, which is never too little,
            but four times what English needs, and may look like a long prompt with a dearer price.
        clock: Seconds since the epoch.

    Attributes:
        account: The books, as the pipeline uses them.

    Raises:
        InvalidRequestError: An argument can't be meant, or there is no limit.
        ConfigurationError: The store needs an extra that isn't installed.
    """

    def __init__(
        self,
        usd: Decimal | float | str | None = None,
        tokens: int | None = None,
        *,
        name: str | None = None,
        store: str | Ledger | None = None,
        on_unknown_price: OnUnknownPrice = "error",
        on_store_error: OnStoreError = "error",
        input_margin: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        limit = Limit(_read_usd(usd), _read_tokens(tokens))
        if limit == Limit():
            raise InvalidRequestError("a budget needs a limit: usd=… or tokens=…")
        if name is not None and (not isinstance(name, str) or not name):
            raise InvalidRequestError(f"name={brief(name)}: expected a text")
        if store is not None and name is None:
            raise InvalidRequestError("a budget in a store needs a name: name=…")
        _check_choice("on_unknown_price", on_unknown_price, OnUnknownPrice)
        _check_choice("on_store_error", on_store_error, OnStoreError)
        self.name = name
        self.on_unknown_price = on_unknown_price
        self.input_margin = _read_margin(input_margin)
        self._store = store
        self._on_store_error = on_store_error
        self.account = Account(
            name or "",
            f"the budget {name!r}" if name else "the budget",
            limit,
            MemoryLedger() if store is None else open_ledger(store),
            polls=store is not None,
            allow_store_error=on_store_error == "allow",
            clock=clock,
        )

    def __repr__(self) -> str:
        limit = self.account.limit
        name = "" if self.name is None else f"{self.name!r} "
        if self.account.ledger.shared:  # no look into a store for a repr
            kind = type(self.account.ledger).__name__
            return f"<Budget {name}of {_written(limit)} in a {kind}>"
        books = self.account.read()
        spent = Limit(
            None if limit.usd is None else books.spent.usd,
            None if limit.tokens is None else books.spent.tokens,
        )
        return f"<Budget {name}{_written(spent)} of {_written(limit)} spent>"

    def __enter__(self) -> Budget:
        enter(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        leave(self)

    def __reduce__(self) -> tuple[Callable[[], Budget], tuple[()]]:
        if not isinstance(self._store, str):
            raise InvalidRequestError(
                f"{self.account} is kept in this process and can't be handed to another one: give "
                "it name= and store='sqlite:///…' or 'redis://…'"
            )
        limit = self.account.limit
        again = functools.partial(
            Budget,
            limit.usd,
            limit.tokens,
            name=self.name,
            store=self._store,
            on_unknown_price=self.on_unknown_price,
            on_store_error=self._on_store_error,
            input_margin=self.input_margin,
            clock=self.account.clock,
        )
        return again, ()

    def wrap(self, function: Callable[P, T]) -> Callable[P, T]:
        """Makes a function that runs inside this budget, in whatever thread it is called.

        Args:
            function: Such as the one that is given to `ThreadPoolExecutor.map`.

        Returns:
            The function to give instead.
        """

        @functools.wraps(function)
        def inside(*args: P.args, **kwargs: P.kwargs) -> T:
            put_on(self)
            try:
                return function(*args, **kwargs)
            finally:
                take_off(self)

        return inside

    @property
    def spent_usd(self) -> Decimal:
        """USD that settled calls have cost, those charged by estimate among them.

        Like all figures of the budget: counts every process that uses the name in the same store,
        and raises a `BudgetExceededError` when the store can't be read.
        """
        return self.account.read().spent.usd

    @property
    def spent_tokens(self) -> int:
        """Tokens that settled calls have taken, input and output together."""
        return self.account.read().spent.tokens

    @property
    def reserved_usd(self) -> Decimal:
        """USD that calls which are under way may cost at worst."""
        return self.account.read().reserved.usd

    @property
    def reserved_tokens(self) -> int:
        """Tokens that calls which are under way may take at worst."""
        return self.account.read().reserved.tokens

    @property
    def remaining_usd(self) -> Decimal | None:
        """USD that are neither spent nor reserved; None without a limit in USD."""
        return self._left().usd

    @property
    def remaining_tokens(self) -> int | None:
        """Tokens that are neither spent nor reserved; None without a limit in tokens."""
        return self._left().tokens

    def report(self) -> dict[str, Any]:
        """Returns all figures of one moment.

        Returns:
            `name`, `limit_usd`, `spent_usd`, `reserved_usd`, `remaining_usd` (`Decimal`; None for
            a limit there isn't), the same four for `_tokens`, and `in_flight`: calls under way.

        Raises:
            BudgetExceededError: The store can't be read.
        """
        limit, books = self.account.limit, self.account.read()
        left = limit.less(books.spent + books.reserved)
        return {
            "name": self.name,
            "limit_usd": limit.usd,
            "spent_usd": books.spent.usd,
            "reserved_usd": books.reserved.usd,
            "remaining_usd": left.usd,
            "limit_tokens": limit.tokens,
            "spent_tokens": books.spent.tokens,
            "reserved_tokens": books.reserved.tokens,
            "remaining_tokens": left.tokens,
            "in_flight": books.in_flight,
        }

    def _left(self) -> Limit:
        books = self.account.read()
        return self.account.limit.less(books.spent + books.reserved)


_ledgers: dict[str, Ledger] = {}


def open_ledger(store: str | Ledger) -> Ledger:
    """Returns the books at an address; the same object for the same address.

    Args:
        store: The address, see `Budget`, or a `Ledger`, which is returned as it is.

    Returns:
        The ledger.

    Raises:
        InvalidRequestError: It is neither.
        ConfigurationError: It needs an extra that isn't installed.
    """
    if isinstance(store, Ledger):
        return store
    scheme, found, rest = store.partition("://") if isinstance(store, str) else ("", "", "")
    path = rest.removeprefix("/")
    if not found or scheme not in ("sqlite", "redis", "rediss", "unix") or not path:
        raise InvalidRequestError(
            "store: expected sqlite:///file.db, sqlite:////folder/file.db, redis://host/0, "
            "rediss://host/0, unix:///socket, or a Ledger"
        )
    if scheme == "sqlite":
        from llmkit.budget.sqlite_ledger import SQLiteLedger

        ledger = SQLiteLedger(path)
        return _ledger(str(ledger.path), lambda: ledger)
    from llmkit.budget.redis_ledger import RedisLedger, check_installed

    check_installed()
    return _ledger(store, lambda: RedisLedger(store))


def _ledger(address: str, build: Callable[[], Ledger]) -> Ledger:
    # No lock, which a fork could leave locked: a ledger that is made in vain has opened nothing.
    return _ledgers.get(address) or _ledgers.setdefault(address, build())


def _read_usd(usd: object) -> Decimal | None:
    if usd is None:
        return None
    if not isinstance(usd, bool) and isinstance(usd, Decimal | int | float | str):
        try:
            amount = Decimal(str(usd))
        except (InvalidOperation, ValueError):  # the latter for a very large int
            amount = Decimal("NaN")
        if amount.is_finite() and 0 <= amount <= 1_000_000_000:
            return amount
    raise InvalidRequestError(f"usd={brief(usd)}: expected an amount of USD, 0 or more")


def _read_tokens(tokens: object) -> int | None:
    if tokens is None or (
        isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens <= 2**53
    ):
        return tokens
    raise InvalidRequestError(f"tokens={brief(tokens)}: expected a number of tokens, 0 or more")


def _read_margin(margin: object) -> float | None:
    if margin is None or (
        isinstance(margin, int | float) and not isinstance(margin, bool) and 1 <= margin < 100
    ):
        return margin
    raise InvalidRequestError(f"input_margin={brief(margin)}: expected a number, 1 or more")


def _check_choice(name: str, value: object, choices: Any) -> None:
    if value not in choices.__args__:
        raise InvalidRequestError(
            f"{name}={brief(value)}: expected one of {', '.join(choices.__args__)}"
        )


def _written(limit: Limit) -> str:
    parts = [] if limit.usd is None else [shown(limit.usd)]
    if limit.tokens is not None:
        parts.append(f"{limit.tokens:,} tokens")
    return " and ".join(parts)
