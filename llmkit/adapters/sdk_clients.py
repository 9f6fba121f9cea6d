"""The SDKs' clients, shared by the whole process, and the keys that they know."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from llmkit.log import SHORTEST_KEY, redact
from llmkit.process_local import ProcessLocal
from llmkit.scope import Scope, current_scope
from llmkit.threads import Flag

__all__ = ["forget_frames", "hide_keys", "shared_client", "without_keys"]

S = TypeVar("S")

# Which adapter's client, for which address, with which key.
Address = tuple[type, str, str]

# SDK clients kept by a process; those that were not used for longest go first. Keys rotate, so
# there may be many over time.
MAX_CLIENTS = 64

# Keys that are still known after their clients went: a call may be under way, or its error be shown
# later on.
MAX_KEYS = 512

# Characters of an error's text that are looked through, and those of its end that are not shown
# when it is longer: a key may be cut in half there.
LONGEST_TEXT = 65_536
LONGEST_KEY = 4_096

# Seconds for which another thread's client is waited for. Who waits longer builds one, too: Ctrl-C
# may have ended the other's work, or this be a signal handler that has interrupted it.
PATIENCE = 2.0


class _SdkClients:
    """The process's SDK clients: building one costs up to 60 ms, and they can be shared."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # reentrant: a signal handler may make a call
        self._building: dict[Address, Future[None]] = {}
        self._clients: OrderedDict[Address, tuple[object, Any]] = OrderedDict()
        self._keys: OrderedDict[str, None] = OrderedDict()

    def get(self, address: Address, pool: object, build: Callable[[], S]) -> S:
        client: S | None = self._find(address, pool)
        while client is None:
            mine: Future[None] = Future()
            building: Future[None] | None = None
            try:
                building = self._building.setdefault(address, mine)
                if building is mine or not _is_done_soon(building):
                    client = build()
                    self._keep(address, pool, client)
                else:
                    client = self._find(address, pool)
            finally:
                # Ctrl-C may have come before it was known whose turn it is.
                if building is mine or self._building.get(address) is mine:
                    del self._building[address]
                    mine.set_result(None)
        return client

    def keys(self) -> list[str]:
        return list(self._keys)

    def _keep(self, address: Address, pool: object, client: object) -> None:
        key = address[2]
        with self._lock:
            if len(key) >= SHORTEST_KEY:
                self._keys[key] = None
                self._keys.move_to_end(key)
            self._clients[address] = (pool, client)
            while len(self._clients) > MAX_CLIENTS:
                self._clients.popitem(last=False)
            while len(self._keys) > MAX_KEYS:
                self._keys.popitem(last=False)

    def _find(self, address: Address, pool: object) -> Any:
        known = self._clients.get(address)
        if known is None or known[0] is not pool:
            return None
        with contextlib.suppress(KeyError):  # another thread has just given it up
            self._clients.move_to_end(address)
        return known[1]


def _is_done_soon(building: Future[None]) -> bool:
    """Waits while another thread builds a client, no longer than this call may last."""
    built = Flag()
    building.add_done_callback(built.set)
    scope = current_scope() or Scope()
    return scope.wait(built, "waiting for the SDK's client", PATIENCE)


_clients: ProcessLocal[_SdkClients] = ProcessLocal(_SdkClients)


def shared_client(address: Address, pool: object, build: Callable[[], S]) -> S:
    """Returns the process's SDK client for an adapter's class, an address and a key.

    Args:
        address: The three.
        pool: The HTTP client that it uses; if that has been replaced, a new one is built.
        build: Makes the client.
    """
    return _clients.get().get(address, pool, build)


def without_keys(text: str) -> str:
    """Replaces in a text whatever looks like a key, and every key that this process has used.

    A vendor may echo the key in its error, and a key of one's own server can look like anything. A
    very long text is cut: to look through the megabytes of some servers' errors would take many
    seconds, which no deadline could end.
    """
    longer = len(text) > LONGEST_TEXT
    text = text[:LONGEST_TEXT]
    clients = _clients.peek()
    for key in clients.keys() if clients is not None else ():
        text = text.replace(key, "***")
    return redact(text[:-LONGEST_KEY]) + "…" if longer else redact(text)


def forget_frames(error: BaseException) -> None:
    """Takes the SDK's frames off an error and its causes: their variables hold headers and keys.

    Error reports that show local variables would show them, too.
    """
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.__traceback__ = None
        each = each.__cause__ or each.__context__


def hide_keys(error: BaseException) -> None:
    """Takes the keys out of the texts of an error and of its causes, as a traceback shows them."""
    seen: set[int] = set()
    each: BaseException | None = error
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.args = tuple(without_keys(arg) if isinstance(arg, str) else arg for arg in each.args)
        message = getattr(each, "message", None)
        if isinstance(message, str):
            with contextlib.suppress(AttributeError):  # a property that can't be set
                each.message = without_keys(message)  # type: ignore[attr-defined]  # it has one
        each = each.__cause__ or each.__context__
