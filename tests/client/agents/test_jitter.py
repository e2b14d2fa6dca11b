"""A frame is handed on with its last packet, and a broken picture is not."""

from __future__ import annotations

from aiortc.rtp import RtpPacket

from client.agents.jitter import AtOnce


def packet(number: int, timestamp: int, *, marker: bool = False) -> RtpPacket:
    made = RtpPacket(sequence_number=number, timestamp=timestamp, marker=marker)
    made._data = bytes([number & 0xFF])  # type: ignore[attr-defined]
    return made


def test_a_picture_is_whole_with_its_marker() -> None:
    buffer = AtOnce(is_video=True)
    assert buffer.add(packet(65_535, 10)) == (False, None)
    asks, frame = buffer.add(packet(0, 10, marker=True))
    assert not asks and frame is not None and (frame.data, frame.timestamp) == (b"\xff\x00", 10)


def test_a_picture_with_a_gap_is_dropped_and_a_keyframe_asked_for() -> None:
    buffer = AtOnce(is_video=True)
    buffer.add(packet(1, 10))
    assert buffer.add(packet(3, 10, marker=True)) == (True, None)
    assert buffer.add(packet(4, 20, marker=True))[1] is not None


def test_sound_passes_at_once_and_an_overtaken_packet_is_dropped() -> None:
    buffer = AtOnce(is_video=False)
    assert buffer.add(packet(1, 10))[1] is not None
    assert buffer.add(packet(3, 30))[1] is not None
    assert buffer.add(packet(2, 20)) == (False, None)
