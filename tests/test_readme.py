from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(1, len(EXAMPLES) + 1))
def test_example_runs(example: str, tmp_path: Path) -> None:
    """Each of README's examples runs as it stands, without a key and without a warning."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    assert result.stderr == ""


def test_there_are_five_examples() -> None:
    """README keeps its promise of five examples."""
    assert len(EXAMPLES) == 5


def test_readme_is_finished() -> None:
    """No placeholder is published."""
    assert re.findall(r"MEASURED|TODO|FIXME|XXX", README) == []


def test_readme_names_scripts_that_exist() -> None:
    """Every script and module that README tells a newcomer to run is there."""
    for script in re.findall(r"sh (scripts/\w+)", README):
        assert (ROOT / script).is_file()
    for module in re.findall(r"python -m (benchmarks\.\w+)", README):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file()
