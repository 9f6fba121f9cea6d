"""A gate: so many may be inside at a time, first come first served."""

from __future__ import annotations

import collections
import contextlib
import weakref

from llmkit.scope import current_scope
from llmkit.threads import Flag

__all__ = ["Gate", "Place"]


class Place:
    """A place inside a gate; one that is dropped gives itself back.

    Ctrl-C can strike behind any call, also between taking a place and noting that it was taken. So
    a place is an object from the start, and whatever becomes of the code that holds it, the next
    one gets it.
    """

    # None: it has been given back.
    _gate: weakref.ref[Gate] | None = None

    def leave(self) -> None:
        """Gives the place to whoever has waited longest, or back to the gate; can be repeated."""
        gate = None if self._gate is None else self._gate()
        if gate is None:
            return
        heir = Place()
        try:
            # No interrupt comes between the two, so there is one place at any moment.
            heir._gate, self._gate = self._gate, None
            while True:
                try:
                    turn = gate._waiting[0]
                except IndexError:
                    gate._free.append(heir)
                    if not gate._waiting:
                        return
                    # Whoever began to wait in this moment saw neither the place nor a grant.
                    try:
                        heir = gate._free.pop()
                    except IndexError:
                        return
                else:
                    # Two may grant one turn at once; the place that is too many comes back then.
                    try:
                        turn.places.append(heir)
                        turn.set()
                    except BaseException:  # Ctrl-C: whoever waits may have the place and not know
                        turn.set()
                        raise
                    if turn.gone:
                        turn.places.clear()
                    with contextlib.suppress(ValueError):
                        gate._waiting.remove(turn)
                    return
        finally:
            del heir  # an error that is still looked at keeps the variables of its frames

    def __del__(self) -> None:
        self.leave()


class _Turn(Flag):
    """Somebody who waits for a place."""

    __slots__ = ("gone", "places")

    def __init__(self) -> None:
        super().__init__()
        self.places: list[Place] = []
        self.gone = False

    def end(self) -> None:
        """Gives back what came too late, or was too many."""
        self.gone = True  # first: whoever grants in this moment looks at it last
        self.places.clear()


class Gate:
    """Lets a number of holders in at a time, first come first served.

    Every step rests on a single atomic operation, without a lock, because a reply that the garbage
    collector finds gives its place back in the middle of whatever the thread was doing.

    Args:
        size: How many may be inside.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._free: collections.deque[Place] = collections.deque()
        self._waiting: collections.deque[_Turn] = collections.deque()
        # Weak: places that held their gate would be collected with it, and come back to life.
        itself = weakref.ref(self)
        for _ in range(size):
            place = Place()
            place._gate = itself
            self._free.append(place)

    def enter(self, timeout: float | None = None) -> Place | None:
        """Waits for a place.

        Args:
            timeout: Seconds to wait outside a Scope; None waits without end. Inside a Scope its
                time counts.

        Returns:
            The place; None only outside a Scope, when the time is over.

        Raises:
            CallInterrupted: The Scope was cancelled, or its time ended.
        """
        try:
            return self._free.pop()
        except IndexError:
            return self._wait(timeout)

    @property
    def in_use(self) -> int:
        """How many places are taken."""
        return self.size - len(self._free)

    def _wait(self, timeout: float | None) -> Place | None:
        turn = _Turn()
        try:
            self._waiting.append(turn)
            # A place given back between the look and the append has woken nobody.
            with contextlib.suppress(IndexError):
                self._free.pop().leave()
            scope = current_scope()
            if scope is None:
                turn.wait(timeout)
            else:
                scope.wait(turn, f"waiting for one of {self.size} connections")
            return turn.places.pop() if turn.places else None
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)
            turn.end()
