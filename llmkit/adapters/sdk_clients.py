"""The vendors' SDKs: imported when first needed, their clients shared by the whole process."""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.util
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from llmkit.errors import APIConnectionError, ConfigurationError
from llmkit.log import SHORTEST_KEY, redact
from llmkit.process_local import ProcessLocal
from llmkit.scope import Scope, current_scope
from llmkit.threads import Flag, TooManyThreadsError, run_detached

__all__ = [
    "begin_import",
    "forget_frames",
    "hide_keys",
    "import_sdk",
    "shared_client",
    "without_keys",
]

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

# New objects between two looks of the garbage collector while an SDK is imported. Its modules make
# 300,000 objects that stay: with Python's 700, a tenth of the time goes into looking at them.
IMPORT_GC_THRESHOLD = 1_000_000


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


def import_sdk(module: str, extra: str) -> Any:
    """Imports a vendor's SDK.

    Args:
        module: The module's name.
        extra: The extra of llmkit that installs it.

    Returns:
        The module.

    Raises:
        ConfigurationError: It is not installed; the message has the pip command.
        APIConnectionError: There is no thread to load it on.
        CallInterrupted: The current Scope ended first.
    """
    known = sys.modules.get(module)
    if known is not None and getattr(known.__spec__, "_initializing", False) is False:
        return known
    # It takes a second or more and can't be interrupted: on a thread of its own, the call's
    # deadline holds, and the next call finds it loaded.
    loaded = Flag()
    future = _load(module)
    future.add_done_callback(loaded.set)
    (current_scope() or Scope()).wait(loaded, f"loading the SDK {module}")
    try:
        return future.result()
    except ImportError as error:
        raise ConfigurationError(
            f'the official SDK is missing: pip install "llmkit[{extra}]"'
        ) from error
    except TooManyThreadsError as error:
        raise APIConnectionError(f"the SDK {module} can't be loaded now: {error}") from error


def begin_import(module: str, first: Callable[[], object] | None = None) -> None:
    """Begins to import a vendor's SDK; what goes wrong is said by whoever needs it.

    One that is not installed costs no thread, however often it is asked for, and is found once it
    is.

    Args:
        module: The module's name.
        first: What to do before, on the import's thread, such as to begin what can go on beside it;
            it raises nothing.
    """
    if module not in sys.modules and not _is_missing(module):
        _load(module, first)


def _is_missing(module: str) -> bool:
    """Says whether a module is certainly not installed, without importing anything."""
    package = module.rpartition(".")[0]
    if package and package not in sys.modules:  # to look into it would import it
        return _is_missing(package)
    try:
        return importlib.util.find_spec(module) is None
    except ImportError:  # what stands before the dot is no package
        return True
    except ValueError:  # another thread is just loading it
        return False


_loading: ProcessLocal[dict[str, Future[Any]]] = ProcessLocal(dict)


def _load(module: str, first: Callable[[], object] | None = None) -> Future[Any]:
    """Loads a module on a thread of its own, one for all who ask for it meanwhile."""
    loading, mine = _loading.get(), Future[Any]()

    def load() -> None:
        try:
            with _seldom_collecting():
                if first is not None:
                    first()
                sdk = importlib.import_module(module)
            mine.set_result(sdk)
        except BaseException as error:  # handed to whoever asked for the module
            mine.set_exception(error)
        finally:
            loading.pop(module, None)

    try:
        future = loading.setdefault(module, mine)
        if future is mine:
            run_detached(load, "import")
        return future
    except TooManyThreadsError as error:
        loading.pop(module, None)
        mine.set_exception(error)
        return mine
    except BaseException:  # Ctrl-C, perhaps before it has begun: whoever asks next begins anew
        if loading.get(module) is mine:
            loading.pop(module, None)
        raise


class _Collector:
    """Has the garbage collector look less often while anything is imported.

    What the application has set is left alone, and what it sets meanwhile stays.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._imports = 0
        self._usual = self._seldom = gc.get_threshold()

    def begin(self) -> None:
        with self._lock:
            if self._imports == 0:
                self._usual = usual = gc.get_threshold()
                # 0: collecting has been turned off
                self._seldom = (usual[0] and max(usual[0], IMPORT_GC_THRESHOLD), *usual[1:])
                gc.set_threshold(*self._seldom)
            self._imports += 1

    def end(self) -> None:
        with self._lock:
            self._imports -= 1
            if self._imports == 0:
                self._as_before()

    def abandon(self) -> None:
        """Sets in a forked child what was set before: the imports have stayed in the parent."""
        if self._imports:
            self._as_before()

    def _as_before(self) -> None:
        if gc.get_threshold() == self._seldom:
            gc.set_threshold(*self._usual)


_collector: ProcessLocal[_Collector] = ProcessLocal(_Collector, None, _Collector.abandon, kept=True)


@contextlib.contextmanager
def _seldom_collecting() -> Iterator[None]:
    """Has the garbage collector look less often.

    What is new at the end counts as old: else the first look would go through all of it.
    """
    collector = _collector.get()
    collector.begin()
    try:
        yield
    finally:
        # Else the application's own objects would be thawed, too; or it does not collect at all.
        if gc.get_freeze_count() == 0 and gc.get_threshold()[0]:
            gc.freeze()
            gc.unfreeze()  # to the oldest generation
        collector.end()


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
