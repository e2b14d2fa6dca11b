"""MEAD's and HDTF's folders are read as they come, and no two clips get one name."""

from pathlib import Path

import pytest

from tools.prepare.media import WHOLE, Span
from tools.prepare.sources import find_portraits, find_videos, read_annotations


def make_tree(root: Path, *files: str) -> Path:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(b"x")
    return root


def find(root: Path, **options):
    options = {"views": {"front"}} | options
    return find_videos(root, **options)


def test_files_in_the_folder_keep_their_names(tmp_path):
    sources, _ = find(make_tree(tmp_path, "bbaf2n.mp4", "bbaf3s.mp4", "notes.txt", "._bbaf2n.mp4"))
    assert [s.name for s in sources] == ["bbaf2n", "bbaf3s"]


def test_mead_takes_the_front_and_its_sound_from_the_other_tree(tmp_path):
    takes = [f"M003/video/{v}/{e}/level_1/001.mp4" for v in ("front", "left_30") for e in ("angry", "neutral")]
    sounds = [f"M003/audio/{e}/level_1/001.m4a" for e in ("angry", "neutral")]
    root = make_tree(tmp_path, *takes, *sounds, "W009/video/front/angry/level_1/001.mp4")
    sources, others = find(root)
    assert others == 2
    assert [s.name for s in sources] == [
        "M003__video__front__angry__level_1__001",
        "M003__video__front__neutral__level_1__001",
        "W009__video__front__angry__level_1__001",
    ]
    assert [s.sound for s in sources] == [root / sounds[0], root / sounds[1], None]
    assert [s.speaker for s in sources] == ["M003", "M003", "W009"]
    assert len(find(root, views={"front", "left_30"})[0]) == 5


def test_mead_archives_unpacked_each_by_itself(tmp_path):
    root = make_tree(
        tmp_path, "M003/video-001/video/front/sad/level_2/007.mp4", "M003/audio-001/audio/sad/level_2/007.m4a"
    )
    [source], _ = find(root)
    assert source.sound == root / "M003/audio-001/audio/sad/level_2/007.m4a"
    assert source.speaker == "M003"


HDTF_LISTS = {
    "RD_annotion_time.txt": "Radio11.mp4 00:30-01:00 01:30-02:30\nRadio24.mp4 00:05-1:00:07\n",
    "RD_crop_wh.txt": "Radio11_0.mp4 412 599 0 599\nRadio11_1.mp4 557 478 0 478\n",
    "RD_resolution.txt": "Radio11.mp4 720\nRadio24.mp4 720\n",
}


@pytest.fixture
def hdtf(tmp_path) -> Path:
    (tmp_path / "HDTF_dataset").mkdir()
    for name, text in HDTF_LISTS.items():
        (tmp_path / "HDTF_dataset" / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("video", ["Radio11", "RD_Radio11"])
def test_hdtfs_long_videos_are_cut_by_its_lists(hdtf, video):
    sources, _ = find(make_tree(hdtf, f"videos/{video}.mp4"))
    assert [s.name for s in sources] == [f"videos__{video}_0", f"videos__{video}_1"]
    assert [s.span for s in sources] == [Span(30, 60), Span(90, 150)]
    assert sources[1].window == (557, 0, 478, 478, 720)
    assert {s.speaker for s in sources} == {video}


def test_hdtfs_clips_that_are_cut_already_are_not_cut_again(hdtf):
    sources, _ = find(make_tree(hdtf, "_videos_raw/RD_Radio11.mp4", "RD_Radio11_000.mp4", "RD_Radio11_001.mp4"))
    assert [(s.name, s.span) for s in sources] == [("RD_Radio11_000", WHOLE), ("RD_Radio11_001", WHOLE)]
    assert len({s.speaker for s in sources}) == 1


def test_hdtfs_lists_may_lie_elsewhere(hdtf, tmp_path_factory):
    videos = make_tree(tmp_path_factory.mktemp("videos"), "Radio24.mp4")
    [source], _ = find(videos, annotations=hdtf / "HDTF_dataset")
    assert source.span == Span(5, 3607)


def test_what_is_long_is_cut_evenly(hdtf):
    sources, _ = find(make_tree(hdtf, "Radio11.mp4"), max_s=25)
    assert [s.name for s in sources[:3]] == ["Radio11_0__000", "Radio11_0__001", "Radio11_1__000"]
    assert [s.span for s in sources[:3]] == [Span(30, 45), Span(45, 60), Span(90, 110)]
    assert len(sources) == 5 and {s.speaker for s in sources} == {"Radio11"}


@pytest.mark.parametrize("span", ["00:30", "00:30-00:10", "0030-0100", "a-b"])
def test_a_wrong_time_in_a_list_is_named(tmp_path, span):
    (tmp_path / "RD_annotion_time.txt").write_text(f"Radio1.mp4 {span}\n")
    with pytest.raises(ValueError, match=f"Radio1 has the time '{span}'"):
        read_annotations(tmp_path)


def test_no_two_clips_have_one_name(tmp_path):
    root = make_tree(tmp_path, "a.mp4", "a.mov", "b/c.mp4", "b__c.mp4", "codes.mp4", "lip_motion.mp4", "A.avi")
    names = [s.name for s in find(root)[0]]
    assert len({name.lower() for name in names}) == 7
    assert not {"codes", "lip_motion"} & set(names)
    assert names == [s.name for s in find(root)[0]]


def test_portraits_are_found_in_depth(tmp_path):
    root = make_tree(tmp_path, "A/one.jpg", "B/one.PNG", "B/clip.mp4")
    assert [s.name for s in find_portraits(root)] == ["A__one", "B__one"]
