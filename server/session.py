"""A live avatar and the one peer that is both its microphone and its viewer, from the offer to the end.

A session is ended by DELETE, by its peer closing, failing or falling silent on the wire, by the engine
failing for it, or by the server stopping.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from server.live_avatar import LiveAvatar, SessionOrder
from server.signaling import Offer, Peer
from server.sources import TrackSource

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 10.0  # a relay that has gone would hold a closing connection, and a stopping server, for minutes


class Session(LiveAvatar):
    """A live avatar with a peer of its own, which has encoders of its own."""

    def __init__(self, order: SessionOrder, **shared: Any) -> None:
        super().__init__(order, **shared)
        self._codec = order.codec
        audio, video = self.make_tracks()
        self._peer = Peer(
            audio,
            video,
            network=self._config.network,
            changed=self._peer_changed,
            max_candidates=self._config.limits.candidates,
        )
        self._begun_s = self._heard_s = time.monotonic()
        self._received = 0

    async def connect(self, offer: Offer) -> str:
        """Answer the offer and begin to wait for the peer; the answer's SDP.

        Raises:
            OfferInvalid: it cannot be answered; the session has ended.
        """
        try:
            answer = await self._peer.answer(offer, self._codec)
        except BaseException as error:
            self.end(f"no connection was made: {error}")
            raise
        self.begin()
        return answer

    def add_candidate(self, candidate: dict[str, Any] | None) -> None:
        self._peer.add_candidate(candidate)

    def _peer_changed(self, state: str) -> None:
        if state == "connected" and self.state == "connecting":
            self._hear_peer()
            self.go_live()
        elif state == "failed":
            self.end("the connection was lost" if self.state == "live" else "no network path to the peer was found")
        elif state == "closed":
            self.end("the peer closed the connection")

    def _hear_peer(self) -> None:
        self.attach(TrackSource(self._peer.microphone))

    async def _look_after(self, now_s: float) -> None:
        if self.state == "connecting":
            if now_s - self._begun_s > self._timing.connect_timeout_s:
                self.end(f"the peer did not connect within {self._timing.connect_timeout_s:g} s")
            self._heard_s = now_s
            return
        count = await self._peer.count_received()
        if count != self._received:
            self._received, self._heard_s = count, now_s
        orphan = self._had_socket and not self._outboxes
        patience_s = self._timing.orphan_timeout_s if orphan else self._timing.vanish_timeout_s
        if now_s - self._heard_s > patience_s:
            self.end(f"nothing came from the peer for {now_s - self._heard_s:.0f} s")

    async def _release(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._peer.close()
        except Exception:
            log.exception("the connection of session %s did not close cleanly", self.id)
