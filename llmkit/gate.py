"""A gate: so many may be inside at a time, first come first served."""

from __future__ import annotations

import itertools

from llmkit.scope import current_scope
from llmkit.threads import Flag

__all__ = ["Gate", "Place"]


class _Turn(Flag):
    """What one that waits in a gate's line is woken by."""

    __slots__ = ("woken",)

    def __init__(self) -> None:
        super().__init__()
        self.woken = False  # only once the flag is raised for certain: Ctrl-C may come in between


class Gate:
    """Lets a number of holders in at a time, first come first served.

    All are in one line, those who wait behind those who are inside, so that being in it is all
    there is to having a place: it is left in one atomic step that does no harm when it is repeated,
    and that leads whoever waits on top of the line inside. There is no lock, because a reply that
    the garbage collector finds gives its place back in the middle of whatever the thread was doing.

    Args:
        size: How many may be inside.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        # By the number of a `Place`, in the order of their arrival; who waits has a turn.
        self._line: dict[int, _Turn | None] = {}
        self._numbers = itertools.count()

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return min(len(self._line), self.size)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return max(len(self._line) - self.size, 0)

    def _wake(self) -> None:
        """Wakes all that have come inside."""
        # `list` of a dict's values neither runs Python code nor collects garbage on its way.
        for turn in list(self._line.values())[: self.size]:
            if turn is not None and not turn.woken:
                turn.set()
                turn.woken = True


class Place:
    """One holder's place in a gate, made before there is anything to lose.

    Wherever Ctrl-C comes, the place is free again: `give_back` may be called at any time and again,
    and a Place that nobody knows any more does it by itself.

    Args:
        gate: The gate.
    """

    __slots__ = ("_gate", "_number")

    def __init__(self, gate: Gate) -> None:
        self._number = next(gate._numbers)
        self._gate = gate

    def take(self, timeout: float | None = None) -> bool:
        """Waits to be inside; `give_back` must follow, whatever comes of it.

        Args:
            timeout: Seconds to wait outside a Scope; None waits without end. Inside a Scope its
                time counts.

        Returns:
            Whether it is inside now; False only outside a Scope.

        Raises:
            CallInterrupted: The Scope was cancelled, or its time ended.
        """
        gate = self._gate
        gate._line[self._number] = None
        # Who is inside once stays there: only those before it can leave.
        return len(gate._line) <= gate.size or self._wait(timeout)

    def give_back(self) -> None:
        """Leaves the gate, or its line."""
        gate = self._gate
        gate._line.pop(self._number, None)
        if len(gate._line) >= gate.size:
            gate._wake()

    def __del__(self) -> None:
        try:
            if self._number in self._gate._line:
                self.give_back()
        except AttributeError:  # Ctrl-C came before it was made
            pass
        except BaseException:  # Ctrl-C in the midst of it, which Python prints here
            self.give_back()
            raise

    def _wait(self, timeout: float | None) -> bool:
        gate = self._gate
        turn = gate._line[self._number] = _Turn()
        # One that left before the turn was there has woken nobody.
        if self._number in list(gate._line)[: gate.size]:
            return True
        scope = current_scope()
        if scope is None:
            return turn.wait(timeout)
        return scope.wait(turn, f"waiting for one of {gate.size} connections")
