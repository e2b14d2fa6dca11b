"""A real WebRTC peer that speaks prepared sound and notes when everything comes back.

It is aiortc with two differences, both nearer to what a browser does. aiortc hands a picture on only when
the *next* one begins to arrive (40 ms later) and holds sound back for four packets (80 ms); here a picture
is complete with its last packet (RFC 3550's marker bit) and sound passes at once. All times are
``time.monotonic()`` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import time
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc.jitterbuffer import JitterBuffer, JitterFrame
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtp import RtpPacket
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tools.bursts import SOUND_RATE_HZ, Trace, cut_mouth, measure_loudness
from tools.server_process import ServerTrouble, ask

PACKET = SOUND_RATE_HZ // 50  # samples of 20 ms
CONNECT_TIMEOUT_S = 20.0
_BUFFER = "_RTCRtpReceiver__jitter_buffer"


class Microphone(MediaStreamTrack):
    """Prepared sound in real time, as a microphone gives it: a packet exists when its last sample does.

    Sample ``i`` is heard at ``started_s + i / 48000``. After its end it is silent.

    Args:
        samples: float32 [n] at 48 kHz.
        repeat: begin again at the end.
    """

    kind = "audio"

    def __init__(self, samples: np.ndarray, *, repeat: bool = False) -> None:
        super().__init__()
        self._samples = (np.clip(samples, -1, 1) * 32_767).astype(np.int16)
        self._repeat = repeat
        self._packet = 0
        self.started_s: float | None = None

    @property
    def packets(self) -> int:
        """How many were asked for."""
        return self._packet

    async def recv(self) -> av.AudioFrame:
        if self.readyState != "live":
            raise MediaStreamError
        if self.started_s is None:
            self.started_s = time.monotonic()
        start = self._packet * PACKET
        self._packet += 1
        ends_s = self.started_s + (start + PACKET) / SOUND_RATE_HZ
        await asyncio.sleep(max(0.0, ends_s - time.monotonic()))
        if self._repeat:
            start %= max(PACKET, len(self._samples) // PACKET * PACKET)
        heard = np.zeros((1, PACKET), np.int16)
        part = self._samples[start : start + PACKET]
        heard[0, : len(part)] = part
        frame = av.AudioFrame.from_ndarray(heard, format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        frame.pts = (self._packet - 1) * PACKET
        frame.time_base = fractions.Fraction(1, SOUND_RATE_HZ)
        return frame


class Tap(JitterBuffer):
    """Passes packets of a lossless network on at once, and notes when each picture or packet was complete."""

    def __init__(self, *, is_video: bool) -> None:
        super().__init__(capacity=1, is_video=is_video)
        self._parts: list[RtpPacket] = []
        self._next: int | None = None
        self._origin_ticks: int | None = None
        self.lost_packets = 0
        self.arrived_s: dict[int, float] = {}  # ticks since the first -> when the last packet came

    def add(self, packet: RtpPacket) -> tuple[bool, JitterFrame | None]:
        number = packet.sequence_number
        gap = 0 if self._next is None else (number - self._next) & 0xFFFF
        if gap >= 0x8000:
            return False, None  # a late copy
        self.lost_packets += gap
        self._next = (number + 1) & 0xFFFF
        if self._parts and (gap or self._parts[0].timestamp != packet.timestamp):
            self._parts = []
        self._parts.append(packet)
        if self._is_video and not packet.marker:
            return bool(gap), None
        data = b"".join(part._data for part in self._parts)  # type: ignore[attr-defined]
        self._parts = []
        if self._origin_ticks is None:
            self._origin_ticks = packet.timestamp
        self.arrived_s[(packet.timestamp - self._origin_ticks) & 0xFFFFFFFF] = time.monotonic()
        return bool(gap and self._is_video), JitterFrame(data=data, timestamp=packet.timestamp)


class Peer:
    """One session on a server, from offer to close.

    Args:
        url: of the server, on this machine.
        microphone: what it says.
        keep_mouths: note each frame's mouth and the sound's loudness, for latency; else only times.
    """

    def __init__(self, url: str, microphone: Microphone, *, keep_mouths: bool = True) -> None:
        self._url = url
        self._microphone = microphone
        self._keep = keep_mouths
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._tasks: list[asyncio.Task[None]] = []
        self._session = ""
        self._lives = asyncio.Event()
        self.lookahead_ms = 0
        self.stats: list[dict[str, Any]] = []  # of the server, about one a second, with "at_s"
        self.shown_s: list[float] = []  # when each decoded frame was in hand
        self.frame_ticks: list[int] = []  # 90 kHz time of each, from the first
        self.mouths: list[np.ndarray] = []
        self._loudness: list[Trace] = []
        self.taps: dict[str, Tap] = {}

    async def open(self, options: dict[str, Any], avatar_id: str = "default") -> None:
        """Connect, and return when the first frame is there.

        Raises:
            Refused: the server is full.
            ServerTrouble: no session, or no frame within CONNECT_TIMEOUT_S.
        """
        try:
            self._connection.addTransceiver(self._microphone, "sendrecv")
            self._connection.addTransceiver("video", "recvonly")
            for transceiver in self._connection.getTransceivers():
                self._tap(transceiver.receiver, transceiver.kind)
            await self._connection.setLocalDescription(await self._connection.createOffer())
            offer = {"type": "offer", "sdp": self._connection.localDescription.sdp}
            order = {"avatar_id": avatar_id, "offer": offer, "options": options}
            session = await ask("POST", f"{self._url}/v1/sessions", order)
            self._session, self.lookahead_ms = session["id"], session["lookahead_ms"]
            self._tasks.append(asyncio.create_task(self._follow(self._url.replace("http", "ws", 1) + session["ws"])))
            await self._connection.setRemoteDescription(RTCSessionDescription(**session["answer"]))
            for transceiver in self._connection.getTransceivers():
                watch = self._watch if transceiver.kind == "video" else self._listen
                self._tasks.append(asyncio.create_task(watch(transceiver.receiver.track)))
            await asyncio.wait_for(self._lives.wait(), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            await self.close()
            raise ServerTrouble(f"no frame came within {CONNECT_TIMEOUT_S:.0f} s of the answer") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the session and wait until nothing of it is left here. May be repeated."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        session, self._session = self._session, ""
        if session:
            with contextlib.suppress(ServerTrouble):  # it may have ended already
                await ask("DELETE", f"{self._url}/v1/sessions/{session}")
        await self._connection.close()

    @property
    def loudness(self) -> Trace:
        """Of the received sound: each packet's blocks stand where they would be heard if played on arrival."""
        times = [t.times_s for t in self._loudness] or [np.zeros(0)]
        values = [t.values for t in self._loudness] or [np.zeros(0)]
        return Trace(np.concatenate(times), np.concatenate(values))

    @property
    def arrived_s(self) -> list[float]:
        """When the last packet of each shown frame came."""
        arrivals = self.taps["video"].arrived_s
        return [arrivals[ticks] for ticks in self.frame_ticks]

    def _tap(self, receiver: RTCRtpReceiver, kind: str) -> None:
        if not isinstance(getattr(receiver, _BUFFER, None), JitterBuffer):
            raise ServerTrouble("this version of aiortc has no jitter buffer where it is expected: install aiortc 1.x")
        self.taps[kind] = Tap(is_video=kind == "video")
        setattr(receiver, _BUFFER, self.taps[kind])

    async def _watch(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.shown_s.append(time.monotonic())
                assert isinstance(frame, av.VideoFrame) and frame.pts is not None
                self.frame_ticks.append(frame.pts)
                self._lives.set()
                if self._keep:
                    self.mouths.append(cut_mouth(frame.to_ndarray(format="rgb24")))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame) and frame.pts is not None
                if self._keep:
                    samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(1) / 32_768
                    self._loudness.append(measure_loudness(samples, self.taps["audio"].arrived_s[frame.pts]))

    async def _follow(self, url: str) -> None:
        with contextlib.suppress(WebSocketException, OSError):
            async with connect(url, proxy=None) as socket:
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] == "stats":
                        self.stats.append(message | {"at_s": time.monotonic()})
