"""Where a live avatar's sound comes from: one source at a time, whatever its way in.

A source gives sound to the avatar's ``Intake``. ``TrackSource`` is a track of a peer connection, whose packets
come when they come. ``PcmSource`` is sound pushed by a program, faster than it is spoken if it likes: it waits here
and is let in at the media clock's pace.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from aiortc.mediastreams import MediaStreamTrack

from server.ingest import RATIO, SOUND_RATE_HZ, Intake, listen
from server.media_clock import MediaClock

PCM_BUFFER_S = 30.0  # of pushed sound; what does not fit is not taken
STOOD_STILL = SOUND_RATE_HZ // 2  # a loop that did not pump for so long goes on at the present


class Spawn(Protocol):
    """Starts a task that is kept, and whose failure ends the live avatar."""

    def __call__(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]: ...


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What a live avatar hands to its source."""

    intake: Intake
    clock: MediaClock
    arrived: Callable[[], None]  # to be called after every packet that came by itself
    spawn: Spawn


class Source(Protocol):
    """What ``LiveAvatar.attach`` takes."""

    def start(self, feed: Feed) -> None:
        """The avatar is live: give sound to ``feed.intake`` from now on."""

    def pump(self, now_s: float) -> None:
        """Called every 10 ms, before the intake is asked for hops."""

    def flush(self) -> None:
        """Forget what waits to be heard."""

    def stop(self) -> None:
        """Give no more. May be repeated."""


class TrackSource:
    """The sound of a peer: its microphone, or what it publishes."""

    def __init__(self, track: MediaStreamTrack) -> None:
        self._track = track
        self._task: asyncio.Task[None] | None = None

    def start(self, feed: Feed) -> None:
        self._task = feed.spawn(listen(self._track, feed.intake, feed.arrived), "listen")

    def pump(self, now_s: float) -> None:
        """Packets come by themselves."""

    def flush(self) -> None:
        """Nothing waits here."""

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()


class PcmSource:
    """Sound pushed by a program. Holds ``buffer_s`` seconds and takes no more: the pusher waits and comes again.

    Between pushes silence is heard in real time; what is pushed then begins at the present.
    """

    def __init__(self, *, buffer_s: float = PCM_BUFFER_S) -> None:
        self._room = int(buffer_s * SOUND_RATE_HZ)
        self._chunks: deque[np.ndarray] = deque()
        self._held = 0  # samples in chunks
        self._feed: Feed | None = None
        self._fed: int | None = None  # 48 kHz position up to which the intake has been given sound
        self._stopped = False

    @property
    def buffered(self) -> int:
        """48 kHz samples that have been pushed and not yet been heard."""
        return self._held

    @property
    def room(self) -> int:
        """48 kHz samples that would be taken now."""
        return 0 if self._stopped else self._room - self._held

    def push(self, samples: np.ndarray) -> int:
        """Take int16 [n], 48 kHz mono.

        Returns:
            how many were taken, from the front; the rest found no room.
        """
        taken = samples[: self.room]
        if len(taken):
            self._chunks.append(np.array(taken, np.int16))
            self._held += len(taken)
        return len(taken)

    def start(self, feed: Feed) -> None:
        self._feed = feed

    def pump(self, now_s: float) -> None:
        if self._stopped or self._feed is None:
            return
        end = max(0, self._feed.clock.position(now_s)) * RATIO
        if self._fed is None or end - self._fed > STOOD_STILL:
            self._fed = end
        if end > self._fed:
            self._feed.intake.push(self._fed, self._take(end - self._fed), now_s)
            self._fed = end

    def flush(self) -> None:
        self._chunks.clear()
        self._held = 0

    def stop(self) -> None:
        self._stopped = True
        self.flush()

    def _take(self, count: int) -> np.ndarray:
        """int16 [count]: what was pushed first, then silence."""
        out = np.zeros(count, np.int16)
        at = 0
        while self._chunks and at < count:
            chunk = self._chunks.popleft()
            part = chunk[: count - at]
            out[at : at + len(part)] = part
            at += len(part)
            if len(part) < len(chunk):
                self._chunks.appendleft(chunk[len(part) :])
        self._held -= at
        return out
