from pathlib import Path

import numpy as np
import pytest

from engine.errors import AudioUnreadable, FileError
from tests.tools.media import bursts, write_encoded, write_silent_video, write_wav
from tools.sound_file import SoundFile, read_mono

KINDS = [
    ("a.wav", 8_000, "pcm_u8", "mono"),
    ("a.wav", 48_000, "pcm_s24le", "stereo"),
    ("a.wav", 44_100, "pcm_f32le", "5.1"),
    ("a.flac", 96_000, "flac", "stereo"),
    ("a.mp3", 22_050, "libmp3lame", "stereo"),
    ("a.ogg", 48_000, "libopus", "mono"),
    ("a.m4a", 44_100, "aac", "stereo"),
    ("a.webm", 48_000, "libopus", "stereo"),
]


@pytest.mark.parametrize(("name", "rate_hz", "codec", "layout"), KINDS)
def test_any_kind_of_sound_becomes_16_khz_mono_in_place(tmp_path, name, rate_hz, codec, layout):
    path = write_encoded(tmp_path / name, bursts(1.5, rate_hz), rate_hz, codec, layout)
    heard = read_mono(path)
    meant = bursts(1.5, 16_000)
    length = min(len(heard), len(meant))
    assert abs(len(heard) - len(meant)) <= 1600, "codecs pad by a packet at most"
    assert np.corrcoef(envelope(heard[:length]), envelope(meant[:length]))[0, 1] > 0.97


def envelope(samples: np.ndarray) -> np.ndarray:
    """Loudness of every 10 ms."""
    return np.abs(samples[: len(samples) // 160 * 160]).reshape(-1, 160).max(axis=1)


@pytest.mark.parametrize("channels", [3, 4, 7, 8, 9, 16, 24])
def test_channels_without_named_places_are_read(tmp_path, channels):
    samples = np.repeat(bursts(0.5, 22_050)[:, None], channels, axis=1)
    heard = read_mono(write_wav(tmp_path / "many.wav", samples, 22_050))
    np.testing.assert_allclose(heard[400:-400], bursts(0.5, 16_000)[400:-400], atol=0.05)


def test_16_khz_mono_is_taken_as_it_is(tmp_path):
    samples = bursts(0.7, 16_000)
    np.testing.assert_allclose(read_mono(write_wav(tmp_path / "a.wav", samples)), samples, atol=1e-4)


def test_the_length_is_counted_in_the_files_own_samples(tmp_path):
    with SoundFile(write_wav(tmp_path / "a.wav", np.zeros(12_345), 44_100)) as sound:
        assert sum(block.seconds for block in sound.blocks()) * 44_100 == 12_345


def test_samples_that_are_no_numbers_become_silence(tmp_path):
    samples = bursts(0.5, 16_000)
    samples[1000:1010] = (np.nan, np.inf, -np.inf, 5.0, -5.0) * 2
    heard = read_mono(write_encoded(tmp_path / "a.wav", samples, 16_000, "pcm_f32le", "mono"))
    assert np.isfinite(heard).all() and np.abs(heard).max() <= 1.0


def test_a_file_that_breaks_off_is_heard_up_to_there(tmp_path):
    whole = write_encoded(tmp_path / "a.mp3", bursts(2.0, 44_100), 44_100, "libmp3lame", "mono").read_bytes()
    (tmp_path / "half.mp3").write_bytes(whole[: len(whole) // 2])
    assert 0.8 < len(read_mono(tmp_path / "half.mp3")) / 16_000 < 1.2


def test_a_damaged_middle_is_left_out(tmp_path):
    data = bytearray(write_encoded(tmp_path / "a.mp3", bursts(2.0, 44_100), 44_100, "libmp3lame", "mono").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 2000] = bytes(range(250)) * 8
    (tmp_path / "hurt.mp3").write_bytes(data)
    assert len(read_mono(tmp_path / "hurt.mp3")) > 16_000


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.wav", b"", "empty"),
        ("text.wav", b"these are words, not sound\n" * 40, "no audio or video file"),
        ("notes.txt", b"these are words, not sound\n" * 40, "is text"),
        ("header.wav", None, "no sound can be decoded"),
        ("riff.wav", b"RIFF\xff\xff\xff\xffWAVE", "no audio or video file"),
        ("a.m4a", b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42", "no audio or video file"),
    ],
)
def test_what_is_no_sound_is_refused_in_a_sentence(tmp_path, name, content, said):
    path = tmp_path / name
    if content is None:
        write_wav(path, np.zeros(0))
    else:
        path.write_bytes(content)
    with pytest.raises(AudioUnreadable, match=said) as caught:
        read_mono(path)
    assert name in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_a_video_without_sound_is_refused(tmp_path):
    with pytest.raises(AudioUnreadable, match="no sound, only video"):
        read_mono(write_silent_video(tmp_path / "mute.mp4"))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileError, match="no such file"):
        read_mono(tmp_path / "nowhere.wav")
    with pytest.raises(FileError, match="folder"):
        read_mono(tmp_path)


def test_a_name_is_never_taken_for_a_protocol(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_wav(tmp_path / "concat:a.wav", bursts(0.1, 16_000))
    assert len(read_mono(Path("concat:a.wav"))) == 1600
