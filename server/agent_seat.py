"""The one place in a session from which a program speaks: its queue, its source, and who sits there.

Programs come and go; what they have sent is spoken to its end, unless they clear it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from server.errors import RequestInvalid, SourceTaken
from server.live_avatar import LiveAvatar, SessionOrder
from server.pcm_protocol import PcmProtocol
from server.session import Session
from server.sessions import Sessions
from server.signaling import Offer
from server.speech_queue import Marks, SpeechQueue
from server.speech_source import SpeechSource


class AgentSeat:
    """A session's place for a program.

    Args:
        capacity_ms: most speech that waits.
    """

    def __init__(self, capacity_ms: int) -> None:
        self.queue = SpeechQueue(Marks(capacity_ms=capacity_ms))
        self.source = SpeechSource(self.queue, tell=self._tell, pumped=self._pumped)
        self._protocol: PcmProtocol | None = None
        self._wake: Callable[[], None] | None = None
        self._room = asyncio.Event()

    @property
    def taken(self) -> bool:
        return self._protocol is not None

    def sit(self, protocol: PcmProtocol, wake: Callable[[], None]) -> None:
        """Speak from here, and be told: ``wake`` is called when ``protocol.outgoing`` has grown.

        Raises:
            SourceTaken: somebody else sits there.
        """
        if self.taken:
            raise SourceTaken("another program speaks through this session already: close its socket first")
        self._protocol, self._wake = protocol, wake

    def leave(self) -> None:
        """What has been sent is spoken to its end."""
        self.queue.end()
        self._protocol = self._wake = None

    async def some_room(self) -> None:
        """Until sound has come out of the queue."""
        self._room.clear()
        await self._room.wait()

    def _tell(self, message: dict[str, Any]) -> None:
        if self._protocol is not None and self._wake is not None:
            self._protocol.tell(message)
            self._wake()

    def _pumped(self, now_s: float) -> None:
        self._room.set()
        if self._protocol is not None and self._wake is not None:
            self._protocol.make_room(now_s)
            self._wake()


class AgentSession(LiveAvatar):
    """A live avatar that a program speaks through; viewers come by themselves, one by one.

    It is live at once. It ends when neither a program nor a viewer has been there for ``connect_timeout_s``.
    """

    def __init__(self, order: SessionOrder, **shared: Any) -> None:
        super().__init__(order, **shared)
        self.seat = AgentSeat(self._config.limits.speech_ms)
        self._alone_since_s: float | None = None
        self.attach(self.seat.source)

    async def _look_after(self, now_s: float) -> None:
        if self.seat.taken or self.broadcast.watched:
            self._alone_since_s = None
            return
        self._alone_since_s = self._alone_since_s or now_s
        patience_s = self._timing.connect_timeout_s
        if now_s - self._alone_since_s > patience_s:
            self.end(f"neither a program nor a viewer was there for {patience_s:g} s")


class SeenAgentSession(Session):
    """The same with a peer of its own that looks on; live when the peer has connected, and ends with it."""

    def __init__(self, order: SessionOrder, **shared: Any) -> None:
        super().__init__(order, **shared)
        self.seat = AgentSeat(self._config.limits.speech_ms)
        self.attach(self.seat.source)

    def _hear_peer(self) -> None:
        """It only looks on."""


async def open_live(
    sessions: Sessions,
    make_order: Callable[[], Coroutine[Any, Any, SessionOrder]],
    offer: Offer | None,
    *,
    by_program: bool,
    name: str | None = None,
) -> tuple[LiveAvatar, str | None]:
    """Open the kind of session that is asked for; without an offer there is no answer.

    Raises:
        VisavisError: as ``Sessions.open``.
    """
    if offer is not None:
        return await sessions.open(make_order, offer, SeenAgentSession if by_program else Session, name=name)
    live = await sessions.admit(make_order, AgentSession, name=name)
    live.begin()
    live.go_live()
    return live, None


def seat_of(live: LiveAvatar) -> AgentSeat:
    """The place for a program in a session.

    Raises:
        RequestInvalid: it has none: a peer's sound is heard there.
    """
    if isinstance(live, AgentSession | SeenAgentSession):
        return live.seat
    raise RequestInvalid(f'session {live.id} hears a microphone: open one with "source": "pcm" to speak by a program')
