"""Two browsers in a room, one killed; and how the tool judges what was heard."""

from __future__ import annotations

import json

import pytest

from tests.browser.conftest import find_chromium
from tools import room

SPOKEN = {
    "A": {"A": {"A": 0, "B": 0.0}, "B": {"A": 0.2, "B": 0}},
    "B": {"A": {"A": 0, "B": 0.1}, "B": {"A": 0.0, "B": 0}},
}


def test_who_hears_the_other_and_not_themself_is_well() -> None:
    assert room.judge(SPOKEN) == {"deaf": [], "echo": []}


def test_who_hears_nothing_or_themself_is_named() -> None:
    wrong = {"A": {"A": {"A": 0.2, "B": 0.0}, "B": {"A": 0.0, "B": 0}}, "B": SPOKEN["B"]}
    assert room.judge(wrong) == {"deaf": [["A", "B"]], "echo": [["A", "A"]]}


def test_sound_on_the_wrong_tile_is_named() -> None:
    wrong = {"A": {"C": {"A": 0.2, "B": 0.15}}}
    assert room.judge(wrong) == {"deaf": [], "echo": [["A", "C"]]}


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium is installed")
def test_two_meet_and_one_is_killed(tmp_path, capsys) -> None:
    told = tmp_path / "room.json"
    status = room.main(["--people", "2", "--seconds", "2", "--engine", "fake", "--json", str(told)])
    said = capsys.readouterr()
    assert status == 0, said
    report = json.loads(told.read_text())
    assert {who: set(tiles) for who, tiles in report["fps"].items()} == {p: {"P0", "P1"} for p in report["fps"]}
    assert report["place_free_s"] is not None and set(report["fps_after"]["P0"]) == {"P0"}
    assert "place free after" in said.out
