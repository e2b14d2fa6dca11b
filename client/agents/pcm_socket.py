"""The sound's way to the server: a WebSocket that is written no faster than the server gives credit.

So its messages are read at once, and a ``clear`` never waits behind sound that has no room yet.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from .errors import AgentError, Refused, Unreachable

CHUNK_MS = 100  # of one message
EVENTS = 256  # that wait to be read; the oldest go
ANSWER_S = 10.0
SAMPLE_BYTES = 2


class PcmSocket:
    """An open PCM socket. Made by ``open_socket``.

    Args:
        connection: just opened.
        rate_hz: of the sound that will be sent.
    """

    def __init__(self, connection: ClientConnection, rate_hz: int) -> None:
        self.rate_hz = rate_hz
        self.epoch = 0
        self.ready: dict[str, Any] = {}
        self._connection = connection
        self._sent = 0  # samples
        self._credit = 0
        self._half = b""  # of a sample
        self._moved = asyncio.Condition()
        self._events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue(EVENTS)
        self._error: AgentError | None = None
        self._reading = asyncio.create_task(self._read(), name="visavis-pcm")

    async def wait_ready(self) -> None:
        """Until the server has said that sound may come.

        Raises:
            AgentError: it said something else, or nothing.
        """
        await self._wait_until(lambda: bool(self.ready), "the server did not say that it is ready")

    async def say(self, pcm: bytes) -> None:
        """Send 16-bit little-endian mono sound; waits while the server has no room for it.

        Returns early, without the rest, when ``clear`` is called meanwhile.

        Raises:
            AgentError: the connection is lost, or the session has ended.
        """
        epoch = self.epoch
        data = self._half + pcm
        self._half = data[len(data) // SAMPLE_BYTES * SAMPLE_BYTES :]
        at, end = 0, len(data) // SAMPLE_BYTES
        while at < end and epoch == self.epoch:
            async with self._moved:
                await self._moved.wait_for(lambda: self._credit > self._sent or self._error or epoch != self.epoch)
            self._check()
            if epoch != self.epoch:
                return
            count = min(end - at, self._credit - self._sent, self.rate_hz * CHUNK_MS // 1000)
            self._sent += count
            await self._send(data[at * SAMPLE_BYTES : (at + count) * SAMPLE_BYTES])
            at += count

    async def end(self) -> None:
        """The utterance is complete: ``speech_ended`` tells when its last sample has been heard."""
        self._half = b""
        await self._send(json.dumps({"type": "end"}))

    async def clear(self) -> None:
        """Let nothing more be heard of what has been sent; does not wait for the server's answer."""
        self.epoch += 1
        self._half = b""
        async with self._moved:
            self._moved.notify_all()
        await self._send(json.dumps({"type": "clear"}))

    async def ask(self, kind: str) -> None:
        """Send a message without fields, such as ``buffered``; its answer is among the events."""
        await self._send(json.dumps({"type": kind}))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """What the server tells, until the socket closes. For one reader."""
        while (event := await self._events.get()) is not None:
            yield event

    async def close(self) -> None:
        """Close the socket; what has been sent is still spoken. May be repeated."""
        await self._connection.close()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _wait_until(self, done: Any, what: str) -> None:
        try:
            async with asyncio.timeout(ANSWER_S), self._moved:
                await self._moved.wait_for(lambda: done() or self._error is not None)
        except TimeoutError as error:
            raise Unreachable(f"{what} within {ANSWER_S:g} s") from error
        if not done():
            self._check()

    async def _send(self, message: str | bytes) -> None:
        self._check()
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            self._check()
            raise Unreachable(f"the connection to the server was lost ({error})") from error

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    async def _read(self) -> None:
        try:
            async for text in self._connection:
                await self._take(json.loads(text))
            self._error = self._error or Unreachable("the session has ended, or its socket was closed")
        except ConnectionClosed as error:
            self._error = self._error or Unreachable(f"the connection to the server was lost ({error})")
        finally:
            self._put(None)
            async with self._moved:
                self._moved.notify_all()

    async def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "ready":
            self.ready = message
            self.epoch = message["epoch"]
        elif message["type"] == "error" and not self.ready:
            self._error = Refused(message["code"], message["message"])
        if "credit" in message:
            self._credit = max(self._credit, message["credit"])
        async with self._moved:
            self._moved.notify_all()
        if message["type"] != "credit":
            self._put(message)

    def _put(self, event: dict[str, Any] | None) -> None:
        if self._events.full():
            self._events.get_nowait()
        self._events.put_nowait(event)


async def open_socket(server: str, path: str, *, rate_hz: int, api_key: str | None = None, **fields: Any) -> PcmSocket:
    """Open a session's PCM socket.

    Args:
        server: address of the server, ``http://127.0.0.1:8000``.
        path: as ``POST /v1/sessions`` answered it in ``pcm``.
        rate_hz: of the sound, 8,000 to 48,000.
        fields: ``low_ms``, ``prebuffer_ms``.

    Raises:
        AgentError: it could not be opened, or the server refused.
    """
    parts = urlsplit(server)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    address = urlunsplit((scheme, parts.netloc, path, urlencode({"rate": rate_hz, **fields}), ""))
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        connection = await connect(address, additional_headers=headers, max_size=1 << 20, compression=None, proxy=None)
    except (OSError, InvalidHandshake, TimeoutError) as error:
        raise Unreachable(
            f"{server} did not open the sound's socket ({error}): is it running, and the key right?"
        ) from error
    socket = PcmSocket(connection, rate_hz)
    try:
        await socket.wait_ready()
    except BaseException:
        await socket.close()
        raise
    return socket
