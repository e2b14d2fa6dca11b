"""One live avatar: one face rendered live, whoever speaks through it and whoever looks on.

::

    connecting --(go_live)--> live --> ended
         \\____________(end)____________/

It owns the media clock, the intake, the place in the engine, the shelf of frames, the ring of sound and the figures.
It knows nothing of peers: sound comes from the one ``Source`` that is attached, and goes to any number of sinks,
either by paced tracks (``make_tracks``, encoded by their own sender) or by ``broadcast`` (encoded once for all).

Its place is free at the moment of its end; closing what hangs on it takes a little longer and goes on behind.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.api import Avatar, EngineSpec, StreamOptions
from engine.errors import VisavisError
from engine.turn import FRONT, Turn
from server.broadcast import Broadcast
from server.config import ServerConfig
from server.cutouts import Cutouts
from server.engine_worker import EngineWorker
from server.errors import SourceTaken
from server.ingest import HOP, RATIO, Intake, make_sound_ring
from server.media_clock import SAMPLE_RATE_HZ, DelayControl, MediaClock
from server.playout import OPUS_LOOKAHEAD, PACKET, AudioOut, FrameShelf, VideoOut
from server.sources import Feed, Source
from server.stream import Stream

log = logging.getLogger(__name__)

PUMP_EVERY_S = 0.01  # how often a session looks for hops when no packet comes
WATCH_EVERY_S = 1.0
OUTBOX_MESSAGES = 32  # per WebSocket; one that does not read loses the oldest
LEVEL_FALL = 0.7  # of the level per hop, when it gets quieter
LEAST_DBFS = -60.0  # level 0


@dataclass(frozen=True, kw_only=True)
class SessionOrder:
    """What a client asks for."""

    avatar_id: str
    avatar: Avatar
    rest: np.ndarray  # uint8 [S, S, 3]: shown until the first frame
    options: StreamOptions
    codec: str | None = None


class LiveAvatar:
    """One stream through the engine. Lives on the event loop.

    Args:
        order: what the client asked for.
        worker: draws the frames.
        spec: of its engine.
        config: of the server.
        on_end: called once, at the moment of the end.
        name: under which it can be watched besides its id.
    """

    def __init__(
        self,
        order: SessionOrder,
        *,
        worker: EngineWorker,
        spec: EngineSpec,
        config: ServerConfig,
        on_end: Callable[[LiveAvatar], None],
        name: str | None = None,
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.name = name
        self.state = "connecting"
        self.reason: str | None = None
        self.avatar_id = order.avatar_id
        self.shelf = FrameShelf(order.rest)
        self.level = 0.0  # of the sound that is heard: 0 (-60 dBFS or less) to 1 (full scale)
        self._avatar = order.avatar
        self._options = order.options
        self._turn = FRONT
        self._worker = worker
        self._spec = spec
        self._config = config
        self._timing = config.timing
        self._on_end = on_end
        self._sound = make_sound_ring()
        self._cutouts = Cutouts(spec.frame_size)
        self.broadcast = Broadcast(self.shelf, self._sound, self._spawn, self._cutouts)
        self._own_tracks: list[AudioOut | VideoOut] = []
        self._delay = DelayControl(
            lookahead_ms=spec.lookahead_ms,
            margin_ms=config.timing.margin_ms,
            max_margin_ms=config.timing.max_margin_ms,
        )
        self._muted = False
        self._stream: Stream | None = None
        self._source: Source | None = None
        self._feed: Feed | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed: asyncio.Task[None] | None = None
        self._outboxes: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._had_socket = False
        self._latencies_ms: deque[float] = deque(maxlen=spec.fps)
        self._seen = _Counts()

    # ---- sound in --------------------------------------------------------------------------------

    def attach(self, source: Source) -> None:
        """Listen to ``source`` from now on.

        Raises:
            SourceTaken: another one is attached; ``detach`` it first.
        """
        if self._source is not None:
            raise SourceTaken(f"session {self.id} has a source of sound already: end that one first")
        self._source = source
        if self._feed is not None:
            self._feed.intake.begin_anew()
            source.start(self._feed)

    def detach(self) -> None:
        """Listen to nobody: silence is heard until another source is attached."""
        if self._source is not None:
            self._source.stop()
            self._source = None

    def flush(self) -> None:
        """Let nothing more be heard of what has been said: what waits in the source, on its way to the engine and
        on its way out becomes silence, and the lips close with the next frame that is drawn."""
        if self._source is not None:
            self._source.flush()
        if self._feed is None:
            return
        if self._stream is not None:
            self._worker.hush(self._stream)
        self.shelf.cut()
        self._cutouts.cut()
        next_packet = -(-self._feed.clock.leaving(time.monotonic()) // PACKET) * PACKET
        self._feed.intake.hush(max(0, next_packet) * RATIO + OPUS_LOOKAHEAD)
        self.broadcast.cut()
        self._pump()

    def mute(self, muted: bool) -> None:
        """Take silence for the source's sound."""
        self._muted = muted
        if self._feed is not None:
            self._feed.intake.muted = muted

    # ---- picture and sound out -------------------------------------------------------------------

    def make_tracks(self) -> tuple[AudioOut, VideoOut]:
        """Paced sound and picture for one viewer that has encoders of its own; both end with the avatar."""
        audio, video = AudioOut(self._sound), VideoOut(self.shelf)
        self._own_tracks += audio, video
        if self._feed is not None:
            audio.start(self._feed.clock)
            video.start(self._feed.clock)
        if self.state == "ended":
            audio.stop()
            video.stop()
        return audio, video

    # ---- control ---------------------------------------------------------------------------------

    def add_candidate(self, candidate: dict[str, Any] | None) -> None:
        """Of a peer that a session may have; there is none to take it here."""

    def switch_avatar(self, avatar_id: str, avatar: Avatar) -> None:
        """Go on with another face; what is heard and the idle motion go on as they are."""
        self.avatar_id = avatar_id
        self._avatar = avatar
        if self._stream is not None:
            self._stream.avatar = avatar

    def set_motion(self, motion: float) -> None:
        """Change the amount of idle motion, 0 to 1."""
        self._options = StreamOptions(seed=self._options.seed, motion=motion)
        if self._stream is not None:
            self._worker.set_options(self._stream, self._options)

    def look(self, turn: Turn) -> None:
        """Turn the head there, gently, and as far as looks right."""
        self._turn = turn
        if self._stream is not None:
            self._stream.turning.look(turn)

    def subscribe(self) -> asyncio.Queue[dict[str, Any] | None]:
        """A queue of messages for a WebSocket; None in it means the end. Drops the oldest when full."""
        outbox: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(OUTBOX_MESSAGES)
        self._outboxes.add(outbox)
        self._had_socket = True
        _offer(outbox, self.status())
        if self.state == "ended":
            _offer(outbox, None)
        return outbox

    def unsubscribe(self, outbox: asyncio.Queue[dict[str, Any] | None]) -> None:
        self._outboxes.discard(outbox)

    def status(self) -> dict[str, Any]:
        """The WebSocket's status message."""
        message = {"type": "status", "state": self.state}
        return message if self.reason is None else {**message, "reason": self.reason}

    def describe(self) -> dict[str, Any]:
        """For ``GET /v1/sessions/{id}``."""
        return {"id": self.id, "state": self.state, "reason": self.reason, "avatar_id": self.avatar_id}

    # ---- begin and end ---------------------------------------------------------------------------

    def go_live(self) -> None:
        """Take a place in the engine and start the clock."""
        clock = MediaClock(time.monotonic(), self._delay.delay_s)
        intake = Intake(clock, self._sound, patience_ms=self._timing.patience_ms)
        intake.muted = self._muted
        self._stream = self._take_place(clock)
        if self._stream is not None:
            self._stream.turning.look(self._turn)
            self._cutouts.attach(self._stream)
        self._feed = Feed(intake=intake, clock=clock, arrived=self._packet_came, spawn=self._spawn)
        for track in self._own_tracks:
            if isinstance(track, VideoOut) and self._stream is not None:
                track.book = functools.partial(self._worker.trace.add, slot=self._stream.slot)
            track.start(clock)
        self.broadcast.start(clock)
        if self._source is not None:
            self._source.start(self._feed)
        self._spawn(self._keep_pumping(), "pump")
        self.state = "live"
        log.info("session %s is live", self.id)
        self._broadcast_message(self.status())

    def begin(self) -> None:
        """Begin to be watched over, once a second."""
        if self.state != "ended":
            self._spawn(self._watch(), "watch")

    def end(self, reason: str) -> None:
        """End now; later calls change nothing. ``closed`` waits for what goes on behind."""
        if self.state == "ended":
            return
        self.state, self.reason = "ended", reason
        log.info("session %s ended: %s", self.id, reason)
        if self._stream is not None:
            self._worker.remove(self._stream)
        self.detach()
        for track in self._own_tracks:
            track.stop()
        self.broadcast.stop()
        self._broadcast_message(self.status())
        self._broadcast_message(None)
        self._closed = asyncio.get_running_loop().create_task(self._close(), name=f"session-{self.id}-close")
        self._on_end(self)

    async def closed(self) -> None:
        """Wait until nothing is left of an ended session."""
        if self._closed is not None:
            await asyncio.shield(self._closed)

    # ---- what a session with peers adds ----------------------------------------------------------

    async def _look_after(self, now_s: float) -> None:
        """Once a second, before and while live: end if nobody needs it any more."""

    async def _release(self) -> None:
        """Close what hangs on it; after its end."""

    # ---- its own affairs -------------------------------------------------------------------------

    def _take_place(self, clock: MediaClock) -> Stream | None:
        """Its place in the engine."""
        return self._worker.add(
            self._avatar,
            self._options,
            due_s=lambda frame: clock.due_s(frame * HOP),
            deliver=self._take_frame,
            spare=self.shelf.spare,
            fail=lambda error: self.end(f"{error.code}: {error}"),
            deliver_cutout=self._cutouts.put,
        )

    def _take_frame(self, index: int, frame: np.ndarray, latency_ms: float) -> None:
        self.shelf.put(index, frame, time.monotonic())
        self._latencies_ms.append(latency_ms)

    def _packet_came(self) -> None:
        assert self._feed is not None
        if self._stream is not None:
            self._worker.trace.event("packet", time.monotonic(), end=self._feed.intake.placed, slot=self._stream.slot)
        self._pump()

    def _pump(self) -> None:
        assert self._feed is not None
        for hop, samples in self._feed.intake.hops(time.monotonic()):
            if self._stream is not None:
                self._worker.push(self._stream, hop, samples)
            self.level = max(_level_of(samples), self.level * LEVEL_FALL)

    async def _keep_pumping(self) -> None:
        while True:
            await asyncio.sleep(PUMP_EVERY_S)
            if self._source is not None:
                self._source.pump(time.monotonic())
            self._pump()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            await self._look_after(time.monotonic())
            if self.state == "live":
                self._review()

    def _review(self) -> None:
        """Do frames come in time? Tell the page."""
        assert self._feed is not None
        clock, intake = self._feed.clock, self._feed.intake
        now = _Counts(frames=self.shelf.taken, repeated=self.shelf.repeated)
        frames, late = now.frames - self._seen.frames, now.repeated - self._seen.repeated
        self._seen = now
        clock.set_delay(self._delay.review(frames=frames, late=late))
        buffered = intake.heard - clock.leaving(time.monotonic())
        latencies = sorted(self._latencies_ms)
        pace = self._worker.pace()
        self._broadcast_message(
            {
                "type": "stats",
                "fps": frames,
                "frames": now.frames,
                "repeated": now.repeated,
                "spared": self.shelf.spared,
                "dropped": self.shelf.dropped,
                "level": pace.levels[pace.level],
                "hop_to_frame_ms": round(latencies[len(latencies) // 2], 1) if latencies else None,
                "buffered_ms": round(buffered * 1000 / SAMPLE_RATE_HZ),
                "delay_ms": round(clock.delay_s * 1000),
                "muted": self._muted,
            }
        )

    def _broadcast_message(self, message: dict[str, Any] | None) -> None:
        for outbox in self._outboxes:
            _offer(outbox, message)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=f"session-{self.id}-{name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of session %s failed", self.id, exc_info=error)
            code = error.code if isinstance(error, VisavisError) else "internal"
            self.end(f"{code}: {error}")

    async def _close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._release()


class SoundOnly(LiveAvatar):
    """The sound of a live avatar without its picture: it takes no place in the engine, and is in no register."""

    @classmethod
    def make(cls, *, worker: EngineWorker, spec: EngineSpec, config: ServerConfig) -> SoundOnly:
        nobody = Avatar(engine="", fingerprint="", arrays={"crop": np.zeros((2, 2, 3), np.uint8)})
        order = SessionOrder(avatar_id="", avatar=nobody, rest=nobody.crop, options=StreamOptions(seed=0, motion=0.0))
        return cls(order, worker=worker, spec=spec, config=config, on_end=lambda live: None)

    def _take_place(self, clock: MediaClock) -> Stream | None:
        return None


@dataclass(frozen=True)
class _Counts:
    frames: int = 0
    repeated: int = 0


def _level_of(samples: np.ndarray) -> float:
    """Loudness of float32 [n] in [-1, 1]: 0 (-60 dBFS or less) to 1 (full scale)."""
    power = float(np.dot(samples, samples)) / len(samples)
    return min(1.0, max(0.0, 1 - 10 * math.log10(power + 1e-12) / LEAST_DBFS))


def _offer(outbox: asyncio.Queue[dict[str, Any] | None], message: dict[str, Any] | None) -> None:
    if outbox.full():
        outbox.get_nowait()
    outbox.put_nowait(message)
