"""How the SDKs are imported: ahead, beside other work, and over forks and Ctrl-C."""

from __future__ import annotations

import contextlib
import gc
import importlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest

from llmkit import (
    ConfigurationError,
    connection_pool,
)
from llmkit.adapters import sdk_imports
from llmkit.process_local import ProcessLocal
from llmkit.scope import Scope
from llmkit.testing import ProviderServer
from llmkit.threads import Flag, detached_count, run_detached
from tests.adapters.vendor_cases import OPENAI
from tests.interruption import Interruption

_MEETING = threading.Barrier(2)


def meet() -> None:
    """Waits in a module that is being imported: until it is seen to be, and until it may go on."""
    _MEETING.wait(5)
    _MEETING.wait(5)


def test_an_sdk_can_be_loaded_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading begins without a wait, and whoever needs the SDK then joins it: it is loaded once."""
    (tmp_path / "slow_sdk.py").write_text("import time\ntime.sleep(0.5)\nloaded = object()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    began = time.monotonic()
    sdk_imports.begin_import("slow_sdk")
    assert time.monotonic() - began < 0.5
    assert sdk_imports.import_sdk("slow_sdk", "slow").loaded is sys.modules["slow_sdk"].loaded
    sdk_imports.begin_import("slow_sdk")
    monkeypatch.delitem(sys.modules, "slow_sdk")


def test_certificates_are_read_while_the_sdk_is_imported(
    server: ProviderServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take OpenSSL tens of milliseconds, which a first call need not wait for."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "patient_sdk.py").write_text(
        "import time\n"
        "from llmkit.connection_pool import _ssl_context\n"
        "for _ in range(1000):\n"
        "    read = _ssl_context.peek() is not None\n"
        "    if read: break\n"
        "    time.sleep(0.01)\n"
    )
    context = ProcessLocal(connection_pool._build_ssl_context)
    monkeypatch.setattr(connection_pool, "_ssl_context", context)
    adapter = OPENAI.adapter(server)
    monkeypatch.setattr(type(adapter), "sdk_module", "patient_sdk")
    adapter.ensure_initialized()
    assert sys.modules["patient_sdk"].read
    monkeypatch.delitem(sys.modules, "patient_sdk")


def test_an_import_lets_the_collector_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While an SDK is imported garbage is looked for less often, and afterwards as before."""
    (tmp_path / "sdk_a.py").write_text("import gc\nseen = gc.get_threshold()\n")
    (tmp_path / "sdk_b.py").write_text("import gc\ngc.set_threshold(500, 5, 5)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 7, 8)
        assert sdk_imports.import_sdk("sdk_a", "a").seen == (sdk_imports.IMPORT_GC_THRESHOLD, 7, 8)
        assert gc.get_threshold() == (700, 7, 8)
        sdk_imports.import_sdk("sdk_b", "b")  # what somebody sets meanwhile stays
        assert gc.get_threshold() == (500, 5, 5)
        gc.set_threshold(0)  # turned off, in the older way
        del sys.modules["sdk_a"]
        assert sdk_imports.import_sdk("sdk_a", "a").seen[0] == 0
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)
    for name in ("sdk_a", "sdk_b"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another operating system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_forked_while_an_sdk_is_imported_collects_as_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The import stays in the parent, and with it whoever would set the threshold again."""
    monkeypatch.setattr(sdk_imports, "FORK_PATIENCE", 0.0)  # the child is there before its end
    (tmp_path / "sdk_d.py").write_text("from tests.adapters.test_sdk_imports import meet\nmeet()\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = gc.get_threshold()
    sdk_imports.begin_import("sdk_d")
    _MEETING.wait(5)
    assert gc.get_threshold()[0] == sdk_imports.IMPORT_GC_THRESHOLD
    child = os.fork()
    if child == 0:
        os._exit(0 if gc.get_threshold() == before else 1)
    _MEETING.wait(5)
    sdk_imports.import_sdk("sdk_d", "d")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gc.get_threshold() == before
    monkeypatch.delitem(sys.modules, "sdk_d")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another operating system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_for_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child has the whole of an SDK that was being imported, and can import it, too.

    Python leaves it half a module, behind a lock that nobody gives back.
    """
    (tmp_path / "sdk_e.py").write_text(
        "from tests.adapters.test_sdk_imports import meet\nmeet()\nwhole = True\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def wait_at_last(*args: Any) -> object:
        _MEETING.wait(5)  # nothing else lets the import go on
        return wait(*args)

    monkeypatch.setattr(sdk_imports, "wait", wait_at_last)
    sdk_imports.begin_import("sdk_e")
    _MEETING.wait(5)
    child = os.fork()
    if child == 0:
        whole = False
        try:
            with Scope(2).entered():
                whole = sdk_imports.import_sdk("sdk_e", "e").whole
        finally:
            os._exit(0 if whole else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    monkeypatch.delitem(sys.modules, "sdk_e")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another operating system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_ctrl_c_before_a_fork_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a fork waits for an import comes after the fork, which would swallow it."""

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sdk_imports, "wait", press)
    monkeypatch.setitem(sdk_imports._loading.get(), "sdk_f", Future())

    def fork_and_go_on() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        Flag().wait(5)

    with pytest.raises(KeyboardInterrupt):
        fork_and_go_on()


def test_what_an_import_makes_counts_as_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look after an import skips its objects, and what an application froze stays so."""
    (tmp_path / "sdk_c.py").write_text("made = [[]]\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def is_old(made: object) -> bool:
        # Python 3.14 has two lists of old objects, and takes turns.
        older = (gc.get_objects(generation=1), gc.get_objects(generation=2))
        return any(each is made for each in itertools.chain(*older))

    gc.unfreeze()  # what tests/deadline froze, if they were here before
    assert gc.get_freeze_count() == 0
    assert not is_old([[]])
    assert is_old(sdk_imports.import_sdk("sdk_c", "c").made)
    assert gc.get_freeze_count() == 0
    monkeypatch.delitem(sys.modules, "sdk_c")
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        sdk_imports.import_sdk("sdk_c", "c")
        assert gc.get_freeze_count() > frozen / 2  # few were freed meanwhile
    finally:
        gc.unfreeze()
    monkeypatch.delitem(sys.modules, "sdk_c")


@pytest.mark.parametrize("module", ["late_sdk", "late_vendor.sdk"])
def test_an_sdk_that_is_missing_costs_no_thread_until_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """Looking ahead for what is not there is cheap, and a `pip install` later on is noticed."""
    begun: list[str] = []

    def run_noted(task: Callable[[], None], name: str) -> Future[None]:
        begun.append(name)
        return run_detached(task, name)

    monkeypatch.setattr(sdk_imports, "run_detached", run_noted)
    package = tmp_path / "late_vendor"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    # Its package is imported by the first look, which needs a thread.
    with pytest.raises(ConfigurationError, match=r'missing: pip install "llmkit\[late\]"'):
        sdk_imports.import_sdk(module, "late")
    begun.clear()
    for _ in range(3):
        sdk_imports.begin_import(module)
    assert not begun
    with pytest.raises(ConfigurationError, match=r'missing: pip install "llmkit\[late\]"'):
        sdk_imports.import_sdk(module, "late")
    (tmp_path / f"{module.replace('.', '/')}.py").write_text("loaded = object()\n")
    importlib.invalidate_caches()  # the directory's time may be the same as before
    begun.clear()
    sdk_imports.begin_import(module)
    assert begun == ["import"]
    assert sdk_imports.import_sdk(module, "late").loaded
    for name in (module, "late_vendor"):
        sys.modules.pop(name, None)


def test_looking_for_an_sdk_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that is slow to import holds up nobody who only begins."""
    package = tmp_path / "slow_vendor"
    package.mkdir()
    (package / "__init__.py").write_text("import time\ntime.sleep(0.5)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    began = time.monotonic()
    sdk_imports.begin_import("slow_vendor.sdk")
    assert time.monotonic() - began < 0.5
    with pytest.raises(ConfigurationError, match="pip install"):
        sdk_imports.import_sdk("slow_vendor.sdk", "slow")
    monkeypatch.delitem(sys.modules, "slow_vendor")


def test_ctrl_c_holds_up_no_later_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Wherever it ends the loading of an SDK, the next call loads it."""
    (tmp_path / "an_sdk.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for point in itertools.count(1):
        monkeypatch.delitem(sys.modules, "an_sdk", raising=False)
        interruption = Interruption(point, ("/llmkit/adapters/sdk_imports.py",))
        with contextlib.suppress(KeyboardInterrupt), interruption.armed():
            sdk_imports.import_sdk("an_sdk", "extra")
        for _ in range(1000):  # what is under way would miss the module that is taken away
            if not detached_count():
                break
            time.sleep(0.005)
        monkeypatch.delitem(sys.modules, "an_sdk", raising=False)
        with Scope(10).entered():
            assert sdk_imports.import_sdk("an_sdk", "extra").__name__ == "an_sdk"
        if not interruption.has_come:
            assert point > 5
            return
