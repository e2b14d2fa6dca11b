"""What lives as long as the server: the engine's worker, avatars, sessions, threads."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from engine.api import Avatar, Engine, StreamOptions
from engine.errors import VisavisError
from engine.mark import stamp
from engine.trace import Trace, TraceFile
from server.capacity import usable_cores
from server.check_peers import CheckPeers
from server.config import ServerConfig
from server.dtls import accept_rsa
from server.encoding import keep_to_one_thread, make_executor
from server.engine_worker import EngineWorker
from server.errors import EngineFailed, NotReady, RateLimited
from server.live_avatar import SessionOrder
from server.loop_lag import LoopLag
from server.relay_watch import RelayWatch
from server.rooms import Rooms
from server.sessions import Sessions
from server.shelves import Shelves
from server.viewer import Viewers

log = logging.getLogger(__name__)

MAX_WAITING_ENROLMENTS = 8
MAX_TRIED = 4  # avatars, to take the first steps with
T = TypeVar("T")


class House:
    """What lives as long as the server: engine worker, avatars, sessions, threads.

    Args:
        config: of the server.
        make_engine: makes the engine that ``config`` names.
    """

    def __init__(self, config: ServerConfig, make_engine: Callable[[], Engine]) -> None:
        loop = asyncio.get_running_loop()
        cores = usable_cores()
        keep_to_one_thread()
        accept_rsa()
        loop.set_default_executor(make_executor(cores))
        self.config = config
        self._trace_file = TraceFile(config.trace_file) if config.trace_file else None
        self.worker = EngineWorker(
            make_engine,
            slots=config.max_sessions,
            marked=config.marked,
            loop=loop,
            trace=Trace(sink=self._trace_file),
            cores=cores,
        )
        self.store = Shelves(config.data_folder, config.enrolled_folder)
        self.sessions = Sessions(self.worker, config)
        self.viewers = Viewers(config)
        self.rooms = Rooms(self)
        self.loop_lag = LoopLag(loop)
        self.check_peers = CheckPeers(config.network)
        self.relay_watch = RelayWatch(config.network)
        self.ready = asyncio.Event()
        self.failure: BaseException | None = None
        self._io = ThreadPoolExecutor(4, "visavis-io")
        self._enrolments = 0
        self._tasks: list[asyncio.Task[None]] = []

    def open(self) -> None:
        """Begin to load the engine, and to sweep."""
        self.worker.start()
        self.loop_lag.start()
        self.relay_watch.start()
        self.rooms.open()
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._prepare(), name="prepare"), loop.create_task(self._sweep(), name="sweep")]

    async def close(self) -> None:
        await self.rooms.close()
        await self.viewers.close()
        await self.sessions.close()
        await self.check_peers.close()
        await self.relay_watch.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.blocking(self.worker.close)
        self.loop_lag.stop()
        if self._trace_file is not None:
            await self.blocking(self._trace_file.close)
        self._io.shutdown(wait=True, cancel_futures=True)

    async def blocking(self, work: Callable[[], T]) -> T:
        """Run ``work`` on an I/O thread."""
        return await asyncio.get_running_loop().run_in_executor(self._io, work)

    def require_ready(self) -> None:
        """
        Raises:
            NotReady: the engine is still loading, or could not be loaded.
        """
        _ = self.worker.engine
        if not self.ready.is_set():
            raise NotReady("the engine is still warming up: try again in a few seconds", retry_after_s=3)

    async def get_avatar(self, avatar_id: str) -> Avatar:
        """An avatar that fits the engine; may enrol it again."""
        enroller = self.worker.enroller()
        return await self.blocking(lambda: self.store.get(avatar_id, enroller))

    async def make_order(self, avatar_id: str, options: StreamOptions, codec: str | None = None) -> SessionOrder:
        """What a live avatar is made from: the avatar, and its picture at rest with the mark on it."""
        avatar = await self.get_avatar(avatar_id)
        rest = await self.blocking(lambda: stamp(avatar.crop)) if self.config.marked else avatar.crop
        return SessionOrder(avatar_id=avatar_id, avatar=avatar, rest=rest, options=options, codec=codec)

    async def enrol(self, image: bytes) -> Avatar:
        """Make an avatar of an encoded picture.

        Raises:
            PortraitError: the picture is refused.
            RateLimited: too many wait already.
            EngineFailed: anything else.
        """
        if self._enrolments >= MAX_WAITING_ENROLMENTS:
            raise RateLimited("too many portraits are being enrolled: try again in a few seconds", retry_after_s=5)
        self._enrolments += 1
        try:
            avatar = await asyncio.wrap_future(self.worker.run(lambda engine: engine.enrol(image)))
            if self.worker.capacity is None:
                await self._warm_up(avatar)
            return avatar
        except VisavisError:
            raise
        except Exception as error:
            log.exception("an enrolment failed")
            raise EngineFailed("the portrait could not be enrolled: the engine failed; see the server's log") from error
        finally:
            self._enrolments -= 1

    async def _prepare(self) -> None:
        """Load, enrol the default portrait, take the first slow steps with it or, where it cannot be used, with
        another one; then the server is ready."""
        try:
            await asyncio.wrap_future(self.worker.loaded)
        except Exception as error:
            self.failure = error
            return
        for record in (await self.blocking(self.store.list))[:MAX_TRIED]:
            try:
                await self._warm_up(await self.get_avatar(record.id))
                break
            except FileNotFoundError as error:
                log.error("the default portrait is missing (%s); uploaded ones still work", error.filename)
            except Exception:
                log.exception("avatar %s could not be used; others may still work", record.id)
        else:
            log.warning("no avatar is there to measure with: one session at a time, until one has been enrolled")
        self.ready.set()
        log.info("ready: engine %s on %s", self.config.engine, self.worker.engine.backend)

    async def _warm_up(self, avatar: Avatar) -> None:
        await asyncio.wrap_future(self.worker.warm_up(avatar))

    async def _sweep(self) -> None:
        while True:
            try:
                if removed := await self.blocking(lambda: self.store.sweep(time.time())):
                    log.info("%d avatars were removed: their time was over", removed)
            except Exception:
                log.exception("expired avatars could not be removed; trying again")
            await asyncio.sleep(self.config.sweep_every_s)
