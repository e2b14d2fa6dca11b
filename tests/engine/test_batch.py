from engine.batch import Turn, Waiting, plan_step


def wait(slot: int, *, due_s: float = 1.0, hops: int = 1, key: str = "a") -> Waiting:
    return Waiting(slot=slot, key=key, hops=hops, due_s=due_s)


def plan(*waiting: Waiting, now_s: float = 0.0, step_s: float = 0.02, max_batch: int = 8) -> list[Turn]:
    return plan_step(waiting, now_s=now_s, step_s=step_s, hop_s=0.04, max_batch=max_batch)


def test_nobody_waits() -> None:
    assert plan() == []


def test_equal_keys_share_a_step() -> None:
    assert plan(wait(0), wait(1)) == [Turn(slot=0, hops=1), Turn(slot=1, hops=1)]


def test_the_most_urgent_key_goes_first() -> None:
    assert plan(wait(0, key="a"), wait(1, key="b", due_s=0.5)) == [Turn(slot=1, hops=1)]


def test_a_full_batch_leaves_the_least_urgent_waiting() -> None:
    rows = plan(wait(0, due_s=3), wait(1, due_s=1), wait(2, due_s=2), max_batch=2)
    assert [r.slot for r in rows] == [1, 2]


def test_a_backlog_in_time_is_drawn_frame_by_frame() -> None:
    assert plan(wait(0, hops=3, due_s=1.0), now_s=0.9) == [Turn(slot=0, hops=1)]


def test_frames_that_would_come_too_late_are_passed_over() -> None:
    # ready at 1.02: frames due at 0.95 and 0.99 are missed, the one due at 1.03 is not.
    assert plan(wait(0, hops=5, due_s=0.95), now_s=1.0) == [Turn(slot=0, hops=3)]


def test_the_newest_frame_is_drawn_when_all_are_late() -> None:
    assert plan(wait(0, hops=2, due_s=0.0), now_s=9.0) == [Turn(slot=0, hops=2)]
