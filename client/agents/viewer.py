"""A WebRTC peer that only looks and listens: the avatar's frames, as they leave the server."""

from __future__ import annotations

import asyncio
from typing import Literal

import av
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from .jitter import pass_at_once

Frame = av.VideoFrame | av.AudioFrame
WAITING_FRAMES = 50  # one second of pictures and sound; who does not read loses the oldest


class Viewer:
    """Receives an avatar's picture and sound. ``offer``, then ``accept``, then ``frame`` until it is None."""

    def __init__(self) -> None:
        self._peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(WAITING_FRAMES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._peer.on("track", self._listen)
        self._peer.on("connectionstatechange", self._changed)

    async def offer(self) -> str:
        """SDP of an offer that receives one picture and one sound."""
        for kind in ("audio", "video"):
            pass_at_once(self._peer.addTransceiver(kind, direction="recvonly").receiver, kind)
        await self._peer.setLocalDescription(await self._peer.createOffer())
        return self._peer.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Take the server's answer."""
        await self._peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))

    async def frame(self) -> Frame | None:
        """The next picture or 20 ms of sound; None when the connection has ended. For one reader."""
        return await self._frames.get()

    def drop(self, kind: Literal["audio", "video", "all"] = "all") -> None:
        """Forget what waits to be read."""
        kept: list[Frame | None] = []
        while not self._frames.empty():
            frame = self._frames.get_nowait()
            if frame is None or (kind == "audio" and isinstance(frame, av.VideoFrame)):
                kept.append(frame)
            elif kind == "video" and isinstance(frame, av.AudioFrame):
                kept.append(frame)
        for frame in kept:
            self._frames.put_nowait(frame)

    async def close(self) -> None:
        """Leave. May be repeated."""
        await self._peer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._put(None)

    def _listen(self, track: MediaStreamTrack) -> None:
        task = asyncio.ensure_future(self._take(track))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            assert isinstance(frame, av.VideoFrame | av.AudioFrame)
            self._put(frame)

    def _changed(self) -> None:
        if self._peer.connectionState in ("failed", "closed"):
            self._put(None)

    def _put(self, frame: Frame | None) -> None:
        if self._frames.full():
            self._frames.get_nowait()
        self._frames.put_nowait(frame)
