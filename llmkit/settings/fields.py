"""How a setting is declared, found and kept: what `Settings` is made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self, dataclass_transform

from llmkit.log import MaskedMapping, holds_key, shown
from llmkit.settings.readers import Reader, read_value
from llmkit.settings.variables import Found, Variables

__all__ = ["Field", "SettingsBase", "field", "read_found"]


def read_found(reader: Reader, found: Found) -> Any:
    """Reads a variable's value; an error says where it stood, and shows it unless it is a key."""
    written = f"{found.variable} (from {found.place})"
    return read_value(reader, found.value, written, secret=holds_key(found.variable))


class Field:
    """One setting: how it is read, and its value when nobody gives it."""

    def __init__(self, reader: Reader, default: Any, bare: bool, also: str | None) -> None:
        self.reader, self.default, self.bare, self.also = reader, default, bare, also

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, settings: SettingsBase | None, owner: type) -> Any:
        return self if settings is None else settings._values[self.name]

    def __set__(self, settings: object, value: object) -> NoReturn:
        raise AttributeError("settings don't change; .replace(...) makes a changed copy")

    def find(self, variables: Variables) -> tuple[Any, str]:
        """Gives the value among the variables, or else the default, and where it came from."""
        found = variables.find(self.name.upper(), bare=self.bare)
        if found is None and self.also:
            found = variables.find(self.also)
        if found is None:
            return self.default, "default"
        return read_found(self.reader, found), str(found)

    def accept(self, raw: Any) -> Any:
        """Reads an argument; None gives the default."""
        if raw is not None:
            secret = holds_key(self.name)
            raw = read_value(self.reader, raw, f"The argument {self.name}", secret=secret)
        return self.default if raw is None else raw


def field(
    reader: Reader, *, default: Any = None, bare: bool = True, also: str | None = None
) -> Any:
    """Declares a setting, as an attribute of `Settings`.

    Args:
        reader: How its value is read.
        default: Its value when nobody gives one.
        bare: Whether its bare name counts, besides the prefixed one.
        also: A further variable, asked when its own is not set; None for none.
    """
    return Field(reader, default, bare, also)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class SettingsBase:
    """Fills, shows, compares and copies the settings that the subclass declares."""

    __slots__ = ("_sources", "_values", "_variables")
    _sources: dict[str, str]
    _values: Mapping[str, Any]
    _variables: Variables

    def __init__(self, **values: Any) -> None:
        self._variables = Variables.of_process()
        given = self._accepted(values)
        read = {n: f.find(self._variables) for n, f in self._fields().items() if n not in given}
        self._keep(
            {name: given[name] if name in given else read[name][0] for name in self._fields()},
            {name: read[name][1] if name in read else "argument" for name in self._fields()},
        )

    @classmethod
    def _fields(cls) -> dict[str, Field]:
        return {name: field for name, field in vars(cls).items() if isinstance(field, Field)}

    @classmethod
    def _accepted(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        fields = cls._fields()
        if unknown := [name for name in values if name not in fields]:
            raise TypeError(f"there is no setting {unknown[0]!r}; there are {', '.join(fields)}")
        return {name: fields[name].accept(value) for name, value in values.items()}

    def _keep(self, values: Mapping[str, Any], sources: dict[str, str]) -> None:
        self._values, self._sources = MaskedMapping(values), sources

    if not TYPE_CHECKING:  # type checkers know the names in UpperCase and refuse all others

        def __getattr__(self, name: str) -> Any:
            if name.isupper() and name.lower() in self._values:
                return self._values[name.lower()]
            raise AttributeError(f"there is no setting {name!r}", name=name, obj=self)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{n}={shown(n, v)}' for n, v in self._values.items())})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SettingsBase) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(self._values.values()))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self
