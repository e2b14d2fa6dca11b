"""Latency figures of a made-up run whose delays are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tools import bursts, latency
from tools.bursts import Trace
from tools.latency import Recording
from tools.stage_budget import read_server_times

STARTED_S = 1000.0
EXPECTED = Trace(np.array([-0.02, 0.0, 0.4, 0.42]), np.array([0.0, 10.0, 10.0, 0.0]))


def make_recording(*, picture_s: float, sound_s: float, decode_s: float = 0.002, frame_s: float = 0.04) -> Recording:
    """Pictures ``picture_s`` old on arrival, sound ``sound_s``, for one kind of burst."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 19_200).astype(np.float32)
    sound = bursts.place_bursts([noise], 20)
    instants_s = np.arange(0.0, len(sound.samples) / 48_000, frame_s) + 0.007
    mouth = np.zeros(len(instants_s))
    for onset_s in sound.onsets_s:
        mouth += np.interp(instants_s - onset_s, *EXPECTED)
    arrived_s = STARTED_S + instants_s + picture_s
    loudness = bursts.measure_loudness(sound.samples, STARTED_S + sound_s)
    stats = [
        {
            "at_s": STARTED_S + s,
            "frames": 25 * s,
            "repeated": s // 10,
            "dropped": 0,
            "delay_ms": 160,
            "hop_to_frame_ms": 9.0,
        }
        for s in range(1, 20)
    ]
    return Recording(
        sound=sound,
        started_s=STARTED_S,
        mouth=Trace(arrived_s, mouth),
        arrived_s=arrived_s,
        shown_s=arrived_s + decode_s,
        frame_ticks=np.arange(len(arrived_s)) * 3600,
        loudness=loudness,
        stats=stats,
        lookahead_ms=120,
    )


def report_of(recording: Recording) -> dict[str, Any]:
    figures = latency.measure_bursts(recording, [EXPECTED])
    return latency.make_report(recording, figures, [EXPECTED], read_server_times([]))


def test_known_delays_are_measured():
    report = report_of(make_recording(picture_s=0.185, sound_s=0.177))
    assert report["bursts"] == report["bursts_found"] == 14
    assert report["sound_age_ms"]["p50"] == pytest.approx(177, abs=1)
    for p in ("p50", "p95", "p99"):  # a sharp edge seen every 40 ms is known to some ms only
        assert report["picture_age_ms"][p] == pytest.approx(187, abs=8)
    assert report["av_skew_ms"]["signed_p50"] == pytest.approx(8, abs=6)
    # the next frame is 0 to 40 ms away
    assert all(187 - 8 <= b["mouth_to_pixel_ms"] <= 187 + 40 + 8 for b in report["each_burst"])
    assert report["engine_onset_ms"] == [0.0]
    assert report["fps"] == pytest.approx(25, abs=0.01) and report["gaps"] == 0
    assert report["frames"] == 25 * 15 and report["repeated"] == 1 and report["dropped"] == 0


def test_a_mouth_that_stirs_at_rest_has_not_answered_yet():
    recording = make_recording(picture_s=0.185, sound_s=0.177)
    times_s, values = recording.mouth
    stirred = values.copy()
    for onset_s in recording.sound.onsets_s:  # before anything of the burst can have come
        near = (times_s > STARTED_S + onset_s - 0.05) & (times_s < STARTED_S + onset_s + 0.1)
        stirred[near] = np.maximum(stirred[near], 3.5)  # of 10
    report = report_of(replace(recording, mouth=Trace(times_s, stirred)))
    assert report["bursts_found"] == 14 and report["mouth_to_pixel_ms"]["p50"] > 170


def test_a_picture_before_its_sound_has_a_negative_skew():
    report = report_of(make_recording(picture_s=0.150, sound_s=0.190))
    assert report["av_skew_ms"]["signed_p50"] == pytest.approx(-40, abs=6)
    assert report["av_skew_ms"]["p50"] == pytest.approx(40, abs=6)


def test_the_budget_adds_up_to_the_median():
    report = report_of(make_recording(picture_s=0.185, sound_s=0.177))
    budget = report["budget_ms"]
    assert sum(budget.values()) == pytest.approx(report["mouth_to_pixel_ms"]["p50"], abs=0.1)
    assert budget["lookahead"] == 120 and budget["engine"] == 9 and budget["margin_wait"] == 31
    assert budget["decode"] == pytest.approx(2, abs=0.01)


def test_a_peer_that_sees_the_screen_has_the_same_budget_but_its_ages_are_there():
    arrival = make_recording(picture_s=0.185, sound_s=0.177, decode_s=0.030)
    seen = replace(arrival, mouth=Trace(arrival.shown_s, arrival.mouth.values))
    one, other = report_of(arrival), report_of(seen)
    assert other["budget_ms"] == pytest.approx(one["budget_ms"], abs=6)
    assert sum(other["budget_ms"].values()) == pytest.approx(other["mouth_to_pixel_ms"]["p50"], abs=0.1)
    assert other["picture_age_ms"]["p50"] == pytest.approx(one["picture_age_ms"]["p50"], abs=6)
    assert other["av_skew_ms"]["signed_p50"] - one["av_skew_ms"]["signed_p50"] == pytest.approx(30, abs=6)


def test_a_mouth_that_never_moves_is_not_found():
    recording = make_recording(picture_s=0.185, sound_s=0.177)
    still = Trace(recording.mouth.times_s, np.zeros(len(recording.mouth.values)))
    report = report_of(Recording(**{**vars(recording), "mouth": still}))
    assert report["bursts_found"] == 0 and report["budget_ms"] is report["stage_budget_ms"] is None
    assert report["mouth_to_pixel_ms"] == {"p50": None, "p95": None, "p99": None}
    assert report["sound_age_ms"]["p50"] == pytest.approx(177, abs=1)


def test_gaps_are_frame_times_without_a_frame():
    assert latency.count_gaps(np.array([0, 3600, 7200])) == 0
    assert latency.count_gaps(np.array([0, 3600, 14_400, 18_000])) == 2
    assert latency.count_gaps(np.array([])) == 0
