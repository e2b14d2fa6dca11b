"""All live avatars of a server: who may begin, who is there, why those that were there ended."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from server.config import ServerConfig
from server.engine_worker import EngineWorker
from server.errors import NameTaken, ServerFull, SessionNotFound
from server.live_avatar import LiveAvatar, SessionOrder
from server.session import Session
from server.signaling import Offer

REMEMBERED = 100  # ended sessions whose reason can still be asked for

L = TypeVar("L", bound=LiveAvatar)


class Sessions:
    """The sessions of a server: as many as fit, counted at the start and again, at the machine's present speed, for
    each new one. The first is always let in.

    Args:
        worker: draws the frames of all.
        config: of the server.
    """

    def __init__(self, worker: EngineWorker, config: ServerConfig) -> None:
        self._worker = worker
        self._config = config
        self._open: dict[str, LiveAvatar] = {}
        self._names: dict[str, LiveAvatar | None] = {}  # None: taken by a request that has no session yet
        self._pending = 0  # places taken by requests that have no session yet
        self._ended: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._closing: set[LiveAvatar] = set()
        self.total = 0
        self.refused = {"places": 0, "pace": 0}  # offers, by what was missing

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[LiveAvatar]:
        return iter(self._open.values())

    @property
    def limit(self) -> int:
        return self._worker.slots

    async def open(
        self,
        make_order: Callable[[], Coroutine[Any, Any, SessionOrder]],
        offer: Offer,
        kind: type[Session] = Session,
        *,
        name: str | None = None,
    ) -> tuple[Session, str]:
        """Open a session of one peer: its place is taken first, then its order made, then its offer answered.

        Returns:
            the session and the SDP of its answer.

        Raises:
            ServerFull: every place is taken, or the machine is too slow now to take one more.
            VisavisError: whatever ``make_order`` or the answer raise.
        """
        session = await self.admit(make_order, kind, name=name)
        return session, await session.connect(offer)

    async def admit(
        self, make_order: Callable[[], Coroutine[Any, Any, SessionOrder]], kind: type[L], *, name: str | None = None
    ) -> L:
        """Take a place, make the order, and make a live avatar of ``kind`` from it. It is in state ``connecting``:
        who asked for it attaches a source, calls ``begin`` and ``go_live``, and sees to it that it ends.

        Args:
            make_order: what to make it from; called once its place is taken.
            kind: its class.
            name: under which ``find`` knows it too, while it lives.

        Raises:
            NameTaken: a live one is called so.
            ServerFull: every place is taken, or the machine is too slow now to take one more.
            VisavisError: whatever ``make_order`` raises.
        """
        if name is not None and name in self._names:
            raise NameTaken(f"a session is called {name!r} already: choose another name, or end that one first")
        self._check_room()
        self._pending += 1
        if name is not None:
            self._names[name] = None
        try:
            order = await make_order()
            live = kind(
                order,
                worker=self._worker,
                spec=self._worker.engine.spec,
                config=self._config,
                on_end=self._forget,
                name=name,
            )
            self._open[live.id] = live
            if name is not None:
                self._names[name] = live
        finally:
            self._pending -= 1
            if name is not None and self._names[name] is None:
                del self._names[name]
        self.total += 1
        return live

    def _check_room(self) -> None:
        taken = len(self._open) + self._pending
        if taken >= self.limit:
            self.refused["places"] += 1
            raise ServerFull(f"all {self.limit} places on this server are taken: try again later", retry_after_s=5)
        if taken and taken >= self._worker.fit_now():
            self.refused["pace"] += 1
            raise ServerFull(
                f"the server has {self.limit} places, but is busier now than at its start and can just serve the "
                f"{taken} that are taken: try again later",
                retry_after_s=10,
            )

    def get(self, session_id: str) -> LiveAvatar:
        """A session that has not ended.

        Raises:
            SessionNotFound: unknown or ended; says why it ended.
        """
        if session_id in self._open:
            return self._open[session_id]
        if session_id in self._ended:
            raise SessionNotFound(f"session {session_id} has ended: {self._ended[session_id]['reason']}")
        raise SessionNotFound(f"there is no session {session_id[:40]!r}: open one with POST /v1/sessions")

    def find(self, name: str) -> LiveAvatar:
        """A session that has not ended, by its name or its id.

        Raises:
            SessionNotFound: unknown or ended; says why it ended.
        """
        return self._names.get(name) or self.get(name)

    def describe(self, session_id: str) -> dict[str, Any]:
        """As ``Session.describe``, also for one that ended a while ago."""
        if session_id in self._ended:
            return self._ended[session_id]
        return self.get(session_id).describe()

    async def close(self) -> None:
        """End all and wait until nothing is left."""
        for session in list(self._open.values()):
            session.end("the server is stopping")
        await asyncio.gather(*(s.closed() for s in list(self._closing)), return_exceptions=True)

    def _forget(self, session: LiveAvatar) -> None:
        self._open.pop(session.id, None)
        if session.name is not None:
            self._names.pop(session.name, None)
        self._ended[session.id] = session.describe()
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        self._closing.add(session)
        closed = asyncio.get_running_loop().create_task(session.closed(), name=f"session-{session.id}-closed")
        closed.add_done_callback(lambda _: self._closing.discard(session))
