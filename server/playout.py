"""What goes out: video at 25 frames/s and the delayed sound, both paced by the session's media clock.

Timing and buffers, on one page
===============================

All times are positions on ``media_clock.MediaClock``: counts of 16 kHz samples received. With a
lookahead of 120 ms and the first margin of 40 ms, the instant ``t`` of the speaker's sound goes through:

=================  ============  ==========================================================
where              after         why
=================  ============  ==========================================================
packet arrives     20 ms + net   Opus packets hold 20 ms; they are decoded as they come
                                 (``jitter.py``), nothing is buffered for order
hop closes         0...40 ms     the engine hears whole hops of 40 ms; frame ``k`` waits for hop
                                 ``k + 2``, that is for sound up to ``k/25 s + 120 ms``
frame is drawn     compute       on the engine's thread; must fit in the margin, with the jitter
both leave         160 ms        ``due_s(t)`` = arrival + lookahead + margin, frame and sound alike
=================  ============  ==========================================================

- **Sound** of position ``p`` leaves at ``due_s(p)``, in packets of 20 ms, 48 kHz mono as it came. It
  waits for nothing else. The sound ring holds 2 s and drops the oldest.
- **Frame** ``k`` leaves at ``due_s(640 k)``. Is it not there, the newest earlier one leaves in its place
  with the timestamp of ``k`` (it counts as *repeated*); should ``k`` still come, it shows in the place
  of a later late one, or never (*dropped*). The shelf holds SHELF_FRAMES, the newest. A frame that the
  engine left out to keep up (``engine/thrift.py``) is shown by the one before it too, and counts as *spared*.
- So their offset is zero by construction, whatever the engine, the network or the microphone's crystal
  do. When more than a tenth of a second's frames were late, or three within twenty seconds, the margin grows by
  20 ms (up to 200 ms), and sound and frames move there together at 4 %; after 10 s without a late one it shrinks
  again, later where that was too early before.
- **At the receiver** they stay together because RTP timestamps count the same positions (90 kHz and
  48 kHz), both streams carry one CNAME and one msid, and the sender reports map RTP time to wall time
  by when the newest packet left: sound and frame of one position leave at one time, so the maps agree
  but for VP8's few milliseconds (256x256: 1 to 5). Opus hands out sound 6.5 ms late against its packets' times; so
  packets hold the sound of OPUS_LOOKAHEAD later, which has long been there.
- A receiver that stops reading costs nothing: a track whose loop fell behind by more than MAX_BEHIND_S
  goes on at the present position.
"""

from __future__ import annotations

import asyncio
import fractions
import time
from collections import deque
from collections.abc import Callable

import av
import numpy as np
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engine.audio.window import SampleRing
from server.ingest import HOP, RATIO, SOUND_RATE_HZ
from server.media_clock import MediaClock

PACKET = 320  # 16 kHz samples of one 20 ms packet
VIDEO_RATE_HZ = 90_000
TICKS_PER_FRAME = VIDEO_RATE_HZ // 25
SHELF_FRAMES = 8  # drawn and not yet due: margin and lookahead never need more
MAX_BEHIND_S = 0.5
OPUS_LOOKAHEAD = 312  # 48 kHz samples by which a decoder lags the encoder's input: libopus's pre-skip (RFC 7845, 4.2)

_SOUND_BASE = fractions.Fraction(1, SOUND_RATE_HZ)
_VIDEO_BASE = fractions.Fraction(1, VIDEO_RATE_HZ)


class FrameShelf:
    """Frames between the engine and those who send them, by index. Keeps the newest, never goes back.

    Several may take, each at the pace of the one clock: who comes second for an index gets, uncounted, what the
    first one got.

    Args:
        rest: uint8 [S, S, 3], shown until the first frame comes.
    """

    def __init__(self, rest: np.ndarray) -> None:
        self._frames: dict[int, tuple[np.ndarray, float]] = {}
        self._shown, self._shown_came_s = rest, 0.0
        self._shown_index = -1
        self._taken_index = -1
        self._spared: deque[int] = deque(maxlen=SHELF_FRAMES)  # not to be drawn, and not yet due
        self._cut = False  # what is shown is of the time before the last cut
        self.taken = self.repeated = self.spared = self.dropped = 0

    def put(self, index: int, frame: np.ndarray, came_s: float = 0.0) -> None:
        """Add frame ``index``, which came at ``came_s``; one older than what was shown is dropped."""
        if index <= self._shown_index:
            self.dropped += 1
            return
        self._frames[index] = frame, came_s
        while len(self._frames) > SHELF_FRAMES:
            del self._frames[min(self._frames)]
            self.dropped += 1

    def cut(self) -> None:
        """Show nothing of what is held: it is of speech that was broken off. The next frame that comes shows at once,
        before its time; until then the one that is shown stays, and counts as spared."""
        self.dropped += len(self._frames)
        self._frames.clear()
        self._cut = True

    def spare(self, index: int) -> None:
        """Frame ``index`` will not come, on purpose."""
        self._spared.append(index)

    def take(self, index: int) -> np.ndarray:
        """What to show as frame ``index``: that one, else the newest before it, else the last shown."""
        if index <= self._taken_index:
            return self._shown
        self._taken_index = index
        ready = [i for i in self._frames if i <= index]
        if self._cut and not ready:
            ready = sorted(self._frames)[:1]
        if ready:
            self._cut = False
            best = max(ready)
            (self._shown, self._shown_came_s), self._shown_index = self._frames[best], best
            self.dropped += len(ready) - 1
            for i in ready:
                del self._frames[i]
        self.taken += 1
        if self._shown_index < index:
            spared = self._cut or index in self._spared
            self.spared += spared
            self.repeated += not spared
        return self._shown

    @property
    def shown(self) -> tuple[int, float]:
        """Index of what was last taken, -1 for the rest, and when it came."""
        return self._shown_index, self._shown_came_s


class Pacer:
    """Which step of a steady sequence leaves next, and when.

    Args:
        clock: of the session.
        stride: positions per step.
        first: position whose step is the first; one who joins late begins with the present.
        now: wall time, monotonic.
    """

    def __init__(
        self, clock: MediaClock, stride: int, *, first: int = 0, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._stride = stride
        self._now = now
        self._step = max(0, first // stride)
        self.skipped = 0

    async def next(self) -> int:
        """Wait until the next step is due and give its index; falls back on the present when far behind."""
        while True:
            wait_s = self._clock.due_s(self._step * self._stride) - self._now()
            if wait_s <= 0:
                break
            await asyncio.sleep(wait_s)
        if -wait_s > MAX_BEHIND_S:
            present = self._clock.leaving(self._now()) // self._stride
            self.skipped += present - self._step
            self._step = present
        self._step += 1
        return self._step - 1


def _book_nothing(*_given: object, **_notes: object) -> None:
    """Of a track that nobody traces."""


class _PacedTrack(MediaStreamTrack):
    """A track that waits for its session to go live, then leaves in the clock's time."""

    stride: int

    def __init__(self) -> None:
        super().__init__()
        self._pacer: asyncio.Future[Pacer] = asyncio.get_running_loop().create_future()

    def start(self, clock: MediaClock) -> None:
        if not self._pacer.done():
            self._pacer.set_result(Pacer(clock, self.stride, first=clock.leaving(time.monotonic())))

    def stop(self) -> None:
        super().stop()
        self._pacer.cancel()  # wakes a sender that still waits for the start

    async def _next(self) -> int:
        if self.readyState != "live":
            raise MediaStreamError
        index = await (await asyncio.shield(self._pacer)).next()
        if self.readyState != "live":
            raise MediaStreamError
        return index


class VideoOut(_PacedTrack):
    """Frames of a shelf, one every 40 ms of the media clock."""

    kind = "video"
    stride = HOP

    def __init__(self, shelf: FrameShelf) -> None:
        super().__init__()
        self._shelf = shelf
        self._left: tuple[int, int, float] | None = None  # tick, frame, when: what is being encoded
        self.book: Callable[..., None] = _book_nothing  # as ``Trace.add``

    async def recv(self) -> av.VideoFrame:
        self._book_encoding()
        index = await self._next()
        # One copy of 200 kB; colour conversion and encoding happen on the encoder's thread.
        frame = av.VideoFrame.from_ndarray(self._take(index), format="rgb24")
        frame.pts = index * TICKS_PER_FRAME
        frame.time_base = _VIDEO_BASE
        return frame

    def _take(self, index: int) -> np.ndarray:
        now_s = time.monotonic()
        before, _ = self._shelf.shown
        picture = self._shelf.take(index)
        frame, came_s = self._shelf.shown
        if frame != before:
            self.book("wait_for_tick", (now_s - came_s) * 1000, start_s=came_s, tick=index, frame=frame)
        self._left = index, frame, now_s
        return picture

    def _book_encoding(self) -> None:
        """The sender asks for the next frame as soon as it has encoded and sent the one before."""
        if self._left is not None:
            tick, frame, left_s = self._left
            self.book("encode", (time.monotonic() - left_s) * 1000, start_s=left_s, tick=tick, frame=frame)
            self._left = None


class AudioOut(_PacedTrack):
    """The received sound, delayed, in packets of 20 ms at 48 kHz mono."""

    kind = "audio"
    stride = PACKET

    def __init__(self, sound: SampleRing) -> None:
        super().__init__()
        self._sound = sound

    async def recv(self) -> av.AudioFrame:
        start = await self._next() * PACKET * RATIO
        samples = self._sound.read(start + OPUS_LOOKAHEAD, PACKET * RATIO)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = SOUND_RATE_HZ
        frame.pts = start
        frame.time_base = _SOUND_BASE
        return frame
