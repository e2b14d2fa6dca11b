import av
import numpy as np
import pytest

from client.pictures import Picture
from client.recorder import WAITING, Recorder, Reel
from engine.errors import FileError
from tools.sound_file import SoundBlock


class Film:
    def __init__(self) -> None:
        self.frames: list[int] = []
        self.sound = np.zeros(0, np.float32)

    def write_frame(self, frame: np.ndarray) -> None:
        self.frames.append(int(frame.max()))

    def write_sound(self, block: SoundBlock) -> None:
        self.sound = np.concatenate([self.sound, block.samples[:, 0]])


@pytest.fixture
def film() -> Film:
    return Film()


def shade(value: int) -> np.ndarray:
    return np.full((4, 4, 3), value, np.uint8)


def test_a_missing_picture_is_the_one_before_once_more(film):
    reel = Reel(film)
    for index in (0, 1, 4, 5):
        reel.add_picture(3 + index / 25, shade(index))
    assert film.frames == [0, 1, 1, 1, 4, 5]


def test_missing_sound_is_silence_and_all_of_it_stands_where_it_was_heard(film):
    reel = Reel(film)
    reel.add_sound(2.96, np.ones(960, np.float32))  # before the first picture
    reel.add_picture(3, shade(1))
    reel.add_sound(2.99, np.full(960, 0.5, np.float32))  # half of it before
    reel.add_sound(3.03, np.ones(960, np.float32))
    assert len(film.sound) == round(0.05 * 48_000)
    assert (film.sound[:480] == 0.5).all() and not film.sound[480:1440].any() and (film.sound[1440:] == 1).all()


def test_the_time_without_a_server_is_left_out_and_both_go_on_together(film):
    reel = Reel(film)
    reel.start_session()
    for index in range(3):
        reel.add_picture(index / 25, shade(1))
    reel.add_sound(0, np.full(9600, 0.5, np.float32))  # 80 ms more than the pictures
    reel.start_session()
    reel.add_sound(6.96, np.ones(1920, np.float32))
    reel.add_picture(7, shade(2))
    reel.add_sound(7, np.ones(1920, np.float32))
    assert film.frames == [1, 1, 1, 1, 1, 2]
    assert len(film.sound) == 6 * 1920 and (film.sound[-1920:] == 1).all() and film.sound[-1921] == 0.5


def test_a_picture_that_is_older_than_what_is_written_is_left_out(film):
    reel = Reel(film)
    for at_s in (0.0, 0.04, 0.01, 0.08):
        reel.add_picture(at_s, shade(round(at_s * 100)))
    assert film.frames == [0, 4, 8]


def test_a_path_that_cannot_be_written_is_told_at_once(tmp_path):
    with pytest.raises(FileError, match="nowhere"):
        Recorder(tmp_path / "nowhere" / "o.mp4")


def test_where_nothing_came_there_is_no_file(tmp_path):
    assert Recorder(tmp_path / "o.mp4").close() is False
    assert not list(tmp_path.iterdir())


def test_what_goes_wrong_while_writing_is_kept_and_told(tmp_path):
    (tmp_path / "folder").mkdir()
    recorder = Recorder(tmp_path / "folder" / "o.mp4")
    (tmp_path / "folder").rmdir()
    for index in range(2 * WAITING):
        recorder.add_picture(index / 25, Picture(av.VideoFrame(64, 64, "yuv420p")))
    with pytest.raises(FileError, match="o.mp4"):
        recorder.close()
    assert recorder.failure is not None
