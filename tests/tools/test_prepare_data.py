"""Folders of videos and of stills become clips; what cannot be used is listed with its reason."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from engine.landmarks import LIPS, eye_distance, mouth_opening, relative_pose
from tests.tools.media import write_silent_video, write_wav
from tests.tools.talking_face import loudness, open_mouth, speech, still_face, write_talk, write_video
from tools.prepare.clip_file import read_stamp
from tools.prepare.whole_set import find_late_speakers
from tools.prepare_data import main
from tools.training.clips import Clip, load_clips, measure_head, read_basis

FRAMES = 30


def prepare(*args: object) -> int:
    return main([*map(str, args), "--jobs", "1"])


def left_out(out: Path) -> dict[str, str]:
    return {row["file"]: row["reason"] for row in json.loads((out / "left_out.json").read_text())}


@pytest.fixture(scope="module")
def talk(tmp_path_factory) -> Path:
    return write_talk(tmp_path_factory.mktemp("talk") / "talk.mp4", FRAMES)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, talk) -> tuple[Path, Path]:
    """A folder with good and bad videos, and what came out."""
    root, out = tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("clips")
    for person in ("a", "b"):
        (root / person).mkdir()
        shutil.copy(talk, root / person / "001.mp4")
    (root / "a" / "001.align").write_text("0 2000 sil\n2000 12000 bin\n12000 30000 blue\n30000 31000 sil\n")
    sound = speech(2.5)[16_000:]
    write_video(root / "pair.mp4", [np.hstack([still_face(), still_face()])] * FRAMES, sound)
    write_video(root / "nobody.mp4", [np.full((96, 96, 3), 90, np.uint8)] * FRAMES, sound)
    write_video(root / "short.mp4", [still_face()] * 20, sound)
    write_video(root / "mute.mp4", [still_face()] * FRAMES, sound * 0)
    write_video(root / "dubbed.mp4", [still_face()] * FRAMES, sound)
    write_silent_video(root / "soundless.mp4", FRAMES)
    (root / "empty.mp4").touch()
    (root / "torn.mp4").write_bytes(talk.read_bytes()[:9000])
    assert prepare("--videos", root, "--out", out) == 0
    return root, out


@pytest.fixture(scope="module")
def clip(prepared) -> Clip:
    [clip] = load_clips(prepared[1], only={"a__001"})
    return clip


def test_good_clips_are_there_and_bad_ones_have_their_reason(prepared):
    _, out = prepared
    assert [c.name for c in load_clips(out)] == ["a__001", "b__001"]
    reasons = left_out(out)
    for name, reason in {
        "pair": "2 faces of similar size",
        "nobody": "no face was found",
        "short": "only 0.80 s of picture",
        "mute": "sound is silent",
        "dubbed": "hardly move",
        "soundless": "no sound track",
        "empty": "empty",
        "torn": "cannot be read",
    }.items():
        assert reason in reasons.pop(f"{name}.mp4"), name
    assert reasons == {}


def test_nothing_unfinished_is_left(prepared):
    names = {path.name for path in prepared[1].iterdir()}
    assert names == {"a__001.npz", "b__001.npz", "codes.npz", "lip_motion.npz", "left_out.json"}


def test_a_clip_holds_face_and_sound_of_each_frame(clip):
    assert len(clip) == FRAMES and len(clip.sound) == FRAMES * 640
    assert clip.frame(FRAMES - 1).shape == (256, 256, 3)
    opening = mouth_opening(clip.landmarks) / eye_distance(clip.landmarks)
    assert np.corrcoef(opening, loudness(speech(2.5)[16_000:], FRAMES))[0, 1] > 0.9
    heard = np.corrcoef(clip.sound, speech(2.5)[16_000:][: FRAMES * 640])[0, 1]
    assert heard > 0.9  # AAC is not exact
    assert clip.speech is not None and np.allclose(clip.speech, [[0.08, 0.48], [0.48, 1.2]])


def test_poses_blinks_and_brows_are_in_the_file_as_the_clip_measures_them(prepared, clip):
    with np.load(prepared[1] / "a__001.npz") as file:
        assert np.array_equal(file["poses"], clip.head.poses)
        assert np.array_equal(file["eyes"], clip.head.eyes)
        assert np.array_equal(file["brows"], clip.head.brows)
    rotation, shift = relative_pose(clip.landmarks[3], clip.landmarks.mean(0))
    assert np.allclose(clip.head.poses[3], np.concatenate([rotation, shift[:, None]], 1))
    assert 0.1 < clip.head.eyes.mean() < 0.5


def test_a_turned_head_keeps_its_blink_value():
    still = np.random.default_rng(0).normal(0, 0.3, (1, 478, 3)).astype(np.float32)
    turn = cv2.Rodrigues(np.array([0.1, 0.3, 0.2]))[0].astype(np.float32)
    head = measure_head(np.concatenate([still, still @ turn.T, still @ turn]))
    assert np.ptp(head.eyes) < 0.01 * head.eyes.mean() and np.ptp(head.brows) < 0.01


def test_masks_follow_the_landmarks(clip):
    opening = mouth_opening(clip.landmarks)
    wide, shut = int(opening.argmax()), int(opening.argmin())
    assert clip.mouth_mask(wide).sum() > 3 * clip.mouth_mask(shut).sum()
    for index in (wide, shut):
        face, lips, mouth = clip.face_mask(index), clip.lip_mask(index), clip.mouth_mask(index)
        assert 0.1 < face.mean() < 0.5 and 300 < lips.sum() < 3000
        assert not (lips & mouth).any() and not ((lips | mouth) & ~face & 1).any()
        x, y = ((clip.landmarks[index, LIPS, :2].mean(0) + 1) * 128).astype(int)
        assert face[y, x] and lips[y, x] + mouth[y, x] == 1
    assert clip.face_mask(wide, 64).shape == (64, 64)


def test_codes_are_those_of_the_basis_beside_them(prepared, clip):
    motion = read_basis(prepared[1] / "lip_motion.npz")
    assert clip.codes is not None and clip.codes.shape == (FRAMES, 8)
    assert np.allclose(clip.codes, motion.codes(clip.landmarks))
    told = motion.offsets(clip.codes)
    lower = LIPS.tolist().index(14)
    assert np.corrcoef(told[:, lower, 1], mouth_opening(clip.landmarks))[0, 1] > 0.95


def stamps(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*__001.npz")}


def test_a_second_run_makes_nothing_again(prepared, monkeypatch):
    root, out = prepared
    before, reasons = stamps(out), left_out(out)
    (out / "a__001.npz.part").write_bytes(b"half a clip")
    monkeypatch.setattr("tools.prepare_data.make_clip", None)  # would fail
    assert prepare("--videos", root, "--out", out) == 0
    assert stamps(out) == before and left_out(out) == reasons
    assert not list(out.glob("*.part"))


def test_what_is_missing_old_damaged_or_otherwise_made_is_made_anew(tmp_path, talk, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    for name in ("old", "damaged", "fine"):
        root.mkdir(exist_ok=True)
        shutil.copy(talk, root / f"{name}.mp4")
    assert prepare("--videos", root, "--out", out) == 0
    with np.load(out / "old.npz") as file:
        first_version = {name: file[name] for name in ("frames", "offsets", "landmarks", "sound", "speech")}
    np.savez(out / "old.npz", **first_version)
    (out / "damaged.npz").write_bytes((out / "damaged.npz").read_bytes()[:1000])
    fine = (out / "fine.npz").stat().st_mtime_ns
    assert prepare("--videos", root, "--out", out) == 0
    assert "2 clips were made by an older version" in capsys.readouterr().out
    assert len({read_stamp(out / f"{name}.npz") for name in ("old", "damaged", "fine")} - {"", None}) == 3
    assert (out / "fine.npz").stat().st_mtime_ns == fine
    assert prepare("--videos", root, "--out", out, "--no-sync-check") == 0
    assert "3 clips were made by an older version" in capsys.readouterr().out


def test_a_long_video_becomes_several_clips(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    talk = write_talk(root / "long.mkv", 60)
    talk.with_suffix(".align").write_text("0 20000 bin\n20000 40000 blue\n")
    assert prepare("--videos", root, "--out", out) == 0
    [whole] = load_clips(out)
    assert prepare("--videos", root, "--out", out, "--max-s", "2") == 0
    parts = load_clips(out)
    assert [c.name for c in parts] == ["long__000", "long__001"]
    count = sum(map(len, parts))
    assert abs(len(parts[0]) - len(parts[1])) <= 2 and len(whole) - 1 <= count <= len(whole)
    assert np.corrcoef(np.concatenate([c.sound for c in parts]), whole.sound[: count * 640])[0, 1] > 0.99
    opening = [mouth_opening(c.landmarks) / eye_distance(c.landmarks) for c in (whole, *parts)]
    assert np.corrcoef(np.concatenate(opening[1:]), opening[0][:count])[0, 1] > 0.97
    words = [c.speech for c in (whole, *parts) if c.speech is not None]
    assert [len(w) for w in words] == [2, 2, 1]
    assert np.allclose(words[2][0], words[0][1] - len(parts[0]) / 25)
    assert prepare("--videos", root, "--out", out) == 0
    assert [c.name for c in load_clips(out)] == ["long"]


def test_files_of_the_first_version_are_loaded(prepared, tmp_path):
    with np.load(prepared[1] / "a__001.npz") as file:
        np.savez(tmp_path / "x.npz", **{name: file[name] for name in ("frames", "offsets", "landmarks", "sound")})
    [clip] = load_clips(tmp_path)
    assert clip.codes is clip.speaker is clip.speech is None
    assert clip.head.poses.shape == (FRAMES, 3, 4)


def test_an_interrupted_run_keeps_what_is_done(tmp_path, talk, monkeypatch):
    import tools.prepare_data as tool

    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    for name in ("1", "2"):
        shutil.copy(talk, root / f"{name}.mp4")
    (root / "0.mp4").touch()
    make = tool.make_clip

    def interrupted(source, *rest):
        if source.name == "2":
            raise KeyboardInterrupt
        return make(source, *rest)

    monkeypatch.setattr(tool, "make_clip", interrupted)
    assert prepare("--videos", root, "--out", out) == 130
    assert (out / "1.npz").exists() and left_out(out) == {"0.mp4": "the file is empty (0 bytes)"}
    monkeypatch.setattr(tool, "make_clip", make)
    done = (out / "1.npz").stat().st_mtime_ns
    assert prepare("--videos", root, "--out", out) == 0
    assert (out / "2.npz").exists() and (out / "1.npz").stat().st_mtime_ns == done


def test_a_clip_that_became_unusable_is_gone(tmp_path, talk):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    shutil.copy(talk, root / "x.mp4")
    assert prepare("--videos", root, "--out", out) == 0
    (root / "x.mp4").write_bytes(b"")
    assert prepare("--videos", root, "--out", out) == 1
    assert not (out / "x.npz").exists() and "empty" in left_out(out)["x.mp4"]
    shutil.copy(talk, root / "x.mp4")
    assert prepare("--videos", root, "--out", out) == 0
    assert left_out(out) == {}


def test_clips_of_a_speaker_out_of_sync_are_left_out_together(tmp_path):
    hill = np.exp(-(((np.arange(31) - 15) / 3) ** 2)).astype(np.float32)
    for number in range(10):
        for speaker, lag in (("late", 8), ("fine", 0)):
            name, curve = f"{speaker}{number}", 0.2 + 0.15 * np.roll(hill, lag)
            np.savez(tmp_path / f"{name}.npz", sync=curve, speaker=np.array(speaker), offsets=np.arange(76))
    found = find_late_speakers(tmp_path, [path.stem for path in tmp_path.iterdir()])
    assert set(found) == {f"late{number}" for number in range(10)}
    assert "late by 8 frames (320 ms) in 10 clips of this speaker" in found["late0"]


def test_what_a_late_speakers_clips_become_is_kept(tmp_path, talk, monkeypatch):
    import tools.prepare_data as tool

    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    for name in ("good", "late"):
        shutil.copy(talk, root / f"{name}.mp4")
    monkeypatch.setattr(tool, "find_late_speakers", lambda folder, names: {"late": "late by 8 frames"})
    assert prepare("--videos", root, "--out", out) == 0
    for _ in range(2):
        assert [c.name for c in load_clips(out)] == ["good"]
        assert left_out(out) == {"late.mp4": "late by 8 frames"}
        monkeypatch.setattr(tool, "make_clip", None)  # nothing is made again
        assert prepare("--videos", root, "--out", out) == 0


def test_files_that_are_no_clips_do_no_harm(tmp_path, talk):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    out.mkdir()
    shutil.copy(talk, root / "x.mp4")
    (out / "left_out.json").write_text("{ half a list")
    (out / "foreign.npz").write_text("what is this")
    assert prepare("--videos", root, "--out", out) == 0
    with np.load(out / "codes.npz") as file:
        assert file["names"].tolist() == ["x"]


def test_mead_sound_from_the_other_tree(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    for view in ("front", "top"):
        write_talk(root / f"M003/video/{view}/angry/level_1/001.mp4", FRAMES, with_sound=False)
    sound = root / "M003/audio/angry/level_1/001.wav"
    sound.parent.mkdir(parents=True)
    write_wav(sound, speech(2.5)[16_000:])
    assert prepare("--videos", root, "--out", out) == 0
    [clip] = load_clips(out)
    assert clip.name == "M003__video__front__angry__level_1__001" and clip.speaker == "M003"
    assert np.corrcoef(clip.sound, speech(2.5)[16_000:][: FRAMES * 640])[0, 1] > 0.999


def test_hdtf_is_cut_by_its_times_to_the_face_in_its_window(tmp_path):
    """Two faces side by side; the list says that the right one is meant, from second 1 to 3."""
    root, out = tmp_path / "in", tmp_path / "out"
    levels = loudness(speech(4.0), 100)
    images = [np.hstack([still_face(), open_mouth(float(level))]) for level in levels]
    write_video(root / "Radio1.mp4", images, speech(4.0))
    (root / "RD_annotion_time.txt").write_text("Radio1.mp4 00:01-00:03\n")
    (root / "RD_crop_wh.txt").write_text("Radio1_0.mp4 720 576 0 576\n")
    (root / "RD_resolution.txt").write_text("Radio1.mp4 720\n")  # the list's pixels; the video has 288
    assert prepare("--videos", root, "--out", out) == 0, left_out(out)
    [clip] = load_clips(out)
    assert (clip.name, len(clip)) == ("Radio1_0", 50)
    opening = mouth_opening(clip.landmarks)
    assert np.corrcoef(opening, levels[25:75])[0, 1] > 0.9
    assert np.corrcoef(clip.sound, speech(3.0)[16_000:])[0, 1] > 0.9


def test_a_face_far_away_is_followed_and_a_cut_keeps_the_longer_part(tmp_path):
    from tools.prepare.media import VideoReader
    from tools.prepare.tracking import follow_face

    small = cv2.resize(still_face(), (150, 150), interpolation=cv2.INTER_AREA)
    images = []
    for index in range(50):
        image = np.full((500, 800, 3), 128, np.uint8)
        left = 60 if index < 12 else 520 + index
        image[200:350, left : left + 150] = small
        images.append(image)
    track = follow_face(VideoReader(write_video(tmp_path / "a.mkv", images)))
    assert 12 <= track.first <= 20 and len(track.landmarks) == 50 - track.first
    assert np.abs(track.landmarks[-1, :, 0].mean() - (569 + 75)) < 20


def test_still_portraits(tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    (root / "sub").mkdir(parents=True)
    face = still_face()[..., ::-1]
    cv2.imwrite(str(root / "one.png"), face)
    cv2.imwrite(str(root / "sub" / "grey.jpg"), cv2.cvtColor(face, cv2.COLOR_BGR2GRAY))
    cv2.imwrite(str(root / "pair.png"), np.hstack([face, face]))
    cv2.imwrite(str(root / "tiny.png"), cv2.resize(face, (60, 60), interpolation=cv2.INTER_AREA))
    (root / "text.jpg").write_text("no picture")
    assert prepare("--portraits", root, "--out", out) == 0
    clips = load_clips(out)
    assert [c.name for c in clips] == ["one", "sub__grey"]
    assert all(len(c) == 1 and len(c.sound) == 0 and c.codes is None for c in clips)
    reasons = left_out(out)
    assert set(reasons) == {"pair.png", "tiny.png", "text.jpg"}
    assert "faces" in reasons["pair.png"] and "picture" in reasons["text.jpg"]
    assert reasons["pair.png"] in capsys.readouterr().out


def test_portraits_have_codes_by_a_basis_of_clips(prepared, tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    root.mkdir()
    cv2.imwrite(str(root / "one.png"), still_face()[..., ::-1])
    assert prepare("--portraits", root, "--out", out, "--basis", prepared[1] / "lip_motion.npz") == 0
    [still] = load_clips(out)
    assert still.codes is not None
    assert np.allclose(still.codes, read_basis(prepared[1] / "lip_motion.npz").guess_code(still.landmarks))


def test_two_processes_make_what_one_makes(prepared, tmp_path):
    root, out = prepared
    assert main(["--videos", str(root), "--out", str(tmp_path), "--jobs", "2"]) == 0
    assert left_out(tmp_path) == left_out(out)
    with np.load(out / "a__001.npz") as one, np.load(tmp_path / "a__001.npz") as two:
        assert all(np.array_equal(one[name], two[name], equal_nan=name == "sync") for name in one.files)


def test_wrong_arguments_are_named(tmp_path, capsys):
    (tmp_path / "file.mp4").touch()
    for args, reason in (
        (["--videos", tmp_path / "none"], "does not exist"),
        (["--videos", tmp_path / "file.mp4"], "is a file"),
        (["--videos", tmp_path, "--max-s", "0"], "must be 2 or more"),
    ):
        with pytest.raises(SystemExit):
            prepare(*args, "--out", tmp_path / "out")
        assert reason in capsys.readouterr().err
    assert prepare("--portraits", tmp_path, "--out", tmp_path / "out") == 2
    assert "no file ends in" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", x=1)
    (tmp_path / "torn.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:100])
    for name in ("other.npz", "torn.npz"):
        assert prepare("--videos", tmp_path, "--out", tmp_path / "out", "--basis", tmp_path / name) == 2
        assert f"{name} is no basis" in capsys.readouterr().err
