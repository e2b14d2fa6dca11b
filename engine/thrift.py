"""What is saved while the engine cannot keep up: the picture gets cheaper, then drawn half as often, and only
then late.

====  =========  ===================================================================================
0     full       every frame, drawn as well as the engine can
1..n  thrifty    every frame, drawn cheaper; n is ``EngineSpec.thrift_levels``
n+1   half rate  every other frame, drawn at its cheapest and shown twice; the sound of all is heard
====  =========  ===================================================================================

Pure: every method is told the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WINDOW_S = 0.5  # evidence is judged by the window: no two changes come closer to one another
LATE_SHARE = 0.2  # of a window's frames: when more are late, saving begins or goes on ...
LEAST_LATE = 3  # ... but fewer than this are a hiccup, whatever their share
HALVE_AFTER = 3  # such windows running, before frames are left out: a call that begins keeps a core busy for a second
BUSY_SHARE = 0.5  # of a window's time; an engine that was busy for less is not why frames came late
CALM_SHARE = 0.05  # a window with more late frames than this is not calm
CALM_S = 5.0  # of calm, before less is saved again
MOST_CALM_S = 80.0  # it doubles up to here each time that saving less turned out to be too early
SPARE = 0.85  # share of its time that the engine may be expected to be busy, once less is saved


@dataclass(frozen=True, kw_only=True)
class Level:
    """One way of saving."""

    name: str
    drawing: int  # ``StepRow.thrift``
    halved: bool = False  # every other frame is left out


def levels_of(thrift_levels: int) -> tuple[Level, ...]:
    """All levels of an engine that knows so many cheaper ways to draw, the full one first."""
    numbered = [f"thrifty_{n}" if thrift_levels > 1 else "thrifty" for n in range(1, thrift_levels + 1)]
    thrifty = [Level(name=name, drawing=n) for n, name in enumerate(numbered, 1)]
    return (Level(name="full", drawing=0), *thrifty, Level(name="half_rate", drawing=thrift_levels, halved=True))


def is_late(ready_s: float, *, due_s: float, came_s: float, hop_s: float) -> bool:
    """Whether a frame came late by the engine's fault: after its time, and more than a hop after its sound came.

    Sound that was late itself leaves less time than a hop; to save would not help against that.
    """
    return ready_s > max(due_s, came_s + hop_s)


class Thrift:
    """Decides how much is saved. Goes one level down after a bad window, or ``HALVE_AFTER`` where the next level
    leaves frames out; one up after long calm.

    Args:
        thrift_levels: ``EngineSpec.thrift_levels``.
        now_s: seconds, monotonic.
    """

    def __init__(self, thrift_levels: int, *, now_s: float) -> None:
        self.levels = levels_of(thrift_levels)
        self.index = 0
        self.drawn = [0] * len(self.levels)  # frames, by level
        self._costs = [0.5 if level.halved else 1.0 for level in self.levels]
        self._seconds = [0.0] * len(self.levels)
        self._counted_to_s = now_s
        self._patience_s = CALM_S
        self._eased_at_s: float | None = None  # when less was saved last
        self._window_begun_s = self._calm_since_s = now_s
        self._frames = self._late = 0  # of the window
        self._bad = 0  # windows running, at this level
        self._busy_s = 0.0  # of the window
        self._calm_busy_s = 0.0  # since it is calm

    @property
    def level(self) -> Level:
        return self.levels[self.index]

    def set_costs(self, drawing: Sequence[float]) -> None:
        """Tell what a frame costs.

        Args:
            drawing: time of a row by ``StepRow.thrift``, full first; in any unit.
        """
        self._costs = [drawing[level.drawing] / drawing[0] / (1 + level.halved) for level in self.levels]

    def seconds(self, now_s: float) -> tuple[float, ...]:
        """Time spent at each level so far."""
        self._count(now_s)
        return tuple(self._seconds)

    def note(self, now_s: float, *, drawn: int, late: int, missed: int, busy_s: float) -> None:
        """Take a step into account.

        Args:
            drawn: frames that it drew.
            late: of these too late, by ``is_late``.
            missed: frames that were wanted and passed over because they could only come too late.
            busy_s: how long it took.
        """
        self.drawn[self.index] += drawn
        self._frames += drawn + missed
        self._late += late + missed
        self._busy_s += busy_s
        if now_s - self._window_begun_s >= WINDOW_S:
            self._judge(now_s)

    def rest(self, now_s: float) -> None:
        """Nobody is left to save for: begin anew."""
        self._go(0, now_s)
        self._patience_s, self._eased_at_s = CALM_S, None

    def _judge(self, now_s: float) -> None:
        busy = self._busy_s >= BUSY_SHARE * (now_s - self._window_begun_s)
        frames, late = self._frames, self._late if busy else 0
        self._calm_busy_s += self._busy_s
        self._frames, self._late, self._busy_s = 0, 0, 0.0
        self._window_begun_s = now_s
        bad = late >= LEAST_LATE and late > LATE_SHARE * frames
        self._bad = self._bad + 1 if bad else 0
        if bad and self._bad >= self._windows_before_saving:
            self._save(now_s)
        elif late > CALM_SHARE * frames:
            self._calm_since_s, self._calm_busy_s = now_s, 0.0
        elif self.index and now_s - self._calm_since_s >= self._patience_s and self._has_time(now_s):
            self._go(self.index - 1, now_s)
            self._eased_at_s = now_s

    @property
    def _windows_before_saving(self) -> int:
        following = self.levels[min(self.index + 1, len(self.levels) - 1)]
        return HALVE_AFTER if following.halved else 1

    def _save(self, now_s: float) -> None:
        if self._eased_at_s is not None:
            too_early = now_s - self._eased_at_s < self._patience_s
            self._patience_s = min(MOST_CALM_S, 2 * self._patience_s) if too_early else CALM_S
            self._eased_at_s = None
        self._go(min(self.index + 1, len(self.levels) - 1), now_s)

    def _has_time(self, now_s: float) -> bool:
        """Whether the engine would be idle enough one level up, by how busy it was since it is calm."""
        share = self._calm_busy_s / (now_s - self._calm_since_s)
        return share * self._costs[self.index - 1] / self._costs[self.index] < SPARE

    def _go(self, index: int, now_s: float) -> None:
        self._count(now_s)
        self.index = index
        self._window_begun_s = self._calm_since_s = now_s
        self._frames, self._late, self._busy_s, self._calm_busy_s, self._bad = 0, 0, 0.0, 0.0, 0

    def _count(self, now_s: float) -> None:
        self._seconds[self.index] += max(0.0, now_s - self._counted_to_s)
        self._counted_to_s = max(self._counted_to_s, now_s)
