"""The policy on a fake clock, driven by a machine that draws one frame after the other."""

import pytest

from engine.thrift import CALM_S, HALVE_AFTER, WINDOW_S, Thrift, is_late, levels_of

HOP_S = 0.04
MARGIN_S = 0.04  # a frame is due so long after its sound came
COSTS = (1.0, 0.8)  # full, thrifty


class Machine:
    """Two streams on one engine: steps what waits, passes over what is too late, notes it."""

    STREAMS = 2

    def __init__(self) -> None:
        self.now_s = 0.0
        self.thrift = Thrift(len(COSTS) - 1, now_s=0.0)
        self.thrift.set_costs(COSTS)
        self.free_s = 0.0  # when the engine is done with what it has taken
        self.changes: list[tuple[float, int]] = []
        self.lost = 0

    def run(self, seconds: float, row_s: float) -> None:
        """Let time pass; a full frame costs ``row_s``."""
        for _ in range(round(seconds / HOP_S)):
            self.now_s += HOP_S
            for stream in range(self.STREAMS):
                if self.thrift.level.halved and (round(self.now_s / HOP_S) + stream) % 2:
                    continue
                self._frame(row_s * COSTS[self.thrift.level.drawing])

    def _frame(self, cost_s: float) -> None:
        before, begin_s = self.thrift.index, max(self.now_s, self.free_s)
        missed = begin_s + cost_s > self.now_s + MARGIN_S
        self.lost += missed
        if not missed:
            self.free_s = begin_s + cost_s
        self.thrift.note(self.now_s, drawn=not missed, late=0, missed=missed, busy_s=0.0 if missed else cost_s)
        if self.thrift.index != before:
            self.changes.append((self.now_s, self.thrift.index))

    @property
    def path(self) -> list[int]:
        return [level for _, level in self.changes]


def test_an_engine_without_cheaper_ways_has_two_levels() -> None:
    assert [level.name for level in levels_of(0)] == ["full", "half_rate"]
    assert [level.name for level in levels_of(1)] == ["full", "thrifty", "half_rate"]
    assert [level.drawing for level in levels_of(2)] == [0, 1, 2, 2]


def test_nothing_is_saved_while_all_is_in_time() -> None:
    machine = Machine()
    machine.run(60, row_s=0.016)
    assert machine.path == [] and machine.thrift.drawn == [3000, 0, 0]


def test_load_takes_it_down_step_by_step_and_relief_brings_it_back() -> None:
    machine = Machine()
    machine.run(2, row_s=0.016)
    machine.run(10, row_s=0.035)  # even the thrifty way, two streams would take 56 of 40 ms
    assert machine.path == [1, 2]
    machine.run(40, row_s=0.016)
    assert machine.path == [1, 2, 1, 0]
    went_down, back = [at for at, _ in machine.changes[:2]], [at for at, _ in machine.changes[2:]]
    assert went_down[1] - 2 <= (2 + HALVE_AFTER) * WINDOW_S
    assert back[0] - 12 >= CALM_S - HOP_S and back[1] - back[0] >= CALM_S - HOP_S


def test_it_stays_where_the_load_just_fits() -> None:
    machine = Machine()
    machine.run(120, row_s=0.0235)  # 47 of 40 ms; 38 of 40 the thrifty way
    assert machine.path == [1]


def test_at_half_rate_frames_come_in_time_that_were_lost_before() -> None:
    machine = Machine()
    machine.run(5, row_s=0.035)
    assert machine.thrift.level.halved and machine.lost
    lost = machine.lost
    machine.run(30, row_s=0.035)
    assert machine.lost == lost


def test_a_hiccup_changes_nothing() -> None:
    thrift = Thrift(1, now_s=0.0)
    for frame in range(100):
        thrift.note(frame * HOP_S, drawn=1, late=frame in (50, 51), missed=0, busy_s=0.01)
    assert thrift.index == 0


def test_a_second_of_load_leaves_no_frame_out() -> None:
    machine = Machine()
    machine.run(2, row_s=0.016)
    machine.run(1.2, row_s=0.035)
    machine.run(20, row_s=0.016)
    assert machine.path == [1, 0]


@pytest.mark.parametrize(("busy_s", "level"), [(0.01, 0), (0.035, 2)])
def test_an_engine_that_idles_is_not_blamed(busy_s: float, level: int) -> None:
    thrift = Thrift(1, now_s=0.0)
    for frame in range(75):
        thrift.note(frame * HOP_S, drawn=1, late=1, missed=0, busy_s=busy_s)
    assert thrift.index == level


def test_levels_never_change_twice_in_a_window() -> None:
    machine = Machine()
    for row_s in (0.035, 0.01) * 200:  # load that comes and goes faster than anything can follow
        machine.run(0.24, row_s=row_s)
    times = [at for at, _ in machine.changes]
    assert all(b - a >= WINDOW_S - 1e-6 for a, b in zip(times, times[1:], strict=False))


def test_coming_back_too_early_makes_it_wait_longer_each_time() -> None:
    """A load that no forecast shows: it is there at the full level alone."""
    machine = Machine()
    for _ in range(5000):
        machine.run(HOP_S, row_s=0.035 if machine.thrift.index == 0 else 0.005)
    at_full = [at for at, level in machine.changes if level == 0]
    gaps = [b - a for a, b in zip(at_full, at_full[1:], strict=False)]
    assert len(gaps) >= 3
    assert all(later > 1.5 * earlier for earlier, later in zip(gaps[:3], gaps[1:3], strict=False))


def test_it_begins_anew_when_nobody_is_left() -> None:
    machine = Machine()
    machine.run(10, row_s=0.035)
    machine.thrift.rest(machine.now_s)
    assert machine.thrift.index == 0


def test_time_and_frames_are_counted_by_level() -> None:
    machine = Machine()
    machine.run(20, row_s=0.035)
    seconds = machine.thrift.seconds(machine.now_s)
    assert sum(seconds) == pytest.approx(machine.now_s)
    assert all(spent > 0 for spent in seconds) and seconds[2] > 17
    assert all(machine.thrift.drawn)


@pytest.mark.parametrize(
    ("ready_s", "due_s", "came_s", "late"),
    [
        (1.00, 1.01, 0.90, False),  # in time
        (1.02, 1.01, 0.97, True),  # too late, though its sound came 50 ms before
        (1.02, 1.01, 0.99, False),  # its sound came too late itself
    ],
)
def test_the_engine_is_not_blamed_for_late_sound(ready_s: float, due_s: float, came_s: float, late: bool) -> None:
    assert is_late(ready_s, due_s=due_s, came_s=came_s, hop_s=HOP_S) is late
