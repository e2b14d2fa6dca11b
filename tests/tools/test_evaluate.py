"""The evaluation end to end on the fake engine, and its figures where real lips are at hand."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.fake import FakeEngine, loudness_of
from engine.portrait import read_portrait
from tools import evaluate
from tools.clip import ClipUnreadable
from tools.evaluate import Pair

GRID = Path(__file__).parents[3] / "shared" / "data" / "grid_others"
needs_grid = pytest.mark.skipif(not GRID.is_dir(), reason="needs videos of talking faces beside the project")


def png(shade: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), (shade,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def test_frame_k_is_the_one_that_stands_at_k_25ths_of_the_sound():
    samples = np.zeros(25 * 640, np.float32)
    samples[10 * 640 - 320 : 10 * 640 + 320] = 0.9  # the 40 ms around frame 10's instant
    frames = evaluate.render_frames(FakeEngine(), png(), samples, 25)
    assert frames.shape == (25, 256, 256, 3)
    mouth = frames[:, 180, 128, 0].astype(int)
    assert mouth.argmax() == 10 and sorted(set(mouth[:9])) == [mouth[0]]
    assert loudness_of(samples[10 * 640 - 320 : 10 * 640 + 320]) > 0.9


def test_frames_without_a_face_give_no_lip_figures_and_no_crash():
    frames = np.zeros((3, 256, 256, 3), np.uint8)
    with pytest.raises(ClipUnreadable, match="no face"):
        evaluate.measure_pair(Pair(rendered=frames, real=frames))
    assert np.isnan(evaluate.find_landmarks(frames)).all()


def test_mean_leaves_out_what_is_unknown():
    clips = [{"clip": "a", "m_lmd": 1.0, "ssim": None}, {"clip": "b", "m_lmd": 2.0, "ssim": None}]
    assert evaluate.mean_figures(clips) == {"count": 2, "m_lmd": 1.5, "ssim": None}


@pytest.mark.parametrize("arguments", [["--list", "absent.txt"], []])
def test_nothing_to_measure_is_an_error_in_words(tmp_path, capsys, arguments):
    status = evaluate.main(
        ["--clips", str(tmp_path), "--json", str(tmp_path / "f.json"), "--engine", "fake", *arguments]
    )
    assert status == 2
    assert "evaluate: " in capsys.readouterr().err
    assert not (tmp_path / "f.json").exists()


@needs_grid
def test_broken_clips_are_listed_and_left_out(tmp_path, capsys):
    clip = sorted(GRID.glob("*.mp4"))[0]
    (tmp_path / clip.name).symlink_to(clip)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    out = tmp_path / "f.json"
    sheets = tmp_path / "sheets"
    arguments = ["--clips", str(tmp_path), "--json", str(out), "--engine", "fake", "--sheets", str(sheets)]
    assert evaluate.main(arguments) == 0
    report = json.loads(out.read_text())
    assert report["mean"]["count"] == 1 and report["mean"]["mouth_corr"] is None
    assert report["mean"]["faces_found"] == 0 and report["clips"][0]["frames"] == 75
    assert report["mean"]["m_lmd_still"] > 0.3
    assert [f["clip"] for f in report["failed"]] == ["broken"]
    assert "anchor: still first frame" in capsys.readouterr().out
    with Image.open(sheets / f"{clip.stem}.png") as sheet:
        assert sheet.size == (8 * 256, 2 * 256)


@needs_grid
def test_real_frames_score_as_real_and_late_ones_as_late():
    real = evaluate.crop_frames(sorted(GRID.glob("*.mp4"))[0], 256)[1][:40]
    same = evaluate.measure_pair(Pair(rendered=real, real=real))
    assert same["mouth_corr"] == pytest.approx(1) and same["lag_frames"] == 0
    assert same["m_lmd"] == pytest.approx(0) and same["ssim"] == pytest.approx(1)
    assert same["opening_std_ratio"] == pytest.approx(1) and same["faces_found"] == same["frames"] == 40
    late = evaluate.measure_pair(Pair(rendered=np.concatenate([real[:1], real[:1], real[:-2]]), real=real))
    assert late["lag_frames"] == 2 and late["mouth_corr"] < 0.95
    held = evaluate.measure_pair(Pair(rendered=np.repeat(real[:1], len(real), 0), real=real))
    assert held["m_lmd"] == pytest.approx(held["m_lmd_still"], rel=0.05)  # but for the tracker's own tremble
    assert held["ssim"] == pytest.approx(held["ssim_still"])


@needs_grid
def test_real_frames_are_cropped_as_enrolment_crops_the_first():
    png, real = evaluate.crop_frames(sorted(GRID.glob("*.mp4"))[0], 256)
    np.testing.assert_allclose(real[0].astype(int), read_portrait(png).crop.astype(int), atol=2)
    assert real.shape == (75, 256, 256, 3)
