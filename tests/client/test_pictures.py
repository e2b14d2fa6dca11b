"""Pictures leave by the timeline's instants: proven with a sink that notes, and with time made up."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np

from client.pictures import HELD, Gallery, Picture, PicturePacer
from client.skew import SkewGauge
from client.timeline import Timeline


class NotingSink:
    """The verbs of a window and of a virtual camera."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def show(self, picture: np.ndarray) -> None:
        self.seen.append((time.monotonic(), int(picture[0, 0, 0])))

    def close(self) -> None:
        pass


def picture(shade: int) -> Picture:
    return Picture(av.VideoFrame.from_ndarray(np.full((64, 64, 3), shade, np.uint8), format="rgb24"))


async def test_pictures_that_come_in_a_rush_leave_in_their_order_when_they_are_due_and_none_before():
    sink, gauge, timeline = NotingSink(), SkewGauge(), Timeline()
    pacer = PicturePacer([sink], gauge)
    pacer.start(timeline)
    begun_s = time.monotonic()
    timeline.observe("audio", 0, begun_s)
    running = asyncio.create_task(pacer.run())
    for index in range(5):
        pacer.put(index * 0.04, picture(10 * index))
    async with asyncio.timeout(10):
        while pacer.gallery.passed_over + ((told := gauge.read()) is not None and told.pictures) < 5:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    shades = [shade for _, shade in sink.seen]
    assert shades == sorted(shades) and shades[-1] == 40
    for at_s, shade in sink.seen:
        due_s = timeline.due_s(shade / 10 * 0.04)
        assert due_s is not None and at_s >= due_s - 1e-6
    skew = gauge.read()
    assert skew is not None and skew.pictures == pacer.gallery.shown and skew.median_ms >= 0


async def test_a_sink_gets_its_last_picture_again_while_nothing_comes():
    sink, timeline = NotingSink(), Timeline()
    pacer = PicturePacer([sink], SkewGauge())
    pacer.start(timeline)
    timeline.observe("audio", 0, time.monotonic())
    running = asyncio.create_task(pacer.run())
    pacer.put(0, picture(70))
    async with asyncio.timeout(10):
        while len(sink.seen) < 2:
            await asyncio.sleep(0.01)
    pacer.start(None)  # the server went away; the camera still shows
    seen = len(sink.seen)
    async with asyncio.timeout(10):
        while len(sink.seen) <= seen:
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert {shade for _, shade in sink.seen} == {70}


def test_threads_that_want_the_same_picture_at_once_get_it():
    frame = av.VideoFrame.from_ndarray(np.full((256, 256, 3), 200, np.uint8), format="rgb24").reformat(format="yuv420p")
    with ThreadPoolExecutor(4) as threads:
        for _ in range(200):
            shared = Picture(frame)
            seen = list(threads.map(lambda _, shared=shared: shared.rgb(), range(4)))
            assert all(rgb is seen[0] for rgb in seen) and abs(int(seen[0].mean()) - 200) <= 1


def test_the_newest_picture_that_is_due_is_taken_and_older_ones_are_passed_over():
    gallery = Gallery()
    for index in range(4):
        gallery.put(index * 0.04, picture(index))
    assert gallery.take(-0.01) is None
    taken = gallery.take(0.09)
    assert taken is not None and taken[0] == 0.08 and gallery.passed_over == 2 and gallery.next_s() == 0.12


def test_a_gallery_that_nobody_empties_keeps_the_newest():
    gallery = Gallery()
    for index in range(HELD + 10):
        gallery.put(index, picture(0))
    assert gallery.next_s() == 10 and gallery.passed_over == 10


def test_skew_is_picture_minus_sound():
    gauge = SkewGauge()
    assert gauge.read() is None
    gauge.sound_left(0.010)
    for late_s in (0.012, 0.013, 0.005):
        gauge.picture_left(late_s)
    skew = gauge.read()
    assert skew is not None and round(skew.median_ms) == 2 and round(skew.p95_ms) == 3
