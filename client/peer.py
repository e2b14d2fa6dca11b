"""One session on a server, from the offer to its end: the way of docs/api.md, over aiortc."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import Sequence
from typing import Any, Literal

import av
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from client.errors import ServerTrouble
from client.service import ask, bearer, is_loopback
from client.tap import Tap, tap

CONNECT_TIMEOUT_S = 20.0
SILENT_S = 5.0  # a live session from which nothing came for so long is lost
CLOSE_TIMEOUT_S = 5.0  # a relay that has gone would hold a closing connection for minutes


class Peer:
    """Opens a session, hands on what comes, and ends it. A subclass takes what it wants of the ``on_`` methods.

    Args:
        url: of the server, without a path.
        track: what it says.
        key: of the server, None where it wants none.
        ice_servers: as ``GET /v1/info`` gives them.
    """

    def __init__(
        self,
        url: str,
        track: MediaStreamTrack,
        *,
        key: str | None = None,
        ice_servers: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._url, self._key = url, key
        self._track = track
        servers = [RTCIceServer(**{k: v for k, v in s.items() if k in _ICE_FIELDS}) for s in ice_servers]
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._tasks: list[asyncio.Task[None]] = []
        self._socket: ClientConnection | None = None
        self._lives = asyncio.Event()
        self._came_s = 0.0
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.session = ""
        self.lookahead_ms = 0

    # ---- for subclasses --------------------------------------------------------------------------

    def make_tap(self, kind: str) -> Tap:
        """The buffer for what is received of ``kind``."""
        return Tap(is_video=kind == "video")

    def on_picture(self, frame: av.VideoFrame, came_s: float) -> bool:
        """A decoded picture; its pts are ticks of 90 kHz since the first.

        Returns:
            Whether it can be shown; the session is live from the first that can.
        """
        return True

    def on_sound(self, frame: av.AudioFrame, came_s: float) -> None:
        """Decoded sound; its pts are ticks of 48 kHz since the first."""

    def on_report(self, kind: str, ticks: int, sent_s: float) -> None:
        """What stands at ``ticks`` of a stream left the server at its wall time ``sent_s``."""

    def on_message(self, message: dict[str, Any]) -> None:
        """Of the session's WebSocket."""

    # ---- for users -------------------------------------------------------------------------------

    async def open(self, options: dict[str, Any], avatar_id: str = "default") -> None:
        """Connect, and return when the first picture that can be shown is there.

        Raises:
            Refused: the server is full.
            ServerTrouble: no session, or no picture within CONNECT_TIMEOUT_S.
        """
        try:
            await self._negotiate(options, avatar_id)
            await asyncio.wait_for(self._first_picture(), CONNECT_TIMEOUT_S)
        except TimeoutError as error:
            await self.close()
            raise ServerTrouble(f"no frame came within {CONNECT_TIMEOUT_S:.0f} s of the answer") from error
        except BaseException:
            await self.close()
            raise

    async def ended(self) -> str:
        """Wait until the session is over without our doing; why."""
        return await asyncio.shield(self._ended)

    async def tell(self, message: dict[str, Any]) -> None:
        """Send a control message; one that cannot be sent is dropped, for its session is about to end."""
        if self._socket is not None:
            with contextlib.suppress(WebSocketException, OSError):
                await self._socket.send(json.dumps(message))

    async def close(self) -> None:
        """End the session and wait until nothing of it is left here. May be repeated."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        session, self.session = self.session, ""
        if session:
            with contextlib.suppress(ServerTrouble):  # it may have ended already
                await ask("DELETE", f"{self._url}/v1/sessions/{session}", key=self._key)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connection.close(), CLOSE_TIMEOUT_S)
        self._ended.cancel()

    # ---- its own affairs -------------------------------------------------------------------------

    async def _negotiate(self, options: dict[str, Any], avatar_id: str) -> None:
        self._connection.addTransceiver(self._track, "sendrecv")
        self._connection.addTransceiver("video", "recvonly")
        for transceiver in self._connection.getTransceivers():
            kind = transceiver.kind
            tap(transceiver.receiver, self.make_tap(kind), functools.partial(self.on_report, kind))
        self._connection.on("connectionstatechange", self._connection_changed)
        await self._connection.setLocalDescription(await self._connection.createOffer())
        offer = {"type": "offer", "sdp": self._connection.localDescription.sdp}
        order = {"avatar_id": avatar_id, "offer": offer, "options": options}
        session = await ask("POST", f"{self._url}/v1/sessions", order, key=self._key)
        self.session, self.lookahead_ms = session["id"], session["lookahead_ms"]
        self._spawn(self._follow(self._url.replace("http", "ws", 1) + session["ws"]))
        await self._connection.setRemoteDescription(RTCSessionDescription(**session["answer"]))
        for transceiver in self._connection.getTransceivers():
            watch = self._watch if transceiver.kind == "video" else self._listen
            self._spawn(watch(transceiver.receiver.track))

    async def _first_picture(self) -> None:
        """Wait for it, or for the end that comes before."""
        lives: asyncio.Future[Any] = asyncio.ensure_future(self._lives.wait())
        try:
            await asyncio.wait({lives, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            lives.cancel()
        if not self._lives.is_set():
            raise ServerTrouble(f"the session ended before the first picture: {self._ended.result()}")
        self._spawn(self._watch_silence())

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _end(self, reason: str) -> None:
        if not self._ended.done():
            self._ended.set_result(reason)

    def _connection_changed(self) -> None:
        if self._connection.connectionState in ("failed", "closed"):
            self._end("the network path to the server broke")

    async def _watch_silence(self) -> None:
        while (quiet_s := time.monotonic() - self._came_s) < SILENT_S:
            await asyncio.sleep(SILENT_S - quiet_s)
        self._end(f"nothing came from the server for {SILENT_S:.0f} s")

    async def _watch(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.VideoFrame) and frame.pts is not None
                self._came_s = time.monotonic()
                if self.on_picture(frame, self._came_s):
                    self._lives.set()

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                assert isinstance(frame, av.AudioFrame) and frame.pts is not None
                self.on_sound(frame, time.monotonic())

    async def _follow(self, url: str) -> None:
        reason = "its control connection broke"
        proxy: Literal[True] | None = None if is_loopback(self._url) else True
        try:
            async with connect(url, proxy=proxy, additional_headers=bearer(self._key)) as self._socket:
                async for text in self._socket:
                    message = json.loads(text)
                    if message.get("type") == "status" and message.get("state") == "ended":
                        reason = str(message.get("reason"))
                    self.on_message(message)
        except (WebSocketException, OSError) as error:
            reason = f"{reason} ({error})"
        finally:
            self._socket = None
        self._end(reason)


_ICE_FIELDS = ("urls", "username", "credential")
