"""What a traced server writes of a frame's way out."""

import time
from typing import Any

import numpy as np

from engine.trace import Trace
from server.main import main
from server.media_clock import MediaClock
from server.playout import FrameShelf, VideoOut


async def test_a_frames_wait_and_encoding_are_booked_with_its_tick() -> None:
    shelf = FrameShelf(np.zeros((256, 256, 3), np.uint8))
    track = VideoOut(shelf)
    told: list[dict[str, Any]] = []
    track.book = Trace(sink=told.append).add
    clock = MediaClock(time.monotonic() - 0.16, 0.16)
    shelf.put(0, np.ones((256, 256, 3), np.uint8), time.monotonic())
    track.start(clock)
    for _ in range(3):  # the second and third repeat the first
        await track.recv()
    spans = [(line["stage"], line["tick"], line["frame"]) for line in told]
    assert spans == [("wait_for_tick", 0, 0), ("encode", 0, 0), ("encode", 1, 0)]
    wait, encode = told[:2]
    assert abs(wait["start_s"] + wait["ms"] / 1000 - encode["start_s"]) < 1e-4  # one begins where the other ends


def test_a_trace_that_cannot_be_written_is_told_before_the_start(tmp_path, capsys) -> None:
    assert main(["--port", "0", "--engine", "fake", "--trace", str(tmp_path / "absent" / "t.jsonl")]) == 2
    assert "cannot be written" in capsys.readouterr().err
