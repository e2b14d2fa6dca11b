"""Pictures come at 25 a second and sound at 16 kHz, both on the clock of the file's time stamps."""

from pathlib import Path

import numpy as np
import pytest

from tests.tools.media import write_encoded, write_silent_video, write_wav
from tests.tools.talking_face import write_video
from tools.prepare import Unusable
from tools.prepare.media import Span, VideoReader, first_frame_s, read_sound, read_sound_span


def numbered(count: int) -> list[np.ndarray]:
    """Pictures that show their number: ones left, fifteens right, 16 grey levels apart."""
    images = [np.zeros((64, 96, 3), np.uint8) for _ in range(count)]
    for number, image in enumerate(images):
        image[:, :48], image[:, 48:] = 16 + 16 * (number % 15), 16 + 16 * (number // 15)
    return images


def numbers(frames) -> np.ndarray:
    halves = [(frame[8:-8, 8:40].mean(), frame[8:-8, 56:-8].mean()) for frame in frames]
    return np.array([round((ones - 16) / 16) + 15 * round((fifteens - 16) / 16) for ones, fifteens in halves])


def assert_nearest(shown: np.ndarray, times_s: np.ndarray) -> None:
    """Frame k shows the picture nearest to k / 25 s; where two are as near, either."""
    ticks = np.arange(len(shown)) / 25
    assert np.abs(times_s[shown] - ticks).max() <= np.abs(times_s[None] - ticks[:, None]).min(1).max() + 2e-4
    assert np.abs(np.abs(times_s[shown] - ticks) - np.abs(times_s[None] - ticks[:, None]).min(1)).max() < 4e-4


@pytest.mark.parametrize("fps", [25, 60, 30, 24000 / 1001, 12.5])
def test_any_rate_becomes_25_with_the_nearest_frame(tmp_path, fps):
    times = np.arange(round(1.6 * fps)) / fps
    shown = numbers(VideoReader(write_video(tmp_path / "a.mp4", numbered(len(times)), fps=fps)))
    assert len(shown) == pytest.approx(40, abs=1)
    assert_nearest(shown, times)


def test_a_changing_rate_keeps_its_time(tmp_path):
    times = np.array([i / 60 for i in range(30)] + [0.5 + i / 15 for i in range(15)])
    path = write_video(tmp_path / "a.mp4", numbered(45), fps=60, times_s=list(times))
    assert_nearest(numbers(VideoReader(path)), times)


def test_missing_frames_are_named(tmp_path):
    times = [i / 25 for i in (*range(20), *range(40, 60))]
    path = write_video(tmp_path / "a.mp4", numbered(40), times_s=times)
    with pytest.raises(Unusable, match="stands for 0.8 s at 0.8 s"):
        list(VideoReader(path))


@pytest.mark.parametrize("turn", [90, -90, 180])
def test_a_phones_turned_video_stands_upright(tmp_path, turn):
    lying = np.full((64, 96, 3), 30, np.uint8)
    lying[:, :32] = 220  # the left edge
    path = write_video(tmp_path / "a.mp4", [lying] * 5, rotation=turn)
    frame = next(iter(VideoReader(path)))
    wanted = np.rot90(lying, round(turn / 90))
    assert frame.shape == wanted.shape
    assert np.abs(frame.astype(int) - wanted).mean() < 12


def test_a_span_is_cut_to_the_frame_and_the_sample(tmp_path):
    ramp = np.sin(2 * np.pi * np.cumsum(np.linspace(200, 2000, 38_400)) / 16_000).astype(np.float32) * 0.5
    path = write_video(tmp_path / "a.mkv", numbered(60), ramp)
    span = Span(0.72, 1.72)
    assert numbers(VideoReader(path, span)).tolist() == list(range(18, 43))
    whole = read_sound_span(path, begin_s=first_frame_s(path))
    piece = read_sound_span(path, span, first_frame_s(path, span))
    assert len(piece) == 16_000
    assert np.abs(piece[800:].astype(int) - whole[11_520 + 800 : 27_520]).max() < 400


@pytest.mark.parametrize("later_s", [0.0, 0.2])
def test_a_click_and_a_flash_stay_together(tmp_path, later_s):
    """Also where the sound's stream begins later than the picture's."""
    flash, at_s = [np.zeros((64, 64, 3), np.uint8) for _ in range(50)], 30 / 25
    flash[30][:] = 255
    sound = np.zeros(32_000, np.float32)
    sound[round((at_s - later_s) * 16_000)] = 1
    path = write_video(tmp_path / "a.mp4", flash, sound, sound_later_s=later_s)
    seen = int(np.argmax([frame.mean() for frame in VideoReader(path)]))
    heard = int(np.argmax(np.abs(read_sound_span(path, begin_s=first_frame_s(path)).astype(int))))
    assert seen == 30
    assert abs(heard / 16_000 - seen / 25) < 0.002


def test_8_khz_stereo_becomes_16_khz_mono(tmp_path):
    tone = np.sin(2 * np.pi * 440 * np.arange(12_000) / 8000).astype(np.float32) * 0.5
    sound = read_sound(write_encoded(tmp_path / "a.wav", tone, 8000, "pcm_s16le", "stereo"), 60)
    assert sound.dtype == np.int16 and len(sound) == pytest.approx(24_000, abs=64)
    assert np.abs(np.fft.rfft(sound[:16_000])).argmax() == 440


def test_sound_stops_after_the_seconds_wanted(tmp_path):
    assert len(read_sound(write_wav(tmp_path / "a.wav", np.ones(32_000, np.float32) * 0.1), 1.5)) == 24_000


def read_all(path: Path) -> None:
    list(VideoReader(path))
    read_sound(path, 60)


def test_each_broken_file_has_its_reason(tmp_path):
    images, sound = numbered(25), np.zeros(16_000, np.float32)
    good = write_video(tmp_path / "good.mp4", images, sound).read_bytes()
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is not a video\n" * 50)
    (tmp_path / "torn.mp4").write_bytes(good[: len(good) // 2])  # its index, at the end, is gone
    write_silent_video(tmp_path / "silent.mp4")
    write_wav(tmp_path / "sound.mp4", sound)
    for name, reason in {
        "empty": "empty",
        "text": "cannot be read",
        "torn": "cannot be read",
        "silent": "no sound track",
        "sound": "no video stream",
    }.items():
        with pytest.raises(Unusable, match=reason):
            read_all(tmp_path / f"{name}.mp4")


def test_of_a_video_torn_off_the_beginning_is_used(tmp_path):
    images, sound = numbered(50), np.zeros(32_000, np.float32)
    noisy = [np.random.default_rng(i).integers(0, 255, image.shape, np.uint8) for i, image in enumerate(images)]
    good = write_video(tmp_path / "good.mkv", noisy, sound).read_bytes()
    (tmp_path / "torn.mkv").write_bytes(good[: len(good) // 2])
    assert 15 < len(list(VideoReader(tmp_path / "torn.mkv"))) < 35
    assert 10_000 < len(read_sound(tmp_path / "torn.mkv", 60)) < 24_000
