"""What an engine's mouth does to a burst when nothing is in between: the pattern looked for in a stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions
from tools.bursts import CYCLE_S, SOUND_RATE_HZ, SPEECH_RATE_HZ, Trace, cut_mouth, measure_motion

PHASES = 4  # renderings with the burst at other places between two frames: a trace every 10 ms
LEAD_S = 0.8  # silence before the burst; longer than any engine's window


def draw_expected(engine: Engine, avatar: Avatar, cuts: Sequence[np.ndarray]) -> list[Trace]:
    """The mouth's motion around each burst, time 0 being the burst's onset and a frame's own instant its time.

    Args:
        cuts: float32 [n] at 48 kHz, as ``bursts.cut_bursts`` makes them.
    """
    state = engine.init_state(1)
    hop, rate = engine.spec.hop_samples, engine.spec.sample_rate_hz
    drawn = []  # (kind, time, mouth)
    for kind, cut in enumerate(cuts):
        for phase in range(PHASES):
            shift = phase * hop // PHASES
            lead = round(LEAD_S * rate) // hop * hop
            sound = np.zeros(lead + round((CYCLE_S + 0.2) * rate) // hop * hop, np.float32)
            heard = cut[:: SOUND_RATE_HZ // SPEECH_RATE_HZ]
            sound[lead + shift : lead + shift + len(heard)] = heard
            state.reset(0, StreamOptions(seed=0, motion=0.0))
            for index, samples in enumerate(sound.reshape(-1, hop), start=1):
                frame = engine.step([StepRow(slot=0, avatar=avatar, samples=samples)], state)[0]
                at = engine.spec.frame_after(index) * hop - lead - shift
                if index * hop > lead // 2:  # the first ones may still settle
                    drawn.append((kind, at / rate, cut_mouth(frame)))
    motion = measure_motion(np.stack([mouth for _, _, mouth in drawn]))
    traces = []
    for kind in range(len(cuts)):
        points = sorted((at, value) for (k, at, _), value in zip(drawn, motion, strict=True) if k == kind)
        traces.append(Trace(np.array([p[0] for p in points]), np.array([p[1] for p in points])))
    return traces
