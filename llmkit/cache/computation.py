"""What a function computes, as a text: its code, its defaults, and what it closes over.

The text is the same in every process that runs the same program on the same Python, and two
functions that would compute something different have different texts. What can't be written so is
refused. What a function finds by name in its module is not followed.
"""

from __future__ import annotations

import dis
import enum
import functools
import hashlib
import json
import sys
import threading
import types
from collections.abc import Callable
from typing import Any, Final

__all__ = ["Computation", "NoTextError", "Parts", "exact_text"]

# Bounds on what one function may close over: values, and values inside of each other.
_MOST_VALUES = 20_000
_DEEPEST = 60

_EMPTY: Final = object()  # a variable that has no value yet

# What lets others in or keeps them out, and says nothing of what is computed.
_GUARDS = (
    *(type(threading.Lock()), type(threading.RLock()), threading.Condition, threading.Event),
    *(threading.Semaphore, threading.BoundedSemaphore, threading.Barrier),
)


class NoTextError(Exception):
    """Something has no text; says what and why."""


class Parts:
    """An object of our own that stands for what it is made of."""

    def parts(self) -> list[Any]:
        """Returns the values that make it what it is."""
        raise NotImplementedError


class Computation:
    """The text of one function, written anew when a variable that it closes over is bound anew.

    A list or dict counts as it was when it was first seen, and so does a variable that the function
    itself assigns to: both may be what it notes its calls in.

    Args:
        function: The function, or partial.
        loose: Whether what has no text is left out, instead of refused.

    Raises:
        NoTextError: Something that the function closes over has no text.
    """

    def __init__(self, function: Callable[..., Any], *, loose: bool) -> None:
        self._function = function
        self._loose = loose
        self._own: dict[int, tuple[types.CellType, list[Any]]] = {}
        self._now = self._write()

    def text(self) -> str:
        """Returns the text; raises NoTextError as the class does."""
        text, seen = self._now
        for cell, content in seen:
            if _content(cell) is not content:
                self._now = text, seen = self._write()
                break
        return text

    def _write(self) -> tuple[str, list[tuple[types.CellType, Any]]]:
        writer = _Writer(self._own, loose=self._loose)
        text = _to_text(writer.write(self._function, "the function"))
        return text, writer.seen


def exact_text(value: Any, name: str) -> str:
    """Returns a value's text, in which kinds that JSON has one form for differ.

    The order of a dict's names doesn't count.

    Args:
        value: The value.
        name: What it is called in the error.

    Raises:
        NoTextError: It has none.
    """
    return _to_text(_Writer({}, in_order=False).write(value, name))


_to_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class _Writer:
    """Writes values as lists, each of which begins with the kind of its value.

    Args:
        own: What functions assign to by themselves, by the variable's cell, as it was first seen.
        loose: Whether what has no text is left out, instead of refused.
        in_order: Whether dicts differ by the order of their names.
    """

    def __init__(
        self,
        own: dict[int, tuple[types.CellType, list[Any]]],
        *,
        loose: bool = False,
        in_order: bool = True,
    ) -> None:
        self.seen: list[tuple[types.CellType, Any]] = []
        self._own = own
        self._loose = loose
        self._in_order = in_order
        self._around: list[int] = []
        self._values = 0

    def write(self, value: Any, name: str) -> list[Any]:
        """Returns a value's form.

        Args:
            value: The value.
            name: What the error calls it.
        """
        self._values += 1
        if id(value) in self._around:
            return ["inside of itself", len(self._around) - self._around.index(id(value))]
        self._around.append(id(value))
        try:
            if self._values > _MOST_VALUES or len(self._around) > _DEEPEST:
                raise NoTextError(f"{name} holds too much")
            form = self._plain(value, name) or self._made(value, name) or self._named(value)
            if form is None:
                raise NoTextError(f"{name} is of the type {type(value).__qualname__}")
            return form
        except NoTextError:
            if self._loose:
                return ["left out"]
            raise
        finally:
            self._around.pop()

    def _all(self, values: Any, name: str) -> list[Any]:
        return [self.write(each, name) for each in values]

    def _plain(self, value: Any, name: str) -> list[Any] | None:
        """Writes what is a value and nothing else."""
        kind = type(value)
        if value is None or value is Ellipsis or value is _EMPTY:
            return ["no value" if value is _EMPTY else repr(value)]
        if kind in (bool, int, float, complex, range):
            return [kind.__name__, repr(value)]  # of 0.0 and -0.0, too
        if kind is str:
            return ["str", value]
        if kind in (bytes, bytearray):
            return [kind.__name__, value.hex()]
        if kind in (list, tuple):
            return [kind.__name__, self._all(value, name)]
        if kind in (set, frozenset):
            return [kind.__name__, sorted(self._all(value, name), key=_to_text)]
        if kind in (dict, types.MappingProxyType):
            items = [self._all(item, name) for item in value.items()]
            return [kind.__name__, items if self._in_order else sorted(items, key=_to_text)]
        return None

    def _made(self, value: Any, name: str) -> list[Any] | None:
        """Writes what is made of other things."""
        kind = type(value)
        if kind is types.CodeType:
            return self._code(value, name)
        if kind is types.FunctionType:
            return self._code_with_values(value, name)
        if kind is types.MethodType:
            return ["method", *self._all((value.__func__, value.__self__), name)]
        if kind is functools.partial:
            return ["partial", *self._all((value.func, value.args, value.keywords), name)]
        if kind is functools._lru_cache_wrapper:
            return ["lru_cache", self.write(value.__wrapped__, name)]
        if kind is slice:
            return ["slice", *self._all((value.start, value.stop, value.step), name)]
        if kind is types.BuiltinFunctionType:
            # A function's own object is its module, a method's the value that it belongs to.
            return ["builtin", value.__qualname__, self.write(value.__self__, name)]
        if isinstance(value, Parts):
            return ["parts", *self._all(value.parts(), name)]
        if isinstance(value, enum.Enum) and _is_named(kind):
            return ["enum", self.write(kind, name), self.write(value._value_, name)]
        return None

    def _named(self, value: Any) -> list[Any] | None:
        """Writes what a name says everything of."""
        kind = type(value)
        if kind is types.ModuleType:
            return ["module", value.__name__]
        if isinstance(value, type) and _is_named(value):
            return ["type", home_of(value), value.__qualname__]
        if kind in _GUARDS:
            return ["guard", kind.__name__]
        logging = sys.modules.get("logging")
        if logging is not None and isinstance(value, logging.Logger):
            return ["logger", value.name]
        return None

    def _code(self, code: types.CodeType, name: str) -> list[Any]:
        """Writes what code does; where it stands in its file doesn't count."""
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        numbers = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
        done = hashlib.sha256(code.co_code + b"|" + code.co_exceptiontable, usedforsecurity=False)
        facts = (_VERSION, len(code.co_code), done.hexdigest(), names, numbers)
        return ["code", *facts, self._all(code.co_consts, name)]

    def _code_with_values(self, function: types.FunctionType, name: str) -> list[Any]:
        code = function.__code__
        home = str(function.__globals__.get("__name__"))
        in_module = function.__globals__ is getattr(sys.modules.get(home), "__dict__", None)
        if not (in_module or self._loose):
            raise NoTextError(f"{name} has its global names from elsewhere than a module")
        assigned = _assigned(code)
        held = []
        for variable, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            what = f"the variable {variable}, which it closes over,"
            content = _content(cell)
            if variable not in assigned:
                self.seen.append((cell, content))
                held.append(self.write(content, what))
                continue
            if content is _EMPTY:
                self.seen.append((cell, content))
            if id(cell) not in self._own and content is not _EMPTY:
                self._own[id(cell)] = cell, self.write(content, what)
            held.append(self._own.get(id(cell), (cell, ["no value"]))[1])
        # A default that has no text is seen as an argument wherever it is used.
        loose, self._loose = self._loose, self._loose or len(self._around) == 1
        defaults = self._all((function.__defaults__, function.__kwdefaults__), f"{name}: a default")
        noted = {name: value for name, value in vars(function).items() if name != "__wrapped__"}
        attributes = [self.write(noted, f"{name}: an attribute")] if noted else []
        self._loose = loose
        place = (home_of(function), _home(home), function.__qualname__)
        return ["function", *place, self._code(code, name), defaults, held, *attributes]


def home_of(named: Any) -> str:
    """Returns a function's or type's module; for a script's, its file: all are called __main__."""
    return _home(str(named.__module__))


def _home(module: str) -> str:
    if module not in ("__main__", "__mp_main__"):  # the latter in a process that it spawned
        return module
    return getattr(sys.modules["__main__"], "__file__", None) or "__main__"


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled in yet
        return _EMPTY


def _is_named(kind: type) -> bool:
    """Whether a type is the one that is found under its name, rather than one of many."""
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


@functools.lru_cache(maxsize=256)
def _assigned(code: types.CodeType) -> frozenset[str]:
    """Returns the variables from outside of some code that it assigns to."""
    own = {each.argval for each in dis.get_instructions(code) if each.opname == "STORE_DEREF"}
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            own |= _assigned(inner)
    return frozenset(own & set(code.co_freevars))


_VERSION: Final = str(sys.implementation.cache_tag)
