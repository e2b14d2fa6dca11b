"""Many viewers of one live avatar: one encoder for each codec and rendition, however many look on.

::

    FrameShelf ──┐                        ┌─> ViewerTrack (queue) ─> RTCRtpSender of viewer 1
                 ├─> Encoding (VP8) ──────┼─> ViewerTrack (queue) ─> ... 2
    SampleRing ──┴─> Encoding (opus) ...  └─> ViewerTrack (queue) ─> ... 3

aiortc's sender sends on what its track returns: a frame is encoded by an encoder of its own, a packet is only cut
into RTP payloads. So the tracks here return packets, and every viewer's sender keeps its own sequence numbers,
time origin and retransmissions.

- An encoding exists while somebody looks: it begins with its first viewer and ends with its last.
- A viewer begins with a keyframe. It asks for one when it joins, when its receiver says so (PLI or FIR, RFC 4585
  and 5104) and when its queue ran over; the encoder makes one for all, at most every KEYFRAME_EVERY_S.
- A viewer's queue is bounded. What does not fit pushes out the oldest, up to the next keyframe, or all of it until
  the next one comes. Nobody waits for a slow viewer.
- The bit rate is the codec's default and the same for all: the estimates of single receivers (REMB) are not
  followed, or the slowest would decide for everyone.
"""

from __future__ import annotations

import asyncio
import fractions
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import av
import numpy as np
from aiortc.codecs.opus import OpusEncoder
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engine.audio.window import SampleRing
from server.cutouts import Cutouts, lay_beside
from server.encoding import OneThreadH264, OneThreadVp8
from server.ingest import HOP, RATIO, SOUND_RATE_HZ
from server.media_clock import MediaClock
from server.playout import OPUS_LOOKAHEAD, PACKET, TICKS_PER_FRAME, VIDEO_RATE_HZ, FrameShelf, Pacer
from server.sources import Spawn

KEYFRAME_EVERY_S = 0.5  # at most; a crowd that loses packets would otherwise make every frame one
QUEUE_VIDEO, QUEUE_AUDIO = 25, 50  # packets per viewer, one second of each


class Encoded(NamedTuple):
    """One encoded picture, or 20 ms of encoded sound."""

    packet: av.Packet
    key: bool  # can be decoded without what came before


@dataclass(frozen=True, kw_only=True)
class Rendition:
    """One way to show a live avatar.

    Args:
        name: tells encodings apart.
        draw: picture as the shelf holds it, uint8 [S, S, 3] -> uint8 [H, W, 3] to encode; runs on an encoder's thread.
        cutout: its pictures are cutouts, uint8 [S, S, 4].
    """

    name: str
    draw: Callable[[np.ndarray], np.ndarray]
    cutout: bool = False


COLOUR = Rendition(name="colour", draw=lambda picture: picture)
CUTOUT = Rendition(name="cutout", draw=lay_beside, cutout=True)
RENDITIONS = {rendition.name: rendition for rendition in (COLOUR, CUTOUT)}


class Broadcast:
    """What a live avatar sends to viewers that share its encoders.

    Args:
        shelf, cutouts, sound: of the live avatar.
        spawn: starts its tasks.
    """

    def __init__(self, shelf: FrameShelf, sound: SampleRing, spawn: Spawn, cutouts: Cutouts | None = None) -> None:
        self._shelf = shelf
        self._cutouts = cutouts
        self._sound = sound
        self._spawn = spawn
        self._clock: asyncio.Future[MediaClock] = asyncio.get_running_loop().create_future()
        self._encodings: dict[tuple[str, str], Encoding] = {}
        self._tracks: set[ViewerTrack] = set()
        self._stopped = False

    def video(self, rendition: Rendition = COLOUR) -> ViewerTrack:
        """A new viewer's picture. Its ``codec`` must be set before it is read."""
        return self._track("video", rendition, QUEUE_VIDEO)

    def audio(self) -> ViewerTrack:
        """A new viewer's sound."""
        return self._track("audio", COLOUR, QUEUE_AUDIO)

    @property
    def encodings(self) -> dict[tuple[str, str], int]:
        """Viewers of what is being encoded now, by (rendition, codec)."""
        return {key: len(encoding.viewers) for key, encoding in self._encodings.items()}

    @property
    def watched(self) -> bool:
        """Whether anybody looks on."""
        return bool(self._encodings)

    def start(self, clock: MediaClock) -> None:
        if not self._clock.done():
            self._clock.set_result(clock)

    def stop(self) -> None:
        """End every viewer's tracks."""
        self._stopped = True
        self._clock.cancel()
        for track in list(self._tracks):
            track.stop()

    def cut(self) -> None:
        """Send nothing more of what has been encoded already."""
        for track in self._tracks:
            track.cut()

    def join(self, viewer: ViewerTrack) -> Encoding:
        """Begin to send to ``viewer``."""
        key = (viewer.rendition.name, viewer.codec)
        if key not in self._encodings:
            made = Encoding(self._make_encoder(viewer))
            made.task = self._spawn(made.run(self._clock), f"encode-{'-'.join(key)}")
            self._encodings[key] = made
        encoding = self._encodings[key]
        encoding.viewers.add(viewer)
        encoding.want_keyframe()
        return encoding

    def leave(self, viewer: ViewerTrack) -> None:
        self._tracks.discard(viewer)
        for key, encoding in list(self._encodings.items()):
            encoding.viewers.discard(viewer)
            if not encoding.viewers:
                del self._encodings[key]
                assert encoding.task is not None
                encoding.task.cancel()
                if viewer.rendition.cutout:
                    assert self._cutouts is not None
                    self._cutouts.end()

    def _track(self, kind: str, rendition: Rendition, room: int) -> ViewerTrack:
        track = ViewerTrack(self, kind, rendition, room)
        if self._stopped:
            track.stop()
        else:
            self._tracks.add(track)
        return track

    def _make_encoder(self, viewer: ViewerTrack) -> Encoder:
        if viewer.kind == "audio":
            return SoundEncoder(self._sound)
        shelf = self._shelf
        if viewer.rendition.cutout:
            assert self._cutouts is not None
            shelf = self._cutouts.begin()
        return PictureEncoder(shelf, viewer.rendition, viewer.codec)


class ViewerTrack(MediaStreamTrack):
    """One viewer's picture or sound, as packets. Joins when it is first read, so nothing waits for a viewer that
    has not connected yet.

    Its queue holds ``room`` packets and drops the oldest, up to a keyframe.
    """

    def __init__(self, broadcast: Broadcast, kind: str, rendition: Rendition, room: int) -> None:
        super().__init__()
        self.kind = kind
        self.rendition = rendition
        self.codec = "VP8" if kind == "video" else "opus"
        self.dropped = 0
        self._broadcast = broadcast
        self._room = room
        self._queue: deque[Encoded] = deque()
        self._waits_for_key = True
        self._came = asyncio.Event()
        self._encoding: Encoding | None = None

    async def recv(self) -> av.Packet:
        if self.readyState == "live" and self._encoding is None:
            self._encoding = self._broadcast.join(self)
        while self.readyState == "live":
            if self._queue:
                return self._queue.popleft().packet
            self._came.clear()
            await self._came.wait()
        raise MediaStreamError

    def stop(self) -> None:
        super().stop()
        self._broadcast.leave(self)
        self._queue.clear()
        self._came.set()

    def ask_keyframe(self) -> None:
        """The receiver lost the picture: PLI or FIR."""
        if self._encoding is not None:
            self._encoding.want_keyframe()

    def cut(self) -> None:
        """Drop what waits; a picture goes on with a keyframe."""
        if self._queue:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._waits_for_key = True
            self.ask_keyframe()

    def put(self, encoded: Encoded) -> None:
        if self._waits_for_key and not encoded.key:
            return
        self._waits_for_key = False
        self._queue.append(encoded)
        if len(self._queue) > self._room:
            self._shed()
        self._came.set()

    def _shed(self) -> None:
        keep = next((i for i, encoded in enumerate(self._queue) if i and encoded.key), len(self._queue))
        for _ in range(keep):
            self._queue.popleft()
        self.dropped += keep
        if not self._queue:
            self._waits_for_key = True
            self.ask_keyframe()


class Encoder(Protocol):
    """What an ``Encoding`` sends. ``stride``: 16 kHz samples per step of the media clock."""

    stride: int

    def take(self, step: int) -> np.ndarray:
        """What to encode as step ``step``; on the event loop."""

    def encode(self, step: int, taken: np.ndarray, keyframe: bool) -> Encoded | None:
        """Encode it; on an encoder's thread."""


class Encoding:
    """One encoder's output, paced by the media clock, and all who watch it."""

    def __init__(self, encoder: Encoder) -> None:
        self.viewers: set[ViewerTrack] = set()
        self.task: asyncio.Task[None] | None = None
        self._encoder = encoder
        self._wants_key = True
        self._key_at_s = -KEYFRAME_EVERY_S

    def want_keyframe(self) -> None:
        self._wants_key = True

    async def run(self, clock: asyncio.Future[MediaClock]) -> None:
        """Encode and hand out until cancelled."""
        loop = asyncio.get_running_loop()
        clock_now = await asyncio.shield(clock)
        pacer = Pacer(clock_now, self._encoder.stride, first=clock_now.leaving(time.monotonic()))
        while True:
            step = await pacer.next()
            taken = self._encoder.take(step)
            now_s = time.monotonic()
            keyframe = self._wants_key and now_s - self._key_at_s >= KEYFRAME_EVERY_S
            if keyframe:
                self._wants_key = False  # before the encoding: who asks meanwhile asks for the next one
                self._key_at_s = now_s
            encoded = await loop.run_in_executor(None, self._encoder.encode, step, taken, keyframe)
            if encoded is not None:
                for viewer in list(self.viewers):
                    viewer.put(encoded)


class WholeVp8(OneThreadVp8):
    """aiortc's VP8 encoder, with its settings, giving a picture in one piece."""

    @classmethod
    def _packetize(cls, buffer: bytes, picture_id: int) -> list[bytes]:
        return [buffer] if buffer else []


class WholeH264(OneThreadH264):
    """The same of H.264: a byte stream with start codes (Annex B)."""

    @classmethod
    def _packetize(cls, packages: Any) -> list[bytes]:
        stream = b"".join(b"\x00\x00\x00\x01" + unit for unit in packages)
        return [stream] if stream else []


class PictureEncoder:
    """Frames of a shelf in one rendition and codec."""

    stride = HOP
    _BASE = fractions.Fraction(1, VIDEO_RATE_HZ)

    def __init__(self, shelf: FrameShelf, rendition: Rendition, codec: str) -> None:
        self._shelf = shelf
        self._rendition = rendition
        self._is_key = {"VP8": _is_vp8_key, "H264": _is_h264_key}[codec]
        self._encoder = WholeVp8() if codec == "VP8" else WholeH264()

    def take(self, step: int) -> np.ndarray:
        return self._shelf.take(step)

    def encode(self, step: int, taken: np.ndarray, keyframe: bool) -> Encoded | None:
        frame = av.VideoFrame.from_ndarray(self._rendition.draw(taken), format="rgb24")
        frame.pts, frame.time_base = step * TICKS_PER_FRAME, self._BASE
        whole, _ = self._encoder.encode(frame, keyframe)
        if not whole:
            return None
        return Encoded(_packet(whole[0], step * TICKS_PER_FRAME, self._BASE), self._is_key(whole[0]))


class SoundEncoder:
    """The delayed sound as Opus."""

    stride = PACKET
    _BASE = fractions.Fraction(1, SOUND_RATE_HZ)

    def __init__(self, sound: SampleRing) -> None:
        self._sound = sound
        self._encoder = OpusEncoder()
        self._first: int | None = None

    def take(self, step: int) -> np.ndarray:
        return self._sound.read(step * PACKET * RATIO + OPUS_LOOKAHEAD, PACKET * RATIO)

    def encode(self, step: int, taken: np.ndarray, keyframe: bool) -> Encoded | None:
        start = step * PACKET * RATIO
        if self._first is None:
            self._first = start
        frame = av.AudioFrame.from_ndarray(taken[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE_HZ, start, self._BASE
        whole, since_first = self._encoder.encode(frame)
        if not whole:
            return None
        return Encoded(_packet(whole[0], self._first + since_first, self._BASE), True)


def _packet(data: bytes, pts: int, base: fractions.Fraction) -> av.Packet:
    packet = av.Packet(data)
    packet.pts, packet.time_base = pts, base
    return packet


def _is_vp8_key(data: bytes) -> bool:
    return not data[0] & 1  # RFC 6386, section 9.1


def _is_h264_key(data: bytes) -> bool:
    return any(unit[0] & 0x1F == 5 for unit in WholeH264._split_bitstream(data))  # an IDR slice
