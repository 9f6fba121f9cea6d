"""docs/architecture.md tells of the house as it stands."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_ladder_is_the_one_that_is_checked() -> None:
    """Each row of the table is a rung of the rule in setup.cfg, in its order."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    layers = config["importlinter:contract:ladder"]["layers"].split("\n")
    rungs = [set(re.split(r"[ |]+", layer.strip())) for layer in layers if layer.strip()]
    table = TEXT.partition("| rung |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1] for row in table.splitlines()[2:]]
    assert [set(re.findall(r"`(\w+)`", row)) for row in rows] == rungs


@pytest.mark.parametrize("room", sorted(set(re.findall(r"\b(\w+/\w+(?:/\w+)*(?:\.\w+)?)\b", TEXT))))
def test_every_file_that_is_named_is_there(room: str) -> None:
    """Whoever follows the text into the code finds what it names."""
    places = [ROOT / room, ROOT / "llmkit" / room]
    assert any(place.exists() or place.with_suffix(".py").exists() for place in places)


def test_the_sizes_are_those_that_are_held() -> None:
    """The limits on files and functions are the ones of tests/test_house.py."""
    house = (ROOT / "tests" / "test_house.py").read_text(encoding="utf-8")
    said = re.search(r"at most (\d+) lines, a function at most (\d+)", TEXT)
    assert said is not None
    for limit in said.groups():
        assert re.search(rf"\b{limit}\b", house)
