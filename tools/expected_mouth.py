"""What an engine's mouth does to a burst when nothing is in between: the pattern looked for in a stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions
from tools.bursts import CYCLE_S, SOUND_RATE_HZ, SPEECH_RATE_HZ, Trace, cut_mouth, measure_motion

PHASES = 4  # renderings with the burst at other places between two frames: a trace every 10 ms
LEAD_S = 0.8  # silence before the first burst; longer than any engine's window
BEFORE = 2  # bursts before the one that is looked at: an engine may weigh in what has sounded in the last seconds


def draw_expected(engine: Engine, avatar: Avatar, cuts: Sequence[np.ndarray]) -> list[Trace]:
    """The mouth's motion around each burst, time 0 being the burst's onset and a frame's own instant its time.

    Each is drawn as it comes in a stream (``bursts.place_bursts``), behind the others that come before it.

    Args:
        cuts: float32 [n] at 48 kHz, as ``bursts.cut_bursts`` makes them.
    """
    state = engine.init_state(1)
    hop, rate = engine.spec.hop_samples, engine.spec.sample_rate_hz
    lead, cycle = round(LEAD_S * rate), round(CYCLE_S * rate)
    drawn = []  # (kind, time, mouth)
    for kind in range(len(cuts)):
        for phase in range(PHASES):
            onset = lead + BEFORE * cycle + phase * hop // PHASES
            sound = np.zeros((onset + cycle + rate // 5) // hop * hop, np.float32)
            for back in range(BEFORE + 1):
                heard = cuts[(kind - back) % len(cuts)][:: SOUND_RATE_HZ // SPEECH_RATE_HZ]
                sound[onset - back * cycle :][: len(heard)] = heard
            state.reset(0, StreamOptions(seed=0, motion=0.0))
            for index, samples in enumerate(sound.reshape(-1, hop), start=1):
                frame = engine.step([StepRow(slot=0, avatar=avatar, samples=samples)], state)[0]
                at = engine.spec.frame_after(index) * hop - onset
                if at > -lead // 2:
                    drawn.append((kind, at / rate, cut_mouth(frame)))
    motion = measure_motion(np.stack([mouth for _, _, mouth in drawn]))
    traces = []
    for kind in range(len(cuts)):
        points = sorted((at, value) for (k, at, _), value in zip(drawn, motion, strict=True) if k == kind)
        traces.append(Trace(np.array([p[0] for p in points]), np.array([p[1] for p in points])))
    return traces
