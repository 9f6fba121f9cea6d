"""What `import llmkit` costs, and a first `Client()`, against `import openai`.

    python -m benchmarks.import_time [rounds]

Every figure is the wall clock of a fresh interpreter, less that of one that does nothing. The
programs take turns, so that a machine that slows down slows all of them, and the medians' ratio is
what counts. Bytecode is written to a directory of its own before the first round: an installed
package has it, a checkout need not.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

PROGRAMS = {
    "bare interpreter": "pass",
    "import llmkit": "import llmkit",
    "import llmkit; llmkit.Client()": "import llmkit; llmkit.Client()",
    "import openai": "import openai",
}
# Shares of `import openai` that llmkit wants to stay under.
BOUNDS = {"import llmkit": 0.05, "import llmkit; llmkit.Client()": 0.10}


def run(program: str, directory: str, environment: Mapping[str, str]) -> float:
    """Runs a program in a fresh interpreter; returns its seconds."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program], cwd=directory, env=environment, check=True)
    return time.perf_counter() - began


def measure(rounds: int) -> dict[str, float]:
    """Returns the median seconds of each program, all programs once in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    with tempfile.TemporaryDirectory() as directory:  # without a .env file
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONPYCACHEPREFIX": directory,
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for program in PROGRAMS.values():
            run(program, directory, environment)
        for _ in range(rounds):
            for name, program in PROGRAMS.items():
                seconds[name].append(run(program, directory, environment))
    return {name: statistics.median(each) for name, each in seconds.items()}


def main() -> None:
    """Prints the medians and their shares of `import openai`."""
    medians = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
    bare = medians["bare interpreter"]
    openai = medians["import openai"] - bare
    for name, seconds in medians.items():
        bound = f"  (aim: at most {BOUNDS[name]:.2f})" if name in BOUNDS else ""
        net = seconds - bare
        print(f"{name:32} {1000 * net:7.1f} ms net  {net / openai:6.3f} of openai{bound}")


if __name__ == "__main__":
    main()
