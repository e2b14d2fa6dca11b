"""Free view: how far somebody has turned the avatar's head, and how it gets there without a jerk.

The portrait shows one side of a head. Within the limits below the field and the warp still show a face that
looks right; beyond them cheeks stretch and the far eye flattens (docs/obs.md shows it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from engine.motion import Motion

YAW_LIMIT_DEG = 14.0
PITCH_LIMIT_DEG = 10.0
ROLL_LIMIT_DEG = 8.0
REACH_S = 0.12  # time constant: 90 % of a turn after 0.47 s


@dataclass(frozen=True)
class Turn:
    """Angles beside the portrait's own pose: yaw to the picture's right, pitch up, roll clockwise."""

    yaw_deg: float = 0.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0

    def limited(self) -> Turn:
        """The nearest turn that looks right."""
        return Turn(
            yaw_deg=_within(self.yaw_deg, YAW_LIMIT_DEG),
            pitch_deg=_within(self.pitch_deg, PITCH_LIMIT_DEG),
            roll_deg=_within(self.roll_deg, ROLL_LIMIT_DEG),
        )

    def added_to(self, motion: Motion) -> Motion:
        """Idle motion, with the head turned; the sum keeps to the limits."""
        if self == FRONT:
            return motion
        total = Turn(
            self.yaw_deg + motion.yaw_deg, self.pitch_deg + motion.pitch_deg, self.roll_deg + motion.roll_deg
        ).limited()
        return replace(motion, yaw_deg=total.yaw_deg, pitch_deg=total.pitch_deg, roll_deg=total.roll_deg)


FRONT = Turn()


class Turning:
    """A head on its way to where it was told to look: a critically damped spring, one step a frame.

    It begins and ends gently, never overshoots, and may be told another target at any time.
    """

    def __init__(self) -> None:
        self.target = FRONT
        self._at = (0.0, 0.0, 0.0)
        self._speed = (0.0, 0.0, 0.0)  # degrees a second

    def look(self, turn: Turn) -> None:
        """Turn there, as far as looks right."""
        self.target = turn.limited()

    def advance(self, frames: int, fps: float = 25.0) -> Turn:
        """Where it is ``frames`` frames later."""
        goal = (self.target.yaw_deg, self.target.pitch_deg, self.target.roll_deg)
        moved = [_spring(a - g, v, frames / fps) for a, v, g in zip(self._at, self._speed, goal, strict=True)]
        if all(abs(away) < 0.01 and abs(speed) < 0.01 for away, speed in moved):
            moved = [(0.0, 0.0)] * 3  # arrived: rest is exact again
        self._at = tuple(g + away for g, (away, _) in zip(goal, moved, strict=True))  # type: ignore[assignment]
        self._speed = tuple(speed for _, speed in moved)  # type: ignore[assignment]
        return Turn(*self._at)


def _spring(away: float, speed: float, t_s: float) -> tuple[float, float]:
    """The exact way of a critically damped spring: distance to its goal and speed after ``t_s``."""
    rate = 1 / REACH_S
    pull = speed + rate * away
    fall = math.exp(-rate * t_s)
    return (away + pull * t_s) * fall, (speed - rate * pull * t_s) * fall


def _within(angle_deg: float, limit_deg: float) -> float:
    return min(limit_deg, max(-limit_deg, angle_deg))
