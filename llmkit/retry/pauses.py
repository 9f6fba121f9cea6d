"""The pauses between tries, and the switch that removes them in tests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from llmkit.scope import current_scope

__all__ = ["no_sleeping", "pause"]

# A year: the system's clocks overflow at some 300 of them.
_LONGEST = 365 * 86400.0

# Where the blocks that are active now note the pauses, by identity. Each change is one atomic
# operation, so that no lock is needed, which a fork could leave locked.
_notes: dict[int, list[float]] = {}


def pause(seconds: float) -> None:
    """Waits, inside the current Scope where there is one; not at all inside `no_sleeping`.

    Args:
        seconds: How long.

    Raises:
        CallInterrupted: The Scope was cancelled, or its time ended first.
    """
    scope = current_scope()
    if _notes:
        if scope is not None:
            scope.check("waiting before another try")
        for noted in tuple(_notes.values()):
            noted.append(seconds)
    elif scope is None:
        time.sleep(min(seconds, _LONGEST))
    else:
        scope.sleep(min(seconds, _LONGEST))


@contextmanager
def no_sleeping() -> Iterator[list[float]]:
    """Lets every pause between two tries end at once, for tests of code that calls models.

        with no_sleeping() as pauses:
            reply = Client().complete("hi")
        assert pauses == [attempt.wait for attempt in reply.attempts[1:]]

    It holds for the whole process, whatever thread a call runs in, until the last of several such
    blocks ends; as a fixture, yield inside of one. All else is as it would be: the attempts tell
    the pause that would have been made, and one that would not end before the deadline is still
    not begun. Waits for rate limits and the like remain.

    Yields:
        The pauses that were left out meanwhile, in seconds.
    """
    noted: list[float] = []
    _notes[id(noted)] = noted
    try:
        yield noted
    finally:
        del _notes[id(noted)]
