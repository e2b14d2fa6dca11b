"""Clips made on the spot: time stamps, frame rates and what is refused."""

from pathlib import Path

import av
import numpy as np
import pytest

from tools.clip import ClipUnreadable, find_clips, read_frames, read_samples


def write_clip(path: Path, *, fps: int = 25, seconds: float = 1.0, sound_late_s: float | None = 0.0) -> Path:
    """Picture k is grey 8 k; the sound is silent but for a 10 ms click at 0.5 s of its own time."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=fps)
        video.width = video.height = 64
        audio = container.add_stream("pcm_s16le", rate=16_000) if sound_late_s is not None else None
        for index in range(round(seconds * fps)):
            picture = np.full((64, 64, 3), min(8 * index, 255), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if audio is not None:
            sound = np.zeros((1, round(seconds * 16_000)), np.int16)
            sound[0, 8000:8160] = 20_000
            block = av.AudioFrame.from_ndarray(sound, format="s16", layout="mono")
            block.sample_rate, block.pts = 16_000, round((sound_late_s or 0) * 16_000)
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


@pytest.mark.parametrize("fps", [25, 50, 10])
def test_pictures_come_at_25_a_second_whatever_the_video_has(tmp_path, fps):
    frames = list(read_frames(write_clip(tmp_path / "a.mkv", fps=fps, seconds=1)))
    assert len(frames) == pytest.approx(25, abs=2)
    shade = [f.mean() for f in frames]
    np.testing.assert_allclose(shade[20], min(8 * 20 * fps / 25, 255), atol=14)


@pytest.mark.parametrize("late_s", [0.0, 0.2])
def test_sound_is_laid_by_its_time_stamps(tmp_path, late_s):
    samples = read_samples(write_clip(tmp_path / "a.mkv", sound_late_s=late_s), 16_000)
    assert samples.shape == (16_000,)
    assert np.flatnonzero(samples > 0.3)[0] / 16_000 == pytest.approx(0.5 + late_s, abs=0.003)


def test_a_video_without_sound_is_refused(tmp_path):
    with pytest.raises(ClipUnreadable, match="no sound"):
        read_samples(write_clip(tmp_path / "a.mkv", sound_late_s=None), 16_000)


def test_a_file_that_is_no_video_is_refused_by_name(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ClipUnreadable, match=r"text\.mp4 cannot be decoded"):
        list(read_frames(tmp_path / "text.mp4"))


def test_clips_are_found_listed_and_limited(tmp_path):
    for name in ("d.mp4", "b.mov", "a.webm", "c.mkv", "notes.txt"):
        (tmp_path / name).touch()
    names = lambda **how: [p.name for p in find_clips(tmp_path, **how)]  # noqa: E731
    assert names() == ["a.webm", "b.mov", "c.mkv", "d.mp4"]
    assert names(limit=2) == ["a.webm", "c.mkv"]
    assert names(names=["d", "b.mov", "z"]) == ["b.mov", "d.mp4"]
    with pytest.raises(ClipUnreadable, match="none of the 1 listed"):
        names(names=["z"])


def test_folders_without_videos_are_refused(tmp_path):
    with pytest.raises(ClipUnreadable, match="no videos in"):
        find_clips(tmp_path)
    with pytest.raises(ClipUnreadable, match="is not a folder"):
        find_clips(tmp_path / "absent")
