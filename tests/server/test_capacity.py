import os
from pathlib import Path

import pytest

from server.capacity import (
    CORE_LOAD,
    LOOP_CORES,
    LOOP_LOAD,
    MEDIA_CORES,
    Capacity,
    plan_capacity,
    shared_rows,
    usable_cores,
)


def capacity(row_ms: dict[int, float], *, cores: float = 64, threads: int = 1, most: int = 64) -> Capacity:
    """Of an engine that keeps so many threads busy while it draws."""
    row_s = {rows: ms / 1000 for rows, ms in row_ms.items()}
    row_cpu_s = {rows: threads * seconds for rows, seconds in row_s.items()}
    return plan_capacity(row_s, row_cpu_s, fps=25, cores=cores, most=most)


@pytest.mark.parametrize(("row_ms", "sessions"), [(40, 1), (18.1, 1), (17.9, 2), (11.9, 3), (8.9, 4)])
def test_the_engine_draws_for_as_many_as_nine_tenths_of_its_time_allow(row_ms: float, sessions: int) -> None:
    given = capacity({1: row_ms})
    assert (given.sessions, given.bound_by) == (sessions, "engine")


def test_one_session_is_let_in_however_slow_the_machine_is() -> None:
    assert capacity({1: 500}).sessions == 1


def test_sending_takes_cores_too() -> None:
    given = capacity({1: 2}, cores=2)  # a row of 2 ms is 0.05 of a core per session
    assert (given.sessions, given.bound_by) == (int(2 * CORE_LOAD / (0.05 + MEDIA_CORES)), "cores")
    one = capacity({1: 17}, cores=1)
    assert (capacity({1: 17}, cores=2).sessions, one.sessions, one.bound_by) == (2, 1, "cores")


def test_an_engine_on_many_threads_takes_more_cores() -> None:
    assert capacity({1: 10}, cores=2, threads=1).sessions == 3
    assert capacity({1: 10}, cores=2, threads=4).sessions == 1


def test_the_loop_sends_for_so_many_and_no_more() -> None:
    given = capacity({1: 1, 8: 0.2, 64: 0.1})
    assert (given.sessions, given.bound_by) == (int(LOOP_LOAD / LOOP_CORES), "loop")


def test_slots_are_the_last_word() -> None:
    given = capacity({1: 0.1}, most=4)
    assert (given.sessions, given.bound_by) == (4, "slots")


def test_sessions_that_share_steps_are_counted_at_what_a_full_step_costs() -> None:
    assert capacity({1: 10, 2: 6, 4: 3.9}).sessions == 9
    assert capacity({1: 10}).sessions == 3


def test_steps_that_take_too_long_are_never_filled() -> None:
    row_s = {1: 0.01, 2: 0.008, 4: 0.006}  # four rows would take 24 ms
    assert [shared_rows(row_s, n) for n in (1, 2, 3, 4, 9)] == [1, 2, 2, 2, 2]


def test_rows_drawn_side_by_side_share_steps_on_a_slow_machine_too() -> None:
    assert shared_rows({1: 0.025, 2: 0.013, 4: 0.013}, 9) == 2
    assert capacity({1: 25, 2: 13}).sessions == 2 and capacity({1: 25, 2: 25}).sessions == 1


def test_rows_drawn_side_by_side_cost_the_cores_what_one_thread_does_in_steps_of_their_own_too() -> None:
    row_s, row_cpu_s = {1: 0.0161, 2: 0.0119}, {1: 0.0245, 2: 0.0217}  # two rows at once take too long for one step
    counted = [plan_capacity(row_s, row_cpu_s, fps=25, cores=2, most=64, lanes=lanes).sessions for lanes in (1, 2)]
    assert counted == [1, 2]


def test_it_says_what_it_was_worked_out_from() -> None:
    assert capacity({1: 17.25, 2: 17}, cores=2).to_json() == {
        "sessions": 2,
        "bound_by": "engine",
        "row_ms": {"1": 17.25, "2": 17.0},
        "row_cpu_ms": {"1": 17.25, "2": 17.0},
        "cores": 2,
        "media_cores": MEDIA_CORES,
    }


@pytest.mark.parametrize(("text", "cores"), [("150000 100000", 1.5), ("50000 100000", 0.5)])
def test_a_container_is_believed(tmp_path: Path, text: str, cores: float) -> None:
    (tmp_path / "cpu.max").write_text(text + "\n")
    assert usable_cores(tmp_path) == min(cores, usable_cores(tmp_path / "none"))


@pytest.mark.parametrize("text", [None, "max 100000", "junk"])
def test_without_a_container_the_machine_counts(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "cpu.max").write_text(text)
    assert 1 <= usable_cores(tmp_path) <= (os.cpu_count() or 1)
