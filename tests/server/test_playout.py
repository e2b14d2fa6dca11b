import asyncio
import time

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from server.ingest import make_sound_ring
from server.media_clock import MediaClock
from server.playout import OPUS_LOOKAHEAD, SHELF_FRAMES, AudioOut, FrameShelf, Pacer, VideoOut


def frame(value: int) -> np.ndarray:
    return np.full((256, 256, 3), value, np.uint8)


@pytest.fixture
def shelf() -> FrameShelf:
    return FrameShelf(frame(255))


def test_a_frame_in_time_is_shown_in_its_place(shelf: FrameShelf) -> None:
    shelf.put(0, frame(0))
    shelf.put(1, frame(1))
    assert [shelf.take(0)[0, 0, 0], shelf.take(1)[0, 0, 0]] == [0, 1]
    assert (shelf.taken, shelf.repeated, shelf.dropped) == (2, 0, 0)


def test_rest_is_shown_until_the_first_frame(shelf: FrameShelf) -> None:
    assert shelf.take(0)[0, 0, 0] == 255
    assert shelf.repeated == 1


def test_a_late_frame_repeats_the_last_and_is_then_passed_over(shelf: FrameShelf) -> None:
    shelf.put(0, frame(0))
    assert [shelf.take(k)[0, 0, 0] for k in (0, 1)] == [0, 0]
    shelf.put(1, frame(1))
    shelf.put(2, frame(2))
    assert shelf.take(2)[0, 0, 0] == 2
    assert (shelf.repeated, shelf.dropped) == (1, 1)


def test_a_frame_is_never_shown_before_its_time(shelf: FrameShelf) -> None:
    shelf.put(0, frame(0))
    shelf.put(5, frame(5))
    assert [shelf.take(k)[0, 0, 0] for k in range(6)] == [0, 0, 0, 0, 0, 5]


def test_a_spared_frame_is_the_one_before_and_not_late(shelf: FrameShelf) -> None:
    shelf.spare(1)
    shelf.put(0, frame(0))
    shelf.put(2, frame(2))
    assert [shelf.take(k)[0, 0, 0] for k in (0, 1, 2, 3)] == [0, 0, 2, 2]
    assert (shelf.spared, shelf.repeated) == (1, 1)


def test_the_shelf_keeps_the_newest(shelf: FrameShelf) -> None:
    for k in range(SHELF_FRAMES + 3):
        shelf.put(k, frame(k))
    assert shelf.dropped == 3
    assert shelf.take(SHELF_FRAMES + 2)[0, 0, 0] == SHELF_FRAMES + 2


class FakeTime:
    """Wall time that passes only when somebody sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr("server.playout.asyncio.sleep", self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def __call__(self) -> float:
        return self.now_s


async def test_sound_and_frames_of_one_instant_leave_together(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = FakeTime(monkeypatch)
    clock = MediaClock(100.0, 0.16)
    left: dict[str, list[float]] = {}
    for kind, stride, steps in (("frame", 640, 50), ("sound", 320, 100)):
        wall.now_s = 100.0
        pacer = Pacer(clock, stride, now=wall)
        left[kind] = []
        for step in range(steps):
            assert await pacer.next() == step
            left[kind].append(wall.now_s)
    assert left["frame"] == pytest.approx(left["sound"][::2])
    assert left["frame"] == pytest.approx([100.16 + 0.04 * k for k in range(50)])


async def test_a_short_hold_up_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = FakeTime(monkeypatch)
    pacer = Pacer(MediaClock(100.0, 0.16), 320, now=wall)
    await pacer.next()
    wall.now_s += 0.3
    assert [await pacer.next() for _ in range(3)] == [1, 2, 3]
    assert pacer.skipped == 0


async def test_after_a_long_hold_up_the_present_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    wall = FakeTime(monkeypatch)
    pacer = Pacer(MediaClock(100.0, 0.16), 320, now=wall)
    await pacer.next()
    wall.now_s += 10
    assert await pacer.next() == 500
    assert pacer.skipped == 499


async def test_both_tracks_stamp_positions_of_one_clock(shelf: FrameShelf) -> None:
    ring = make_sound_ring()
    ring.write(0, np.arange(9_600, dtype=np.int16))
    sound, picture = AudioOut(ring), VideoOut(shelf)
    clock = MediaClock(time.monotonic() - 0.16, 0.16)
    sound.start(clock)
    picture.start(clock)
    packets = [await sound.recv() for _ in range(3)]
    frames = [await picture.recv() for _ in range(2)]
    assert [p.time for p in packets] == pytest.approx([0, 0.02, 0.04])
    assert [f.time for f in frames] == pytest.approx([0, 0.04])
    assert packets[2].to_ndarray()[0, 0] == 1_920 + OPUS_LOOKAHEAD


async def test_a_stopped_track_ends_a_sender_that_still_waits(shelf: FrameShelf) -> None:
    track = VideoOut(shelf)
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0)
    track.stop()
    with pytest.raises((asyncio.CancelledError, MediaStreamError)):
        await waiting
    with pytest.raises(MediaStreamError):
        await track.recv()


def test_after_a_cut_nothing_that_was_held_shows_and_the_next_frame_shows_before_its_time(shelf: FrameShelf) -> None:
    for k in range(5):
        shelf.put(k, frame(k))
    assert shelf.take(1)[0, 0, 0] == 1
    shelf.cut()
    assert shelf.take(2)[0, 0, 0] == 1, "nothing of the new time has come"
    shelf.put(7, frame(7))
    shelf.put(8, frame(8))
    assert [shelf.take(k)[0, 0, 0] for k in (3, 4, 7, 8)] == [7, 7, 7, 8]
    assert shelf.repeated == 0, "a delay must not grow because speech was broken off"
