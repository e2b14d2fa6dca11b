"""The profiler with a real Chromium as the peer, on a real server with the fake engine."""

import json
import shutil

import pytest

from tools import profile_latency


def test_a_call_in_chromium_is_measured_by_the_same_keys(tmp_path, capsys):
    if not any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        pytest.skip("no Chromium is installed: profile_latency --browser is not checked")
    out, trace = tmp_path / "f.json", tmp_path / "f.trace.json"
    arguments = ["--seconds", "8", "--json", str(out), "--trace", str(trace), "--engine", "fake", "--browser"]
    # On a machine so busy that every burst gets lost there is nothing to look at: once more then.
    assert profile_latency.main(arguments) == 0 or profile_latency.main(arguments) == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert report["peer"] == "chromium"
    assert report["bursts"] == 4 and report["bursts_found"] >= 2  # a busy machine may lose some
    # Lookahead and playout margin are 160 ms by the server's clock; nothing can be faster than that.
    assert report["picture_age_ms"]["p50"] > 160 and report["sound_age_ms"]["p50"] > 160
    assert report["uncertainty_ms"]["page_clock"] < 20
    assert report["frames"] > 50 and report["stage_budget_bursts"] >= 2
    stages = report["stage_budget_ms"]
    assert sum(stages.values()) == pytest.approx(report["stage_budget_sum_ms"], abs=0.1)
    assert "rise_and_way_up" in stages and "way_up" not in stages  # what cannot be told apart is not told apart
    assert sum(report["budget_ms"].values()) == pytest.approx(report["mouth_to_pixel_ms"]["p50"], abs=0.2)
    names = {event["name"].partition(" ")[0] for event in json.loads(trace.read_text())["traceEvents"]}
    assert {"packet", "step", "encode", "frame", "mouth"} <= names
