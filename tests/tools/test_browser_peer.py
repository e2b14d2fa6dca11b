"""What is worked out of the browser's notes; a whole call is in tests/browser/test_browser_peer.py."""

import base64
import time

import numpy as np
import pytest

from tools import browser_peer, bursts
from tools.browser_peer import BrowserTrouble, find_capture, read_clock
from tools.bursts import Trace

STARTED_S = 2000.0


@pytest.fixture(scope="module")
def sound() -> bursts.BurstSound:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 19_200).astype(np.float32)
    return bursts.place_bursts([noise * np.hanning(19_200).astype(np.float32)], 12)


def hear(sound: bursts.BurstSound, *, gain: float = 1.0, jitter_s: float = 0.0) -> Trace:
    """The loudness of pieces of 10 ms, each some time off."""
    times_s, values = bursts.measure_loudness(sound.samples * gain, STARTED_S)
    off_s = np.random.default_rng(1).uniform(-jitter_s, jitter_s, len(times_s) // 4 + 1)
    return Trace(times_s + np.repeat(off_s, 4)[: len(times_s)], values)


def test_the_microphones_start_is_found_to_a_millisecond(sound):
    for gain in (1.0, 0.3):
        capture = find_capture(hear(sound, gain=gain), sound)
        assert capture.started_s == pytest.approx(STARTED_S, abs=0.001)
        assert capture.spread_s < 0.002


def test_a_microphone_that_plays_unevenly_is_found_and_said_to_be(sound):
    capture = find_capture(hear(sound, jitter_s=0.01), sound)
    assert capture.started_s == pytest.approx(STARTED_S, abs=0.004)
    late = hear(sound)
    moved = np.where(late.times_s > STARTED_S + 8, late.times_s + 0.03, late.times_s)
    assert find_capture(Trace(moved, late.values), sound).spread_s == pytest.approx(0.03, abs=0.003)


def test_a_silent_or_foreign_microphone_is_told(sound):
    silent = hear(sound, gain=0.0)
    with pytest.raises(BrowserTrouble, match="stayed silent"):
        find_capture(silent, sound)
    with pytest.raises(BrowserTrouble, match="stayed silent"):
        find_capture(Trace(np.zeros(0), np.zeros(0)), sound)
    noise = Trace(silent.times_s, np.random.default_rng(2).uniform(0, 0.3, len(silent.values)))
    with pytest.raises(BrowserTrouble, match="of 7 bursts are in the microphone's sound"):
        find_capture(noise, sound)


class OtherClock:
    """Stands in for a page: the same clock from another origin, read after some of the round trip."""

    def __init__(self, origin_s: float) -> None:
        self.origin_s = origin_s

    async def evaluate(self, _script: str) -> float:
        time.sleep(0.0005)
        now_s = time.monotonic()
        time.sleep(0.0002)
        return round((now_s - self.origin_s) * 10_000) / 10  # ms, as coarse as a page's


async def test_a_pages_clock_is_laid_on_ours_within_the_error_it_states():
    clock = await read_clock(OtherClock(1234.5))
    assert 0 < clock.error_s
    assert abs(clock.offset_s - 1234.5) <= clock.error_s
    assert clock.monotonic_s(np.array([0.0, 1000.0])) == pytest.approx([clock.offset_s, clock.offset_s + 1])


def test_a_mouth_comes_back_as_the_canvas_gave_it():
    rows, columns = bursts.MOUTH
    frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    text = base64.b64encode(frame[rows, columns].mean(-1).astype(np.uint8).tobytes()).decode()
    np.testing.assert_array_equal(browser_peer._decode_mouth(text), bursts.cut_mouth(frame))
