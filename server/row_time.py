"""How long the engine draws at a row: measured at the start, followed while sessions are live."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions, StreamState
from engine.batch import fill
from server.capacity import STEP_BUDGET_S, is_in_time

FOLLOW = 0.1  # of the way to each new step's time
FOLLOW_SLOWNESS = 0.02  # the same, for what decides on admission: some seconds of one session
WARM_STEPS = 2  # of each kind, not counted: they allocate and compile
TIMED_STEPS = 7  # of each kind; their median counts
PATIENCE_S = 1.0  # a step that takes longer is not timed again, but for the first, which may compile for seconds


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the steps at the start took."""

    row_s: Mapping[int, float]  # rows of a step -> seconds for each
    row_cpu_s: Mapping[int, float]  # the same in processor seconds, of all threads together
    drawing_s: tuple[float, ...]  # seconds of the smallest step, by ``StepRow.thrift``


def measure(
    engine: Engine,
    state: StreamState,
    avatar: Avatar,
    *,
    slots: int,
    now: Callable[[], float],
    used: Callable[[], float] = time.process_time,
) -> Measured:
    """Step all sizes that are drawn in time, and one more; and the smallest at each level of thrift.

    Args:
        slots: of the state that may be used.
        now: wall time in seconds.
        used: processor seconds of this process so far, all threads.
    """
    spec = engine.spec

    def step_s(size: int, thrift: int) -> tuple[float, float]:
        silence = np.zeros(spec.hop_samples, np.float32)
        rows = [StepRow(slot=n, avatar=avatar, samples=silence, thrift=thrift) for n in range(min(size, slots))]
        for row in rows:
            state.reset(row.slot, StreamOptions())
        times, costs = list[float](), list[float]()
        while len(times) < WARM_STEPS + TIMED_STEPS and max(times[1:], default=0.0) < PATIENCE_S:
            begun_s, used_s = now(), used()
            engine.step(fill(rows, size, spec.hop_samples), state)
            times.append(now() - begun_s)
            costs.append(used() - used_s)
        time_s, cost_s = (max(1e-6, statistics.median(x[WARM_STEPS:] or x[1:])) for x in (times, costs))
        return time_s, cost_s

    sizes = spec.buckets or tuple(2**n for n in range(16) if 2**n <= min(slots, spec.max_batch))
    row_s, row_cpu_s = dict[int, float](), dict[int, float]()
    for size in sizes:
        took_s, cost_s = step_s(size, 0)
        row_s[size], row_cpu_s[size] = took_s / size, cost_s / size
        if not is_in_time(row_s, size) or size >= slots:
            break
    thrifty = [step_s(sizes[0], thrift)[0] for thrift in range(1, spec.thrift_levels + 1)]
    return Measured(row_s=row_s, row_cpu_s=row_cpu_s, drawing_s=(row_s[sizes[0]] * sizes[0], *thrifty))


class RowTime:
    """What a row costs now, and how that compares with the start."""

    def __init__(self) -> None:
        self.now_s = 0.0  # a row's part of a step, as things are drawn now
        self.slowness = 1.0  # of full steps now, in those of the start
        self._calm: Mapping[int, float] = {}
        self._beside_s = 0.0  # at the start, of a step beside others

    def begin(self, row_s: Mapping[int, float], lanes: int = 1) -> None:
        """Take the measurements of the start.

        Args:
            row_s: rows of a step -> seconds for each.
            lanes: of the engine. On several, a step beside others takes as long as one of several rows: the parts of a
                row that is drawn alone are shared out among them.
        """
        self._calm = row_s
        self._beside_s = max(rows * seconds for rows, seconds in row_s.items() if rows <= max(lanes, min(row_s)))
        self.now_s = min(row_s.values())
        self.slowness = 1.0

    @property
    def row_s(self) -> dict[int, float]:
        """What was measured at the start, at the machine's present speed."""
        return {rows: seconds * self.slowness for rows, seconds in self._calm.items()}

    @property
    def most_rows(self) -> int:
        """Rows of a step that are drawn in time, at the machine's present speed."""
        side_by_side = [rows for rows in self._calm if is_in_time(self._calm, rows)]
        return max(int(STEP_BUDGET_S / max(1e-6, self.now_s)), 1, *side_by_side)

    def note(self, size: int, took_s: float, *, rows: int, full: bool, beside: bool = False) -> None:
        """Learn from a step of ``rows``, filled up to ``size``.

        Args:
            size, took_s, rows: of the step.
            full: nothing was saved in it.
            beside: another lane stepped at the same time, or had done so shortly before.
        """
        self.now_s += FOLLOW * (took_s / rows - self.now_s)
        if full and self._calm:
            known = max((n for n in self._calm if n <= size), default=min(self._calm))
            calm_s = size * self._calm[known]
            self.slowness += FOLLOW_SLOWNESS * (took_s / max(calm_s, beside * self._beside_s) - self.slowness)
