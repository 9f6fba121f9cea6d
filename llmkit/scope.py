"""Scope: one deadline and one cancel switch for everything that a call does.

A call enters its Scope, which a contextvar makes visible to every layer below. Each operation
that can block (a socket's connect, handshake, read or write, a wait for a slot, a pause between
tries) asks the Scope how much time is left and, for as long as it blocks, leaves a way to be woken.
`cancel()` from any thread, or a signal handler, wakes whatever is blocked.

An operation that ends because of its Scope raises `CallInterrupted`. It derives from BaseException
so that no SDK in between can wrap it or try again; the edge of llmkit turns it into an `LLMError`.
"""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType

from llmkit.errors import ErrorCode, InvalidRequestError, LLMError
from llmkit.interrupted import CallInterrupted
from llmkit.process_local import ProcessLocal
from llmkit.threads import Flag

__all__ = ["CallInterrupted", "Scope", "cancel_all", "current_scope", "deadline", "interruption"]

_current: ContextVar[_Entry | None] = ContextVar("llmkit_scope", default=None)


class Scope:
    """The time and the cancel switch of one call.

    A Scope inside another never has more time than the outer one, and is cancelled with it. It may
    be entered several times in turn (a stream does so for each chunk), also by several threads;
    while it is entered, it is cancelled with whatever Scope it was entered in, too.

    Args:
        timeout: Seconds from now; None sets no limit of its own.
        parent: The Scope around this one; left out, the one that is current.
        clock: Seconds that never run backwards.
        holds: Whether open replies are noted here, so that `close_held` can close them: a stream's
            Scope does this, whose reply outlives each single operation.
    """

    __slots__ = (
        "_cancelled",
        "_children",
        "_clock",
        "_held",
        "_lock",
        "_wakers",
        "deadline",
        "parent",
        "timeout",
    )

    def __init__(
        self,
        timeout: float | None = None,
        *,
        parent: Scope | None = None,
        clock: Callable[[], float] = time.monotonic,
        holds: bool = False,
    ) -> None:
        if parent is None:
            parent = current_scope()
        self.parent = parent
        self.timeout = timeout
        self.deadline = None if timeout is None else clock() + timeout
        if (
            parent is not None
            and parent.deadline is not None
            and (self.deadline is None or parent.deadline < self.deadline)
        ):
            self.deadline, self.timeout = parent.deadline, parent.timeout
        self._clock = clock
        # Reentrant: a signal handler may cancel while its own thread holds the lock.
        self._lock = threading.RLock()
        self._cancelled: CallInterrupted | None = None
        self._wakers: list[Callable[[], object]] = []
        self._children: list[Scope] = []
        self._held: list[Callable[[], object]] | None = [] if holds else None

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called, here or on a Scope around this one."""
        return self._cancelled is not None

    def remaining(self) -> float | None:
        """Returns the seconds left (0.0 when none are), or None without a deadline."""
        if self.deadline is None:
            return None
        left = self.deadline - self._clock()
        return left if left > 0.0 else 0.0

    def check(self, doing: str) -> float | None:
        """Says whether there is reason to go on.

        Args:
            doing: What is about to be done, or was interrupted, for the error's message.

        Returns:
            The seconds left, or None without a deadline.

        Raises:
            CallInterrupted: The Scope was cancelled, or its time is over.
        """
        if self._cancelled is not None:
            raise CallInterrupted(self._cancelled.code, self._cancelled.message)
        left = self.remaining()
        if left == 0.0:
            raise self._time_is_over(doing)
        return left

    def cancel(
        self,
        message: str = "the call was cancelled",
        code: ErrorCode = ErrorCode.LLM_CANCELLED,
    ) -> None:
        """Ends everything that runs in this Scope, and refuses anything further.

        May be called from any thread and from a signal handler, any number of times.

        Args:
            message: What the error of the cancelled call will say.
            code: The code of that error.
        """
        with self._lock:
            if self._cancelled is None:
                self._cancelled = CallInterrupted(code, message)
            for wake in tuple(self._wakers):
                wake()
            children = tuple(self._children)
        for child in children:
            if not child.cancelled:
                child.cancel(message, code)

    def block(self, wake: Callable[[], object]) -> None:
        """Announces a blocking operation; `unblock` must follow when it is over.

        Args:
            wake: Ends the operation early. It is called under the Scope's lock, from the thread
                that cancels, at most once for each cancel, and never after `unblock`.

        Raises:
            CallInterrupted: The Scope is cancelled already.
        """
        with self._lock:
            if self._cancelled is not None:
                raise CallInterrupted(self._cancelled.code, self._cancelled.message)
            self._wakers.append(wake)

    def unblock(self, wake: Callable[[], object]) -> None:
        """Ends what `block` announced, given the same `wake`."""
        with self._lock:
            self._wakers.remove(wake)

    def wait(self, flag: Flag, doing: str, timeout: float | None = None) -> bool:
        """Waits for a flag, no longer than the Scope lasts.

        Args:
            flag: The flag; a cancel raises it, too.
            doing: What is being waited for, for the error's message.
            timeout: Seconds to wait at most; None as long as the Scope lasts.

        Returns:
            Whether the flag was raised in time.

        Raises:
            CallInterrupted: The Scope was cancelled, or its time ended first.
        """
        left = self.check(doing)
        limits = [limit for limit in (left, timeout) if limit is not None]
        self.block(flag.set)
        try:
            happened = flag.wait(min(limits, default=None))
        finally:
            self.unblock(flag.set)
        if self.cancelled:
            self.check(doing)
        if not happened and left is not None and (timeout is None or left <= timeout):
            raise self._time_is_over(doing)
        return happened

    def sleep(self, seconds: float) -> None:
        """Pauses.

        Args:
            seconds: How long.

        Raises:
            CallInterrupted: The Scope was cancelled, or its time ended first.
        """
        self.wait(Flag(), "waiting before another try", seconds)

    def bounded_by(self, other: Scope) -> Scope:
        """Returns a Scope inside this one that also ends when the time of another does.

        Args:
            other: The other one; only its deadline counts.
        """
        inner = Scope(parent=self, clock=self._clock)
        if other.deadline is not None and (
            inner.deadline is None or other.deadline < inner.deadline
        ):
            inner.deadline, inner.timeout = other.deadline, other.timeout
        return inner

    def entered(self) -> _Entered:
        """Returns a context manager in which this Scope is the current one."""
        return _Entered(self)

    def hold(self, close: Callable[[], object]) -> None:
        """Notes in the nearest Scope that holds replies how to close one; see `close_held`."""
        scope: Scope | None = self
        while scope is not None and scope._held is None:
            scope = scope.parent
        if scope is not None and scope._held is not None:
            scope._held.append(close)

    def close_held(self) -> None:
        """Closes the replies that were noted here; each of them can be closed twice."""
        while self._held:
            self._held.pop()()

    def _time_is_over(self, doing: str) -> CallInterrupted:
        timeout = round(self.timeout or 0.0, 3)
        message = f"the time-out of {timeout:g} s ended while {doing}"
        return CallInterrupted(ErrorCode.LLM_TIMEOUT, message)

    def _adopt(self, child: Scope) -> None:
        with self._lock:
            self._children.append(child)
            cancelled = self._cancelled
        if cancelled is not None:
            child.cancel(cancelled.message, cancelled.code)

    def _release(self, child: Scope) -> None:
        with self._lock, contextlib.suppress(ValueError):  # Ctrl-C came before it was adopted
            self._children.remove(child)


class _Entry:
    """One entry into a Scope, by one thread, as the context remembers it.

    Entries know which one they are inside of, and whether they have ended: two generators that
    each hold one open may be left in any order, also in another context than they were entered
    in, and none of them may come back to life.
    """

    __slots__ = ("around", "ended", "outer", "scope")

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.ended = False
        self.outer = _entry()
        current = None if self.outer is None else self.outer.scope
        around = [] if scope.parent is None else [scope.parent]
        if current is not None and current is not scope.parent and current is not scope:
            around.append(current)
        self.around = around

    def begin(self) -> None:
        for outer in self.around:
            outer._adopt(self.scope)
        if not self.around:
            _outermost.get()[id(self)] = self.scope
        _current.set(self)

    def end(self) -> None:
        self.ended = True
        if _current.get() is self:
            _current.set(self.outer)
        for outer in self.around:
            outer._release(self.scope)
        if not self.around:
            _outermost.get().pop(id(self), None)


class _Entered:
    """The `with` statement's side of an entry.

    Only the statement holds it, so that the entry ends also where Ctrl-C comes in between:
    Python may raise KeyboardInterrupt at the very beginning of `__exit__`, and a Scope that went
    on being the current one would end every later call of the thread.
    """

    __slots__ = ("_entry", "_scope")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._entry: _Entry | None = None

    def __enter__(self) -> Scope:
        self._entry = _Entry(self._scope)
        self._entry.begin()
        return self._scope

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._entry is not None:
            self._entry.end()
            self._entry = None

    def __del__(self) -> None:
        entry = getattr(self, "_entry", None)  # Ctrl-C may have come before it was made
        if entry is not None:
            entry.end()


# The Scopes that are entered now and have none around them, by the entry's identity.
_outermost: ProcessLocal[dict[int, Scope]] = ProcessLocal(dict)


def _entry() -> _Entry | None:
    entry = _current.get()
    while entry is not None and entry.ended:
        entry = entry.outer
    return entry


def current_scope() -> Scope | None:
    """Returns the Scope that the running code is in, or None."""
    entry = _current.get()
    if entry is None:
        return None
    if entry.ended:
        entry = _entry()
    return None if entry is None else entry.scope


def cancel_all(message: str) -> None:
    """Cancels everything that runs in any Scope of this process.

    Args:
        message: What the errors of the cancelled calls will say.
    """
    for scope in list(_outermost.get().values()):
        scope.cancel(message)


def interruption(
    code: ErrorCode, message: str, *, retryable: bool | None = None
) -> CallInterrupted | LLMError:
    """Returns what the network layer has to raise when it gives a call up by itself.

    Args:
        code: What the caller will be told.
        message: Why.
        retryable: Whether a second try may help; None takes what the code says.

    Returns:
        A `CallInterrupted` inside a Scope; outside of any, where nobody would turn it into the
        caller's error, that error itself.
    """
    interrupted = CallInterrupted(code, message, retryable)
    return interrupted.to_error() if current_scope() is None else interrupted


@contextmanager
def deadline(seconds: float) -> Iterator[Scope]:
    """Bounds all calls in a block together.

    Don't `yield` inside the block: until the generator goes on, its deadline would hold for
    whatever its caller does meanwhile. To bound a stream, give `timeout=` to `stream`.

    Args:
        seconds: Wall-clock seconds from now for everything in the block, whatever time-outs its
            calls have of their own.

    Yields:
        The Scope; its `cancel()` ends the calls of the block from another thread.

    Raises:
        InvalidRequestError: `seconds` is not a positive, finite number.
        LLMError: A connection pool was used directly in the block, and the time ended or the
            Scope was cancelled meanwhile.
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if is_number and seconds > sys.float_info.max:  # an int, of so many digits that none are shown
        seconds = math.inf
    if not is_number or not 0 < seconds < math.inf:  # nor NaN
        raise InvalidRequestError(f"deadline({seconds!r}): seconds must be a positive number")
    with Scope(seconds).entered() as scope:
        try:
            yield scope
        except CallInterrupted as interrupted:
            raise interrupted.to_error() from None
