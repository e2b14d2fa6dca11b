"""Who steps this tick, how far, and in how large a step. Pure, so that it can be read and tested without an engine."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from engine.api import MASKED, StepRow


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A stream with unheard sound."""

    slot: int
    key: Hashable  # streams with equal keys may share a step
    hops: int  # unheard hops, at least 1
    due_s: float  # when the frame after the first of them must leave; later ones follow at hop_s
    spared: frozenset[int] = frozenset()  # hops, the first is 0, whose frames are not wanted; they are heard with later


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One row of a step: ``hops`` of ``slot`` are heard, and the frame after the last of them is drawn."""

    slot: int
    hops: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A step."""

    turns: tuple[Turn, ...] = ()  # in order of urgency; empty where nobody has a frame to draw
    size: int = 0  # rows of the step; those beyond the turns are masked


def plan(
    waiting: Sequence[Waiting],
    *,
    now_s: float,
    step_s: float,
    hop_s: float,
    max_batch: int,
    buckets: Sequence[int] = (),
) -> Plan:
    """Choose the rows of the next step: the most urgent stream and all that may share its batch.

    A stream hears one hop, so that every frame is drawn. Frames that could only come too late are
    passed over: their sound is heard, the next frame in time is drawn instead. So an engine that
    cannot keep up loses frames, and never time. The same is done with frames that are spared on purpose; a
    stream that has no other ones yet waits for its next hop.

    Args:
        waiting: streams with unheard sound, slots distinct.
        now_s: the time of ``Waiting.due_s``'s clock.
        step_s: how long a step lasts, about.
        hop_s: seconds of one hop.
        max_batch: most rows.
        buckets: the sizes that a step may have, rising; none: any.
    """
    urgent = sorted((w for w in waiting if _next_wanted(w) is not None), key=lambda w: (_due_s(w, hop_s), w.slot))
    if not urgent:
        return Plan()
    room = max([bucket for bucket in buckets if bucket <= max_batch], default=buckets[0]) if buckets else max_batch
    together = [w for w in urgent if w.key == urgent[0].key][:room]
    turns = tuple(Turn(slot=w.slot, hops=hops_to_hear(w, ready_s=now_s + step_s, hop_s=hop_s)) for w in together)
    return Plan(turns=turns, size=min((b for b in buckets if b >= len(turns)), default=len(turns)))


def hops_to_hear(stream: Waiting, *, ready_s: float, hop_s: float) -> int:
    """Hops to hear at once so that the frame drawn at ``ready_s`` is the first still in time, or the newest.

    Spared frames are none of these. 0 where there is no other.
    """
    late_s = ready_s - stream.due_s
    missed = 0 if late_s <= 0 else int(-(-late_s // hop_s))
    in_time = min(stream.hops - 1, missed)
    later = [hop for hop in range(in_time, stream.hops) if hop not in stream.spared]
    earlier = [hop for hop in range(in_time) if hop not in stream.spared]
    return 1 + (later[0] if later else earlier[-1] if earlier else -1)


def fill(rows: Sequence[StepRow], size: int, hop_samples: int) -> list[StepRow]:
    """The rows (at least one) and as many masked ones as ``size`` asks for."""
    silence = np.zeros(hop_samples, np.float32)
    return [*rows, *[StepRow(slot=MASKED, avatar=rows[0].avatar, samples=silence)] * (size - len(rows))]


def _next_wanted(stream: Waiting) -> int | None:
    """The first unheard hop whose frame is wanted."""
    return next((hop for hop in range(stream.hops) if hop not in stream.spared), None)


def _due_s(stream: Waiting, hop_s: float) -> float:
    return stream.due_s + (_next_wanted(stream) or 0) * hop_s
