"""A live avatar that a publisher's sound makes speak, seen by whoever watches: WHIP's side of a session (RFC 9725).

It lives while its publisher does. Video that is published too is accepted, as section 4.4.3 asks, and never read:
the answer asks for next to none of it (``b=AS``), and what comes all the same is dropped before it is decoded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcrtpreceiver import RTCRtpReceiver

from server.jitter import pass_straight_through
from server.live_avatar import LiveAvatar, SessionOrder
from server.network import NetworkConfig
from server.session import CLOSE_TIMEOUT_S
from server.signaling import Connection, Offer
from server.sources import TrackSource

log = logging.getLogger(__name__)

UNREAD_KBPS = 30  # least that a browser's encoder takes seriously


class Publisher(Connection):
    """A peer whose sound is taken and who gets nothing back.

    Args:
        has_video: whether it offers video.
        network, changed, max_candidates: as of every ``Connection``.
    """

    def __init__(
        self,
        *,
        has_video: bool,
        network: NetworkConfig,
        changed: Callable[[str], None],
        max_candidates: int,
    ) -> None:
        super().__init__(network=network, changed=changed, max_candidates=max_candidates)
        self._sound = self._connection.addTransceiver("audio", "recvonly")
        pass_straight_through(self._sound.receiver)
        if has_video:
            leave_unread(self._connection.addTransceiver("video", "recvonly").receiver)

    @property
    def microphone(self) -> MediaStreamTrack:
        """The sound that is published; there once ``answer`` has returned."""
        return self._sound.receiver.track

    async def answer(self, offer: Offer, codec: str | None = None) -> str:
        return _ask_for_little_video(await super().answer(offer, codec))


class Publication(LiveAvatar):
    """A live avatar and the peer that publishes its sound."""

    def __init__(self, order: SessionOrder, **shared: Any) -> None:
        super().__init__(order, **shared)
        self._begun_s = self._heard_s = time.monotonic()
        self._received = 0
        self.publisher: Publisher | None = None
        self.offer: Offer | None = None

    async def publish(self, offer: Offer) -> str:
        """Answer the publisher's offer and begin to wait for it; the answer's SDP.

        Raises:
            OfferInvalid: it cannot be answered; the session has ended.
        """
        config = self._config
        self.offer = offer
        self.publisher = Publisher(
            has_video="video" in offer.kinds,
            network=config.network,
            changed=self._publisher_changed,
            max_candidates=config.limits.candidates,
        )
        try:
            answer = await self.publisher.answer(offer)
        except BaseException as error:
            self.end(f"no connection was made: {error}")
            raise
        self.begin()
        return answer

    def add_candidate(self, candidate: dict[str, Any] | None) -> None:
        if self.publisher is not None:
            self.publisher.add_candidate(candidate)

    def _publisher_changed(self, state: str) -> None:
        assert self.publisher is not None
        if state == "connected" and self.state == "connecting":
            self.attach(TrackSource(self.publisher.microphone))
            self.go_live()
        elif state == "failed":
            self.end(
                "the connection was lost" if self.state == "live" else "no network path to the publisher was found"
            )
        elif state == "closed":
            self.end("the publisher closed the connection")

    async def _look_after(self, now_s: float) -> None:
        assert self.publisher is not None
        if self.state == "connecting":
            if now_s - self._begun_s > self._timing.connect_timeout_s:
                self.end(f"the publisher did not connect within {self._timing.connect_timeout_s:g} s")
            self._heard_s = now_s
            return
        count = await self.publisher.count_received()
        if count != self._received:
            self._received, self._heard_s = count, now_s
        if now_s - self._heard_s > self._timing.vanish_timeout_s:
            self.end(f"nothing came from the publisher for {now_s - self._heard_s:.0f} s")

    async def _release(self) -> None:
        if self.publisher is None:
            return
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.publisher.close()
        except Exception:
            log.exception("the publisher of session %s did not close cleanly", self.id)


def leave_unread(receiver: RTCRtpReceiver) -> None:
    """Let no thread decode what ``receiver`` gets: its packets find nobody and are dropped. To be called before it
    starts."""

    async def receive_nothing(parameters: object) -> None:
        pass

    receiver.receive = receive_nothing  # type: ignore[method-assign]


def _ask_for_little_video(sdp: str) -> str:
    """An answer whose video section is limited to UNREAD_KBPS (RFC 8866, section 5.8: after ``c=``)."""
    head, video, rest = sdp.partition("m=video")
    if not video:
        return sdp
    lines = rest.split("\r\n")
    at = next((n + 1 for n, line in enumerate(lines) if line.startswith("c=")), 1)
    return head + video + "\r\n".join([*lines[:at], f"b=AS:{UNREAD_KBPS}", *lines[at:]])
