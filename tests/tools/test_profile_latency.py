"""The profiler against a real server with the fake engine, whose mouth is exactly in step with its sound."""

import json

import numpy as np
import pytest

from client.errors import ServerTrouble
from client.service import request_json
from tools import profile_latency
from tools.performance_runs import ToolRun
from tools.performance_text import latency_section
from tools.server_process import ServerProcess


def test_the_fake_engines_run_is_measured_whole(tmp_path, capsys):
    out, plot = tmp_path / "f.json", tmp_path / "new" / "f.png"
    trace = tmp_path / "f.trace.json"
    arguments = ["--seconds", "8", "--json", str(out), "--plot", str(plot), "--trace", str(trace), "--engine", "fake"]
    assert profile_latency.main(arguments) == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert report["bursts"] == 4 and report["bursts_found"] >= 3  # a busy machine may lose one
    # Lookahead and playout margin are 160 ms by the server's clock; nothing can be faster than that.
    assert report["picture_age_ms"]["p50"] > 160
    assert report["sound_age_ms"]["p50"] > 160
    assert report["mouth_to_pixel_ms"]["p50"] > 140
    assert set(report["av_skew_ms"]) == {"p50", "p95", "signed_p50"} and report["av_skew_ms"]["p50"] >= 0
    assert all(-25 <= at <= 5 for at in report["engine_onset_ms"])
    assert sum(report["budget_ms"].values()) == pytest.approx(report["mouth_to_pixel_ms"]["p50"], abs=0.2)
    assert report["fps"] > 10 and report["frames"] > 50
    assert "step" in report["engine_stages_ms"] and report["start_s"] > 0
    assert plot.read_bytes()[:4] == b"\x89PNG"
    assert "mouth to pixel, p50" in capsys.readouterr().out
    check_stages(report)
    assert f"| {report['mouth_to_pixel_ms']['p50']:.3f}" in latency_section(
        ToolRun(command="c", report=report), "t", "w"
    )
    check_trace(json.loads(trace.read_text())["traceEvents"])


def check_stages(report) -> None:
    stages = report["stage_budget_ms"]
    assert report["stage_budget_bursts"] >= 3 and report["peer"] == "aiortc"
    assert sum(stages.values()) == pytest.approx(report["stage_budget_sum_ms"], abs=0.1)
    assert report["stage_budget_sum_ms"] == pytest.approx(
        np.mean([b["mouth_to_pixel_ms"] for b in report["each_burst"] if b["mouth_to_pixel_ms"]]), abs=0.1
    )
    assert stages["lookahead"] == 120
    # By the clocks of two processes, no stage ends before it begins; a burst's onset may lie after its frame's instant.
    assert all(ms >= 0 for stage, ms in stages.items() if stage != "rise"), stages


def check_trace(events) -> None:
    """The server's own spans lie among the peer's, in the order of cause and effect."""
    by_name: dict[str, list[float]] = {}
    for event in events:
        if event["ph"] in ("X", "i", "b"):
            by_name.setdefault(event["name"].partition(" ")[0], []).append(event["ts"])
    assert {"packet", "step", "hop_to_frame", "wait_for_tick", "encode", "frame", "burst", "sound"} <= set(by_name)
    left, arrived = np.sort(by_name["encode"]), np.sort(by_name["frame"])
    assert (np.searchsorted(left, arrived) > np.arange(len(arrived))).all()  # none arrives before it left


def test_a_server_that_cannot_start_is_told_with_what_it_wrote():
    with pytest.raises(ServerTrouble, match="(?s)ended with status 2.*max sessions is 0"):
        ServerProcess("fake", max_sessions=0)


def test_a_server_that_is_not_there_is_told():
    with pytest.raises(ServerTrouble, match=r"GET http://127\.0\.0\.1:9/ failed"):
        request_json("GET", "http://127.0.0.1:9/")


def test_help_says_what_each_figure_means(capsys):
    with pytest.raises(SystemExit):
        profile_latency.main(["--help"])
    text = capsys.readouterr().out
    for key in (
        "mouth_to_pixel_ms",
        "picture_age_ms",
        "av_skew_ms",
        "budget_ms",
        "stage_budget_ms",
        "wait_for_tick",
        "dropped",
    ):
        assert key in text
