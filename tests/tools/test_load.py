"""The load tool against a real server with the fake engine."""

import json
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tools import load
from tools.performance_runs import ToolRun
from tools.performance_text import churn_section, load_section


def test_sessions_beyond_the_limit_are_refused_and_the_others_are_served(tmp_path, capsys):
    out = tmp_path / "f.json"
    arguments = ["--sessions", "3", "--max-sessions", "2", "--seconds", "4", "--json", str(out), "--engine", "fake"]
    assert load.main(arguments) == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert (report["asked"], report["opened"], report["refused"], report["failed"]) == (3, 2, 1, 0)
    assert len(report["sessions"]) == 2
    for session in report["sessions"]:
        assert session["fps"] > 5 and session["frames"] > 20 and not session["ended_early"]
    memory = report["server_resident_mb"]
    assert 20 < memory["before"] <= memory["highest"] and memory["after"] < 4000
    assert report["fps"]["min"] <= report["fps"]["mean"] and report["lost_share"] is not None
    assert 0 <= report["loop_lag_ms"]["p50"] <= report["loop_lag_ms"]["p99"]
    assert "2 of 3 sessions opened, 1 refused" in capsys.readouterr().out
    assert "| 3     | 2      | 1       |" in load_section([ToolRun(command="c", report=report)])


def test_sums_of_no_session_are_unknown_not_made_up():
    sums = load.sum_up([])
    assert sums["fps"] == {"min": None, "mean": None} and sums["lost_share"] is None


def test_the_number_of_sessions_is_bounded(capsys):
    with pytest.raises(SystemExit):
        load.main(["--sessions", "100000", "--seconds", "1", "--json", "f.json"])
    assert "at most 256" in capsys.readouterr().err


def test_no_server_outlives_a_run_that_is_ended_by_sigterm(tmp_path):
    arguments = ["--sessions", "1", "--seconds", "60", "--json", str(tmp_path / "f.json"), "--engine", "fake"]
    tool = subprocess.Popen([sys.executable, "-m", "tools.load", *arguments], stderr=subprocess.DEVNULL)
    try:
        until_s = time.monotonic() + 60
        while not (servers := psutil.Process(tool.pid).children()) and time.monotonic() < until_s:
            time.sleep(0.05)
        assert len(servers) == 1
        tool.terminate()
        assert tool.wait(30) == 128 + signal.SIGTERM
        assert psutil.wait_procs(servers, timeout=5)[1] == []
    finally:
        tool.kill()


def test_sessions_come_and_go_and_memory_is_watched(tmp_path, capsys):
    out = tmp_path / "f.json"
    arguments = ["--sessions", "2", "--seconds", "12", "--churn", "3", "--json", str(out), "--engine", "fake"]
    assert load.main(arguments) == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert report["opened"] > 2 and report["failed"] == 0 and report["session_s"] == 3
    assert report["session_fps"]["p50"] > 0
    times_s, resident_mb = zip(*report["memory_mb"], strict=True)
    assert len(times_s) >= 6 and list(times_s) == sorted(times_s) and min(resident_mb) > 20
    assert report["server_resident_mb"]["highest"] == max(resident_mb)
    assert set(report["memory_trend"]) == {"mb_per_hour", "error_mb_per_hour", "from_s", "samples"}
    assert "sessions of about 3 s in 12 s, 2 at a time" in capsys.readouterr().out
    assert "sessions of about 3 s, 2 at a time" in churn_section(ToolRun(command="c", report=report))
