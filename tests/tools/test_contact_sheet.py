from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from engine.errors import FileError
from tests.tools.media import bursts, portrait_jpeg, write_silent_video, write_wav
from tools.contact_sheet import WAVE, WAVE_PX, Layout, draw_sheet, main, read_stills
from tools.render import RenderJob, render


@pytest.fixture
def spoken(tmp_path) -> Path:
    (tmp_path / "p.jpg").write_bytes(portrait_jpeg())
    audio = write_wav(tmp_path / "a.wav", bursts(1.0, 16_000))
    render(RenderJob(portrait=tmp_path / "p.jpg", audio=audio, out=tmp_path / "v.mp4", engine="fake"))
    return tmp_path / "v.mp4"


def test_every_nth_frame_is_taken_with_its_time(spoken):
    stills, step_s = read_stills(spoken, Layout(every=4, start_s=0.2, width_px=64))
    assert [round(s.time_s, 2) for s in stills] == [0.2, 0.36, 0.52, 0.68, 0.84]
    assert step_s == pytest.approx(0.16) and stills[0].image.size == (64, 64)
    assert np.asarray(stills[0].image).mean() < np.asarray(stills[2].image).mean(), "0.52 s is loud, 0.2 s is not"


def test_the_waveform_stands_under_loud_frames_only(spoken):
    sheet = np.asarray(draw_sheet([spoken], Layout(every=5, columns=5, width_px=60, waveform=True)))
    blue = (sheet == WAVE).all(axis=2)[-WAVE_PX - 8 :].sum(axis=0)
    loud, quiet = blue[4 + 64 * 2 : 4 + 64 * 3], blue[6 : 4 + 64]  # 0.4 to 0.6 s; 0 to 0.2 s
    assert loud.min() > 20 and quiet.max() <= 2


def test_videos_stand_under_each_other(spoken):
    one = draw_sheet([spoken], Layout(every=5, columns=3, width_px=60))
    two = draw_sheet([spoken, spoken], Layout(every=5, columns=3, width_px=60))
    assert two.size == (one.width, 2 * one.height)


def test_a_silent_video_has_a_sheet_too(tmp_path):
    sheet = draw_sheet([write_silent_video(tmp_path / "m.mp4")], Layout(every=1, waveform=True))
    assert sheet.width > 5 * 128


def test_the_command_writes_a_png(spoken, tmp_path):
    assert main([str(spoken), "--out", str(tmp_path / "s.png"), "--every", "5", "--width", "50"]) == 0
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.format == "PNG" and sheet.width > 5 * 50


@pytest.mark.parametrize(("out", "start"), [("s.gif", "0"), ("none/s.png", "0"), ("s.png", "99")])
def test_what_cannot_be_made_is_refused(spoken, out, start):
    with pytest.raises(FileError):
        main([str(spoken), "--out", str(spoken.parent / out), "--start", start])


def test_what_is_no_video_is_refused(tmp_path):
    (tmp_path / "t.mp4").write_text("words\n" * 100)
    with pytest.raises(FileError, match="no video"):
        read_stills(tmp_path / "t.mp4", Layout())
    with pytest.raises(FileError, match="no picture"):
        read_stills(write_wav(tmp_path / "a.wav", bursts(0.2, 16_000)), Layout())


def test_the_sheets_frames_are_the_videos(tmp_path):
    path = write_silent_video(tmp_path / "m.mp4", frames=4)
    stills, _ = read_stills(path, Layout(every=1, width_px=64))
    with av.open(str(path)) as container:
        for still, frame in zip(stills, container.decode(video=0), strict=True):
            np.testing.assert_array_equal(np.asarray(still.image), frame.to_ndarray(format="rgb24"))
