"""How well a lip-sync judge finds, on clips that it has never seen, when lips and sound belong together."""

from __future__ import annotations

import numpy as np

from engine.s3dnerf.sync_discriminator import SyncDiscriminator
from tools.sync_figure import REACH_FRAMES, SyncFigure, compare_with
from tools.training.clips import Clip

ANCHORS_EVERY = 3  # clips; the anchors need fewer


def measure_clips(judge: SyncDiscriminator, clips: list[Clip]) -> dict[str, float]:
    """Means over clips.

    Returns:
        ``found``, the share of clips whose offset is found within a frame; ``score`` with their own sound;
        ``score_other`` with another clip's sound, and ``score_still`` with a picture that does not move.
    """
    own, other, still = [], [], []
    for which, clip in enumerate(clips):
        frames = np.stack([clip.frame(i) for i in range(len(clip))])
        own.append(_compare(judge, frames, clip.landmarks, clip.sound))
        if which % ANCHORS_EVERY == 0:
            other.append(_compare(judge, frames, clip.landmarks, clips[which - 1].sound))
            held = np.zeros(len(frames), int)
            still.append(_compare(judge, frames[held], clip.landmarks[held], clip.sound))
    return dict(
        found=float(np.mean([abs(figure.offset_frames) <= 1 for figure in own])),
        score=float(np.mean([figure.score for figure in own])),
        score_other=float(np.mean([figure.score for figure in other])),
        score_still=float(np.mean([figure.score for figure in still])),
    )


def _compare(judge: SyncDiscriminator, frames: np.ndarray, landmarks: np.ndarray, sound: np.ndarray) -> SyncFigure:
    figure = compare_with(judge, frames, landmarks, sound)
    assert figure is not None, f"a clip of {len(frames)} frames is too short for {2 * REACH_FRAMES + 1} offsets"
    return figure
