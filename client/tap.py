"""Packets of one received stream -> whole pictures or packets of sound, at once, with the time of each.

aiortc's own buffer hands a picture on only when the *next* one begins to arrive (40 ms later), and holds
sound back for four packets (80 ms); what has to wait is decided by ``timeline.py`` here, once for both.
So a picture is complete with its last packet (the marker bit, RFC 3550 section 5.1) and sound passes
as it comes. aiortc also keeps from its users what lip sync needs: the RTP time of the sender reports
(RFC 3550 section 6.4.1). ``tap`` sets both right on a receiver.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import RtcpSrPacket, RtpPacket

from client.errors import ServerTrouble

PATIENCE_S = 0.15  # for a lost packet to be sent again (NACK, RFC 4585): a round trip and a half of a poor network
ASK_EVERY_S = 0.3  # for a whole picture, while there is none
MAX_HELD = 512  # packets that wait for a lost one; beyond that it is given up at once
_BUFFER, _QUEUE = "_RTCRtpReceiver__jitter_buffer", "_RTCRtpReceiver__decoder_queue"
_MAPPER, _CODECS = "_RTCRtpReceiver__timestamp_mapper", "_RTCRtpReceiver__codecs"
_H264_WHOLE = re.compile(rb"\x00\x00\x01[\x05\x07\x25\x27\x45\x47\x65\x67]")  # units 5 and 7 of any importance
_VP8_WHOLE = b"\x9d\x01\x2a"  # at byte 3 of a key frame (RFC 6386 section 9.1)


class Tap(JitterBuffer):
    """Stands in for aiortc's buffer on a receiver.

    A picture that lacks a packet waits PATIENCE_S for it; then it is dropped, with all that follow until
    one that needs no other. Sound waits for nothing: what was overtaken is dropped.

    Args:
        is_video: pictures of several packets each; else each packet is complete.
        now: time, monotonic.
    """

    def __init__(self, *, is_video: bool, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(capacity=1, is_video=is_video)
        self._now = now
        self._next: int | None = None
        self._held: dict[int, RtpPacket] = {}
        self._gap_since_s: float | None = None
        self._needs_whole = False
        self._asked_s = float("-inf")
        self._newest: tuple[int, int] | None = None  # RTP time, and the same in ticks since the first
        self.spare: list[JitterFrame] = []  # complete beside the one that ``add`` returned; emptied by ``tap``
        self.lost_packets = 0

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet; whether to ask for a whole picture, and what is complete now."""
        number = packet.sequence_number
        if self._next is None:
            self._next = number
        ahead = (number - self._next) & 0xFFFF
        if ahead >= 0x8000:
            return False, None  # a late copy
        if not self._is_video:
            self.lost_packets += ahead
            self._next = (number + 1) & 0xFFFF
            return False, self._hand_out([packet])
        self._held[number] = packet
        self._give_up_late()
        whole = [self._hand_out(parts) for parts in iter(self._take_picture, [])]
        frames = [frame for frame in whole if frame is not None]
        self.spare += frames[1:]
        return self._must_ask(), frames[0] if frames else None

    def ticks_of(self, timestamp: int) -> int | None:
        """Ticks since the first of an RTP time near the newest; None before anything came."""
        if self._newest is None:
            return None
        newest, ticks = self._newest
        return ticks + ((timestamp - newest + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)

    def note(self, ticks: int) -> None:
        """Called with the time of each picture or packet when it is complete; for those who measure."""

    def _take_picture(self) -> list[RtpPacket]:
        """The next picture's packets if all are there, else []."""
        assert self._next is not None
        parts: list[RtpPacket] = []
        at = self._next
        while at in self._held:
            parts.append(self._held[at])
            at = (at + 1) & 0xFFFF
            if parts[-1].marker:
                self._forget(parts, at)
                return parts
        self._gap_since_s = None if len(parts) == len(self._held) else (self._gap_since_s or self._now())
        return []

    def _give_up_late(self) -> None:
        """Skip what is missing when it has been waited for long enough: up to where the next picture begins."""
        assert self._next is not None
        patient = self._gap_since_s is None or self._now() - self._gap_since_s < PATIENCE_S
        if patient and len(self._held) <= MAX_HELD:
            return
        self._gap_since_s = None
        at, torn = self._next, True
        ordered = sorted(self._held, key=lambda number, first=at: (number - first) & 0xFFFF)  # type: ignore[misc]
        while ordered:
            number = ordered[0]
            if number != at:
                self.lost_packets += (number - at) & 0xFFFF
                torn = True
            elif not torn:
                break
            packet = self._held.pop(ordered.pop(0))
            at = (number + 1) & 0xFFFF
            torn = not packet.marker
        self._next = at
        self._needs_whole = True

    def _forget(self, parts: list[RtpPacket], at: int) -> None:
        for part in parts:
            del self._held[part.sequence_number]
        self._next, self._gap_since_s = at, None

    def _hand_out(self, parts: list[RtpPacket]) -> JitterFrame | None:
        data = b"".join(part._data for part in parts)  # type: ignore[attr-defined]
        if self._needs_whole:
            if not stands_alone(data):
                return None
            self._needs_whole = False
        timestamp = parts[0].timestamp
        ticks = self.ticks_of(timestamp) or 0
        self._newest = timestamp, ticks
        self.note(ticks)
        return JitterFrame(data=data, timestamp=timestamp)

    def _must_ask(self) -> bool:
        if not self._needs_whole or self._now() - self._asked_s < ASK_EVERY_S:
            return False
        self._asked_s = self._now()
        return True


def stands_alone(data: bytes) -> bool:
    """Whether an encoded VP8 or H.264 picture needs no other to be decoded."""
    return data[3:6] == _VP8_WHOLE or _H264_WHOLE.search(data) is not None


def tap(receiver: RTCRtpReceiver, put: Tap, on_report: Callable[[int, float], None] | None = None) -> None:
    """Put ``put`` in the place of the receiver's buffer; to be called before it starts.

    Args:
        receiver: of aiortc.
        put: the new buffer.
        on_report: told of each sender report: the ticks of its RTP time, and its wall time in seconds.

    Raises:
        ServerTrouble: this aiortc keeps its buffer elsewhere.
    """
    if not isinstance(getattr(receiver, _BUFFER, None), JitterBuffer) or not hasattr(receiver, _QUEUE):
        raise ServerTrouble("this version of aiortc has no jitter buffer where it is expected: install aiortc 1.x")
    setattr(receiver, _BUFFER, put)
    take_packet, take_report = receiver._handle_rtp_packet, receiver._handle_rtcp_packet

    async def hear_packet(packet: RtpPacket, arrival_time_ms: int) -> None:
        await take_packet(packet, arrival_time_ms=arrival_time_ms)
        if put.spare:
            # aiortc takes one picture per packet; after a repaired loss several are complete at once.
            codecs = getattr(receiver, _CODECS).values()
            codec = next(codec for codec in codecs if not codec.name.lower().startswith("rtx"))
            codec = getattr(receiver, _CODECS).get(packet.payload_type, codec)
            _queue(receiver, put.spare, codec)
            put.spare = []

    async def hear_report(packet: Any) -> None:
        await take_report(packet)
        if on_report is not None and isinstance(packet, RtcpSrPacket) and packet.sender_info.ntp_timestamp:
            ticks = put.ticks_of(packet.sender_info.rtp_timestamp)
            if ticks is not None:
                on_report(ticks, packet.sender_info.ntp_timestamp / 2**32)

    receiver._handle_rtp_packet = hear_packet  # type: ignore[method-assign]
    receiver._handle_rtcp_packet = hear_report  # type: ignore[method-assign]


def _queue(receiver: RTCRtpReceiver, frames: list[JitterFrame], codec: Any) -> None:
    for frame in frames:
        frame.timestamp = getattr(receiver, _MAPPER).map(frame.timestamp)
        getattr(receiver, _QUEUE).put((codec, frame))
