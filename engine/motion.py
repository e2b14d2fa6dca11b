"""Idle motion: blinks, head sway and breathing, so that a silent avatar looks alive.

Everything here is a pure function of (seed, frame): any frame can be asked for directly, in any
order, and a stream needs no motion state. Slow movements are sums of sines whose rates share no
common period; rare events (blinks, raised brows) live one per time bucket, and their moment and
shape are hashed from the bucket's number.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache

YAW_MAX_DEG = 2.5
PITCH_MAX_DEG = 1.5
ROLL_MAX_DEG = 1.0
BREATH_MAX = 0.006  # of the crop's half width; 0.8 px at 256
SETTLE_S = 1.0  # movement grows from rest over the first second, so that a stream begins as the portrait

# One blink per bucket with these odds gives 13 to 19 blinks a minute, by seed.
_BLINK_BUCKET_S = (3.3, 4.4)
_BLINK_SKIPPED = 0.10
_BLINK_DOUBLE = 0.13
_BLINK_SHUT_S = 0.045  # longer than a frame at 25 fps: every blink has a frame with the eyes shut
_BLINK_LATEST_S = 1.1  # no blink starts this close to its bucket's end, so buckets never overlap

_BROW_BUCKET_S = 7.0
_BROW_RAISED = 0.45  # odds that a bucket has a raise

_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Motion:
    """What one frame adds to the portrait's own pose and expression; all zeros is the portrait at rest."""

    yaw_deg: float = 0.0  # to the picture's right
    pitch_deg: float = 0.0  # up
    roll_deg: float = 0.0  # clockwise
    shift: tuple[float, float] = (0.0, 0.0)  # x right, y down, in crop units (the crop is 2 wide)
    blink: float = 0.0  # 0 open as in the portrait, 1 shut
    brow: float = 0.0  # -1 frowning .. 1 raised; idle motion stays small


REST = Motion()


def idle_motion(seed: int, frame: int, amount: float, fps: float = 25.0) -> Motion:
    """Motion of frame ``frame`` of the stream with this seed.

    Args:
        seed: any integer (its low 64 bits count); streams with other seeds move and blink at other moments.
        frame: index on the media clock, frame k at k / fps seconds; below 0 the portrait is at rest.
        amount: 0 gives exactly ``REST``, 1 the full movement; clamped to that range (NaN is 0).
            It scales movement. Blinks stay whole: half-shut eyes would look drowsy, not calm.
        fps: frames a second.
    """
    amount = min(1.0, max(0.0, amount))
    t_s = frame / fps
    if amount == 0.0 or t_s < 0.0:
        return REST
    manner = _manner(seed)
    move = amount * _smooth(t_s / SETTLE_S)
    return Motion(
        yaw_deg=move * YAW_MAX_DEG * _sway(manner.yaw, t_s),
        pitch_deg=move * PITCH_MAX_DEG * _sway(manner.pitch, t_s),
        roll_deg=move * ROLL_MAX_DEG * _sway(manner.roll, t_s),
        shift=(move * 0.4 * BREATH_MAX * _sway(manner.sideways, t_s), move * BREATH_MAX * _breath(manner, t_s)),
        blink=_blink(seed, manner.blink_bucket_s, t_s),
        brow=move * _brow(seed, manner, t_s),
    )


@dataclass(frozen=True)
class _Manner:
    """What a seed fixes for a whole stream. Waves are (weight, rad/s, phase) with weights summing to 1."""

    yaw: tuple[tuple[float, float, float], ...]
    pitch: tuple[tuple[float, float, float], ...]
    roll: tuple[tuple[float, float, float], ...]
    sideways: tuple[tuple[float, float, float], ...]
    brow: tuple[tuple[float, float, float], ...]
    breath: tuple[float, float]  # rad/s, phase
    breath_depth: tuple[float, float]
    blink_bucket_s: float


@lru_cache(maxsize=1024)
def _manner(seed: int) -> _Manner:
    slow, middle, quick = 0.031, 0.083, 0.21  # Hz
    return _Manner(
        yaw=_waves(seed, "yaw", (slow, middle, quick), (0.45, 0.37, 0.18)),
        pitch=_waves(seed, "pitch", (slow * 1.3, middle * 1.2, quick * 1.1), (0.40, 0.38, 0.22)),
        roll=_waves(seed, "roll", (slow * 0.8, middle * 0.9), (0.55, 0.45)),
        sideways=_waves(seed, "sideways", (middle * 0.7, quick * 0.9), (0.6, 0.4)),
        brow=_waves(seed, "brow", (middle, quick), (0.6, 0.4)),
        breath=(math.tau * _between(0.21, 0.29, seed, "breath rate"), math.tau * _uniform(seed, "breath phase")),
        breath_depth=(math.tau * _between(0.015, 0.03, seed, "depth rate"), math.tau * _uniform(seed, "depth phase")),
        blink_bucket_s=_between(*_BLINK_BUCKET_S, seed, "blink bucket"),
    )


def _waves(
    seed: int, part: str, rates_hz: tuple[float, ...], weights: tuple[float, ...]
) -> tuple[tuple[float, float, float], ...]:
    """Sines near the given rates, each 15 % off by seed, so that no two streams ever move in step."""
    return tuple(
        (weight, math.tau * rate * _between(0.85, 1.15, seed, part, i, "rate"), math.tau * _uniform(seed, part, i))
        for i, (rate, weight) in enumerate(zip(rates_hz, weights, strict=True))
    )


def _sway(waves: tuple[tuple[float, float, float], ...], t_s: float) -> float:
    """In -1..1."""
    return sum(weight * math.sin(rate * t_s + phase) for weight, rate, phase in waves)


def _breath(manner: _Manner, t_s: float) -> float:
    """In -1..1: in faster than out, now deeper, now shallower."""
    rate, phase = manner.breath
    angle = rate * t_s + phase
    depth_rate, depth_phase = manner.breath_depth
    depth = 0.82 + 0.18 * math.sin(depth_rate * t_s + depth_phase)
    return depth * math.sin(angle + 0.35 * math.sin(angle))


def _blink(seed: int, bucket_s: float, t_s: float) -> float:
    """Eyelid closure at ``t_s``, 0..1: the one or two blinks of the bucket that ``t_s`` lies in."""
    bucket = int(t_s // bucket_s)
    if _uniform(seed, "blink skipped", bucket) < _BLINK_SKIPPED:
        return 0.0
    start_s = bucket * bucket_s + 0.25 + _uniform(seed, "blink start", bucket) * (bucket_s - 0.25 - _BLINK_LATEST_S)
    since_s = t_s - start_s
    if since_s < 0.0:
        return 0.0
    close_s = _between(0.055, 0.090, seed, "blink close", bucket)
    open_s = _between(0.100, 0.200, seed, "blink open", bucket)
    first = _eyelid(since_s, close_s, open_s)
    if first == 0.0 and _uniform(seed, "blink double", bucket) < _BLINK_DOUBLE:
        pause_s = _between(0.08, 0.22, seed, "blink pause", bucket)
        return _eyelid(since_s - close_s - _BLINK_SHUT_S - open_s - pause_s, close_s, open_s)
    return first


def _eyelid(since_s: float, close_s: float, open_s: float) -> float:
    """One blink that starts at 0: shut fast, opened slowly; 200 to 335 ms in all."""
    if since_s <= 0.0:
        return 0.0
    if since_s < close_s:
        return _smooth(since_s / close_s)
    return 1.0 - _smooth((since_s - close_s - _BLINK_SHUT_S) / open_s)


def _brow(seed: int, manner: _Manner, t_s: float) -> float:
    """A small drift, and now and then a brow raised for a second."""
    drift = 0.08 * _sway(manner.brow, t_s)
    bucket = int(t_s // _BROW_BUCKET_S)
    if _uniform(seed, "brow raised", bucket) >= _BROW_RAISED:
        return drift
    length_s = _between(0.7, 1.4, seed, "brow length", bucket)
    start_s = bucket * _BROW_BUCKET_S + _uniform(seed, "brow start", bucket) * (_BROW_BUCKET_S - length_s)
    through = (t_s - start_s) / length_s
    if not 0.0 < through < 1.0:
        return drift
    height = _between(0.15, 0.40, seed, "brow height", bucket)
    return drift + height * math.sin(math.pi * through) ** 2


def _smooth(x: float) -> float:
    """Smoothstep: 0 up to 0, 1 from 1 on, no corner between."""
    x = min(1.0, max(0.0, x))
    return x * x * (3.0 - 2.0 * x)


def _between(low: float, high: float, *key: int | str) -> float:
    return low + (high - low) * _uniform(*key)


def _uniform(*key: int | str) -> float:
    """A number in [0, 1) that looks random and depends on the key alone, on every machine (splitmix64)."""
    state = 0x9E3779B97F4A7C15
    for part in key:
        number = part if isinstance(part, int) else _word(part)
        state = _mix(state ^ (number & _MASK))
    return (state >> 11) / (1 << 53)


@cache
def _word(text: str) -> int:
    return zlib.crc32(text.encode())


def _mix(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
