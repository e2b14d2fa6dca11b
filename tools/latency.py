"""From what came back of a run to its latency figures; pure, see the epilog of ``tools/profile_latency.py``."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools import bursts
from tools.bursts import BurstSound, Trace
from tools.report import percentiles
from tools.stage_budget import (
    HOP,
    HOP_MS,
    ServerTimes,
    average_stages,
    follow_frame,
    hear_hop,
    match_packets,
    match_ticks,
)

BEFORE_S, AFTER_S = 0.15, 1.05  # of what is looked at around a burst's onset; the next comes after 1.2 s
FRAME_TICKS = 3600  # of the 90 kHz video clock
COUNTS = ("frames", "repeated", "spared", "dropped")  # of a session's frames, by the server


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What came back of one run."""

    sound: BurstSound
    started_s: float  # when the microphone's first sample was heard
    mouth: Trace  # motion, by when each frame was there as ``loudness`` means it: on arrival, or on the screen
    arrived_s: np.ndarray  # when each frame's last packet came
    shown_s: np.ndarray  # when each frame was decoded
    frame_ticks: np.ndarray  # 90 kHz time of each frame
    loudness: Trace  # of the sound, as if played on arrival, or as played
    stats: list[dict[str, Any]]  # the server's, each with "at_s", when it came
    lookahead_ms: float
    peer: str = "aiortc"
    counts_samples: bool = True  # sample i was heard at started_s + i / 48000 exactly, in packets of 20 ms
    uncertainty_ms: dict[str, float] = field(default_factory=dict)  # of the peer's times, by cause
    packets_sent: int = 0  # of the microphone
    sound_arrived_s: np.ndarray = field(default_factory=lambda: np.zeros(0))  # each packet


@dataclass(frozen=True, kw_only=True)
class BurstFigures:
    """One burst, in milliseconds; None where it was not found."""

    at_s: float  # since the microphone's start
    mouth_to_pixel_ms: float | None
    picture_age_ms: float | None  # as ``Recording.mouth`` counts
    sound_age_ms: float | None
    frame: int | None = None  # index of the received frame that is the first to show its onset

    @property
    def skew_ms(self) -> float | None:
        if self.picture_age_ms is None or self.sound_age_ms is None:
            return None
        return self.picture_age_ms - self.sound_age_ms

    def as_json(self) -> dict[str, float | None]:
        figures = dict(
            at_s=self.at_s,
            mouth_to_pixel_ms=self.mouth_to_pixel_ms,
            picture_age_ms=self.picture_age_ms,
            sound_age_ms=self.sound_age_ms,
            skew_ms=self.skew_ms,
        )
        return {key: None if value is None else round(value, 3) for key, value in figures.items()}


def measure_bursts(recording: Recording, expected: list[Trace]) -> list[BurstFigures]:
    """Find each burst in mouth and sound.

    Args:
        expected: the mouth's motion around a burst of each kind (``expected_mouth.draw_expected``).
    """
    figures = []
    for onset_s, kind in zip(recording.sound.onsets_s, recording.sound.kinds, strict=True):
        at_s = recording.started_s + float(onset_s)
        mouth = _around(recording.mouth, at_s)
        heard = _around(recording.loudness, at_s)
        sent = _around(bursts.measure_loudness(_cut_around(recording.sound, float(onset_s)), -BEFORE_S), 0.0)
        picture, sound = bursts.fit_delay(mouth, expected[kind]), bursts.fit_delay(heard, sent)
        # Not where the mouth first moves: it stirs a little at rest too, which would count as an answer to the burst.
        after = None if picture is None else np.flatnonzero(recording.mouth.times_s >= at_s + picture.delay_s)
        first = None if after is None or not len(after) else int(after[0])
        found = first is not None
        figures.append(
            BurstFigures(
                at_s=float(onset_s),
                mouth_to_pixel_ms=(float(recording.shown_s[first]) - at_s) * 1000 if found else None,
                picture_age_ms=picture.delay_s * 1000 if picture is not None and found else None,
                sound_age_ms=sound.delay_s * 1000 if sound is not None else None,
                frame=first,
            )
        )
    return figures


def split_budget(
    figures: list[BurstFigures], *, late_ms: float, decode_ms: float, lookahead_ms: float, stats: list[dict[str, Any]]
) -> dict[str, float] | None:
    """Split the median mouth-to-pixel into stages that add up to it (see the epilog of --help).

    Args:
        late_ms: how much later frames are in hand than ``Recording.mouth`` says.
        decode_ms: from a frame's last packet until it is in hand.
    """
    total = [f.mouth_to_pixel_ms for f in figures if f.mouth_to_pixel_ms is not None]
    ages = [f.picture_age_ms for f in figures if f.picture_age_ms is not None]
    if not total or not stats:
        return None
    delay_ms = statistics.median(s["delay_ms"] for s in stats)
    engine_ms = statistics.median([s["hop_to_frame_ms"] for s in stats if s["hop_to_frame_ms"] is not None] or [0.0])
    age_ms = statistics.median(ages) + late_ms
    budget = {
        "lookahead": lookahead_ms,
        "engine": engine_ms,
        "margin_wait": delay_ms - lookahead_ms - engine_ms,
        "transport": age_ms - decode_ms - delay_ms,
        "decode": decode_ms,
        "wait_and_rise": statistics.median(total) - age_ms,
    }
    return {stage: round(ms, 2) for stage, ms in budget.items()}


def follow_bursts(recording: Recording, figures: list[BurstFigures], server: ServerTimes) -> list[dict[str, float]]:
    """The stages of the first frame of each burst, where the server's trace has them all."""
    arrived_s, started_s = recording.arrived_s, recording.started_s
    ticks = match_ticks(arrived_s, recording.frame_ticks, server.ticks)
    skipped = match_packets(server.packets, started_s) if recording.counts_samples else None
    if ticks is None:
        return []
    followed = []
    for figure in figures:
        tick = server.ticks.get(int(ticks[figure.frame])) if figure.frame is not None else None
        if tick is None or tick.frame not in server.frames:
            continue
        hop_end = (tick.frame + round(recording.lookahead_ms / HOP_MS)) * HOP
        heard = None if skipped is None else hear_hop(server, skipped, started_s, hop_end)
        if heard is None and recording.counts_samples:
            continue
        followed.append(
            follow_frame(
                tick,
                server.frames[tick.frame],
                onset_s=started_s + figure.at_s,
                arrived_s=float(arrived_s[figure.frame]),
                shown_s=float(recording.shown_s[figure.frame]),
                lookahead_ms=recording.lookahead_ms,
                heard=heard,
            )
        )
    return followed


def count_between(stats: list[dict[str, Any]]) -> dict[str, int | None]:
    """How far the server's counts of a session rose from the first of ``stats`` to the last."""
    return {key: stats[-1].get(key, 0) - stats[0].get(key, 0) if stats else None for key in COUNTS}


def count_gaps(frame_ticks: np.ndarray) -> int:
    """Frame times for which nothing arrived."""
    steps = np.diff(frame_ticks) / FRAME_TICKS
    return int(np.maximum(np.round(steps) - 1, 0).sum())


def make_report(
    recording: Recording, figures: list[BurstFigures], expected: list[Trace], server: ServerTimes
) -> dict[str, Any]:
    """All figures of a run, by the names of the epilog.

    Args:
        figures: of its bursts, as ``measure_bursts`` finds them.
        expected: as there.
        server: what the server wrote meanwhile.
    """
    followed = follow_bursts(recording, figures, server)
    stages = average_stages(followed)
    late_ms, decode_ms = (
        float(np.median(recording.shown_s - before_s)) * 1000
        for before_s in (recording.mouth.times_s, recording.arrived_s)
    )
    stats = [s for s in recording.stats if s["at_s"] > recording.started_s + bursts.FIRST_S]
    skews = [f.skew_ms for f in figures if f.skew_ms is not None]
    onsets = [bursts.find_first_shown(trace) for trace in expected]
    seconds = float(np.ptp(recording.shown_s))
    total = [f.mouth_to_pixel_ms for f in figures if f.mouth_to_pixel_ms is not None]
    return {
        "mouth_to_pixel_ms": percentiles(total),
        "picture_age_ms": percentiles(f.picture_age_ms + late_ms for f in figures if f.picture_age_ms is not None),
        "sound_age_ms": percentiles(f.sound_age_ms for f in figures if f.sound_age_ms is not None),
        "av_skew_ms": percentiles([abs(s) for s in skews], (50, 95)) | {"signed_p50": percentiles(skews, (50,))["p50"]},
        "engine_onset_ms": [None if at is None else round(at * 1000, 1) for at in onsets],
        "fps": round((len(recording.shown_s) - 1) / seconds, 3) if seconds else None,
        **count_between(stats),
        "gaps": count_gaps(recording.frame_ticks),
        "budget_ms": split_budget(
            figures, late_ms=late_ms, decode_ms=decode_ms, lookahead_ms=recording.lookahead_ms, stats=stats
        ),
        "stage_budget_ms": stages or None,
        "stage_budget_sum_ms": round(sum(stages.values()), 2) if stages else None,
        "stage_budget_bursts": len(followed),
        "peer": recording.peer,
        "uncertainty_ms": recording.uncertainty_ms,
        "bursts": len(figures),
        "bursts_found": len(total),
        "seconds": round(seconds, 1),
        "each_burst": [f.as_json() for f in figures],
    }


def _around(trace: Trace, at_s: float) -> Trace:
    """What is looked at around an onset, its times counted from there."""
    part = bursts.select(trace, at_s - BEFORE_S, at_s + AFTER_S)
    return Trace(part.times_s - at_s, part.values)


def _cut_around(sound: BurstSound, onset_s: float) -> np.ndarray:
    start = round((onset_s - BEFORE_S) * bursts.SOUND_RATE_HZ)
    return sound.samples[start : start + round((BEFORE_S + bursts.BURST_S + 0.2) * bursts.SOUND_RATE_HZ)]
