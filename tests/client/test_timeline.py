"""The receiver's clock on made-up arrivals: every figure is known."""

import numpy as np
import pytest

from client.timeline import JUMP_S, OBSERVED, SPARE_S, Timeline


class Source:
    """A server's two streams: stamps from origins of their own, one clock behind them."""

    def __init__(self, *, shift_s: float = 0.1, latency_s: float = 0.05) -> None:
        self.timeline = Timeline()
        self._shift_s, self._latency_s = shift_s, latency_s
        self._late = np.random.default_rng(0)

    def send(self, begin_s: float, end_s: float, *, jitter_s: float = 0.0, report: bool = True) -> None:
        """Sound from media time 0 at wall time 0; pictures stamped 0 at media time ``shift_s``."""
        for tick in range(int(begin_s * 100), int(end_s * 100)):
            now_s = tick / 100
            came_s = now_s + self._latency_s + self._late.uniform(0, 1) * jitter_s
            if tick % 2 == 0:
                self.timeline.observe("audio", round(now_s * 48_000), came_s)
            if tick % 4 == 0 and now_s >= self._shift_s:
                self.timeline.observe("video", round((now_s - self._shift_s) * 90_000), came_s)
            if report and tick % 100 == 99:
                self.timeline.report("audio", round(now_s * 48_000), 1e9 + now_s)
                self.timeline.report("video", round((now_s - self._shift_s) * 90_000), 1e9 + now_s)


def test_reports_put_pictures_and_sound_of_one_instant_on_one_media_time():
    source = Source(shift_s=0.1)
    source.send(0, 3)
    assert source.timeline.is_synced
    assert source.timeline.media_s("audio", 48_000) == 1.0
    assert source.timeline.media_s("video", 90_000) == pytest.approx(1.1, abs=1e-6)


def test_until_reports_come_arrival_links_them():
    source = Source(shift_s=0.1)
    assert source.timeline.media_s("video", 0) is None
    source.send(0, 3, report=False)
    assert not source.timeline.is_synced
    assert source.timeline.media_s("video", 90_000) == pytest.approx(1.1, abs=0.005)


def test_one_report_that_an_encoder_delayed_changes_nothing():
    source = Source()
    source.send(0, 10)
    source.timeline.report("video", round(9.9 * 90_000), 1e9 + 10.2)
    assert source.timeline.media_s("video", 0) == pytest.approx(0.1, abs=1e-6)


def test_what_is_due_waits_for_nearly_all_that_comes_and_a_little_more():
    source = Source(latency_s=0.05)
    source.send(0, 60, jitter_s=0.04)
    due_s = source.timeline.due_s(0)
    assert due_s is not None and 0.05 + 0.03 + SPARE_S < due_s < 0.05 + 0.041 + SPARE_S
    assert source.timeline.leaving_s(due_s) == 0 and source.timeline.jumps == 0


def test_a_poorer_network_moves_it_slowly_and_both_streams_alike():
    source = Source()
    source.send(0, 20)
    before_s = source.timeline.due_s(0)
    source.send(20, 20.2, jitter_s=0.1)
    after_s = source.timeline.due_s(0)
    assert before_s is not None and after_s is not None and 0 <= after_s - before_s <= 0.2 * 0.05 + 0.01
    source.send(20.2, 40, jitter_s=0.1)
    settled_s = source.timeline.due_s(0)
    assert settled_s is not None and settled_s > before_s + 0.08


def test_a_source_that_was_placed_anew_is_followed_at_once():
    source = Source()
    source.send(0, 10)
    for index in range(OBSERVED):
        source.timeline.observe("audio", round((10 + index / 50) * 48_000), 12 + index / 50)
    due_s = source.timeline.due_s(0)
    assert source.timeline.jumps == 1 and due_s is not None and due_s > 0.1 + JUMP_S


def test_before_anything_came_nothing_is_due():
    timeline = Timeline()
    assert timeline.due_s(1) is None and timeline.leaving_s(1) is None and timeline.buffer_s == 0
