"""Start-up and first frame, on a real server with the fake engine."""

import json

import pytest

from client.errors import ServerTrouble
from client.service import send_portrait
from tools import startup
from tools.performance_runs import ToolRun
from tools.performance_text import startup_section
from tools.server_process import ServerProcess


def test_a_server_is_started_twice_and_portraits_are_called(tmp_path, capsys):
    out = tmp_path / "f.json"
    assert startup.main(["--json", str(out), "--engine", "fake", "--portraits", "2"]) == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert report["start_first_s"] > 0 and report["start_second_s"] > 0
    assert len(report["each"]) == 2
    for one in report["each"]:
        assert 0 < one["enrolled_ms"] < one["first_picture_ms"]
        assert one["first_drawn_ms"] is None or one["first_drawn_ms"] > one["enrolled_ms"] + 160  # the playout delay
    assert any(one["first_drawn_ms"] for one in report["each"])
    assert "first picture" in capsys.readouterr().out
    assert "second start" in startup_section(ToolRun(command="c", report=report))


def test_the_first_drawn_frame_is_the_calls_own():
    calls = [(10.0, {"enrolled_ms": 5.0}), (20.0, {"enrolled_ms": 6.0}), (30.0, {"enrolled_ms": 7.0})]
    spans = [
        {"stage": "encode", "start_s": 10.5, "ms": 2.0, "frame": -1},  # at rest
        {"stage": "encode", "start_s": 10.7, "ms": 2.0, "frame": 0},
        {"stage": "encode", "start_s": 10.8, "ms": 2.0, "frame": 1},
        {"stage": "step", "start_s": 20.1, "ms": 2.0},
        {"stage": "encode", "start_s": 30.4, "ms": 1.0, "frame": 3},
    ]
    drawn = [one["first_drawn_ms"] for one in startup.add_first_drawn(calls, spans)]
    assert drawn == [pytest.approx(702.0), None, pytest.approx(401.0)]


def test_a_refused_portrait_is_told_in_the_servers_words():
    with ServerProcess("fake") as server, pytest.raises(ServerTrouble, match="was answered 4"):
        send_portrait(server.url, b"no picture")
