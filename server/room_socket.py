"""A participant's WebSocket: ``/v1/rooms/{name}/ws``. The first message enters; ``docs/rooms.md`` lists them all."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from engine.errors import VisavisError
from server.config import ServerConfig
from server.control import CLOSE_NORMAL
from server.errors import RequestInvalid
from server.house import House
from server.messages import read_message, write_error
from server.rooms import MAX_NAME_CHARS, Entry, Participant, Room
from server.signaling import PUBLISH, WATCH, read_offer
from server.whip import check_name

CLOSE_REFUSED = 4403
ENTER_WITHIN_S = 10.0
MAX_KEY_CHARS = 200


def add_rooms(app: FastAPI, config: ServerConfig) -> None:
    """Add the route."""

    @app.websocket("/v1/rooms/{name}/ws")
    async def room_socket(websocket: WebSocket, name: str) -> None:
        await websocket.accept()
        house: House = websocket.app.state.house
        try:
            house.require_ready()
            async with asyncio.timeout(ENTER_WITHIN_S):
                entry = _read_entry(read_message(await websocket.receive_text()))
            room, participant = await house.rooms.enter(check_name(name), entry)
        except VisavisError as error:
            await websocket.send_json(write_error(error))
            await websocket.close(CLOSE_REFUSED, error.code)
            return
        except (TimeoutError, WebSocketDisconnect, KeyError):  # KeyError: bytes, where text is due
            return
        await RoomSocket(websocket, house, room, participant).serve()


class RoomSocket:
    """Serves one participant until the socket or the participant ends."""

    def __init__(self, websocket: WebSocket, house: House, room: Room, participant: Participant) -> None:
        self._websocket = websocket
        self._house = house
        self._room = room
        self._participant = participant
        self._outbox = participant.outbox

    async def serve(self) -> None:
        me = self._participant
        people = [p.describe() for p in self._room.people.values()]
        me.tell({"type": "welcome", "id": me.id, "token": me.token, "seen": me.seen, "people": people})
        tasks = [asyncio.create_task(self._hear()), asyncio.create_task(self._tell())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _tell(self) -> None:
        while (message := await self._outbox.get()) is not None:
            await self._websocket.send_json(message)
        await self._websocket.close(CLOSE_NORMAL)

    async def _hear(self) -> None:
        while True:
            try:
                text = await self._websocket.receive_text()
            except (WebSocketDisconnect, KeyError):
                return
            if self._participant.outbox is not self._outbox:
                return  # they came back on another socket
            self._participant.heard_s = time.monotonic()
            message: dict[str, Any] = {}
            try:
                message = read_message(text, max_chars=self._house.config.limits.sdp_chars + 1024)
                answer = await self._obey(message)
            except VisavisError as error:
                answer = {**write_error(error), "about": {k: message.get(k) for k in ("type", "id")}}
            if answer is not None:
                self._participant.tell(answer)

    async def _obey(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Do what a message says; what to answer."""
        me, rooms, limits = self._participant, self._house.rooms, self._house.config.limits
        match message.get("type"):
            case "publish" | "watch" as kind:
                shape = PUBLISH if kind == "publish" else WATCH
                sdp = str(message.get("sdp"))
                offer = read_offer(sdp, max_chars=limits.sdp_chars, max_candidates=limits.candidates, shape=shape)
                if kind == "publish":
                    return {"type": "answer", "id": None, "sdp": await me.publish(offer, self._house.config)}
                watched = str(message.get("id"))
                answer = await rooms.watch(self._room, me, watched, offer)
                return {"type": "answer", "id": watched, "sdp": answer}
            case "candidate":
                self._trickle(message)
            case "mute":
                if not isinstance(message.get("muted"), bool):
                    raise RequestInvalid(f"muted is {str(message.get('muted'))[:40]}: it must be true or false")
                me.mute(message["muted"])
                self._room.tell_all()
            case "avatar":
                avatar_id = str(message.get("avatar_id"))
                avatar = await self._house.get_avatar(avatar_id)
                if me.seen:
                    me.live.switch_avatar(avatar_id, avatar)
                    self._room.tell_all()
            case "leave":
                rooms.leave(self._room, me, "they left")
            case "ping":
                return {"type": "pong", "t": message.get("t")}
            case other:
                raise RequestInvalid(f"no message is of type {str(other)[:40]!r}")
        return None

    def _trickle(self, message: dict[str, Any]) -> None:
        candidate, watched = message.get("candidate"), message.get("id")
        if candidate is not None and not isinstance(candidate, dict):
            raise RequestInvalid("candidate must be an object or null")
        connection = self._participant.publisher if watched is None else self._participant.viewers.get(str(watched))
        if connection is not None:
            connection.add_candidate(candidate)


def _read_entry(message: dict[str, Any]) -> Entry:
    """
    Raises:
        RequestInvalid: which field is wrong.
    """
    if message.get("type") != "enter":
        raise RequestInvalid(f"the first message is of type {str(message.get('type'))[:40]!r}: it must be 'enter'")
    name, key = str(message.get("name") or "").strip(), str(message.get("room_key") or "")
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        raise RequestInvalid(f"the name has {len(name)} characters: give one of 1 to {MAX_NAME_CHARS}")
    if len(key) > MAX_KEY_CHARS:
        raise RequestInvalid(f"the room key has {len(key)} characters: at most {MAX_KEY_CHARS}")
    avatar, token = message.get("avatar_id"), message.get("token")
    return Entry(
        name=name,
        avatar_id=None if avatar is None else str(avatar),
        room_key=key,
        token=None if token is None else str(token),
    )
