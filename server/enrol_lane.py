"""Enrolling beside live sessions: a second engine on a thread of its own, and the way to it from other threads.

An enrolment takes the better part of a second. The engine's own thread (``engine_worker.py``) spares it
only while nobody is live; else the work goes down this lane, whose thread has low priority.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from engine.api import Avatar, Engine, EngineSpec
from engine.errors import VisavisError
from server.errors import EngineFailed, NotReady

log = logging.getLogger(__name__)

NICENESS = 10
T = TypeVar("T")


class EnrolLane:
    """One thread with low priority and an engine of its own, both made when first needed.

    Its queue is bounded by its callers: MAX_WAITING_ENROLMENTS uploads (``house.py``), one more for each I/O thread.

    Args:
        make_engine: called on the lane's thread.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._make_engine = make_engine
        self._engine: Engine | None = None
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, job: Callable[[Engine], T], future: Future[T]) -> None:
        """Run ``job`` after those before it and settle ``future``. Not thread-safe: one caller at a time."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "visavis-enrol", initializer=_lower_priority)
        place = self._thread.submit(lambda: settle(future, lambda: job(self._own_engine())))
        place.add_done_callback(lambda done: refuse(future) if done.cancelled() else None)

    def close(self) -> None:
        """Wait for the job that is going on; those that wait are refused."""
        if self._thread is not None:
            self._thread.shutdown(wait=True, cancel_futures=True)
        if self._engine is not None:
            self._engine.close()

    def _own_engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine


class Enroller:
    """Enrols for ``AvatarStore``, and blocks until it is done. Not for an engine's thread nor
    the loop's.

    Args:
        spec, fingerprint: of the engine that ``run`` leads to.
        run: ``EngineWorker.run``.
    """

    def __init__(self, spec: EngineSpec, fingerprint: str, run: Callable[[Callable[[Engine], Avatar]], Future]) -> None:
        self.spec = spec
        self.fingerprint = fingerprint
        self._run = run

    def enrol(self, image: bytes) -> Avatar:
        try:
            return self._run(lambda engine: engine.enrol(image)).result()
        except VisavisError:
            raise
        except Exception as error:
            log.exception("an enrolment failed")
            raise EngineFailed("the portrait could not be enrolled: the engine failed; see the server's log") from error


def settle(future: Future[T], work: Callable[[], T]) -> None:
    """Give ``future`` what ``work`` gives or raises; a cancelled one is left out."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)


def refuse(future: Future[Any]) -> None:
    """Tell who waits that nothing is begun any more."""
    if future.set_running_or_notify_cancel():
        future.set_exception(NotReady("the server is stopping", retry_after_s=5))


def _lower_priority() -> None:
    if hasattr(os, "setpriority"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # Linux: this thread only
