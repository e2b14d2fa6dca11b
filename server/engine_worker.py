"""The one thread that touches the engine: it loads it, steps it for all sessions, and hands frames back.

Sound comes in as hops, frames go out by ``call_soon_threadsafe``; nobody else ever waits for the engine.
Portraits are enrolled on the same thread while no session is live, else beside it (``enrol_lane.py``), so
that no picture freezes for the better part of a second.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np

from engine.api import Avatar, Engine, EngineSpec, StepRow, StreamOptions, StreamState
from engine.batch import Turn, Waiting, plan_step
from engine.errors import VisavisError
from engine.mark import stamp
from engine.trace import Trace
from server.enrol_lane import EnrolLane, Enroller, refuse, settle
from server.errors import EngineFailed, NotReady

log = logging.getLogger(__name__)

INBOX_HOPS = 25  # one second of unheard sound per stream; beyond it the oldest is dropped
WARM_STEPS = 4  # of each size
STEP_BUDGET_S = 0.02  # a step takes no more rows than it can draw in so long: the first must not wait for the last
LOAD = 0.75  # of the engine's time that sessions may fill, where the operator set no number
T = TypeVar("T")


class Stream:
    """One session's place in the engine. Made by ``EngineWorker.add``; thread-safe through it.

    Args:
        slot: index into the engine's state.
        avatar: may be changed at any time.
        options: of the stream; a change takes effect with ``EngineWorker.set_options``.
        due_s: frame index -> wall time (monotonic) at which it must leave.
        deliver: called on the event loop with (frame index, uint8 [S, S, 3], ms since its hop came).
        fail: called on the event loop with the error that ends this stream.
    """

    def __init__(
        self,
        *,
        slot: int,
        avatar: Avatar,
        options: StreamOptions,
        due_s: Callable[[int], float],
        deliver: Callable[[int, np.ndarray, float], None],
        fail: Callable[[VisavisError], None],
    ) -> None:
        self.slot = slot
        self.avatar = avatar
        self.options = options
        self.due_s = due_s
        self.deliver = deliver
        self.fail = fail
        self.inbox: deque[tuple[int, np.ndarray, float]] = deque(maxlen=INBOX_HOPS)  # hop, [640], came at
        self.needs_reset = True
        self.needs_adjust = False
        self.removed = False


class EngineWorker:
    """Owns an engine and its thread.

    Args:
        make_engine: makes the engine; called on the worker's thread, and once more if portraits are
            enrolled while sessions are live.
        slots: most streams at a time; None: as many as the engine draws in time, measured in ``warm_up``.
        marked: stamp the visible mark on every frame.
        loop: where frames are delivered.
        now: wall time in seconds, monotonic; the same that ``due_s`` of the streams means.
        trace: where the thread's spans go.
    """

    def __init__(
        self,
        make_engine: Callable[[], Engine],
        *,
        slots: int | None,
        marked: bool,
        loop: asyncio.AbstractEventLoop,
        now: Callable[[], float] = time.monotonic,
        trace: Trace | None = None,
    ) -> None:
        self.trace = trace or Trace()
        self.loaded: Future[EngineSpec] = Future()
        self._make_engine = make_engine
        self._wanted_slots = slots
        self._slots = 0
        self._marked = marked
        self._loop = loop
        self._now = now
        self._engine: Engine | None = None
        self._state: StreamState | None = None
        self._streams: dict[int, Stream] = {}
        self._free: list[int] = []
        self._jobs: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._closing = False
        self._changed = threading.Condition()
        self._row_s = 0.0  # time to draw one row, running average
        self._thread = threading.Thread(target=self._run, name="visavis-engine", daemon=True)
        self._lane = EnrolLane(make_engine)

    # ---- any thread ------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to load the engine; ``loaded`` tells when, or why not."""
        self._thread.start()

    @property
    def engine(self) -> Engine:
        """The loaded engine, for its ``spec``, ``fingerprint`` and ``backend`` only.

        Raises:
            NotReady: it is still loading, or could not be loaded.
        """
        if self.loaded.done() and (error := self.loaded.exception()) is not None:
            raise NotReady(f"the engine could not be loaded: {error}", retry_after_s=60)
        if self._engine is None:
            raise NotReady("the engine is still loading: try again in a few seconds", retry_after_s=3)
        return self._engine

    @property
    def slots(self) -> int:
        """Most streams at a time; 0 until the engine is loaded."""
        return self._slots

    def add(
        self,
        avatar: Avatar,
        options: StreamOptions,
        *,
        due_s: Callable[[int], float],
        deliver: Callable[[int, np.ndarray, float], None],
        fail: Callable[[VisavisError], None],
    ) -> Stream:
        """Begin a stream. The caller sees to it that there are never more than ``slots``."""
        with self._changed:
            slot = self._free.pop()
            stream = Stream(slot=slot, avatar=avatar, options=options, due_s=due_s, deliver=deliver, fail=fail)
            self._streams[slot] = stream
        return stream

    def push(self, stream: Stream, hop: int, samples: np.ndarray) -> None:
        """Let ``stream`` hear hop ``hop``, float32 [640]; hops come in order. Never blocks."""
        with self._changed:
            if not stream.removed:
                stream.inbox.append((hop, samples, self._now()))
                self._changed.notify()

    def set_options(self, stream: Stream, options: StreamOptions) -> None:
        """Change a stream's options from its next frame on."""
        with self._changed:
            stream.options, stream.needs_adjust = options, True

    def remove(self, stream: Stream) -> None:
        """End a stream and free its slot; nothing is delivered to it afterwards. May be repeated."""
        with self._changed:
            if not stream.removed:
                stream.removed = True
                stream.inbox.clear()
                del self._streams[stream.slot]
                self._free.append(stream.slot)

    def run(self, job: Callable[[Engine], T]) -> Future[T]:
        """Run ``job`` on a thread that owns an engine: this one while nobody is live, else the enrolling one."""
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                refuse(future)
            elif self._streams:
                self._lane.submit(job, future)
            else:
                self._jobs.append((job, future))
                self._changed.notify()
        return future

    def enroller(self) -> Enroller:
        """For ``AvatarStore``: enrols from any other thread."""
        return Enroller(self.engine.spec, self.engine.fingerprint, self.run)

    def close(self) -> None:
        """Stop the threads; waits for the step or enrolment that is going on."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._lane.close()
        if self._thread.ident is not None:
            self._thread.join()
        if self._engine is not None:
            self._engine.close()

    # ---- the engine's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            engine = self._make_engine()
            slots = self._wanted_slots or engine.spec.max_batch
            self._state = engine.init_state(slots)
        except Exception as error:
            log.exception("the engine could not be loaded")
            self.loaded.set_exception(error)
            return
        with self._changed:
            self._slots, self._free, self._engine = slots, list(reversed(range(slots))), engine
        self.loaded.set_result(engine.spec)
        while self._wait():
            if self._jobs:  # one, then a step: a session may have gone live while several waited
                job, future = self._jobs.popleft()
                settle(future, lambda job=job: job(engine))  # type: ignore[misc]
            try:
                self._tick(engine)
            except Exception as error:  # an engine that breaks its contract must not stop this thread for ever
                self._fail_all(error)
        while self._jobs:
            refuse(self._jobs.popleft()[1])

    def _wait(self) -> bool:
        """Until there is something to do; False when closing."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._jobs or any(s.inbox for s in self._streams.values()))
            return not self._closing

    def _tick(self, engine: Engine) -> None:
        spec = engine.spec
        with self._changed:
            waiting = [
                Waiting(
                    slot=stream.slot,
                    key=_key_of(engine, stream),
                    hops=len(stream.inbox),
                    due_s=stream.due_s(spec.frame_after(stream.inbox[0][0] + 1)),
                )
                for stream in self._streams.values()
                if stream.inbox
            ]
            turns = plan_step(
                waiting,
                now_s=self._now(),
                step_s=self._row_s,
                hop_s=1 / spec.fps,
                max_batch=min(spec.max_batch, max(1, int(STEP_BUDGET_S / max(1e-6, self._row_s)))),
            )
            taken = [self._take(turn) for turn in turns]
        if taken:
            self._step(engine, taken)

    def _take(self, turn: Turn) -> _Taken:
        """A turn's sound, out of its inbox. Under the lock."""
        stream = self._streams[turn.slot]
        heard = [stream.inbox.popleft() for _ in range(turn.hops)]
        reset, stream.needs_reset = stream.needs_reset, False
        adjust, stream.needs_adjust = stream.needs_adjust and not reset, False
        samples = np.concatenate([samples for _, samples, _ in heard])
        row = StepRow(slot=stream.slot, avatar=stream.avatar, samples=samples)
        return _Taken(stream, row, hops=heard[-1][0] + 1, came_s=heard[-1][2], reset=reset, adjust=adjust)

    def _step(self, engine: Engine, taken: Sequence[_Taken]) -> None:
        assert self._state is not None
        begun_s = self._now()
        try:
            for one in taken:
                if one.reset:
                    self._state.reset(one.stream.slot, one.stream.options)
                elif one.adjust:
                    self._state.adjust(one.stream.slot, one.stream.options)
            step_s = self._now()
            drawn = {one.stream.slot: engine.spec.frame_after(one.hops) for one in taken}
            with self.trace.span("step", frames=drawn):
                frames = engine.step([one.row for one in taken], self._state)
        except Exception as error:
            self._part(engine, taken, error)
            return
        for stage, ms in engine.stage_ms.items():  # of all rows together: laid end to end
            self.trace.add(f"step.{stage}", ms, start_s=step_s)
            step_s += ms / 1000
        self._row_s += 0.1 * ((self._now() - begun_s) / len(taken) - self._row_s)
        for one, frame in zip(taken, frames, strict=True):
            self._hand_back(engine.spec.frame_after(one.hops), one, frame)

    def _part(self, engine: Engine, taken: Sequence[_Taken], error: Exception) -> None:
        """A step failed: step each row alone, so that only those that cause it end."""
        if len(taken) > 1:
            for one in taken:
                self._step(engine, [one])
            return
        log.error("a step of slot %d failed", taken[0].stream.slot, exc_info=error)
        failure = error if isinstance(error, VisavisError) else EngineFailed(f"the engine failed: {error!r}")
        self._call(taken[0].stream.fail, failure)
        self.remove(taken[0].stream)

    def _fail_all(self, error: Exception) -> None:
        log.error("the engine's thread failed outside a step; all its sessions end", exc_info=error)
        with self._changed:
            streams = list(self._streams.values())
        for stream in streams:
            self._call(stream.fail, EngineFailed(f"the engine failed: {error!r}"))
            self.remove(stream)

    def _hand_back(self, index: int, one: _Taken, frame: np.ndarray) -> None:
        if index < 0:
            return  # before the sound began
        if self._marked:
            with self.trace.span("mark"):
                frame = stamp(frame)
        latency_ms = (self._now() - one.came_s) * 1000
        self.trace.add("hop_to_frame", latency_ms, start_s=one.came_s, slot=one.stream.slot, frame=index)
        self._call(self._deliver, one.stream, index, frame, latency_ms)

    def _deliver(self, stream: Stream, index: int, frame: np.ndarray, latency_ms: float) -> None:
        if not stream.removed:
            stream.deliver(index, frame, latency_ms)

    def _call(self, function: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:  # the loop has closed: the server is stopping
            log.debug("a frame came after the end")

    def warm_up(self, avatar: Avatar) -> Future[None]:
        """Step a few times before anybody waits: first steps allocate and compile. Measures how many fit."""

        def warm(engine: Engine) -> None:
            if self._streams or self._state is None:
                return  # somebody is live already; nothing is left to warm
            silence = np.zeros(engine.spec.hop_samples, np.float32)
            row_s = []
            for count in sorted({1, min(4, engine.spec.max_batch, self._slots)}):
                rows = [StepRow(slot=slot, avatar=avatar, samples=silence) for slot in range(count)]
                for row in rows:
                    self._state.reset(row.slot, StreamOptions())
                for _ in range(WARM_STEPS):
                    begun_s = self._now()
                    engine.step(rows, self._state)
                    row_s.append((self._now() - begun_s) / count)
            self._row_s = max(1e-6, min(row_s))
            if self._row_s > 1 / engine.spec.fps:
                log.warning(
                    "a frame takes %.0f ms to draw, too long for %d a second: the picture will lose frames",
                    self._row_s * 1000,
                    engine.spec.fps,
                )
            if self._wanted_slots is None:
                self._limit_slots(int(LOAD / engine.spec.fps / self._row_s))

        return self.run(warm)

    def _limit_slots(self, fit: int) -> None:
        with self._changed:
            self._slots = max(1, min(self._slots, fit))
            self._free = [slot for slot in self._free if slot < self._slots]
        log.info("a frame takes %.1f ms to draw; sessions at a time: %d", self._row_s * 1000, self._slots)


class _Taken:
    """A row on its way through a step."""

    def __init__(self, stream: Stream, row: StepRow, *, hops: int, came_s: float, reset: bool, adjust: bool) -> None:
        self.stream = stream
        self.row = row
        self.hops = hops  # heard by the stream, this row's included
        self.came_s = came_s  # when the newest of them came
        self.reset = reset  # begin anew first
        self.adjust = adjust  # take new options first


def _key_of(engine: Engine, stream: Stream) -> Hashable:
    try:
        return engine.batch_key(stream.avatar)
    except Exception:
        return stream  # steps alone, and fails there where it can be told apart
