"""The vendors' SDKs: imported when they are first needed, on threads of their own."""

from __future__ import annotations

import _thread
import contextlib
import gc
import importlib
import importlib.util
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

from llmkit.errors import APIConnectionError, ConfigurationError
from llmkit.process_local import ProcessLocal
from llmkit.scope import Scope, current_scope
from llmkit.threads import Flag, TooManyThreadsError, run_detached, start

__all__ = ["begin_import", "import_sdk"]

# New objects between two looks of the garbage collector while an SDK is imported. Its modules make
# 300,000 objects that stay: with Python's 700, a tenth of the time goes into looking at them.
IMPORT_GC_THRESHOLD = 1_000_000

# Seconds for which a fork waits for an import that is under way; most take one or two.
FORK_PATIENCE = 5.0


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
_here = threading.local()  # `.future`: that of the import which this thread makes


def _load(module: str, first: Callable[[], object] | None = None) -> Future[Any]:
    """Loads a module on a thread of its own, one for all who ask for it meanwhile."""
    loading, mine = _loading.get(), Future[Any]()

    def load() -> None:
        _here.future = mine
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


def _let_imports_end() -> None:
    """Waits, before a fork, for the imports that are under way.

    The child would be left with half an SDK, whose locks nobody gives back: Python itself waits for
    them without end. A module that forks while it is imported does not wait for itself.
    """
    ends = time.monotonic() + FORK_PATIENCE
    try:
        for future in tuple((_loading.peek() or {}).values()):
            if future is not getattr(_here, "future", None):
                wait([future], max(0.0, ends - time.monotonic()))
    except KeyboardInterrupt:  # the fork would swallow it
        start(_interrupt_again, "interrupt")


def _interrupt_again() -> None:
    time.sleep(0.1)  # after the fork
    _thread.interrupt_main()


# Windows cannot fork and has no such hook.
if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(before=_let_imports_end)


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
