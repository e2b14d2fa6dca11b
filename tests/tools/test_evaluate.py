"""The evaluation's command end to end on the fake engine, and what it refuses."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.cache import DEFAULT_PORTRAIT
from tests.tools.media import bursts, write_wav
from tools import evaluate
from tools.figure_table import format_report

GRID = Path(__file__).parents[3] / "shared" / "data" / "grid_others"
needs_grid = pytest.mark.skipif(not GRID.is_dir(), reason="needs videos of talking faces beside the project")


@pytest.mark.parametrize("arguments", [["--list", "absent.txt"], []])
def test_nothing_to_measure_is_an_error_in_words(tmp_path, capsys, arguments):
    status = evaluate.main(
        ["--clips", str(tmp_path), "--json", str(tmp_path / "f.json"), "--engine", "fake", *arguments]
    )
    assert status == 2
    assert "evaluate: " in capsys.readouterr().err
    assert not (tmp_path / "f.json").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to measure"),
        (["--sounds", "--list", "x"], "--portrait-list"),
        (["--clips", "x", "--portrait-limit", "3"], "--portraits DIR"),
        (["--sounds", "--seconds", "0.2"], "too short"),
        (["--sounds", "--jobs", "0"], "not a positive"),
    ],
)
def test_arguments_without_effect_are_refused(tmp_path, capsys, arguments, told):
    with pytest.raises(SystemExit) as left:
        evaluate.main(["--json", str(tmp_path / "f.json"), *arguments])
    assert left.value.code == 2 and told in capsys.readouterr().err


def test_wrong_files_are_told_before_any_work(tmp_path, capsys):
    silent = write_wav(tmp_path / "silent.wav", np.zeros(32_000, np.float32))
    short = write_wav(tmp_path / "short.wav", bursts(0.4, 16_000))
    words = tmp_path / "words.wav"
    words.write_text("words")
    (tmp_path / "none").mkdir()
    cases = {
        "has less than a second": ["--sounds", "--voices", str(short)],
        "is silent": ["--sounds", "--voices", str(silent)],
        "shorter than a second": ["--sounds", str(short)],
        "no audio or video file": ["--sounds", str(words)],
        "no pictures in": ["--portraits", str(tmp_path / "none")],
        "is not a folder": ["--portraits", str(tmp_path / "absent")],
        "same name": ["--sounds", str(silent), str(silent)],
        "it is a folder": ["--sounds", "--table", str(tmp_path / "none")],
    }
    for told, arguments in cases.items():
        assert evaluate.main(["--json", str(tmp_path / "f.json"), "--engine", "fake", *arguments]) == 2
        assert told in capsys.readouterr().err
    assert not (tmp_path / "f.json").exists()


def test_portraits_and_sounds_end_to_end(tmp_path, capsys):
    """The fake engine draws no face: nothing is found, nothing moves, and nothing breaks."""
    pictures, sheets = tmp_path / "pictures", tmp_path / "sheets"
    pictures.mkdir()
    shutil.copy(DEFAULT_PORTRAIT, pictures / "face.jpg")
    (pictures / "broken.png").write_bytes(b"nothing")
    voice = write_wav(tmp_path / "voice.wav", bursts(2.0, 16_000))
    arguments = ["--portraits", str(pictures), "--voices", str(voice), "--sounds", str(voice), "--seconds", "1"]
    arguments += ["--json", str(tmp_path / "f.json"), "--table", str(tmp_path / "f.md"), "--sheets", str(sheets)]
    assert evaluate.main([*arguments, "--engine", "fake"]) == 0
    report = json.loads((tmp_path / "f.json").read_text())
    (entry,) = report["portraits"]["entries"]
    assert (entry["portrait"], entry["voice"], entry["frames"]) == ("face", "voice", 25)
    assert (entry["faces_found"], entry["no_face_frames"], entry["moves"]) == (0, 25, False)
    assert report["portraits"]["mean"]["faces_share"] == 0 and report["portraits"]["mean"]["moves_share"] == 0
    assert report["portraits"]["failed"][0]["portrait"] == "broken"
    assert [row["sound"] for row in report["sounds"]["by_sound"]] == ["silence", "voice"]
    assert (tmp_path / "f.md").read_text() == format_report(report) + "\n"
    out = capsys.readouterr()
    assert "faces_share" in out.out and out.err.count("left out broken: ") == 1
    with Image.open(sheets / "portrait_face.png") as sheet, Image.open(sheets / "portraits_mouths_1.png") as mouths:
        assert sheet.width > 8 * 256 and mouths.height < 256
    assert report["clips"] == [] and report["mean"]["count"] == 0 and report["notes"] == {}


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
    assert report["mean"]["faces_found"] == 0 and report["clips"][0]["no_face_frames"] == 75
    assert report["mean"]["m_lmd_still"] > 0.3
    assert [f["clip"] for f in report["failed"]] == ["broken"]
    assert "anchor: still first frame" in capsys.readouterr().out
    with Image.open(sheets / f"{clip.stem}.png") as sheet, Image.open(sheets / f"{clip.stem}_mouth.png") as mouths:
        assert sheet.width > 8 * 256 and sheet.height > 2 * 256 and mouths.width > 10 * 170
