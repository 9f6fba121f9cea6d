"""What a call holds of its budgets, from before it is sent until its cost is known."""

from __future__ import annotations

import itertools
import os
from collections.abc import Generator, Sequence
from dataclasses import replace
from decimal import Decimal
from types import TracebackType
from typing import Any

from llmkit.budget.account import Account, Place
from llmkit.budget.amounts import NOTHING, Amount, countable, shown
from llmkit.budget.worst_case import TOKENS_PER_SECOND, WorstCase
from llmkit.cost import cost_of
from llmkit.errors import ErrorCode, LLMError, LLMTimeoutError
from llmkit.log import get_logger
from llmkit.request import Request
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.streams import ChunkSource
from llmkit.threads import Once
from llmkit.types import Chunk, Completion

__all__ = ["Held"]

# Seconds that a reservation in a store outlasts its call's deadline, and that it lasts without one.
SLACK = 60.0
WITHOUT_DEADLINE = 3600.0

# Refusals: the vendor did no work, or never heard of the call.
_FREE_CODES = frozenset(
    {
        ErrorCode.CONFIGURATION_ERROR,
        ErrorCode.INVALID_REQUEST,
        ErrorCode.LLM_CONTEXT_LENGTH,
        ErrorCode.AUTHENTICATION_ERROR,
        ErrorCode.PERMISSION_DENIED,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.LLM_RATE_LIMIT,
        ErrorCode.LLM_QUOTA_EXCEEDED,
        ErrorCode.LLM_CIRCUIT_OPEN,
        ErrorCode.LLM_BUDGET_EXCEEDED,
    }
)

# With these, someone on the way gave up waiting for a model that may have worked.
_GAVE_UP = frozenset({408, 499, 504, 524})

# The HTTP client's errors for a request that never left, by name: importing it costs 60 ms.
_NEVER_LEFT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ConnectionRefusedError", "gaierror"}
)

# What the Scope says was going on when the time ended before the request was sent.
_BEFORE_SENDING = (
    " ended while connecting",
    " ended while shaking hands",
    " ended while looking up",
    " ended while waiting for",
)

_run = os.urandom(8).hex()
_numbers = itertools.count(1)


class Held:
    """What one try of a call holds of its budgets; made by `hold`.

    It ends once: with the reply (`settle`) or an error (`fail`), whichever comes first. One that is
    dropped unended (a stream that nobody read) is charged as if it had been cancelled.

    Args:
        request: What the call asks.
        case: What it may cost.
        accounts: Whose money it is, innermost first.
        streamed: Whether the answer arrives in pieces.

    Attributes:
        request: What is to be sent; its `max_tokens` may have been set.
        warnings: What its user should know.
    """

    def __init__(
        self, request: Request, case: WorstCase, accounts: Sequence[Account], streamed: bool
    ) -> None:
        self._touched: list[Account] = []  # first: `__del__` needs it
        self.request = request
        self.warnings: tuple[str, ...] = ()
        self._case = case
        self._accounts = tuple(accounts)
        self._streamed = streamed
        self._pid = os.getpid()
        self._key = f"{_run}-{self._pid}-{next(_numbers)}"
        self._ended = Once()
        self._most = case.most
        self._began: float | None = None
        self._first_text: float | None = None
        self._arrived = 0

    def __del__(self) -> None:
        # In the middle of anything: no lock, no I/O. A forked child's copy is not its to settle.
        if self._touched and self._pid == os.getpid():
            self._settle_later(NOTHING if self._began is None else self._estimate())

    def acquire(self) -> None:
        """Reserves in every account, waiting inside the current Scope while others must settle.

        Raises:
            BudgetExceededError: There is no room, and will be none; nothing is held.
            CallInterrupted: The Scope ended first; nothing is held.
        """
        try:
            self._wait_for_room()
        except BaseException:  # whatever ends the wait, nothing stays reserved
            self._charge(NOTHING)
            raise
        self._began = self._now()
        if self._case.open_ended and any(each.bounds(self._case) for each in self._accounts):
            self.request = replace(self.request, max_tokens=self._most)
            # The model's own maximum is no news.
            if self._most < self._case.most or self._case.info.max_output_tokens is None:
                self.warnings += (
                    "no max_tokens was given: the budget allows for an answer of "
                    f"{self._most} tokens",
                )

    def note(self, text: str) -> None:
        """Notes a piece of a streamed answer that has arrived.

        Args:
            text: The piece: what it took is estimated by all of them, should the stream break.
        """
        if self._first_text is None:
            self._first_text = self._now()
        self._arrived += len(text.encode("utf-8", "surrogatepass"))

    def counting(self, source: ChunkSource) -> ChunkSource:
        """Returns the same chunks, each of them noted here.

        Args:
            source: The answer's chunks.
        """
        return _Counted(source, self)

    def settle(self, reply: Completion) -> None:
        """Charges what the reply says that it cost, and adds the warnings to it.

        Args:
            reply: The answer. Where it has no cost, its tokens are priced; where it has no tokens,
                they are estimated.
        """
        if self._ended.happened:
            return
        if not self._streamed:
            self.note(reply.text)
        spent = self._cost(reply)
        if self._end_with(spent):
            reply.warnings = (*self.warnings, *reply.warnings)
            self._tell_of_surprise(spent)

    def fail(self, error: BaseException) -> None:
        """Charges nothing when the vendor did no work, and an estimate when it may have.

        Args:
            error: What the try ended with: an `LLMError`, or anything else.
        """
        if not self._ended.happened:
            self._end_with(NOTHING if self._was_free(error) else self._estimate())

    def end(self, outcome: Completion | LLMError) -> None:
        """Does what `settle` or `fail` does: a stream's end.

        Args:
            outcome: The whole answer, or what went wrong.
        """
        if isinstance(outcome, Completion):
            self.settle(outcome)
        else:
            self.fail(outcome)

    def __enter__(self) -> Held:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.fail(error)

    def _wait_for_room(self) -> None:
        scope = current_scope() or Scope()
        place: Place | None = None
        try:
            while True:
                if place is not None:
                    place.renew()
                blocker = self._try_all(queued=place is not None)
                if blocker is None:
                    return
                if place is None or place.account is not blocker:
                    if place is not None:
                        place.leave()
                    place = Place(blocker)
                    place.line_up()
                    if place.is_first:  # look again, now that others would call
                        continue
                place.wait(scope)
        finally:
            if place is not None:
                place.gone = True
                place.leave()

    def _try_all(self, queued: bool) -> Account | None:
        """Reserves in every account or in none; returns whose room is missing."""
        most = self._case.most
        lease = self._lease()
        while True:
            first: int | None = None
            for account in self._accounts:
                if not queued and account.first_in_line() is not None:
                    account.refuse_if_hopeless(self._case)
                    self._charge(NOTHING)
                    return account
                self._touched.append(account)
                try:
                    granted = account.try_to_hold(self._key, self._case, most, lease)
                except (LLMError, CallInterrupted):  # with these it has nothing to release
                    self._touched.pop()
                    raise
                if granted is None:
                    self._touched.pop()
                    self._charge(NOTHING)
                    return account
                first, most = (granted if first is None else first), granted
            if first == most:
                self._most = most
                return None
            self._charge(NOTHING)  # those asked first hold more than the last one allows

    def _end_with(self, spent: Amount) -> bool:
        """Charges what the call cost, if nobody has; a forked child's copy is not its to settle."""
        if self._pid != os.getpid() or not self._ended.is_first():
            return False
        self._charge(spent)
        return True

    def _charge(self, spent: Amount) -> None:
        """Settles in every account that holds something; once more does no harm."""
        try:
            while self._touched:
                self._touched[-1].settle(self._key, spent)
                self._touched.pop()
        finally:
            self._settle_later(spent)  # what Ctrl-C has left over

    def _settle_later(self, spent: Amount) -> None:
        while self._touched:
            self._touched[-1].settle_later(self._key, spent)
            self._touched.pop()

    def _now(self) -> float:
        return self._accounts[0].clock()

    def _lease(self) -> float:
        scope = current_scope()
        left = None if scope is None or self._streamed else scope.remaining()
        return SLACK + (WITHOUT_DEADLINE if left is None else left)

    def _cost(self, reply: Completion) -> Amount:
        """Returns what a reply cost, as far as it says so, and says what can be."""
        usd, usage = reply.cost, reply.usage
        if not (isinstance(usd, Decimal) and usd.is_finite() and usd >= 0):
            usd = cost_of(usage, self._case.info)
        read, written = usage.input_tokens, usage.output_tokens
        if read is None or written is None or read < 0 or written < 0:
            estimate = self._estimate(complete=True)
            return countable(estimate.usd if usd is None else usd, estimate.tokens)
        if usd is None:
            usd = self._case.at_these_prices(read, written)
        return countable(usd, read + written)

    def _tell_of_surprise(self, spent: Amount) -> None:
        """Logs it when a call cost more than was reserved, in what a budget limits."""
        worst = self._case.amount(self._most)
        limits = [account.limit for account in self._accounts]
        dearer = self._case.prices is not None and spent.usd > worst.usd
        if (dearer and any(limit.usd is not None for limit in limits)) or (
            spent.tokens > worst.tokens and any(limit.tokens is not None for limit in limits)
        ):
            get_logger("budget").warning(
                "%s cost more than its worst case: %s and %d tokens instead of %s and %d",
                *(self._case.info.name, shown(spent.usd), spent.tokens),
                *(shown(worst.usd), worst.tokens),
            )

    def _estimate(self, *, complete: bool = False) -> Amount:
        """Returns what a call may have cost whose usage nobody said.

        All input, the text that has arrived at one token per byte, and for the time in which the
        model may have written or thought unseen, as much as a fast model writes.

        Args:
            complete: Whether the whole text has arrived.
        """
        case = self._case
        unseen = 0
        text_is_seen = self._streamed or complete
        if self._began is not None and (not text_is_seen or "reasoning" in case.info.capabilities):
            until = self._now() if self._first_text is None else self._first_text
            unseen = int(max(0.0, until - self._began) * TOKENS_PER_SECOND)
        return case.amount(min(self._most, unseen + self._arrived))

    def _was_free(self, error: BaseException) -> bool:
        """Says whether an error means that the vendor did no work."""
        if self._began is None:
            return True
        if self._arrived:
            return False
        if any(type(cause).__name__ in _NEVER_LEFT for cause in _causes(error)):
            return True
        if isinstance(error, LLMTimeoutError | CallInterrupted):
            return any(phase in error.message for phase in _BEFORE_SENDING)
        if not isinstance(error, LLMError):
            return False
        if error.status is not None and error.status >= 400:
            return error.status not in _GAVE_UP
        return error.code in _FREE_CODES


class _Counted(Generator[Chunk, None, Completion]):
    """A source of chunks that tells its `Held` of each."""

    def __init__(self, source: ChunkSource, held: Held) -> None:
        self._source = source
        self._held = held

    def __next__(self) -> Chunk:
        chunk = next(self._source)
        self._held.note(chunk.text)
        return chunk

    def send(self, value: None) -> Chunk:
        return next(self)

    def throw(self, *error: Any) -> Chunk:
        return self._source.throw(*error)

    def close(self) -> None:
        self._source.close()


def _causes(error: BaseException) -> list[BaseException]:
    """Returns an error and its causes: not its contexts, where an earlier try's error may stand."""
    found: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and all(each is not other for other in found):
        found.append(each)
        each = each.__cause__
    return found
