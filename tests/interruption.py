"""Ctrl-C at every point of a piece of work, one point at a time.

CPython looks for signals where a function begins, after a call, and where a loop jumps back.
"""

from __future__ import annotations

import contextlib
import dis
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

__all__ = ["Interruption"]

_INTERRUPTIBLE = ("CALL", "JUMP_BACKWARD")


class Interruption:
    """Raises KeyboardInterrupt at one of the points where a signal could.

    Args:
        point: Which one, counted from 1.
        within: Parts of paths: points of other files don't count.
    """

    def __init__(self, point: int, within: tuple[str, ...]) -> None:
        self.left = point
        self._within_files = within
        self._last: dict[int, str] = {}

    @property
    def has_come(self) -> bool:
        """Whether there was such a point."""
        return self.left == 0

    @contextlib.contextmanager
    def armed(self) -> Iterator[None]:
        """Interrupts what this thread does in the block."""
        before = sys.gettrace()
        sys.settrace(self._begin)
        try:
            yield
        finally:
            sys.settrace(before)

    def _begin(self, frame: FrameType, event: str, argument: Any) -> Any:
        code = frame.f_code
        # Exceptions in a destructor are printed and forgotten, whatever they are.
        if code.co_name == "__del__" or not any(
            part in code.co_filename for part in self._within_files
        ):
            return None
        frame.f_trace_opcodes = True
        self._point()
        return self._within

    def _within(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            follows_call = self._last.get(id(frame), "").startswith(_INTERRUPTIBLE)
            self._last[id(frame)] = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            if follows_call:
                self._point()
        elif event in ("return", "exception"):
            self._last.pop(id(frame), None)
        return self._within

    def _point(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
