"""A session's WebSocket: candidates and control in, status and figures out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from engine.api import Avatar
from engine.errors import VisavisError
from engine.turn import Turn
from server.errors import RequestInvalid, SessionNotFound
from server.live_avatar import LiveAvatar
from server.messages import read_message, write_error
from server.sessions import Sessions

CLOSE_NORMAL = 1000
CLOSE_NO_SESSION = 4404

GetAvatar = Callable[[str], Awaitable[Avatar]]


async def serve_socket(websocket: WebSocket, session_id: str, *, sessions: Sessions, get_avatar: GetAvatar) -> None:
    """Serve one socket until it or its session ends. A message that is wrong is answered with an error."""
    await websocket.accept()
    try:
        session = sessions.get(session_id)
    except SessionNotFound as error:
        await websocket.send_json(write_error(error))
        await websocket.close(CLOSE_NO_SESSION, error.code)
        return
    outbox = session.subscribe()
    hearing = asyncio.create_task(_hear(websocket, session, outbox, get_avatar))
    telling = asyncio.create_task(_tell(websocket, outbox))
    try:
        await asyncio.wait((hearing, telling), return_when=asyncio.FIRST_COMPLETED)
    finally:
        session.unsubscribe(outbox)
        for task in (hearing, telling):
            task.cancel()
        await asyncio.gather(hearing, telling, return_exceptions=True)


async def _tell(websocket: WebSocket, outbox: asyncio.Queue[dict[str, Any] | None]) -> None:
    while (message := await outbox.get()) is not None:
        await websocket.send_json(message)
    await websocket.close(CLOSE_NORMAL)


async def _hear(
    websocket: WebSocket, session: LiveAvatar, outbox: asyncio.Queue[dict[str, Any] | None], get_avatar: GetAvatar
) -> None:
    while True:
        try:
            text = await websocket.receive_text()
        except (WebSocketDisconnect, KeyError):  # KeyError: bytes, where text is due
            return
        try:
            answer = await _obey(read_message(text), session, get_avatar)
        except VisavisError as error:
            answer = write_error(error)
        if answer is not None:
            await outbox.put(answer)


async def _obey(message: dict[str, Any], session: LiveAvatar, get_avatar: GetAvatar) -> dict[str, Any] | None:
    """Do what a message says; what to answer.

    Raises:
        VisavisError: it cannot be done.
    """
    match message.get("type"):
        case "candidate":
            candidate = message.get("candidate")
            if candidate is not None and not isinstance(candidate, dict):
                raise RequestInvalid("candidate must be an object or null")
            session.add_candidate(candidate)
        case "mute":
            muted = message.get("muted")
            if not isinstance(muted, bool):
                raise RequestInvalid(f"muted is {str(muted)[:40]}: it must be true or false")
            session.mute(muted)
        case "avatar":
            avatar_id = str(message.get("avatar_id"))
            session.switch_avatar(avatar_id, await get_avatar(avatar_id))
        case "options":
            session.set_motion(_number(message.get("motion"), "motion", 0, 1))
        case "pose":
            yaw, pitch, roll = (_number(message.get(n, 0), n, -180, 180) for n in ("yaw", "pitch", "roll"))
            session.look(Turn(yaw_deg=yaw, pitch_deg=pitch, roll_deg=roll))
        case "ping":
            return {"type": "pong", "t": message.get("t")}
        case other:
            raise RequestInvalid(f"no message is of type {str(other)[:40]!r}")
    return None


def _number(value: Any, name: str, least: float, most: float) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise RequestInvalid(f"{name} is {str(value)[:40]}: it must be a number from {least:g} to {most:g}")
    return float(value)
