"""A run whose every stage takes a known time is split into just these."""

from dataclasses import replace

import numpy as np
import pytest

from tests.tools.made_up_run import EXPECTED, FIRST_TICK, LOOKAHEAD_MS, SKIPPED, STAGES_MS, STARTED_S, make_run
from tools.latency import follow_bursts, make_report, measure_bursts
from tools.stage_budget import average_stages, match_packets, match_ticks, read_server_times


@pytest.fixture(scope="module")
def run():
    recording, spans = make_run()
    return recording, read_server_times(spans), measure_bursts(recording, [EXPECTED])


def test_frames_and_packets_of_both_ends_are_matched_by_their_times(run):
    recording, server, _ = run
    ticks = match_ticks(recording.arrived_s, recording.frame_ticks, server.ticks)
    assert ticks is not None and ticks[0] == FIRST_TICK and (np.diff(ticks) == 1).all()
    assert match_packets(server.packets, STARTED_S) == SKIPPED


def test_jitter_does_not_move_the_match(run):
    recording, server, _ = run
    late_s = np.random.default_rng(1).exponential(0.05, len(recording.arrived_s))
    late_s[40] = 0.0
    ticks = match_ticks(recording.arrived_s + late_s, recording.frame_ticks, server.ticks)
    assert ticks is not None and ticks[0] == FIRST_TICK
    packets = server.packets + np.random.default_rng(2).exponential([1e-9, 0.03], server.packets.shape)
    assert match_packets(packets, STARTED_S) == SKIPPED


def test_every_stage_is_what_it_was_made(run):
    recording, server, figures = run
    followed = follow_bursts(recording, figures, server)
    assert len(followed) == len(figures) == 7
    for frame in followed:
        assert {name: frame[name] for name in STAGES_MS} == pytest.approx(STAGES_MS, abs=1e-6)
        assert frame["lookahead"] == LOOKAHEAD_MS
        assert frame["packet_filling"] == pytest.approx(500 / 48, abs=1e-6)  # a hop ends within a packet
        assert -8 <= frame["rise"] <= 40 + 8  # the next frame is 0 to 40 ms away, found to within some ms


def test_stages_add_up_to_the_whole(run):
    recording, server, figures = run
    for figure, frame in zip(figures, follow_bursts(recording, figures, server), strict=True):
        assert sum(frame.values()) == pytest.approx(figure.mouth_to_pixel_ms, abs=1e-6)
    report = make_report(recording, figures, [EXPECTED], server)
    assert report["stage_budget_bursts"] == 7
    assert report["stage_budget_sum_ms"] == pytest.approx(sum(report["stage_budget_ms"].values()), abs=0.01)
    assert report["stage_budget_sum_ms"] == pytest.approx(np.mean([f.mouth_to_pixel_ms for f in figures]), abs=0.01)


def test_what_a_peer_that_counts_no_samples_cannot_tell_apart_is_one_stage(run):
    recording, server, figures = run
    whole = follow_bursts(recording, figures, server)
    merged = follow_bursts(replace(recording, counts_samples=False), figures, server)
    for one, other in zip(whole, merged, strict=True):
        assert "rise" not in other and "way_up" not in other
        assert other["rise_and_way_up"] == pytest.approx(one["rise"] + one["packet_filling"] + one["way_up"])
        assert sum(other.values()) == pytest.approx(sum(one.values()))


def test_a_late_frame_is_followed_by_what_was_shown_not_by_its_tick(run):
    recording, server, figures = run
    first = FIRST_TICK + figures[0].frame
    ticks = dict(server.ticks)
    ticks[first] = replace(ticks[first], frame=first - 1)  # the frame before came late and shows here
    late = follow_bursts(recording, figures, replace(server, ticks=ticks))[0]
    intime = follow_bursts(recording, figures, server)[0]
    assert late["wait_for_tick"] == pytest.approx(intime["wait_for_tick"] + 40)
    assert late["rise"] == pytest.approx(intime["rise"] - 40)


def test_a_burst_whose_trace_is_not_whole_is_left_out(run):
    recording, server, figures = run
    gone = FIRST_TICK + figures[2].frame
    without = replace(server, frames={k: v for k, v in server.frames.items() if k != gone})
    assert len(follow_bursts(recording, figures, without)) == len(figures) - 1
    assert follow_bursts(recording, figures, replace(server, ticks={})) == []


def test_an_engine_without_stages_has_them_all_in_the_rest():
    recording, spans = make_run()
    plain = read_server_times([span for span in spans if not span["stage"].startswith("step.")])
    stages = average_stages(follow_bursts(recording, measure_bursts(recording, [EXPECTED]), plain))
    assert "render" not in stages
    assert stages["engine_rest"] == pytest.approx(1.5 + 2 + 5 + 4)
