"""The logic of the barge-in figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.barge_in import main, open_above, settled_ms, sum_up


def test_settled_is_the_first_one_at_rest_after_the_last_one_that_was_not() -> None:
    values = [(0.9, 9.0), (1.02, 9.0), (1.06, 0.0), (1.10, 9.0), (1.14, 0.0), (1.18, 0.0)]
    assert settled_ms(values, 1.0, 1.0) == pytest.approx(140)
    assert settled_ms(values, 1.0, 1.11) == pytest.approx(30), "the first that came after was at rest already"


def test_what_never_comes_to_rest_has_no_time() -> None:
    assert settled_ms([(1.1, 0.0), (1.2, 9.0)], 1.0, 1.0) is None


def test_open_lies_between_rest_and_the_wider_half() -> None:
    assert open_above([0, 0, 0, 10, 10, 10], [1.0, 2.0]) == pytest.approx(4.0)
    assert open_above([1, 1], [5.0]) == 5.0, "nothing moved: nothing above rest counts"


def test_the_later_of_both_counts_and_misses_are_told() -> None:
    figures = sum_up(
        [
            {"lips_ms": 80.0, "silence_ms": 30.0},
            {"lips_ms": 60.0, "silence_ms": 90.0},
            {"lips_ms": None, "silence_ms": 1.0},
        ]
    )
    assert figures["both_ms"] == {"p50": 85.0, "p95": 89.5, "max": 90.0}
    assert (figures["times"], figures["missed"]) == (3, 1)


def test_a_run_with_the_fake_engine_ends_in_figures(tmp_path: Path) -> None:
    assert main(["--engine", "fake", "--times", "2", "--json", str(tmp_path / "f.json")]) == 0
    report = json.loads((tmp_path / "f.json").read_text())
    assert report["times"] == 2 and report["missed"] == 0
    assert 0 < report["both_ms"]["p50"] < 1_000


def test_a_server_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://127.0.0.1:9", "--engine", "fake", "--json", str(tmp_path / "f.json")]) == 2
    assert "no server at http://127.0.0.1:9" in capsys.readouterr().err
