"""Bursts whose place is known are found there."""

import numpy as np
import pytest

from engine.fake import FakeEngine
from tools import bursts
from tools.bursts import Trace
from tools.expected_mouth import draw_expected


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """4 s of noise in 16 kHz, loud in 0.5 - 1.2 s and 2 - 3 s, a quarter as loud elsewhere."""
    noise = np.random.default_rng(0).uniform(-0.2, 0.2, 64_000).astype(np.float32)
    noise[8000:19_200] *= 4
    noise[32_000:48_000] *= 4
    return noise


def test_bursts_are_cut_where_speech_is_loud_throughout(speech):
    cuts = bursts.cut_bursts(speech, 3)
    assert [len(c) for c in cuts] == [19_200] * 3
    assert all(np.abs(c).max() <= bursts.PEAK and c[0] == 0 == c[-1] for c in cuts)
    assert np.abs(cuts[0][240:480]).max() > 0.2  # at full loudness 5 ms after its onset
    with pytest.raises(ValueError, match="silent"):
        bursts.cut_bursts(np.zeros(64_000, np.float32))
    with pytest.raises(ValueError, match="hold no burst"):
        bursts.cut_bursts(speech[:3200])


def test_bursts_are_placed_after_the_start_in_turn_and_irregularly(speech):
    sound = bursts.place_bursts(bursts.cut_bursts(speech, 2), 15)
    assert len(sound.onsets_s) == 10 and sound.kinds.tolist() == [0, 1] * 5
    assert sound.onsets_s[0] >= bursts.FIRST_S and not sound.samples[: 3 * 48_000].any()
    phases = sound.onsets_s % 0.04
    assert np.ptp(phases) > 0.02
    for onset in sound.onsets_s:
        start = round(onset * 48_000)
        assert not sound.samples[start - 480 : start].any() and np.abs(sound.samples[start : start + 480]).max() > 0.1


@pytest.mark.parametrize("delay_s", [0.0, 0.0421, 0.2, 0.55])
def test_a_delay_is_found_to_a_millisecond_from_25_samples_a_second(delay_s):
    expected = Trace(np.arange(-0.5, 1.0, 0.01), np.clip(1 - np.abs(np.arange(-0.5, 1.0, 0.01) - 0.2) / 0.25, 0, 1))
    times = np.arange(-0.1, 1.0, 0.04) + 0.013
    seen = Trace(times, 3 + 10 * np.interp(times - delay_s, *expected))
    fit = bursts.fit_delay(seen, expected)
    assert fit is not None and fit.delay_s == pytest.approx(delay_s, abs=0.0011) and fit.correlation > 0.999


def test_what_is_still_or_unlike_is_not_found():
    times = np.arange(0, 1, 0.04)
    expected = Trace(times, np.where((times > 0.2) & (times < 0.6), 1.0, 0.0))
    assert bursts.fit_delay(Trace(times, np.ones(25)), expected) is None
    assert bursts.fit_delay(Trace(times, np.random.default_rng(1).normal(size=25)), expected) is None
    assert bursts.fit_delay(Trace(times[:4], times[:4]), expected) is None


def test_the_first_frame_a_quarter_of_the_way_up_counts():
    seen = Trace(np.arange(6) * 0.04, np.array([2.0, 2.1, 3.9, 4.1, 10, 9]))
    assert bursts.find_first_shown(seen) == pytest.approx(0.12)
    assert bursts.find_first_shown(Trace(np.arange(6.0), np.ones(6))) is None


def test_motion_is_the_difference_to_the_mouth_at_rest():
    mouths = np.full((9, 4, 4), 50, np.uint8)
    mouths[3] = 70
    mouths[5, :2] = 40
    np.testing.assert_allclose(bursts.measure_motion(mouths), [0, 0, 0, 20, 0, 5, 0, 0, 0])


def test_loudness_is_timed_at_the_middle_of_its_blocks():
    samples = np.zeros(4800, np.float32)
    samples[2400:] = 0.5
    times, values = bursts.measure_loudness(samples, start_s=10)
    assert times[0] == pytest.approx(10.00125) and len(times) == 40
    assert values[:20].max() == 0 and values[20:].min() == pytest.approx(0.5)


def test_the_fake_engines_expected_mouth_rises_at_the_onset(speech):
    engine = FakeEngine()
    avatar = engine.enrol(_png())
    cuts = bursts.cut_bursts(speech, 2)
    traces = draw_expected(engine, avatar, cuts)
    assert len(traces) == 2
    for times, values in traces:
        assert np.diff(times).max() == pytest.approx(0.005)
        # frame k shows the 40 ms around its instant: it moves from 20 ms before the onset on
        assert times[np.argmax(values > values.max() / 2)] == pytest.approx(-0.02, abs=0.011)
        assert times[values > values.max() / 2][-1] == pytest.approx(bursts.BURST_S + 0.02, abs=0.011)


def test_the_fakes_stream_is_found_at_its_delay_wherever_the_burst_falls(speech):
    """A stream of 25 frames a second with a known age is measured to within 2 ms."""
    engine = FakeEngine()
    avatar = engine.enrol(_png())
    cuts = bursts.cut_bursts(speech, 1)
    (expected,) = draw_expected(engine, avatar, cuts)
    for offset_s in (0.0, 0.011, 0.023, 0.037):
        instants = np.arange(-0.2, 1.0, 0.04) + offset_s  # frames' instants against the onset
        seen = Trace(instants + 0.187, np.interp(instants, *expected))
        fit = bursts.fit_delay(seen, expected)
        assert fit is not None and fit.delay_s == pytest.approx(0.187, abs=0.002)


def _png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (90, 90, 90)).save(buffer, "PNG")
    return buffer.getvalue()
