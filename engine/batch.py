"""Who steps this tick, and how far. Pure, so that the policy can be read and tested without an engine."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A stream with unheard sound."""

    slot: int
    key: Hashable  # streams with equal keys may share a step
    hops: int  # unheard hops, at least 1
    due_s: float  # when the frame after the first of them must leave; later ones follow at hop_s


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One row of a step: ``hops`` of ``slot`` are heard, and the frame after the last of them is drawn."""

    slot: int
    hops: int


def plan_step(waiting: Sequence[Waiting], *, now_s: float, step_s: float, hop_s: float, max_batch: int) -> list[Turn]:
    """Choose the rows of the next step: the most urgent stream and all that may share its batch.

    A stream hears one hop, so that every frame is drawn. Frames that could only come too late are
    passed over: their sound is heard, the next frame in time is drawn instead. So an engine that
    cannot keep up loses frames, and never time.

    Args:
        waiting: streams with unheard sound, slots distinct.
        now_s: the time of ``Waiting.due_s``'s clock.
        step_s: how long a step lasts, about.
        hop_s: seconds of one hop.
        max_batch: most rows.

    Returns:
        rows in order of urgency; empty where nobody waits.
    """
    if not waiting:
        return []
    urgent = sorted(waiting, key=lambda w: (w.due_s, w.slot))
    together = [w for w in urgent if w.key == urgent[0].key][:max_batch]
    return [Turn(slot=w.slot, hops=hops_to_hear(w, ready_s=now_s + step_s, hop_s=hop_s)) for w in together]


def hops_to_hear(stream: Waiting, *, ready_s: float, hop_s: float) -> int:
    """Hops to hear at once so that the frame drawn at ``ready_s`` is the first still in time, or the newest."""
    late_s = ready_s - stream.due_s
    missed = 0 if late_s <= 0 else int(-(-late_s // hop_s))
    return min(stream.hops, 1 + missed)
