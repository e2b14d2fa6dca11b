"""The threads that touch the engine: one loads it, as many as it has lanes step it for all sessions.

Each lane takes the most urgent stream that no other lane is stepping, so that nobody waits for a step to end while a
core is free; an engine of one lane takes all streams that may share a step.

Sound comes in as hops, frames go out by ``call_soon_threadsafe``; nobody else ever waits for the engine.
Portraits are enrolled on the same thread while no session is live, else beside it (``enrol_lane.py``), so
that no picture freezes for the better part of a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from engine.api import Avatar, Engine, EngineSpec, StreamOptions, StreamState
from engine.batch import fill, plan
from engine.errors import VisavisError
from engine.lanes import APART_S
from engine.mark import stamp, stamp_cutout
from engine.thrift import Thrift
from engine.trace import Trace
from server.capacity import Capacity, plan_capacity, usable_cores
from server.enrol_lane import EnrolLane, Enroller, refuse, settle
from server.errors import EngineFailed, NotReady
from server.row_time import Measured, RowTime, measure
from server.stream import Hop, Stream, Taken

log = logging.getLogger(__name__)

T = TypeVar("T")


class EngineWorker:
    """Owns an engine and its thread.

    Args:
        make_engine: makes the engine; called on the worker's thread, and once more if portraits are
            enrolled while sessions are live.
        slots: most streams at a time; None: as many as this machine carries, measured in ``warm_up``.
        marked: stamp the visible mark on every frame.
        loop: where frames are delivered.
        now: wall time in seconds, monotonic; the same that ``due_s`` of the streams means.
        trace: where the thread's spans go.
        cores: that may be used; None: those of this machine or container.
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
        cores: float | None = None,
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
        self._cores = usable_cores() if cores is None else cores
        self._row_time = RowTime()
        self._thrift = Thrift(0, now_s=now())
        self._met_s = -math.inf  # when two lanes were last seen to step at once
        self._row_cpu_s: Mapping[int, float] = {}  # rows of a step -> processor seconds for each, at the start
        self._capacity: Capacity | None = None
        self._thread = threading.Thread(target=self._run, name="visavis-engine", daemon=True)
        self._more: list[threading.Thread] = []  # of the engine's further lanes
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
        """Most streams at a time; 0 until the engine is loaded, 1 until it is known how many fit."""
        return self._slots

    @property
    def capacity(self) -> Capacity | None:
        """How many sessions fit, measured at the start; None before."""
        return self._capacity

    def fit_now(self) -> int:
        """How many sessions fit at the machine's present speed; 0 while anything is saved for those inside.

        The operator's own number, where there is one, is not doubted.
        """
        with self._changed:
            if self._wanted_slots is not None or self._capacity is None:
                return self._slots
            if self._thrift.index:
                return 0
            return self._count_sessions(self._row_time.row_s).sessions

    def pace(self) -> Pace:
        """How it keeps up, for the metrics."""
        with self._changed:
            return Pace(
                level=self._thrift.index,
                levels=tuple(level.name for level in self._thrift.levels),
                seconds=self._thrift.seconds(self._now()),
                drawn=tuple(self._thrift.drawn),
                slowness=self._row_time.slowness,
            )

    def add(
        self,
        avatar: Avatar,
        options: StreamOptions,
        *,
        due_s: Callable[[int], float],
        deliver: Callable[[int, np.ndarray, float], None],
        fail: Callable[[VisavisError], None],
        spare: Callable[[int], None] = lambda index: None,
        deliver_cutout: Callable[[int, np.ndarray], None] = lambda index, cutout: None,
    ) -> Stream:
        """Begin a stream. The caller sees to it that there are never more than ``slots``."""
        with self._changed:
            slot = self._free.pop()
            stream = self._streams[slot] = Stream(
                slot=slot,
                avatar=avatar,
                options=options,
                due_s=due_s,
                deliver=deliver,
                spare=spare,
                fail=fail,
                deliver_cutout=deliver_cutout,
            )
        return stream

    def push(self, stream: Stream, hop: int, samples: np.ndarray) -> None:
        """Let ``stream`` hear hop ``hop``, float32 [640]; hops come in order. Never blocks."""
        frame = self.engine.spec.frame_after(hop + 1)
        with self._changed:
            if stream.removed:
                return
            # Half of the streams leave out even frames, the others odd ones: so the load is even.
            spared = self._thrift.level.halved and (frame + stream.slot) % 2 == 1
            stream.inbox.append(Hop(hop, samples, self._now(), spared))
            self._changed.notify_all()
        if spared and frame >= 0:
            self._call(stream.spare, frame)

    def hush(self, stream: Stream) -> None:
        """Begin a new epoch: what ``stream`` has been told becomes silence, whether the engine has heard it or not, and
        no frame that was drawn of it is delivered any more. Never blocks."""
        with self._changed:
            stream.epoch += 1
            stream.needs_hush = True
            silent = [hop._replace(samples=np.zeros_like(hop.samples)) for hop in stream.inbox]
            stream.inbox.clear()
            stream.inbox.extend(silent)

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
                if not stream.stepping:
                    self._free.append(stream.slot)
                if not self._streams:
                    self._thrift.rest(self._now())

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
                self._changed.notify_all()
        return future

    def enroller(self) -> Enroller:
        """For ``AvatarStore``: enrols from any other thread."""
        return Enroller(self.engine.spec, self.engine.fingerprint, self.run)

    def close(self) -> None:
        """Stop the threads; waits for the step or enrolment that is going on."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._lane.close()
        if self._thread.ident is not None:
            self._thread.join()
        for thread in self._more:
            thread.join()
        if self._engine is not None:
            self._engine.close()

    # ---- the engine's thread ---------------------------------------------------------------------

    def _run(self) -> None:
        try:
            engine = self._make_engine()
            # More by one for each lane: a stream that is removed keeps its slot until its step is over.
            places = (self._wanted_slots or engine.spec.max_batch) + engine.lanes
            self._state = engine.init_state(places)
        except Exception as error:
            log.exception("the engine could not be loaded")
            self.loaded.set_exception(error)
            return
        with self._changed:
            self._slots = self._wanted_slots or 1  # until it is known how many fit
            self._free, self._engine = list(reversed(range(places))), engine
            self._thrift = Thrift(engine.spec.thrift_levels, now_s=self._now())
        self._more = [
            threading.Thread(target=self._keep_stepping, args=(engine,), name=f"visavis-engine-{n}", daemon=True)
            for n in range(1, engine.lanes)
        ]
        for thread in self._more:
            thread.start()
        self.loaded.set_result(engine.spec)
        self._keep_stepping(engine, jobs=True)
        while self._jobs:
            refuse(self._jobs.popleft()[1])

    def _keep_stepping(self, engine: Engine, *, jobs: bool = False) -> None:
        """One lane's work until the end; ``jobs``: these too."""
        while self._wait(jobs):
            if jobs and self._jobs:  # one, then a step: a session may have gone live while several waited
                job, future = self._jobs.popleft()
                settle(future, lambda job=job: job(engine))  # type: ignore[misc]
            try:
                self._tick(engine)
            except Exception as error:  # an engine that breaks its contract must not stop this thread for ever
                self._fail_all(error)

    def _wait(self, jobs: bool) -> bool:
        """Until there is something to do; False when closing."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closing or (jobs and self._jobs) or any(s.wants_frame for s in self._streams.values())
            )
            return not self._closing

    def _tick(self, engine: Engine) -> None:
        spec = engine.spec
        with self._changed:
            step = plan(
                [stream.waiting(engine) for stream in self._streams.values() if stream.inbox and not stream.stepping],
                now_s=self._now(),
                step_s=self._row_time.now_s,
                hop_s=1 / spec.fps,
                max_batch=1 if engine.lanes > 1 else min(spec.max_batch, self._row_time.most_rows),
                buckets=spec.buckets,
            )
            thrift = self._thrift.level.drawing
            taken = [self._streams[turn.slot].take(turn, thrift) for turn in step.turns]
            if taken and sum(stream.stepping for stream in self._streams.values()) > len(taken):
                self._met_s = self._now()
        try:
            if taken:
                self._step(engine, taken, step.size)
        finally:
            with self._changed:
                for one in taken:
                    one.stream.stepping = False
                    if one.stream.removed:  # meanwhile: nobody else was to touch its slot
                        self._free.append(one.stream.slot)
                self._changed.notify_all()

    def _step(self, engine: Engine, taken: Sequence[Taken], size: int) -> None:
        assert self._state is not None
        try:
            for one in taken:
                if one.reset:
                    self._state.reset(one.stream.slot, one.stream.options)
                elif one.adjust:
                    self._state.adjust(one.stream.slot, one.stream.options)
                if one.hush:
                    self._state.hush(one.stream.slot)
            step_s = self._now()
            drawn = {one.stream.slot: engine.spec.frame_after(one.hops) for one in taken}
            rows = fill([one.row for one in taken], size, engine.spec.hop_samples)
            frames = engine.step(rows, self._state)
            ready_s = self._now()
            took_s = ready_s - step_s
            self.trace.add("step", took_s * 1000, start_s=step_s, frames=drawn)
        except Exception as error:
            self._part(engine, taken, error)
            return
        for stage, ms in engine.stage_ms.items():  # of all rows together: laid end to end
            self.trace.add(f"step.{stage}", ms, start_s=step_s)
            step_s += ms / 1000
        with self._changed:
            beside = step_s - self._met_s <= APART_S
            self._row_time.note(size, took_s, rows=len(taken), full=not taken[0].row.thrift, beside=beside)
        for one, frame in zip(taken, frames[: len(taken)], strict=True):
            self._hand_back(engine.spec.frame_after(one.hops), one, frame)
        self._note(engine, taken, ready_s, took_s)

    def _note(self, engine: Engine, taken: Sequence[Taken], ready_s: float, took_s: float) -> None:
        """Tell ``thrift`` how a step kept up."""
        counts = [one.count_late(engine, ready_s) for one in taken]
        with self._changed:
            before = self._thrift.level
            self._thrift.note(
                ready_s,
                drawn=len(taken),
                late=sum(late for late, _ in counts),
                missed=sum(missed for _, missed in counts),
                busy_s=took_s / max(1, min(engine.lanes, len(self._streams))),  # of the lanes that have something to do
            )
            level = self._thrift.level
        if level is not before:
            log.info("frames are drawn at level %s now, %s before", level.name, before.name)

    def _part(self, engine: Engine, taken: Sequence[Taken], error: Exception) -> None:
        """A step failed: step each row alone, so that only those that cause it end."""
        if len(taken) > 1:
            for one in taken:
                self._step(engine, [one], min(engine.spec.buckets, default=1))
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

    def _hand_back(self, index: int, one: Taken, frame: np.ndarray) -> None:
        if index < 0:
            return  # before the sound began
        if self._marked:
            with self.trace.span("mark"):
                frame = stamp(frame)
                if one.row.cutout is not None:
                    stamp_cutout(one.row.cutout)
        latency_ms = (self._now() - one.came_s) * 1000
        self.trace.add("hop_to_frame", latency_ms, start_s=one.came_s, slot=one.stream.slot, frame=index)
        self._call(self._deliver, one, index, frame, latency_ms)

    def _deliver(self, one: Taken, index: int, frame: np.ndarray, latency_ms: float) -> None:
        if not one.stream.removed and one.epoch == one.stream.epoch:
            if one.row.cutout is not None:
                one.stream.deliver_cutout(index, one.row.cutout)
            one.stream.deliver(index, frame, latency_ms)

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
            self._take_measure(engine, measure(engine, self._state, avatar, slots=len(self._free), now=self._now))

        return self.run(warm)

    def _take_measure(self, engine: Engine, measured: Measured) -> None:
        with self._changed:
            self._row_time.begin(measured.row_s, self.engine.lanes)
            self._thrift.set_costs(measured.drawing_s)
            self._row_cpu_s = measured.row_cpu_s
            self._capacity = self._count_sessions(measured.row_s)
            if self._wanted_slots is None:
                self._slots = self._capacity.sessions
        row_ms = self._row_time.now_s * 1000
        log.info("a frame takes %.1f ms to draw; sessions at a time: %d", row_ms, self._slots)
        if row_ms > 1000 / engine.spec.fps:
            log.warning(
                "a frame takes %.0f ms to draw, too long for %d a second: the picture will lose frames",
                row_ms,
                engine.spec.fps,
            )

    def _count_sessions(self, row_s: Mapping[int, float]) -> Capacity:
        spec, lanes = self.engine.spec, self.engine.lanes
        return plan_capacity(row_s, self._row_cpu_s, fps=spec.fps, cores=self._cores, most=spec.max_batch, lanes=lanes)


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How the worker keeps up, since it was loaded."""

    level: int  # index into what follows: 0 is full
    levels: tuple[str, ...]
    seconds: tuple[float, ...]  # at each level
    drawn: tuple[int, ...]  # frames at each level
    slowness: float  # time of a full step now, in that of the start
