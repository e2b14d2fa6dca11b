"""The measuring peer's own parts; a whole call is in test_profile_latency.py."""

import asyncio
import time

import numpy as np
import pytest
from aiortc.rtp import RtpPacket

from tools.peer import Microphone, Tap


def packet(number: int, ticks: int, *, last: bool = True, data: bytes = b"x") -> RtpPacket:
    made = RtpPacket(sequence_number=number & 0xFFFF, timestamp=ticks, marker=int(last))
    made._data = data  # type: ignore[attr-defined]
    return made


def test_a_picture_passes_with_its_last_packet():
    tap = Tap(is_video=True)
    assert tap.add(packet(65_535, 9000, last=False, data=b"a")) == (False, None)
    _, frame = tap.add(packet(65_536, 9000, data=b"b"))
    assert frame is not None and frame.data == b"ab" and frame.timestamp == 9000
    assert list(tap.arrived_s) == [0]
    tap.add(packet(1, 12_600))
    assert list(tap.arrived_s) == [0, 3600] and tap.lost_packets == 0


def test_a_lost_packet_asks_for_a_whole_picture_and_late_copies_are_ignored():
    tap = Tap(is_video=True)
    tap.add(packet(10, 0))
    asks, frame = tap.add(packet(13, 3600, data=b"c"))
    assert asks and frame is not None and tap.lost_packets == 2
    assert tap.add(packet(12, 0)) == (False, None)


def test_sound_passes_at_once():
    tap = Tap(is_video=False)
    for index in range(3):
        _, frame = tap.add(packet(index, 960 * index, last=False))
        assert frame is not None and frame.timestamp == 960 * index
    assert list(tap.arrived_s) == [0, 960, 1920]


async def test_a_packet_of_the_microphone_exists_when_its_last_sample_does():
    microphone = Microphone(np.full(1000, 0.5, np.float32))
    for index in range(3):
        frame = await microphone.recv()
        assert microphone.started_s is not None
        assert time.monotonic() - microphone.started_s >= 0.02 * (index + 1) - 0.001
        assert frame.pts == 960 * index and frame.samples == 960
        loud = np.count_nonzero(frame.to_ndarray())
        assert loud == [960, 40, 0][index]


async def test_a_repeating_microphone_begins_again():
    microphone = Microphone(np.linspace(0, 0.9, 2000, dtype=np.float32), repeat=True)
    frames = [await microphone.recv() for _ in range(3)]
    np.testing.assert_array_equal(frames[0].to_ndarray(), frames[2].to_ndarray())
    assert frames[2].pts == 1920
    await asyncio.sleep(0)
    assert frames[0].to_ndarray()[0, -1] == pytest.approx(0.9 * 959 / 1999 * 32_767, abs=2)
