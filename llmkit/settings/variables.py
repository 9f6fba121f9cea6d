"""The variables of the environment and of the `.env` file, searched as one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from llmkit.errors import ConfigurationError

__all__ = ["Found", "Variables"]

PREFIX = "LLMKIT_"


class Found(NamedTuple):
    """A variable that is set.

    Attributes:
        value: Its value, without the blanks around it; never empty.
        place: "environment" or ".env".
        variable: Its name as it was written there.
    """

    value: str
    place: str
    variable: str

    def __str__(self) -> str:
        return f"{self.place} {self.variable}"


class Variables:
    """An environment and the values of a `.env` file.

    Args:
        environ: The environment; it is read anew at each `find`.
        file: What the file holds.
    """

    __slots__ = ("_places",)

    def __init__(self, environ: Mapping[str, str], file: Mapping[str, str | None]) -> None:
        self._places = (("environment", environ), (".env", file))

    @classmethod
    def of_process(cls) -> Variables:
        """Takes this process's environment, and `.env` from the working directory if it is there.

        Raises:
            ConfigurationError: The file can't be read.
        """
        if not os.path.isfile(".env"):
            return cls(os.environ, {})
        from dotenv import dotenv_values

        try:
            return cls(os.environ, dotenv_values(".env", interpolate=False, encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        # Outside the handler, since a decoding error carries the file's content.
        raise ConfigurationError(f"The file .env in the working directory can't be read: {why}.")

    def find(self, name: str, *, bare: bool = True) -> Found | None:
        """Looks a variable up, the prefixed form first; an empty one counts as not set.

        Args:
            name: Its bare name.
            bare: Whether the bare name counts, too.
        """
        for place, values in self._places:
            for variable in (PREFIX + name, name) if bare else (PREFIX + name,):
                value = (values.get(variable) or "").strip()
                if value:
                    return Found(value, place, variable)
        return None
