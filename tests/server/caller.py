"""A real server on a loopback port, and real peers that call it; ``conftest.py`` starts them."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import av
import httpx
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from engine.api import Engine
from server.app import create_app
from server.config import ServerConfig
from server.jitter import pass_straight_through
from server.main import make_server

RATE_HZ = 48_000
PACKET = 960


def beeps(seconds: float, *, on_s: float = 0.3, every_s: float = 0.6, hz: float = 440.0) -> np.ndarray:
    """int16 [n] at 48 kHz: silence, then a tone, over and over."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    on = (t % every_s) >= every_s - on_s
    return (np.sin(2 * np.pi * hz * t) * on * 12_000).astype(np.int16)


class Microphone(MediaStreamTrack):
    """Sends a recording over and over in real time, 20 ms at a time; ``paused`` stops it like a lost device."""

    kind = "audio"

    def __init__(self, recording: np.ndarray) -> None:
        super().__init__()
        self._recording = recording
        self._sent = 0
        self._begun: float | None = None
        self.paused = False

    async def recv(self) -> av.AudioFrame:
        if self._begun is None:
            self._begun = time.monotonic()
        while True:
            await asyncio.sleep(max(0.0, self._begun + self._sent * PACKET / RATE_HZ - time.monotonic()))
            if self.readyState != "live":
                raise MediaStreamError
            at = self._sent * PACKET
            self._sent += 1
            if not self.paused:
                break
        samples = np.take(self._recording, range(at, at + PACKET), mode="wrap")
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, at, fractions.Fraction(1, RATE_HZ)
        return frame


@dataclass
class Caller:
    """A peer in a call, and what it has received."""

    peer: RTCPeerConnection
    reply: dict[str, Any]
    microphone: Microphone
    frames: list[tuple[float, np.ndarray]] = field(default_factory=list)  # media time in s, uint8 [256, 256] luma
    sound: list[tuple[float, np.ndarray]] = field(default_factory=list)  # media time in s, int16 [960] mono
    frame_came_s: list[float] = field(default_factory=list)
    sound_came_s: list[float] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.reply["id"]

    async def wait_for(self, frames: int, *, patience_s: float = 20) -> None:
        async with asyncio.timeout(patience_s):
            while len(self.frames) < frames:
                await asyncio.sleep(0.02)

    async def hang_up(self) -> None:
        await self.peer.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def vanish(self) -> None:
        """Stop without a word, like a machine whose plug was pulled."""
        for transceiver in self.peer.getTransceivers():
            transport = transceiver.receiver.transport

            async def nothing(data: bytes) -> None:
                pass

            transport.transport._send = nothing  # type: ignore[method-assign]
            transport.transport._connection.send = nothing  # type: ignore[method-assign]
        await self.hang_up()

    def listen(self, track: MediaStreamTrack) -> None:
        self.tasks.append(asyncio.ensure_future(self._take(track)))

    async def _take(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            if isinstance(frame, av.VideoFrame):
                self.frame_came_s.append(time.monotonic())
                self.frames.append((frame.time or 0.0, frame.to_ndarray(format="gray")))
            else:
                assert isinstance(frame, av.AudioFrame)
                self.sound_came_s.append(time.monotonic())
                self.sound.append((frame.time or 0.0, frame.to_ndarray().reshape(-1, 2)[:, 0]))


class Server:
    """A running server, seen from outside, with its house for those who must look inside."""

    def __init__(self, app: Any, url: str, http: httpx.AsyncClient) -> None:
        self.app = app
        self.url = url
        self.http = http
        self.callers: list[Caller] = []

    @property
    def house(self) -> Any:
        return self.app.state.house

    async def offer(
        self, microphone: Microphone, ice: RTCConfiguration | None = None
    ) -> tuple[RTCPeerConnection, Caller]:
        peer = RTCPeerConnection(ice or RTCConfiguration(iceServers=[]))
        caller = Caller(peer=peer, reply={}, microphone=microphone)
        pass_straight_through(peer.addTransceiver(microphone, "sendrecv").receiver)
        peer.addTransceiver("video", "recvonly")
        peer.on("track", caller.listen)
        await peer.setLocalDescription(await peer.createOffer())
        self.callers.append(caller)
        return peer, caller

    async def call(
        self,
        recording: np.ndarray | None = None,
        *,
        avatar_id: str | None = None,
        ice: RTCConfiguration | None = None,
        **options: Any,
    ) -> Caller:
        """Open a session and wait for nothing."""
        peer, caller = await self.offer(Microphone(beeps(60) if recording is None else recording), ice)
        order: dict[str, Any] = {"offer": {"type": "offer", "sdp": peer.localDescription.sdp}, "options": options}
        if avatar_id:
            order["avatar_id"] = avatar_id
        response = await self.http.post("/v1/sessions", json=order)
        if response.status_code != 201:
            await caller.hang_up()
            response.raise_for_status()
        caller.reply = response.json()
        await peer.setRemoteDescription(RTCSessionDescription(**caller.reply["answer"]))
        return caller

    async def upload(self, image: bytes, **fields: Any) -> httpx.Response:
        data = {"consent": "true", **{k: str(v) for k, v in fields.items()}}
        return await self.http.post("/v1/avatars", files={"portrait": ("p.png", image)}, data=data)


@asynccontextmanager
async def running(config: ServerConfig, make_engine: Callable[[], Engine] | None, wait: bool) -> AsyncIterator[Server]:
    app = create_app(config, make_engine)
    server = make_server(config, app, log_level="warning")
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done(), "the server did not start"
        await asyncio.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30, trust_env=False) as http:
        seen = Server(app, url, http)
        try:
            while wait and (await http.get("/readyz")).status_code != 200:
                await asyncio.sleep(0.02)
            yield seen
        finally:
            await asyncio.gather(*(caller.hang_up() for caller in seen.callers))
            server.should_exit = True
            await serving
