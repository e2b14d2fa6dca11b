"""``/v1/sessions/{id}/pcm``: the socket through which a program speaks. A thin shell around ``pcm_protocol.py``."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from fastapi import FastAPI, WebSocket

from engine.errors import VisavisError
from server.agent_seat import AgentSeat, seat_of
from server.errors import RequestInvalid, SessionNotFound, SourceTaken
from server.live_avatar import LiveAvatar
from server.messages import write_error
from server.pcm_protocol import PcmProtocol, Start
from server.sessions import Sessions

CLOSE_NORMAL = 1000
CLOSE_INVALID = 4400
CLOSE_NO_SESSION = 4404
CLOSE_TAKEN = 4409


def add_pcm_socket(app: FastAPI) -> None:
    """Register the route."""

    @app.websocket("/v1/sessions/{session_id}/pcm")
    async def pcm(websocket: WebSocket, session_id: str) -> None:
        await serve_pcm(websocket, session_id, sessions=websocket.app.state.house.sessions)


async def serve_pcm(websocket: WebSocket, session_id: str, *, sessions: Sessions) -> None:
    """Serve one socket until it or its session ends."""
    await websocket.accept()
    wake = asyncio.Event()
    try:
        live = sessions.get(session_id)
        seat = seat_of(live)
        protocol = PcmProtocol(seat.queue)
        start = Start.read(websocket.query_params) if "rate" in websocket.query_params else None
        seat.sit(protocol, wake.set)
    except VisavisError as error:
        await websocket.send_json(write_error(error))
        await websocket.close(_close_code(error), error.code)
        return
    try:
        await _Conversation(websocket, live, seat, protocol, wake).run(start)
    finally:
        seat.leave()


class _Conversation:
    def __init__(
        self, websocket: WebSocket, live: LiveAvatar, seat: AgentSeat, protocol: PcmProtocol, wake: asyncio.Event
    ) -> None:
        self._websocket = websocket
        self._live = live
        self._seat = seat
        self._protocol = protocol
        self._wake = wake

    async def run(self, start: Start | None) -> None:
        if start is not None:
            self._begin(start)
        outbox = self._live.subscribe()
        tasks = [asyncio.create_task(work) for work in (self._hear(), self._say(), _ended(outbox))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[2].done() and not tasks[0].done():
                tasks[1].cancel()
                await asyncio.gather(tasks[1], return_exceptions=True)
                await self._websocket.send_json({"type": "ended", "reason": self._live.reason})
                await self._websocket.close(CLOSE_NORMAL)
        finally:
            self._live.unsubscribe(outbox)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _hear(self) -> None:
        while True:
            while len(self._protocol.left_over):  # full: not read on until there is room
                await self._seat.some_room()
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                self._take(message, time.monotonic())
            except VisavisError as error:
                self._protocol.tell(write_error(error))
            self._wake.set()

    def _take(self, message: Any, now_s: float) -> None:
        protocol = self._protocol
        if message.get("bytes") is not None:
            protocol.hear_sound(message["bytes"], now_s)
            return
        start = protocol.hear_text(message["text"], now_s)
        if start is not None:
            self._begin(start)
        if protocol.wants_clear:
            dropped = self._seat.queue.held
            protocol.forget()
            self._live.flush()
            protocol.cleared(dropped)

    def _begin(self, start: Start) -> None:
        self._protocol.begin(start, session=self._live.id, state=self._live.state)
        self._wake.set()

    async def _say(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._protocol.outgoing:
                await self._websocket.send_json(self._protocol.outgoing.popleft())


async def _ended(outbox: asyncio.Queue[dict[str, Any] | None]) -> None:
    while await outbox.get() is not None:
        pass


def _close_code(error: VisavisError) -> int:
    codes = {SessionNotFound: CLOSE_NO_SESSION, SourceTaken: CLOSE_TAKEN, RequestInvalid: CLOSE_INVALID}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), 1011)
