"""The command: reads the sources, merges them, writes models.json or checks it."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .facts import version_of
from .genai_prices import GenaiPrices
from .litellm import Litellm
from .merge import merge
from .model_prices import ModelPrices
from .report import cross_check, difference_table, to_json, unlisted

_ROOT = Path(__file__).resolve().parents[2]
_WANTED = (
    "genai_prices/data.py",
    "litellm/model_prices_and_context_window_backup.json",
    "model_prices/snapshot.json",
    ".dist-info/METADATA",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Builds the registry, or checks that it is what would be built.

    Args:
        arguments: The command's; None takes the process's.

    Returns:
        0; 1 when --check finds a file that differs, or a difference between sources has no
        written reason.
    """
    options = _parser().parse_args(arguments)
    with options.overrides.open("rb") as file:
        overrides = tomllib.load(file)
    with _sources(options.sources, overrides["pins"]) as directory:
        _check_versions(directory, overrides["pins"])
        litellm = Litellm(directory)
        prices = ModelPrices(directory)
        merged = merge([GenaiPrices(directory), litellm, prices], overrides)
    models = merged.document["models"]
    checked = cross_check([litellm, prices], overrides, models)
    print(difference_table(merged.differences))
    unexplained = sum(each.reason is None for each in merged.differences)
    print(
        f"\n{len(models)} models, {len(merged.differences)} differences, {unexplained} unexplained"
    )
    if missing := unlisted(litellm, overrides, models):
        print(f"in litellm, but neither listed nor left out: {', '.join(missing)}")
    texts = {options.output: to_json(merged.document), options.cross_check: to_json(checked)}
    if options.check:
        stale = [path for path, text in texts.items() if _read(path) != text]
        for path in stale:
            print(f"{path} is not what the sources give: run without --check")
        return 1 if stale or unexplained else 0
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
    return 1 if unexplained else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="build_registry.py", description=__doc__)
    parser.add_argument(
        "--sources",
        type=Path,
        metavar="DIR",
        help="the three packages, unpacked; without it they are fetched with pip download",
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if stale")
    for option, default in (
        ("overrides", "tools/registry_overrides.toml"),
        ("output", "llmkit/models/models.json"),
        ("cross-check", "tests/data/registry_cross_check.json"),
    ):
        parser.add_argument(f"--{option}", type=Path, metavar="FILE", default=_ROOT / default)
    return parser


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


@contextmanager
def _sources(directory: Path | None, pins: Mapping[str, str]) -> Iterator[Path]:
    """Gives the folder of the unpacked packages; fetches them into a temporary one if need be."""
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = [f"{package}=={version}" for package, version in pins.items()]
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", name]
        subprocess.run([*command, *wanted], check=True)
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                members = [each for each in archive.namelist() if each.endswith(_WANTED)]
                archive.extractall(folder / wheel.stem, members)
        yield folder


def _check_versions(directory: Path, pins: Mapping[str, Any]) -> None:
    for package, pinned in pins.items():
        found = version_of(directory, package)
        if found != pinned:
            raise SystemExit(f"{directory}: {package} is {found or 'missing'}, not {pinned}")
