"""The names of parametrized cases, the same in every run and every process."""

from __future__ import annotations

import re

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def case_name(value: object) -> str:
    """Shows a value without its address in memory."""
    return _ADDRESS.sub("", repr(value))
