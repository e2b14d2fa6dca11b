"""Sound by the timeline's clock, against a device whose crystal and latency are made up."""

import numpy as np
import pytest

from client.player import HELD_S, Player, draw_between
from client.skew import SkewGauge
from client.timeline import FIRST_SPARE_S, Timeline
from engine.audio.window import SampleRing

RATE = 48_000
BLOCK = 960


def tone(position: int, count: int) -> np.ndarray:
    return np.sin(2 * np.pi * 200 * (position + np.arange(count)) / RATE).astype(np.float32)


def play(seconds: float, *, crystal: float = 1.0, heard=tone) -> tuple[Player, SkewGauge, np.ndarray]:
    """A tone that arrives in time, played by a device ``crystal`` times as fast as it should be."""
    timeline, gauge = Timeline(), SkewGauge()
    player = Player(gauge)
    player.start(timeline)
    out = []
    for index in range(int(seconds * RATE / BLOCK)):
        now_s = index * BLOCK / RATE
        player.put(index * BLOCK, heard(index * BLOCK, BLOCK))
        timeline.observe("audio", index * BLOCK, now_s)
        out.append(player.pull(BLOCK, now_s / crystal))
    return player, gauge, np.concatenate(out)


def test_sound_leaves_when_the_timeline_says():
    _, _, out = play(1)
    late = round(FIRST_SPARE_S * RATE)
    assert not out[: late - 2].any()
    np.testing.assert_allclose(out[late + 10 :], tone(10, len(out) - late - 10), atol=1e-3)


@pytest.mark.parametrize("crystal", [0.9998, 1.0002])
def test_a_device_with_another_crystal_is_followed_without_a_jump(crystal):
    player, gauge, out = play(60, crystal=crystal)
    assert player.jumps == 0
    gauge.picture_left(0)
    skew = gauge.read()
    assert skew is not None and abs(skew.median_ms) < 1
    steps = np.abs(np.diff(out[RATE:]))
    assert steps.max() < 1.1 * 2 * np.pi * 200 / RATE, "the tone breaks off nowhere"


def test_where_nothing_came_there_is_silence():
    player, _, _ = play(1)
    assert not player.pull(BLOCK, 0.8 + 2 * HELD_S).any()
    player.start(None)
    assert not player.pull(BLOCK, 1).any()


def test_a_device_with_another_rate_hears_the_same_tone():
    timeline = Timeline()
    player = Player(SkewGauge())
    player.start(timeline)
    player.put(0, tone(0, RATE))
    timeline.observe("audio", 0, 0.0)
    out = player.pull(4410, FIRST_SPARE_S, 44_100)
    np.testing.assert_allclose(out[5:], np.sin(2 * np.pi * 200 * np.arange(5, 4410) / 44_100), atol=2e-3)


def test_sound_between_samples_is_drawn_through_its_neighbours():
    ring = SampleRing(100)
    ring.write(0, np.arange(50, dtype=np.float32))
    np.testing.assert_allclose(draw_between(ring, np.array([10.0, 10.25, 11.5])), [10, 10.25, 11.5], atol=1e-5)
    assert not draw_between(ring, np.array([-200.0, -199.0])).any()
    assert draw_between(ring, np.array([-0.5, 5.0]))[1] == 5
