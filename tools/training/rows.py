"""Rows of stage 3: frames of clips, stills rebuilt from themselves, and stills with a speaker's mouth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.s3dnerf.geometry import CROP_PX
from engine.s3dnerf.lip_motion import LipMotion, inner_gaps
from tools.training.deform_stage import stack
from tools.training.faces import (
    MOUTH_SHOWS,
    FaceTrack,
    Pair,
    driven_still,
    face_mask,
    frame_pair,
    inner_lips,
    mirror_track,
    moved_still,
    transplant_mouth,
)
from tools.training.heard import Heard
from tools.training.mirror import code_mirror
from tools.training.pictures import change_light, change_tone, move, soften, zoom
from tools.training.render_recipe import RenderRecipe
from tools.training.sync_rows import sound_around


class Group(NamedTuple):
    """Frames of one portrait."""

    pairs: list[Pair]
    images: list[np.ndarray]  # the portrait, then each frame, float32 [3, 256, 256]
    driving: Tensor  # a_dri of each frame, [n, tokens, width]
    pictured: bool  # whether the frames are real pictures
    spoken: np.ndarray | None = None  # where the frames are a clip's in a row: the sound about the middle one


class Rows:
    """Draws batches of S portraits and B = S * n frames, frames of a portrait one behind the other.

    Args:
        tracks: of clips, at least one.
        stills: of portraits, perhaps none.
        heard: what stage 1 hears in each clip.
        motion: the basis of the codes.
        recipe: of stage 3.
    """

    def __init__(
        self, tracks: list[FaceTrack], stills: list[FaceTrack], heard: Heard, motion: LipMotion, recipe: RenderRecipe
    ) -> None:
        self._tracks = [(track, mirror_track(track, motion)) for track in tracks]
        self._stills = [(still, mirror_track(still, motion)) for still in stills]
        self._heard, self._motion, self._recipe = heard, motion, recipe
        self._code_mirror = code_mirror(motion)

    def draw(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        """One batch.

        ``source_image`` [S, 3, 256, 256], ``target_image`` [B, 3, 256, 256], ``driving`` [B, tokens, width],
        ``mask`` [B, 1, 256, 256], ``inside`` of the lips [B, 1, 256, 256], ``pictured`` [B] (0: only the
        inside of the lips is a picture), a ``Pair``'s fields [B, ...]; and, where the frames are a clip's
        in a row, ``sound`` [S, samples] about the middle ones.
        """
        recipe = self._recipe
        if recipe.in_a_row(step):
            groups = [self._clip_group(rng, recipe.sync_targets, in_a_row=True) for _ in range(recipe.sync_sources)]
        else:
            groups = [self._group(rng) for _ in range(recipe.sources)]
        pairs = [pair for group in groups for pair in group.pairs]
        batch = stack(pairs)
        batch["source_image"] = torch.from_numpy(np.stack([group.images[0] for group in groups]))
        batch["target_image"] = torch.from_numpy(np.stack([image for group in groups for image in group.images[1:]]))
        batch["driving"] = torch.cat([group.driving for group in groups])
        batch["pictured"] = torch.tensor([float(group.pictured) for group in groups for _ in group.pairs])
        batch["inside"] = torch.from_numpy(np.stack([shown_inside(pair) for pair in pairs]))[:, None]
        batch["mask"] = torch.from_numpy(np.stack([face_mask(pair.target, CROP_PX) for pair in pairs]))[:, None]
        sounds = [group.spoken for group in groups if group.spoken is not None]
        if len(sounds) == len(groups):
            batch["sound"] = torch.from_numpy(np.stack(sounds))
        return batch

    def _group(self, rng: np.random.Generator) -> Group:
        recipe = self._recipe
        kind = rng.random() if self._stills else 1.0
        if kind < recipe.driven_stills:
            return self._driven_group(rng, recipe.targets)
        if kind < recipe.driven_stills + recipe.moved_stills:
            return self._moved_group(rng, recipe.targets)
        return self._clip_group(rng, recipe.targets, in_a_row=False)

    def _pick(self, rng: np.random.Generator, of: list[tuple[FaceTrack, FaceTrack]]) -> tuple[int, FaceTrack]:
        which, mirrored = int(rng.integers(len(of))), rng.random() < self._recipe.mirrored
        return which, of[which][int(mirrored)]

    def _clip_group(self, rng: np.random.Generator, count: int, *, in_a_row: bool) -> Group:
        """Frames of a clip, rebuilt from another of its frames."""
        which, track = self._pick(rng, self._tracks)
        source, *targets = (int(i) for i in rng.integers(0, len(track), 1 + count))
        if in_a_row:
            first = int(rng.integers(0, len(track) - count + 1))
            targets = list(range(first, first + count))
        pairs = [frame_pair(track, target, source) for target in targets]
        if rng.random() < self._recipe.heard:
            codes = self._heard.codes[which]
            codes = codes @ self._code_mirror if track.mirrored else codes
            pairs = [pair.told(codes[target]) for pair, target in zip(pairs, targets, strict=True)]
        images = change_tone([track.frame(i) for i in (source, *targets)], rng)
        spoken = sound_around(track.clip.sound, np.array(targets[count // 2 :][:1]))[0] if in_a_row else None
        return Group(pairs, images, self._heard.driving[which][targets], True, spoken)

    def _driven_group(self, rng: np.random.Generator, count: int) -> Group:
        """A still whose lips are moved as a speaker's; inside them, the speaker's mouth."""
        which, track = self._pick(rng, self._tracks)
        _, still = self._pick(rng, self._stills)
        targets = [int(i) for i in rng.integers(0, len(track), count)]
        image = soften(change_light(still.frame(0), rng), rng)
        pairs = [driven_still(still, track.codes[target], self._motion) for target in targets]
        mouths = [
            transplant_mouth(track.frame(target), track.points(target), image, pair)
            for target, pair in zip(targets, pairs, strict=True)
        ]
        return Group(pairs, change_tone([image, *mouths], rng), self._heard.driving[which][targets], False)

    def _moved_group(self, rng: np.random.Generator, count: int) -> Group:
        """A still and itself in another pose; the sound is that of a speaker with a mouth like this."""
        which, track = self._pick(rng, self._tracks)
        _, still = self._pick(rng, self._stills)
        image, source = zoom(soften(change_light(still.frame(0), rng), rng), still.points(0), rng)
        moves = [moved_still(still, source, rng) for _ in range(count)]
        images = change_tone([image, *(move(image, affine) for _, affine in moves)], rng)
        nearest = int(np.abs(track.codes - still.own[0]).sum(1).argmin())
        return Group([pair for pair, _ in moves], images, self._heard.driving[which][[nearest] * count], True)


def shown_inside(pair: Pair) -> np.ndarray:
    """Where the inside of the mouth is to be painted, float32 [256, 256].

    Nowhere on a still that shows its own teeth: warped, they look better than a speaker's.
    """
    own_teeth = inner_gaps(pair.source).max() > 1.5 * MOUTH_SHOWS and pair.trusted.min() == 0
    return np.zeros((CROP_PX, CROP_PX), np.float32) if own_teeth else inner_lips(pair.target, CROP_PX)
