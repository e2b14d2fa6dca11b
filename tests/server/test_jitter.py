import pytest
from aiortc import RTCPeerConnection
from aiortc.rtp import RtpPacket

from server.jitter import PassThrough, pass_straight_through


def packet(number: int) -> RtpPacket:
    made = RtpPacket(sequence_number=number & 0xFFFF, timestamp=number * 960)
    made._data = bytes([number & 0xFF])  # type: ignore[attr-defined]
    return made


def pass_all(*numbers: int) -> list[int]:
    buffer = PassThrough()
    frames = [buffer.add(packet(n))[1] for n in numbers]
    return [f.timestamp // 960 for f in frames if f is not None]


def test_packets_pass_at_once() -> None:
    assert pass_all(5, 6, 7) == [5, 6, 7]


def test_a_lost_packet_holds_nothing_up() -> None:
    assert pass_all(5, 7, 8) == [5, 7, 8]


def test_overtaken_and_doubled_packets_are_dropped() -> None:
    assert pass_all(5, 7, 6, 7, 8) == [5, 7, 8]


def test_numbers_wrap() -> None:
    assert pass_all(65_535, 65_536, 65_537) == [65_535, 65_536, 65_537]


def test_a_source_that_begins_anew_is_heard() -> None:
    assert pass_all(5_000, 5_001, 100, 101) == [5_000, 5_001, 100, 101]


async def test_this_aiortc_still_keeps_its_buffer_where_we_replace_it() -> None:
    peer = RTCPeerConnection()
    receiver = peer.addTransceiver("audio").receiver
    pass_straight_through(receiver)
    assert isinstance(receiver._RTCRtpReceiver__jitter_buffer, PassThrough)  # type: ignore[attr-defined]
    await peer.close()


def test_another_aiortc_is_refused() -> None:
    with pytest.raises(RuntimeError, match="aiortc"):
        pass_straight_through(object())  # type: ignore[arg-type]
