"""A peer that watches a live avatar and sends nothing: WHEP's side of a session, and a participant's view of another.

All viewers of one live avatar share its render and its encoders (``broadcast.py``). A viewer goes when it leaves,
when nothing is heard of it any more, and when the live avatar ends.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterator

from server.broadcast import COLOUR, Rendition
from server.config import ServerConfig
from server.errors import ServerFull, ViewerNotFound
from server.live_avatar import LiveAvatar
from server.session import CLOSE_TIMEOUT_S
from server.signaling import Connection, Offer, prefer, serve_viewer, unite

log = logging.getLogger(__name__)

WATCH_EVERY_S = 1.0
SILENT_S = 15.0  # a receiver's reports come at least every 5 s (RFC 3550, section 6.2)


class Viewer(Connection):
    """One viewer of one live avatar.

    Args:
        live: what it watches.
        offer: its offer, checked: what of picture and sound it wants.
        rendition: of the picture.
        config: of the server.
        on_end: called once, at the moment of the end.
    """

    def __init__(
        self,
        live: LiveAvatar,
        offer: Offer,
        *,
        rendition: Rendition = COLOUR,
        config: ServerConfig,
        on_end: Callable[[Viewer], None],
    ) -> None:
        super().__init__(network=config.network, changed=self._changed, max_candidates=config.limits.candidates)
        self.id = secrets.token_urlsafe(16)
        self.live = live
        self.offer = offer
        self.state = "connecting"
        self._timing = config.timing
        self._on_end = on_end
        self._tracks = {
            kind: live.broadcast.audio() if kind == "audio" else live.broadcast.video(rendition) for kind in offer.kinds
        }
        self._transceivers = {
            kind: self._connection.addTransceiver(track, "sendonly") for kind, track in self._tracks.items()
        }
        if len(self._transceivers) == 2:
            unite(self._transceivers["audio"], self._transceivers["video"])
        self._watching: asyncio.Task[None] | None = None
        self._closed: asyncio.Task[None] | None = None

    async def connect(self) -> str:
        """Answer the offer and begin to wait for the viewer; the answer's SDP.

        Raises:
            OfferInvalid: it cannot be answered; the viewer has ended.
        """
        if "video" in self._transceivers:
            prefer(self._transceivers["video"], None)
        try:
            answer = await self.answer(self.offer)
        except BaseException:
            self.end("no connection was made")
            raise
        if self.state != "ended":
            self._watching = asyncio.get_running_loop().create_task(self._watch(), name=f"viewer-{self.id}-watch")
        return answer

    def end(self, reason: str) -> None:
        """End now; later calls change nothing."""
        if self.state == "ended":
            return
        self.state = "ended"
        log.info("viewer %s of session %s left: %s", self.id, self.live.id, reason)
        for track in self._tracks.values():
            track.stop()
        self._closed = asyncio.get_running_loop().create_task(self._close_all(), name=f"viewer-{self.id}-close")
        self._on_end(self)

    async def closed(self) -> None:
        """Wait until nothing is left of an ended viewer."""
        if self._closed is not None:
            await asyncio.shield(self._closed)

    def _negotiated(self) -> None:
        for kind, transceiver in self._transceivers.items():
            serve_viewer(transceiver, self._tracks[kind])

    def _changed(self, state: str) -> None:
        if state == "connected" and self.state == "connecting":
            self.state = "live"
        elif state in ("failed", "closed"):
            self.end(f"the connection {state}")

    async def _watch(self) -> None:
        begun_s = heard_s = time.monotonic()
        received = -1
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            now_s = time.monotonic()
            if self.live.state == "ended":
                return self.end("what it watched has ended")
            if self.state == "connecting":
                heard_s = now_s
                if now_s - begun_s > self._timing.connect_timeout_s:
                    return self.end(f"it did not connect within {self._timing.connect_timeout_s:g} s")
                continue
            count = await self.count_received()
            if count != received:
                received, heard_s = count, now_s
            if now_s - heard_s > SILENT_S:
                return self.end(f"nothing came from it for {now_s - heard_s:.0f} s")

    async def _close_all(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.close()
        except Exception:
            log.exception("the connection of viewer %s did not close cleanly", self.id)


class Viewers:
    """All viewers of a server.

    Args:
        config: of the server; ``limits.viewers`` is the most at a time.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._open: dict[str, Viewer] = {}
        self._closing: set[Viewer] = set()
        self.total = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Viewer]:
        return iter(self._open.values())

    async def open(self, live: LiveAvatar, offer: Offer, rendition: Rendition = COLOUR) -> tuple[Viewer, str]:
        """Let a peer watch ``live``.

        Returns:
            the viewer and the SDP of its answer.

        Raises:
            ServerFull: too many look on already.
            OfferInvalid: it cannot be answered.
        """
        if len(self._open) >= self._config.limits.viewers:
            raise ServerFull(
                f"{len(self._open)} viewers are the most that this server serves: try again later", retry_after_s=10
            )
        viewer = Viewer(live, offer, rendition=rendition, config=self._config, on_end=self._forget)
        self._open[viewer.id] = viewer
        self.total += 1
        return viewer, await viewer.connect()

    def get(self, viewer_id: str) -> Viewer:
        """
        Raises:
            ViewerNotFound: unknown, or gone.
        """
        if viewer_id not in self._open:
            raise ViewerNotFound(f"there is no viewer {viewer_id[:40]!r}: it has left, or never was")
        return self._open[viewer_id]

    async def close(self) -> None:
        """End all and wait until nothing is left."""
        for viewer in list(self._open.values()):
            viewer.end("the server is stopping")
        await asyncio.gather(*(v.closed() for v in list(self._closing)), return_exceptions=True)

    def _forget(self, viewer: Viewer) -> None:
        self._open.pop(viewer.id, None)
        self._closing.add(viewer)
        closed = asyncio.get_running_loop().create_task(viewer.closed(), name=f"viewer-{viewer.id}-closed")
        closed.add_done_callback(lambda _: self._closing.discard(viewer))
