"""Rooms: up to eight people who talk through their avatars.

A participant is a live avatar and three things around it: a socket (``room_socket.py``), the peer that brings the
microphone, and a viewer connection for each one that is watched. Each participant's picture and sound are drawn and
encoded once, however many look on; nobody's sound reaches another's avatar, and nobody is sent their own.

A participant that falls silent on its socket keeps its place for GONE_S: it may come back with its token, over another
network, with new connections; its avatar went on meanwhile. Where the server has no place for another render, a
participant is heard and not seen.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from engine.api import Avatar, EngineSpec, StreamOptions
from server.config import ServerConfig
from server.engine_worker import EngineWorker
from server.errors import RequestInvalid, RoomFull, RoomKeyWrong, ServerFull
from server.live_avatar import LiveAvatar, SessionOrder, SoundOnly
from server.publication import Publisher
from server.sessions import Sessions
from server.signaling import Offer
from server.sources import TrackSource
from server.viewer import Viewer, Viewers

log = logging.getLogger(__name__)

GONE_S = 8.0  # without a word on the socket; then the place is free
TELL_EVERY_S = 0.25  # levels
SPEAKS_LEVEL = 0.45  # -33 dBFS
OUTBOX_MESSAGES = 64  # per participant; one that does not read loses the oldest
MAX_NAME_CHARS = 40


class Landlord(Protocol):
    """What rooms need of the house."""

    config: ServerConfig
    worker: EngineWorker
    sessions: Sessions
    viewers: Viewers

    async def get_avatar(self, avatar_id: str) -> Avatar: ...

    async def make_order(self, avatar_id: str, options: StreamOptions) -> SessionOrder: ...


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What somebody who enters says.

    Args:
        name: shown to the others, at most MAX_NAME_CHARS.
        avatar_id: None: be heard and not seen.
        room_key: of the room; the first one in decides it.
        token: from an earlier welcome; None: a new participant.
    """

    name: str
    avatar_id: str | None
    room_key: str
    token: str | None


class Participant:
    """One person in a room."""

    def __init__(self, entry: Entry, live: LiveAvatar, *, seen: bool) -> None:
        self.id = secrets.token_urlsafe(9)
        self.token = secrets.token_urlsafe(16)
        self.name = entry.name
        self.live = live
        self.seen = seen
        self.muted = False
        self.heard_s = time.monotonic()
        self.outbox: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(OUTBOX_MESSAGES)
        self.publisher: Publisher | None = None
        self.viewers: dict[str, Viewer] = {}  # by whom they watch
        self.closing: set[asyncio.Task[None]] = set()
        self.changed: Callable[[], None] = lambda: None  # what the others are told of them

    def tell(self, message: dict[str, Any] | None) -> None:
        """Queue a message for its socket; drops the oldest when full. None: the socket is to close."""
        if self.outbox.full():
            self.outbox.get_nowait()
        self.outbox.put_nowait(message)

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "avatar_id": self.live.avatar_id if self.seen else None,
            "seen": self.seen,
            "muted": self.muted,
            "live": self.live.state == "live",
        }

    async def publish(self, offer: Offer, config: ServerConfig) -> str:
        """Take the microphone of a new connection; an earlier one is closed. The answer's SDP."""
        self._drop_publisher()
        publisher = Publisher(
            has_video=False,
            network=config.network,
            changed=lambda state: self._publisher_changed(publisher, state),
            max_candidates=config.limits.candidates,
        )
        self.publisher = publisher
        return await publisher.answer(offer)

    def mute(self, muted: bool) -> None:
        self.muted = muted
        self.live.mute(muted)

    def drop_viewer(self, watched: str, reason: str) -> None:
        viewer = self.viewers.pop(watched, None)
        if viewer is not None:
            viewer.end(reason)

    def leave(self, reason: str) -> None:
        """Close everything; its avatar ends."""
        self._drop_publisher()
        for watched in list(self.viewers):
            self.drop_viewer(watched, reason)
        self.live.end(reason)
        self.tell(None)

    async def closed(self) -> None:
        await self.live.closed()
        await asyncio.gather(*self.closing, return_exceptions=True)

    def _publisher_changed(self, publisher: Publisher, state: str) -> None:
        if publisher is not self.publisher or self.live.state == "ended":
            return
        if state == "connected":
            self.live.detach()
            self.live.attach(TrackSource(publisher.microphone))
            if self.live.state == "connecting":
                self.live.go_live()
                self.changed()
            self.tell({"type": "published"})
        elif state in ("failed", "closed"):
            self.live.detach()
            self.tell({"type": "publish_again", "reason": f"the connection {state}"})

    def _drop_publisher(self) -> None:
        publisher, self.publisher = self.publisher, None
        if publisher is not None:
            self.live.detach()
            task = asyncio.get_running_loop().create_task(publisher.close(), name=f"participant-{self.id}-close")
            self.closing.add(task)
            task.add_done_callback(self.closing.discard)


class Room:
    """The people of one room."""

    def __init__(self, name: str, key: str) -> None:
        self.name = name
        self.key = key
        self.people: dict[str, Participant] = {}
        self.entering = 0  # places taken by those whose avatar is being made

    def tell_all(self) -> None:
        """Who is here, to everybody."""
        people = [p.describe() for p in self.people.values()]
        for participant in self.people.values():
            participant.tell({"type": "people", "people": people})

    def tell_levels(self) -> None:
        levels = {p.id: round(p.live.level, 2) for p in self.people.values()}
        speaking = [p.id for p in self.people.values() if not p.muted and p.live.level > SPEAKS_LEVEL]
        for participant in self.people.values():
            participant.tell({"type": "levels", "levels": levels, "speaking": speaking})


class Rooms:
    """All rooms of a server. A room is there while somebody is in it.

    Args:
        house: whose engine, sessions and viewers they use.
    """

    def __init__(self, house: Landlord) -> None:
        self._house = house
        self._rooms: dict[str, Room] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._rooms)

    def open(self) -> None:
        """Begin to look after them."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._watch(), name="rooms")]

    async def close(self) -> None:
        """Everybody leaves."""
        for room in list(self._rooms.values()):
            for participant in list(room.people.values()):
                self.leave(room, participant, "the server is stopping")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._leaving, return_exceptions=True)

    async def enter(self, name: str, entry: Entry) -> tuple[Room, Participant]:
        """Come in, or come back.

        Raises:
            RoomKeyWrong: another key than the room's.
            RoomFull: eight people are in it, or no more rooms can be opened.
            VisavisError: the avatar cannot be had.
        """
        room = self._find(name, entry.room_key)
        if entry.token is not None:
            for participant in room.people.values():
                if hmac.compare_digest(participant.token, entry.token):
                    return room, self._come_back(participant)
        if len(room.people) + room.entering >= self._house.config.limits.room_people:
            raise RoomFull(f"room {name!r} has {len(room.people)} people in it already", retry_after_s=10)
        room.entering += 1
        try:
            participant = await self._make(entry)
        finally:
            room.entering -= 1
            self._drop_if_empty(room)
        self._rooms.setdefault(name, room)
        room.people[participant.id] = participant
        participant.changed = room.tell_all
        room.tell_all()
        log.info("%s entered room %s", participant.id, name)
        return room, participant

    def leave(self, room: Room, participant: Participant, reason: str) -> None:
        """Its place is free when this returns. May be repeated."""
        if room.people.pop(participant.id, None) is None:
            return
        participant.changed = lambda: None
        log.info("%s left room %s: %s", participant.id, room.name, reason)
        participant.leave(reason)
        for other in room.people.values():
            other.drop_viewer(participant.id, reason)
        room.tell_all()
        self._drop_if_empty(room)
        task = asyncio.get_running_loop().create_task(participant.closed(), name=f"participant-{participant.id}-closed")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def watch(self, room: Room, watcher: Participant, watched_id: str, offer: Offer) -> str:
        """Let ``watcher`` see and hear another, or see themself; an earlier connection for the same is closed.

        Raises:
            RequestInvalid: there is nobody of that id, or they ask to hear themself or to see one who is not seen.
        """
        watched = room.people.get(watched_id)
        if watched is None:
            raise RequestInvalid(f"nobody here is {watched_id[:40]!r}: they may have left just now")
        if watched is watcher and "audio" in offer.kinds:
            raise RequestInvalid("nobody is sent their own sound: offer video alone to see yourself")
        if not watched.seen and "video" in offer.kinds:
            raise RequestInvalid(f"{watched.name!r} is heard and not seen: offer audio alone")
        watcher.drop_viewer(watched_id, "a new connection takes its place")
        viewer, answer = await self._house.viewers.open(watched.live, offer)
        if room.people.get(watcher.id) is not watcher:  # left while it was made
            viewer.end("its watcher left")
        watcher.viewers[watched_id] = viewer
        return answer

    def _find(self, name: str, key: str) -> Room:
        room = self._rooms.get(name)
        if room is None:
            if len(self._rooms) >= self._house.config.limits.rooms:
                raise RoomFull(f"{len(self._rooms)} rooms are open, no more fit on this server", retry_after_s=30)
            room = self._rooms[name] = Room(name, key)
        elif not hmac.compare_digest(room.key.encode(), key.encode()):
            raise RoomKeyWrong(f"room {name!r} has another key: open the link that its people shared with you")
        return room

    def _drop_if_empty(self, room: Room) -> None:
        if not room.people and not room.entering and self._rooms.get(room.name) is room:
            del self._rooms[room.name]

    def _come_back(self, participant: Participant) -> Participant:
        participant.tell(None)  # an older socket of theirs, if one is left
        participant.outbox = asyncio.Queue(OUTBOX_MESSAGES)
        participant.heard_s = time.monotonic()
        return participant

    async def _make(self, entry: Entry) -> Participant:
        """The participant with a live avatar, or with sound alone where no render is wanted or to be had."""
        options = StreamOptions(seed=secrets.randbelow(2**31), motion=1.0)

        async def make_order() -> SessionOrder:
            assert entry.avatar_id is not None
            return await self._house.make_order(entry.avatar_id, options)

        live: LiveAvatar | None = None
        if entry.avatar_id is not None:
            try:
                live = await self._house.sessions.admit(make_order, LiveAvatar)
            except ServerFull as error:
                log.info("somebody enters with sound alone: %s", error)
        seen = live is not None
        if live is None:
            live = SoundOnly.make(worker=self._house.worker, spec=self._spec(), config=self._house.config)
        live.begin()
        return Participant(entry, live, seen=seen)

    def _spec(self) -> EngineSpec:
        return self._house.worker.engine.spec

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            now_s = time.monotonic()
            for room in list(self._rooms.values()):
                for participant in list(room.people.values()):
                    if now_s - participant.heard_s > GONE_S:
                        self.leave(room, participant, f"nothing was heard for {GONE_S:g} s")
                    elif participant.live.state == "ended":
                        participant.tell({"type": "ended", "reason": participant.live.reason})
                        self.leave(room, participant, participant.live.reason or "its avatar ended")
                room.tell_levels()
