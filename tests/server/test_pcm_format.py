"""Any rate from 8 to 48 kHz becomes 48 kHz, chunk by chunk as if in one piece."""

from __future__ import annotations

import numpy as np
import pytest

from server.errors import RequestInvalid
from server.pcm_format import PcmFormat, Upsampler


def tone(rate_hz: int, seconds: float = 0.5, hz: float = 700.0) -> np.ndarray:
    return (np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz) * 12_000).astype("<i2")


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000])
def test_chunks_of_any_size_give_what_one_piece_gives(rate_hz: int) -> None:
    sound, rng = tone(rate_hz), np.random.default_rng(rate_hz)
    whole = Upsampler(rate_hz)
    expected = np.concatenate((whole.convert(sound.tobytes()), whole.finish()))
    pieces, at = Upsampler(rate_hz), 0
    got = []
    while at < len(sound):
        size = int(rng.integers(0, 400))
        got.append(pieces.convert(sound[at : at + size].tobytes()))
        at += size
    heard = np.concatenate((*got, pieces.finish()))
    np.testing.assert_array_equal(heard, expected)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 48_000])
def test_length_pitch_and_loudness_stay(rate_hz: int) -> None:
    up = Upsampler(rate_hz)
    heard = np.concatenate((up.convert(tone(rate_hz).tobytes()), up.finish())).astype(float)
    assert abs(len(heard) - 24_000) < 100
    middle = heard[2_400:21_600]
    assert np.argmax(np.abs(np.fft.rfft(middle))) * 48_000 / len(middle) == pytest.approx(700, abs=3)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(12_000 / np.sqrt(2), rel=0.02)


def test_finishing_begins_anew() -> None:
    up = Upsampler(16_000)
    first = np.concatenate((up.convert(tone(16_000).tobytes()), up.finish()))
    second = np.concatenate((up.convert(tone(16_000).tobytes()), up.finish()))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("rate_hz", [0, 7_999, 48_001])
def test_other_rates_are_refused_with_the_ones_that_are_taken(rate_hz: int) -> None:
    with pytest.raises(RequestInvalid, match=f"rate is {rate_hz}.*8000 to 48000"):
        PcmFormat(rate_hz=rate_hz)


def test_other_formats_and_half_samples_are_refused() -> None:
    with pytest.raises(RequestInvalid, match="'f32le': only s16le"):
        PcmFormat(rate_hz=16_000, format="f32le")
    with pytest.raises(RequestInvalid, match="3 bytes"):
        PcmFormat(rate_hz=16_000).count(b"abc")
