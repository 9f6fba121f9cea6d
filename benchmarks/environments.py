"""Virtual environments with one library each, and the processes that run in them."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]
# Seconds that one order may take before its process is given up: 100,000 calls are the longest, and
# a peer that hangs under many threads has been seen.
PATIENCE = 400.0


class OrderFailed(Exception):
    """A library could not do what it was asked to; says why."""


def driver_of(name: str) -> ModuleType:
    """Returns the driver of that name, which needs no library for that."""
    return importlib.import_module(f"benchmarks.peers.{name}")


class Environments:
    """The environments of all drivers, in one folder.

    Args:
        folder: Where they are kept; None for `llmkit-benchmarks` beside the system's temporary
            files. An environment that is there with the same packages is taken as it is.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.gettempdir()) / "llmkit-benchmarks"

    def python(self, name: str) -> str:
        """The interpreter of a driver's environment."""
        inside = "Scripts/python.exe" if os.name == "nt" else "bin/python"
        return str(self.folder / name / inside)

    def build(self, name: str) -> None:
        """Makes a driver's environment, unless it is there already.

        Raises:
            subprocess.CalledProcessError: A package could not be installed.
        """
        packages = list(driver_of(name).PACKAGES)
        noted = self.folder / name / "packages.json"
        if noted.exists() and json.loads(noted.read_text()) == packages:
            return
        print(f"installing {' '.join(packages)}", file=sys.stderr, flush=True)
        venv.create(self.folder / name, clear=True, with_pip=True)
        install = [self.python(name), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True)
        noted.write_text(json.dumps(packages))

    def versions(self, name: str) -> dict[str, str]:
        """The versions of all that is installed for a driver."""
        listing = [self.python(name), "-m", "pip", "list", "--format=json"]
        done = subprocess.run(listing, check=True, capture_output=True, text=True)
        found = {each["name"]: each["version"] for each in json.loads(done.stdout)}
        return {key: found[key] for key in sorted(found) if key not in ("pip", "setuptools")}

    def variables(self, name: str) -> dict[str, str]:
        """The environment variables of a driver's processes: few, so that all get the same.

        Tiktoken's cache is filled with the vocabulary that litellm's package brings along, for who
        would download it.
        """
        kept = ("PATH", "SYSTEMROOT", "LANG", "LD_LIBRARY_PATH")
        brought = self.folder.glob(
            "litellm/lib/*/site-packages/litellm/litellm_core_utils/tokenizers"
        )
        vocabularies = next(brought, None)
        return {
            **{key: os.environ[key] for key in kept if key in os.environ},
            "HOME": str(self.folder),
            "PYTHONPATH": str(ROOT),
            **({"TIKTOKEN_CACHE_DIR": str(vocabularies)} if vocabularies else {}),
            **getattr(driver_of(name), "ENVIRONMENT", {}),
        }


class Worker:
    """A process that has a library loaded, and obeys orders.

    Args:
        python: The interpreter to run it with.
        driver: The driver's module.
        variables: All of its environment variables.
        folder: Its working directory, in which no `.env` may lie.
    """

    def __init__(
        self, python: str, driver: str, variables: Mapping[str, str], folder: Path
    ) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.session", driver],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=dict(variables),
            cwd=folder,
        )

    def order(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Gives an order, and waits for what was measured.

        Raises:
            OrderFailed: It could not be done, or took too long.
        """
        given, answers = self._process.stdin, self._process.stdout
        assert given is not None
        assert answers is not None
        line = ""
        if given.closed:
            raise OrderFailed("the process ended before")
        try:
            given.write(json.dumps({"do": do, **arguments}) + "\n")
            given.flush()
            if select.select([answers], [], [], PATIENCE)[0]:
                line = answers.readline()
        except BrokenPipeError:
            pass
        if not line:
            self.close()
            raise OrderFailed("the process ended, or hung")
        answer = json.loads(line)
        if "error" in answer:
            raise OrderFailed(answer["error"])
        done: dict[str, Any] = answer["ok"]
        return done

    def close(self) -> None:
        """Ends the process. Idempotent."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # an order that nobody read
                    pipe.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
