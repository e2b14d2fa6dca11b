"""Where a live avatar's sound comes from: one source at a time, whatever its way in.

A source gives sound to the avatar's ``Intake``. ``TrackSource`` is a track of a peer connection, whose packets
come when they come. ``SpeechSource`` (``speech_source.py``) is sound pushed by a program, faster than it is
spoken if it likes: it waits and is let in at the media clock's pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from aiortc.mediastreams import MediaStreamTrack

from server.ingest import Intake, listen
from server.media_clock import MediaClock


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
