import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

from engine.api import StreamOptions
from engine.errors import AudioUnreadable, EngineUnavailable, FileError, ImageUnreadable
from engine.fake import BLACK, MOUTH, MOUTH_WHITE, FakeEngine, FakeState, loudness_of, shade_of
from engine.mark import DIGITAL_SOURCE_TYPE, xmp_box
from tests.tools.media import bursts, portrait_jpeg, read_frames, write_encoded, write_silent_video, write_wav
from tools.render import RenderJob, main, render
from tools.sound_file import read_mono

ROOT = Path(__file__).parents[2]


@pytest.fixture
def portrait(tmp_path) -> Path:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(portrait_jpeg())
    return path


def job(portrait: Path, audio: Path, **more) -> RenderJob:
    return RenderJob(portrait=portrait, audio=audio, **{"out": portrait.with_name("out.mp4"), "engine": "fake", **more})


def mouth(frame: np.ndarray) -> float:
    return float(frame[MOUTH][8:-8, 8:-8].mean())


def test_frame_k_shows_the_sound_at_its_own_instant(portrait, tmp_path):
    sound = bursts(2.3, 16_000)
    render(job(portrait, write_wav(tmp_path / "a.wav", sound)))
    frames = read_frames(tmp_path / "out.mp4")
    padded = np.concatenate([np.zeros(320, np.float32), sound, np.zeros(960, np.float32)])
    for k, frame in enumerate(frames):
        meant = shade_of(loudness_of(padded[k * 640 : (k + 1) * 640]), MOUTH_WHITE)
        assert abs(mouth(frame) - meant) < 5, f"frame {k}"


def test_the_sound_in_the_file_stands_where_it_stood(portrait, tmp_path):
    audio = write_wav(tmp_path / "a.wav", bursts(2.3, 44_100), 44_100)
    render(job(portrait, audio))
    before, after = read_mono(audio), read_mono(tmp_path / "out.mp4")
    size = 1 << 17
    match = np.fft.irfft(np.fft.rfft(after, size) * np.conj(np.fft.rfft(before, size)))
    assert match.argmax() <= 8, "half a millisecond"
    np.testing.assert_allclose(np.abs(after).max(), np.abs(before).max(), rtol=0.1)


@pytest.mark.parametrize(
    ("samples", "rate_hz", "frames"),
    [
        (1, 16_000, 1),
        (640, 16_000, 1),
        (641, 16_000, 2),
        (16_000, 16_000, 25),
        (13_229, 44_100, 8),
        (88_201, 44_100, 51),
    ],
)
def test_the_video_is_as_long_as_the_sound_rounded_up(portrait, tmp_path, samples, rate_hz, frames):
    report = render(job(portrait, write_wav(tmp_path / "a.wav", np.zeros(samples), rate_hz)))
    assert report.frames == frames == len(read_frames(tmp_path / "out.mp4"))
    assert report.seconds == pytest.approx(samples / rate_hz)


@pytest.mark.parametrize(
    ("name", "rate_hz", "codec", "layout"),
    [
        ("a.wav", 8_000, "pcm_u8", "mono"),
        ("a.mp3", 44_100, "libmp3lame", "stereo"),
        ("a.webm", 48_000, "libopus", "stereo"),
        ("a.flac", 96_000, "flac", "stereo"),
        ("a.wav", 48_000, "pcm_s16le", "5.1"),
    ],
)
def test_the_file_keeps_the_sounds_rate_and_channels(portrait, tmp_path, name, rate_hz, codec, layout):
    audio = write_encoded(tmp_path / name, bursts(0.6, rate_hz), rate_hz, codec, layout)
    report = render(job(portrait, audio))
    with av.open(str(tmp_path / "out.mp4")) as container:
        sound, picture = container.streams.audio[0], container.streams.video[0]
        assert (sound.codec_context.name, sound.rate, sound.layout.name) == ("aac", rate_hz, layout)
        assert (picture.codec_context.name, picture.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (picture.width, picture.height, picture.average_rate) == (256, 256, 25)
        assert picture.frames == report.frames


@pytest.mark.parametrize("channels", [3, 9])
def test_unusual_channels_still_make_a_file(portrait, tmp_path, channels):
    sound = np.repeat(bursts(0.4, 11_000)[:, None], channels, axis=1)
    render(job(portrait, write_wav(tmp_path / "a.wav", sound, 11_000)))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].rate == 11_025
        assert container.streams.audio[0].channels == {3: 3, 9: 2}[channels]
    assert np.abs(read_mono(tmp_path / "out.mp4")).max() > 0.4


def test_the_sound_of_a_video_serves_too(portrait, tmp_path):
    render(job(portrait, write_wav(tmp_path / "a.wav", bursts(0.5, 16_000))))
    report = render(job(portrait, tmp_path / "out.mp4", out=tmp_path / "again.mp4"))
    assert report.frames >= 13


def test_the_index_comes_first_and_the_mark_for_machines_is_there(portrait, tmp_path):
    render(job(portrait, write_wav(tmp_path / "a.wav", bursts(0.4, 16_000)), marked=False))
    data = (tmp_path / "out.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")
    assert data.endswith(xmp_box())
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert DIGITAL_SOURCE_TYPE in container.metadata["comment"]


def test_the_visible_mark_can_be_left_out(portrait, tmp_path):
    audio = write_wav(tmp_path / "a.wav", np.zeros(1600))
    corner = (slice(232, 254), slice(180, 254))
    render(job(portrait, audio))
    assert read_frames(tmp_path / "out.mp4")[0][corner].max() > 180
    render(job(portrait, audio, marked=False))
    assert read_frames(tmp_path / "out.mp4")[0][corner].max() < BLACK + 8


def test_the_whole_photo_keeps_what_lies_outside_the_view(portrait, tmp_path):
    portrait.write_bytes(portrait_jpeg(401, 301))
    audio = write_wav(tmp_path / "a.wav", bursts(0.6, 16_000))
    report = render(job(portrait, audio, full=True, marked=False))
    assert (report.width, report.height) == (400, 300)
    with av.open(str(portrait)) as container:
        photo = next(container.decode(video=0)).to_ndarray(format="rgb24")[:300, :400]
    frame = read_frames(tmp_path / "out.mp4")[-1]
    outside = np.r_[0:48, 352:400]
    assert np.abs(frame[:, outside].astype(int) - photo[:, outside]).mean() < 4
    assert np.abs(frame[150:250, 150:250].astype(int) - photo[150:250, 150:250]).mean() > 20


def test_an_engine_that_does_not_tell_its_place_cannot_do_the_whole_photo(portrait, tmp_path, monkeypatch):
    class Placeless(FakeEngine):
        def enrol(self, image):
            avatar = super().enrol(image)
            return type(avatar)(engine="fake", fingerprint=self.fingerprint, arrays={"crop": avatar.arrays["crop"]})

    monkeypatch.setattr("tools.render.create_engine", lambda name: Placeless())
    with pytest.raises(EngineUnavailable, match="leave --full out"):
        render(job(portrait, write_wav(tmp_path / "a.wav", np.zeros(640)), full=True))


def test_options_reach_the_engine_and_it_is_closed(portrait, tmp_path, monkeypatch):
    seen: list[object] = []

    class WatchedState(FakeState):
        def reset(self, slot, options):
            seen.append(options)
            super().reset(slot, options)

    class Watched(FakeEngine):
        def init_state(self, max_batch):
            return WatchedState(max_batch, super().init_state(1).sound.shape[1])

        def close(self):
            seen.append("closed")

    monkeypatch.setattr("tools.render.create_engine", lambda name: Watched())
    options = StreamOptions(seed=77, motion=0.25)
    render(job(portrait, write_wav(tmp_path / "a.wav", np.zeros(640)), options=options))
    assert seen == [options, "closed"]


def leftovers(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.name.endswith(".part"))


def test_a_failure_half_way_leaves_what_was_there(portrait, tmp_path, monkeypatch):
    (tmp_path / "out.mp4").write_bytes(b"yesterday's video")
    steps = iter(range(7))
    inner = FakeEngine.step

    def step(self, rows, state):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return inner(self, rows, state)

    monkeypatch.setattr(FakeEngine, "step", step)
    with pytest.raises(KeyboardInterrupt):
        render(job(portrait, write_wav(tmp_path / "a.wav", np.zeros(16_000))))
    assert (tmp_path / "out.mp4").read_bytes() == b"yesterday's video"
    assert leftovers(tmp_path) == []


def test_a_terminated_render_leaves_nothing(portrait, tmp_path):
    audio = write_wav(tmp_path / "long.wav", np.zeros(16_000 * 600))
    command = [sys.executable, "-m", "tools.cli", "render", "--engine", "fake"]
    command += ["--portrait", str(portrait), "--audio", str(audio), "--out", str(tmp_path / "out.mp4")]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    while process.poll() is None and not leftovers(tmp_path):
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 128 + signal.SIGTERM
    assert leftovers(tmp_path) == [] and not (tmp_path / "out.mp4").exists()


def test_sound_that_cannot_be_read_leaves_no_file(portrait, tmp_path):
    (tmp_path / "empty.wav").touch()
    write_wav(tmp_path / "none.wav", np.zeros(0))
    (tmp_path / "text.mp3").write_text("not sound\n" * 99)
    write_silent_video(tmp_path / "mute.mp4")
    for name in ("empty.wav", "none.wav", "text.mp3", "mute.mp4"):
        with pytest.raises(AudioUnreadable, match=name):
            render(job(portrait, tmp_path / name))
    assert not (tmp_path / "out.mp4").exists() and leftovers(tmp_path) == []


def test_paths_that_cannot_be_used_are_told_before_any_work(portrait, tmp_path, monkeypatch):
    audio = write_wav(tmp_path / "a.wav", np.zeros(640))
    (tmp_path / "folder.mp4").mkdir()
    wrong: list[tuple[dict[str, Path], str]] = [
        (dict(out=tmp_path / "nowhere" / "a.mp4"), "no such file or folder"),
        (dict(out=tmp_path / "folder.mp4"), "it is a folder"),
        (dict(out=tmp_path / "a.avi"), "must end in .mp4"),
        (dict(portrait=tmp_path / "nobody.jpg"), "cannot read the portrait"),
        (dict(portrait=tmp_path), "it is a folder"),
        (dict(audio=tmp_path / "nothing.wav"), "cannot read the audio file"),
    ]
    stepped: list[object] = []
    monkeypatch.setattr(FakeEngine, "step", lambda *a: stepped.append(a))
    for change, said in wrong:
        with pytest.raises(FileError, match=said):
            render(job(**{"portrait": portrait, "audio": audio, **change}))
    assert not stepped and leftovers(tmp_path) == []


def test_a_source_is_never_overwritten(portrait, tmp_path):
    render(job(portrait, write_wav(tmp_path / "a.wav", np.zeros(640))))
    before = (tmp_path / "out.mp4").read_bytes()
    with pytest.raises(FileError, match="its own source"):
        render(job(portrait, tmp_path / "out.mp4"))
    assert (tmp_path / "out.mp4").read_bytes() == before


def test_a_portrait_that_is_no_picture_is_the_engines_to_refuse(tmp_path):
    (tmp_path / "words.png").write_text("words")
    with pytest.raises(ImageUnreadable):
        render(job(tmp_path / "words.png", write_wav(tmp_path / "a.wav", np.zeros(640))))


def test_the_report_says_what_was_made(portrait, tmp_path):
    audio = write_wav(tmp_path / "a.wav", bursts(0.5, 16_000))
    argv = ["--portrait", str(portrait), "--audio", str(audio), "--out", str(tmp_path / "out.mp4")]
    argv += ["--engine", "fake", "--quiet", "--json", str(tmp_path / "report.json"), "--seed", "3", "--motion", "0"]
    assert main(argv) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["frames"], report["seconds"], report["width"], report["height"]) == (13, 0.5, 256, 256)
    assert (report["engine"], report["backend"]) == ("fake", "python")
    assert report["fps"] > 0 and {"sound", "step", "paste", "encode"} <= report["stages_ms"].keys()
    assert (tmp_path / "out.mp4").exists() and leftovers(tmp_path) == []


def test_the_progress_bar_counts_the_frames(portrait, tmp_path, capsys):
    audio = write_wav(tmp_path / "a.wav", bursts(0.5, 16_000))
    argv = ["--portrait", str(portrait), "--audio", str(audio), "--out", str(tmp_path / "out.mp4"), "--engine", "fake"]
    main(argv)
    assert "13/13" in capsys.readouterr().err


@pytest.mark.parametrize("motion", ["-0.1", "1.1", "nan", "much"])
def test_motion_outside_its_range_is_refused(motion, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--portrait", "a", "--audio", "b", "--out", "c.mp4", "--motion", motion])
    assert caught.value.code == 2 and "--motion" in capsys.readouterr().err
