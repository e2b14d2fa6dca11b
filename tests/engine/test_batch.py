from collections.abc import Sequence

from engine.batch import Plan, Turn, Waiting, plan


def wait(slot: int, *, due_s: float = 1.0, hops: int = 1, key: str = "a", spared: Sequence[int] = ()) -> Waiting:
    return Waiting(slot=slot, key=key, hops=hops, due_s=due_s, spared=frozenset(spared))


def step_of(
    *waiting: Waiting, now_s: float = 0.0, step_s: float = 0.02, max_batch: int = 8, buckets: Sequence[int] = ()
) -> Plan:
    return plan(waiting, now_s=now_s, step_s=step_s, hop_s=0.04, max_batch=max_batch, buckets=buckets)


def turns(*waiting: Waiting, **fields) -> list[Turn]:
    return list(step_of(*waiting, **fields).turns)


def test_nobody_waits() -> None:
    assert step_of() == Plan(turns=(), size=0)


def test_equal_keys_share_a_step() -> None:
    assert turns(wait(0), wait(1)) == [Turn(slot=0, hops=1), Turn(slot=1, hops=1)]


def test_the_most_urgent_key_goes_first() -> None:
    assert turns(wait(0, key="a"), wait(1, key="b", due_s=0.5)) == [Turn(slot=1, hops=1)]


def test_a_full_batch_leaves_the_least_urgent_waiting() -> None:
    rows = turns(wait(0, due_s=3), wait(1, due_s=1), wait(2, due_s=2), max_batch=2)
    assert [r.slot for r in rows] == [1, 2]


def test_a_backlog_in_time_is_drawn_frame_by_frame() -> None:
    assert turns(wait(0, hops=3, due_s=1.0), now_s=0.9) == [Turn(slot=0, hops=1)]


def test_frames_that_would_come_too_late_are_passed_over() -> None:
    # ready at 1.02: frames due at 0.95 and 0.99 are missed, the one due at 1.03 is not.
    assert turns(wait(0, hops=5, due_s=0.95), now_s=1.0) == [Turn(slot=0, hops=3)]


def test_the_newest_frame_is_drawn_when_all_are_late() -> None:
    assert turns(wait(0, hops=2, due_s=0.0), now_s=9.0) == [Turn(slot=0, hops=2)]


def test_a_spared_frame_is_heard_with_the_next() -> None:
    assert turns(wait(0, hops=2, spared=[0])) == [Turn(slot=0, hops=2)]


def test_a_stream_with_spared_frames_alone_waits_and_holds_nobody_up() -> None:
    assert turns(wait(0, hops=1, spared=[0], due_s=0.0), wait(1)) == [Turn(slot=1, hops=1)]


def test_a_spared_frame_does_not_make_a_stream_more_urgent() -> None:
    rows = turns(wait(0, hops=2, spared=[0], due_s=1.0), wait(1, due_s=1.03))
    assert [r.slot for r in rows] == [1, 0]


def test_what_is_in_time_but_spared_gives_way_to_the_next_or_else_to_the_one_before() -> None:
    late = dict(due_s=0.95, now_s=1.0)  # the third hop's frame is the first in time
    assert turns(wait(0, hops=4, spared=[0, 2], due_s=late["due_s"]), now_s=late["now_s"]) == [Turn(slot=0, hops=4)]
    assert turns(wait(0, hops=3, spared=[0, 2], due_s=late["due_s"]), now_s=late["now_s"]) == [Turn(slot=0, hops=2)]


def test_without_buckets_a_step_is_as_large_as_its_rows() -> None:
    assert step_of(wait(0), wait(1), wait(2)).size == 3


def test_a_step_takes_the_smallest_bucket_that_holds_its_rows() -> None:
    for rows, size in ((1, 1), (2, 2), (3, 4), (5, 8), (8, 8)):
        given = step_of(*(wait(slot) for slot in range(rows)), buckets=(1, 2, 4, 8))
        assert (len(given.turns), given.size) == (rows, size)


def test_no_bucket_is_larger_than_the_batch_may_be() -> None:
    given = step_of(*(wait(slot) for slot in range(5)), max_batch=3, buckets=(1, 2, 4, 8))
    assert (len(given.turns), given.size) == (2, 2)


def test_the_smallest_bucket_is_taken_where_none_fits() -> None:
    given = step_of(wait(0), wait(1), wait(2), max_batch=1, buckets=(2, 4))
    assert (len(given.turns), given.size) == (2, 2)
