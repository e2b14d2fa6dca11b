import numpy as np
import pytest

from engine.api import EngineSpec
from engine.audio.window import SampleRing, hop_of, window_of, window_span

SPEC = EngineSpec(name="t", window_ms=320, lookahead_ms=120, max_batch=1)


def test_streamed_windows_equal_offline_windows() -> None:
    rng = np.random.default_rng(0)
    speech = rng.standard_normal(16_000).astype(np.float32)
    offline = np.concatenate((np.zeros(16_000, np.float32), speech))
    ring, at, frame, compared = SampleRing(8_000), 0, 0, 0
    while at < len(speech):
        n = int(rng.integers(1, 1_500))
        ring.write(at, speech[at : at + n])
        at = min(at + n, len(speech))
        while window_span(frame, SPEC)[1] <= at:
            first, end = window_span(frame, SPEC)
            np.testing.assert_array_equal(window_of(ring, frame, SPEC), offline[16_000 + first : 16_000 + end])
            frame, compared = frame + 1, compared + 1
    assert compared == 16_000 // 640 - SPEC.lookahead_hops + 1


def test_a_window_holds_the_lookahead_after_its_frame() -> None:
    assert window_span(0, SPEC) == (1_920 - 5_120, 1_920)
    assert window_span(10, SPEC)[1] - 10 * 640 == 120 * 16


def test_hops_tile_the_sound() -> None:
    ring = SampleRing(3_200)
    sound = np.arange(3_200, dtype=np.float32)
    ring.write(0, sound)
    np.testing.assert_array_equal(np.concatenate([hop_of(ring, h, SPEC) for h in range(5)]), sound)


def test_the_oldest_samples_are_dropped_and_read_as_zero() -> None:
    ring = SampleRing(4)
    ring.write(0, np.arange(1, 7, dtype=np.float32))
    assert (ring.start, ring.end) == (2, 6)
    assert ring.read(0, 7).tolist() == [0, 0, 3, 4, 5, 6, 0]


def test_gaps_are_silent_until_late_samples_fill_them() -> None:
    ring = SampleRing(8, np.int16)
    ring.write(0, np.array([1, 1], np.int16))
    ring.write(4, np.array([2, 2], np.int16))
    assert ring.read(0, 6).tolist() == [1, 1, 0, 0, 2, 2]
    assert ring.write(2, np.array([9, 9], np.int16)) == 0
    assert ring.read(0, 6).tolist() == [1, 1, 9, 9, 2, 2]


def test_samples_that_come_too_late_are_counted() -> None:
    ring = SampleRing(4)
    ring.extend(10)
    assert ring.write(4, np.ones(4, np.float32)) == 2
    assert ring.read(6, 4).tolist() == [1, 1, 0, 0]


def test_one_write_longer_than_the_ring_keeps_its_end() -> None:
    ring = SampleRing(3)
    ring.write(5, np.arange(10, dtype=np.float32))
    assert ring.read(12, 3).tolist() == [7, 8, 9]


@pytest.mark.parametrize("capacity", [0, -1])
def test_an_empty_ring_is_refused(capacity: int) -> None:
    with pytest.raises(ValueError, match=str(capacity)):
        SampleRing(capacity)
