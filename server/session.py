"""One live avatar: from the offer to the end, whoever ends it.

::

    connecting --(ICE and DTLS done)--> live --> ended
         \\________(timeout, failure, DELETE)______/

A session is ended by DELETE, by its peer closing, failing or falling silent on the wire, by the engine
failing for it, or by the server stopping. Its place is free at that moment; closing the connection
takes a little longer and goes on behind.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.api import Avatar, EngineSpec, StreamOptions
from engine.errors import VisavisError
from server.config import ServerConfig
from server.engine_worker import EngineWorker
from server.ingest import Intake, listen, make_sound_ring
from server.media_clock import SAMPLE_RATE_HZ, DelayControl, MediaClock
from server.playout import HOP, AudioOut, FrameShelf, VideoOut
from server.signaling import Offer, Peer
from server.stream import Stream

log = logging.getLogger(__name__)

PUMP_EVERY_S = 0.01  # how often a session looks for hops when no packet comes
WATCH_EVERY_S = 1.0
CLOSE_TIMEOUT_S = 10.0  # a relay that has gone would hold a closing connection, and a stopping server, for minutes
OUTBOX_MESSAGES = 32  # per WebSocket; one that does not read loses the oldest


@dataclass(frozen=True, kw_only=True)
class SessionOrder:
    """What a client asks for."""

    avatar_id: str
    avatar: Avatar
    rest: np.ndarray  # uint8 [S, S, 3]: shown until the first frame
    options: StreamOptions
    codec: str | None


class Session:
    """One peer and its stream through the engine. Lives on the event loop.

    Args:
        order: what the client asked for.
        worker: draws the frames.
        spec: of its engine.
        config: of the server.
        on_end: called once, at the moment of the end.
    """

    def __init__(
        self,
        order: SessionOrder,
        *,
        worker: EngineWorker,
        spec: EngineSpec,
        config: ServerConfig,
        on_end: Callable[[Session], None],
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        self.state = "connecting"
        self.reason: str | None = None
        self.avatar_id = order.avatar_id
        self.shelf = FrameShelf(order.rest)
        self._avatar = order.avatar
        self._codec = order.codec
        self._options = order.options
        self._worker = worker
        self._spec = spec
        self._timing = config.timing
        self._on_end = on_end
        self._sound = make_sound_ring()
        self._audio = AudioOut(self._sound)
        self._video = VideoOut(self.shelf)
        self._peer = Peer(
            self._audio,
            self._video,
            network=config.network,
            changed=self._peer_changed,
            max_candidates=config.limits.candidates,
        )
        self._delay = DelayControl(
            lookahead_ms=spec.lookahead_ms,
            margin_ms=config.timing.margin_ms,
            max_margin_ms=config.timing.max_margin_ms,
        )
        self._muted = False
        self._stream: Stream | None = None
        self._intake: Intake | None = None
        self._clock: MediaClock | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closed: asyncio.Task[None] | None = None
        self._outboxes: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self._had_socket = False
        self._latencies_ms: deque[float] = deque(maxlen=spec.fps)
        self._seen = _Counts()

    async def connect(self, offer: Offer) -> str:
        """Answer the offer and begin to wait for the peer; the answer's SDP.

        Raises:
            OfferInvalid: it cannot be answered; the session has ended.
        """
        try:
            answer = await self._peer.answer(offer, self._codec)
        except BaseException as error:
            self.end(f"no connection was made: {error}")
            raise
        if self.state != "ended":
            self._spawn(self._watch(), "watch")
        return answer

    def add_candidate(self, candidate: dict[str, Any] | None) -> None:
        self._peer.add_candidate(candidate)

    def mute(self, muted: bool) -> None:
        """Take silence for the peer's sound."""
        self._muted = muted
        if self._intake is not None:
            self._intake.muted = muted

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

    def end(self, reason: str) -> None:
        """End now; later calls change nothing. ``closed`` waits for what goes on behind."""
        if self.state == "ended":
            return
        self.state, self.reason = "ended", reason
        log.info("session %s ended: %s", self.id, reason)
        if self._stream is not None:
            self._worker.remove(self._stream)
        self._audio.stop()
        self._video.stop()
        self._broadcast(self.status())
        self._broadcast(None)
        self._closed = asyncio.get_running_loop().create_task(self._close(), name=f"session-{self.id}-close")
        self._on_end(self)

    async def closed(self) -> None:
        """Wait until nothing is left of an ended session."""
        if self._closed is not None:
            await asyncio.shield(self._closed)

    # ---- its own affairs -------------------------------------------------------------------------

    def _peer_changed(self, state: str) -> None:
        if state == "connected" and self.state == "connecting":
            self._go_live()
        elif state == "failed":
            self.end("the connection was lost" if self.state == "live" else "no network path to the peer was found")
        elif state == "closed":
            self.end("the peer closed the connection")

    def _go_live(self) -> None:
        clock = MediaClock(time.monotonic(), self._delay.delay_s)
        self._clock = clock
        self._intake = Intake(clock, self._sound, patience_ms=self._timing.patience_ms)
        self._intake.muted = self._muted
        self._stream = self._worker.add(
            self._avatar,
            self._options,
            due_s=lambda frame: clock.due_s(frame * HOP),
            deliver=self._take_frame,
            spare=self.shelf.spare,
            fail=lambda error: self.end(f"{error.code}: {error}"),
        )
        self._video.book = functools.partial(self._worker.trace.add, slot=self._stream.slot)
        self._audio.start(clock)
        self._video.start(clock)
        self._spawn(listen(self._peer.microphone, self._intake, self._packet_came), "listen")
        self._spawn(self._keep_pumping(), "pump")
        self.state = "live"
        log.info("session %s is live", self.id)
        self._broadcast(self.status())

    def _take_frame(self, index: int, frame: np.ndarray, latency_ms: float) -> None:
        self.shelf.put(index, frame, time.monotonic())
        self._latencies_ms.append(latency_ms)

    def _packet_came(self) -> None:
        assert self._intake is not None and self._stream is not None
        self._worker.trace.event("packet", time.monotonic(), end=self._intake.placed, slot=self._stream.slot)
        self._pump()

    def _pump(self) -> None:
        assert self._intake is not None and self._stream is not None
        for hop, samples in self._intake.hops(time.monotonic()):
            self._worker.push(self._stream, hop, samples)

    async def _keep_pumping(self) -> None:
        while True:
            await asyncio.sleep(PUMP_EVERY_S)
            self._pump()

    async def _watch(self) -> None:
        """Once a second: is the peer still there, do frames come in time, tell the page."""
        begun_s = heard_s = time.monotonic()
        received = 0
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now_s = time.monotonic()
            if self.state == "connecting":
                if now_s - begun_s > self._timing.connect_timeout_s:
                    self.end(f"the peer did not connect within {self._timing.connect_timeout_s:g} s")
                heard_s = now_s
                continue
            count = await self._peer.count_received()
            if count != received:
                received, heard_s = count, now_s
            orphan = self._had_socket and not self._outboxes
            patience_s = self._timing.orphan_timeout_s if orphan else self._timing.vanish_timeout_s
            if now_s - heard_s > patience_s:
                self.end(f"nothing came from the peer for {now_s - heard_s:.0f} s")
            self._review()

    def _review(self) -> None:
        assert self._clock is not None and self._intake is not None
        now = _Counts(frames=self.shelf.taken, repeated=self.shelf.repeated)
        frames, late = now.frames - self._seen.frames, now.repeated - self._seen.repeated
        self._seen = now
        self._clock.set_delay(self._delay.review(frames=frames, late=late))
        buffered = self._intake.heard - self._clock.leaving(time.monotonic())
        latencies = sorted(self._latencies_ms)
        pace = self._worker.pace()
        self._broadcast(
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
                "delay_ms": round(self._clock.delay_s * 1000),
                "muted": self._muted,
            }
        )

    def _broadcast(self, message: dict[str, Any] | None) -> None:
        for outbox in self._outboxes:
            _offer(outbox, message)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"session-{self.id}-{name}")
        task.add_done_callback(self._task_done)
        self._tasks.append(task)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of session %s failed", self.id, exc_info=error)
            code = error.code if isinstance(error, VisavisError) else "internal"
            self.end(f"{code}: {error}")

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._peer.close()
        except Exception:
            log.exception("the connection of session %s did not close cleanly", self.id)


@dataclass(frozen=True)
class _Counts:
    frames: int = 0
    repeated: int = 0


def _offer(outbox: asyncio.Queue[dict[str, Any] | None], message: dict[str, Any] | None) -> None:
    if outbox.full():
        outbox.get_nowait()
    outbox.put_nowait(message)
