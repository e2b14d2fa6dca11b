"""What an engine's mouth does to a burst when nothing is in between: the pattern looked for in a stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions
from tools.bursts import CYCLE_S, FIRST_S, SOUND_RATE_HZ, SPEECH_RATE_HZ, Trace, cut_mouth, measure_motion

PHASES = 8  # places between two frames at which each burst is drawn: a trace every 5 ms
BEFORE = 2  # bursts before the first that is looked at: an engine may weigh in what has sounded in the last seconds
FROM_S, TO_S = -0.4, 1.0  # of a trace, around its burst's onset


def draw_expected(engine: Engine, avatar: Avatar, cuts: Sequence[np.ndarray]) -> list[Trace]:
    """The mouth's motion around each burst, time 0 being the burst's onset and a frame's own instant its time.

    They are drawn as they come in a stream (``bursts.place_bursts``), one behind the other.

    Args:
        cuts: float32 [n] at 48 kHz, as ``bursts.cut_bursts`` makes them.
    """
    hop, rate = engine.spec.hop_samples, engine.spec.sample_rate_hz
    count = BEFORE + PHASES * len(cuts)
    onsets = [
        round((FIRST_S + CYCLE_S * burst) * rate) // hop * hop + burst // len(cuts) % PHASES * hop // PHASES
        for burst in range(count)
    ]
    sound = np.zeros((onsets[-1] + round(CYCLE_S * rate)) // hop * hop, np.float32)
    for burst, onset in enumerate(onsets):
        heard = cuts[burst % len(cuts)][:: SOUND_RATE_HZ // SPEECH_RATE_HZ]
        sound[onset : onset + len(heard)] = heard
    state = engine.init_state(1)
    state.reset(0, StreamOptions(seed=0, motion=0.0))
    times_s, mouths = [], []
    for index, samples in enumerate(sound.reshape(-1, hop), start=1):
        frame = engine.step([StepRow(slot=0, avatar=avatar, samples=samples)], state)[0]
        times_s.append(engine.spec.frame_after(index) * hop / rate)
        mouths.append(cut_mouth(frame))
    motion = measure_motion(np.stack(mouths))
    traces = []
    for kind in range(len(cuts)):
        points = [
            (at_s - onsets[burst] / rate, value)
            for burst in range(BEFORE, count)
            if burst % len(cuts) == kind
            for at_s, value in zip(times_s, motion, strict=True)
            if FROM_S <= at_s - onsets[burst] / rate < TO_S
        ]
        traces.append(Trace(*np.array(sorted(points)).T))
    return traces
