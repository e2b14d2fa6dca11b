import numpy as np
import pytest

from engine.motion import REST, Motion
from engine.turn import FRONT, PITCH_LIMIT_DEG, ROLL_LIMIT_DEG, YAW_LIMIT_DEG, Turn, Turning


def yaws(turning: Turning, frames: int) -> np.ndarray:
    return np.array([turning.advance(1).yaw_deg for _ in range(frames)])


def test_a_head_turns_there_gently_and_without_overshooting():
    turning = Turning()
    turning.look(Turn(yaw_deg=10))
    way = yaws(turning, 50)
    steps = np.diff(np.concatenate([[0.0], way]))
    assert way[-1] == 10 and (steps >= 0).all()
    assert steps[0] < steps[1] < steps.max() < 2, "it starts softly, and no frame jumps"
    assert way[12] > 9, "half a second is enough for most of it"


def test_a_new_target_on_the_way_makes_no_jerk():
    turning = Turning()
    turning.look(Turn(yaw_deg=12))
    before = yaws(turning, 4)
    turning.look(Turn(yaw_deg=-12))
    after = yaws(turning, 60)
    speed = np.diff(np.concatenate([before, after]))
    assert np.abs(np.diff(speed)).max() < 1.5, "degrees a frame, each frame"
    assert after[-1] == -12


def test_back_at_rest_it_is_exactly_at_rest():
    turning = Turning()
    turning.look(Turn(5, 5, 5))
    turning.advance(20)
    turning.look(FRONT)
    assert turning.advance(60) == FRONT


def test_several_frames_at_once_lead_where_single_ones_do():
    one, many = Turning(), Turning()
    for turning in (one, many):
        turning.look(Turn(8, -4, 2))
    for _ in range(5):
        single = one.advance(1)
    several = many.advance(5)
    assert (single.yaw_deg, single.pitch_deg, single.roll_deg) == pytest.approx(
        (several.yaw_deg, several.pitch_deg, several.roll_deg)
    )


@pytest.mark.parametrize("sign", [-1, 1])
def test_no_wish_and_no_idle_motion_lead_beyond_what_looks_right(sign):
    turning = Turning()
    turning.look(Turn(sign * 170, sign * 90, sign * 90))
    turn = turning.advance(200)
    limits = (YAW_LIMIT_DEG, PITCH_LIMIT_DEG, ROLL_LIMIT_DEG)
    assert (turn.yaw_deg, turn.pitch_deg, turn.roll_deg) == tuple(sign * limit for limit in limits)
    moved = turn.added_to(Motion(yaw_deg=sign * 2.5, pitch_deg=sign * 1.5, roll_deg=-sign * 1.0, blink=0.5))
    assert (moved.yaw_deg, moved.pitch_deg) == (sign * YAW_LIMIT_DEG, sign * PITCH_LIMIT_DEG)
    assert moved.roll_deg == sign * (ROLL_LIMIT_DEG - 1) and moved.blink == 0.5


def test_a_head_that_is_not_turned_moves_as_ever():
    motion = Motion(yaw_deg=1.0, brow=0.2)
    assert FRONT.added_to(motion) is motion and FRONT.added_to(REST) == REST
