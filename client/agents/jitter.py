"""Frames as soon as they are whole.

aiortc hands a picture on when the next one begins to arrive, 40 ms later, and holds back four packets of sound, 80 ms.
Here a picture is whole with its last packet (the marker bit, RFC 3550 section 5.1) and sound passes at once; a packet
that was overtaken is dropped.
"""

from __future__ import annotations

from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import RtpPacket

_BUFFER = "_RTCRtpReceiver__jitter_buffer"


class AtOnce(JitterBuffer):
    """Stands in for aiortc's buffer. Keeps the packets of one frame; a frame with a gap is dropped."""

    def __init__(self, *, is_video: bool) -> None:
        super().__init__(capacity=1, is_video=is_video)
        self._parts: list[RtpPacket] = []
        self._broken = False
        self._next: int | None = None

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        """Take a packet: whether a keyframe should be asked for, and the frame that it completes."""
        gap = 0 if self._next is None else (packet.sequence_number - self._next) & 0xFFFF
        if gap >= 0x8000:
            return False, None
        self._next = (packet.sequence_number + 1) & 0xFFFF
        if self._parts and self._parts[0].timestamp != packet.timestamp:
            self._parts = []
        self._broken = self._broken or bool(gap)
        self._parts.append(packet)
        if self._is_video and not packet.marker:
            return False, None
        parts, self._parts = self._parts, []
        broken, self._broken = self._broken, False
        if broken and self._is_video:
            return True, None
        data = b"".join(part._data for part in parts)  # type: ignore[attr-defined]
        return False, JitterFrame(data=data, timestamp=packet.timestamp)


def pass_at_once(receiver: RTCRtpReceiver, kind: str) -> None:
    """Replace the receiver's buffer, before it starts. Where aiortc keeps it elsewhere, frames come later."""
    if isinstance(getattr(receiver, _BUFFER, None), JitterBuffer):
        setattr(receiver, _BUFFER, AtOnce(is_video=kind == "video"))
