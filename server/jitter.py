"""Sound packets straight to the decoder.

aiortc's own buffer holds four packets (80 ms) for order, stalls 320 ms on a lost one, and keeps that
delay ever after, because it hands out one packet per packet. Here the media clock already tolerates
gaps and lateness (``ingest.py``), so packets pass as they come: in order, at once. One that was
overtaken is dropped and its 20 ms stay silent; on real networks that is rare.
"""

from __future__ import annotations

from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.rtcrtpreceiver import RTCRtpReceiver
from aiortc.rtp import RtpPacket

RESTART_PACKETS = 100  # further back than this is no late packet but a source that began anew

_ATTRIBUTE = "_RTCRtpReceiver__jitter_buffer"


class PassThrough(JitterBuffer):
    """Stands in for aiortc's buffer on a receiver of sound."""

    def __init__(self) -> None:
        super().__init__(capacity=1)
        self._newest: int | None = None
        self.overtaken = 0

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        number = packet.sequence_number
        if self._newest is not None:
            behind = (self._newest - number) & 0xFFFF
            if behind < RESTART_PACKETS:  # 0 is a duplicate
                self.overtaken += 1
                return False, None
        self._newest = number
        return False, JitterFrame(data=packet._data, timestamp=packet.timestamp)  # type: ignore[attr-defined]


def pass_straight_through(receiver: RTCRtpReceiver) -> None:
    """Replace the receiver's buffer; to be called before it starts.

    Raises:
        RuntimeError: this aiortc keeps it elsewhere; the delay would silently grow by 80 ms.
    """
    if not isinstance(getattr(receiver, _ATTRIBUTE, None), JitterBuffer):
        raise RuntimeError("this version of aiortc has no jitter buffer where it is expected: install aiortc 1.x")
    setattr(receiver, _ATTRIBUTE, PassThrough())
