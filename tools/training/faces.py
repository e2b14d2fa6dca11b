"""Rows for training the deformation and the pictures: pairs of frames, and still portraits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from engine.landmarks import FACE_OVAL, LIPS, LIPS_INNER, brow_height, eye_distance, eye_openness, relative_pose
from engine.s3dnerf.face import controls
from engine.s3dnerf.lip_motion import INNER_PAIRS, LipMotion, inner_gaps, still_head
from tools.training.clips import Clip
from tools.training.mirror import mirror_landmarks, mirror_picture
from tools.training.pictures import pixels_from_units

MOUTH_SHOWS = 0.03  # eye distances between the inner lips from which on a mouth has an inside


@dataclass(frozen=True, kw_only=True)
class FaceTrack:
    """A clip with what the stages need of it, measured once; perhaps seen in a mirror."""

    clip: Clip
    codes: np.ndarray  # [n, K], from landmarks; a still's are its guess
    own: np.ndarray  # [n, K], each frame's guess of its own code
    eyes: np.ndarray  # [n]
    brows: np.ndarray  # [n]
    mirrored: bool = False  # pictures and landmarks are turned round when they are asked for

    def __len__(self) -> int:
        return len(self.clip)

    def frame(self, index: int) -> np.ndarray:
        """uint8 [256, 256, 3] RGB."""
        frame = self.clip.frame(index)
        return mirror_picture(frame) if self.mirrored else frame

    def points(self, index: int) -> np.ndarray:
        """Landmarks [478, 3]."""
        points = self.clip.landmarks[index]
        return mirror_landmarks(points) if self.mirrored else points


def make_track(clip: Clip, motion: LipMotion) -> FaceTrack:
    own = np.clip(motion.guess_code(clip.landmarks), -4, 4)
    still = still_head(clip.landmarks) if len(clip) > 1 else clip.landmarks
    codes = motion.codes(clip.landmarks) if len(clip) > 1 else own
    return FaceTrack(clip=clip, codes=codes, own=own, eyes=eye_openness(still), brows=brow_height(still))


def mirror_track(track: FaceTrack, motion: LipMotion) -> FaceTrack:
    """The track in a mirror; lids and brows are means of both sides and stay."""
    landmarks = mirror_landmarks(track.clip.landmarks)
    own = np.clip(motion.guess_code(landmarks), -4, 4)
    codes = motion.codes(landmarks) if len(track) > 1 else own
    return replace(track, own=own, codes=codes, mirrored=True)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Source face, target face and what leads from one to the other."""

    source: np.ndarray  # landmarks [478, 3]
    target: np.ndarray  # landmarks [478, 3], in its own pose
    drive: np.ndarray  # [2K + 3]
    rotation: np.ndarray  # [3, 3], source from target
    shift: np.ndarray  # [3]
    trusted: np.ndarray  # [478], weight of each point in the landmark loss

    def told(self, code: np.ndarray) -> Pair:
        """The same faces, but the wanted code is what was told [K]."""
        return replace(self, drive=np.concatenate([code, self.drive[len(code) :]]))


def frame_pair(track: FaceTrack, target: int, source: int) -> Pair:
    """Two frames of one clip."""
    here, there = track.points(target), track.points(source)
    rotation, shift = relative_pose(here, there)
    change = controls(track.eyes[target], track.eyes[source], track.brows[target] - track.brows[source])
    return Pair(
        source=there,
        target=here,
        drive=np.concatenate([track.codes[target], track.own[source], change]),
        rotation=rotation,
        shift=shift,
        trusted=np.ones(478, np.float32),
    )


def driven_still(track: FaceTrack, code: np.ndarray, motion: LipMotion) -> Pair:
    """A still portrait whose lips are moved as somebody else's code says; there is no picture of it.

    Lips that would cross are laid on each other. Cheeks and jaw are not known and not trusted.
    """
    source = track.points(0)
    target = source.copy()
    unit = float(eye_distance(source))
    target[LIPS, :2] += motion.offsets(code - track.own[0]) * unit
    for upper, lower in INNER_PAIRS:
        if target[upper, 1] > target[lower, 1]:
            target[[upper, lower], 1] = target[[upper, lower], 1].mean()
    trusted = np.zeros(478, np.float32)
    trusted[source[:, 1] < source[4, 1]] = 1  # above the tip of the nose
    trusted[LIPS] = 1
    change = controls(track.eyes[0], track.eyes[0], 0.0)
    drive = np.concatenate([code, track.own[0], change])
    identity = np.eye(3, dtype=np.float32)
    return Pair(
        source=source, target=target, drive=drive, rotation=identity, shift=np.zeros(3, np.float32), trusted=trusted
    )


def moved_still(track: FaceTrack, source: np.ndarray, rng: np.random.Generator) -> tuple[Pair, np.ndarray]:
    """A still portrait and itself turned, scaled and shifted in the plane.

    Args:
        track: of the still.
        source: its landmarks [478, 3] where it lies now.

    Returns:
        the pair, and target -> source in OpenCV's pixels, [2, 3].
    """
    angle, scale = rng.uniform(-0.16, 0.16), np.exp(rng.uniform(-0.1, 0.1))
    rotation = np.eye(3, dtype=np.float32)
    rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    rotation *= scale
    shift = np.array([*rng.uniform(-0.06, 0.06, 2), 0], np.float32)
    target = (source - shift) @ np.linalg.inv(rotation).T
    change = controls(track.eyes[0], track.eyes[0], 0.0)
    pair = Pair(
        source=source,
        target=target.astype(np.float32),
        drive=np.concatenate([track.own[0], track.own[0], change]),
        rotation=rotation,
        shift=shift,
        trusted=np.ones(478, np.float32),
    )
    return pair, pixels_from_units(np.concatenate([rotation[:2, :2], shift[:2, None]], 1))


def inner_lips(landmarks: np.ndarray, size: int) -> np.ndarray:
    """The inside of the mouth, soft-edged: [478, 3] -> float32 [size, size] in [0, 1], nothing on a closed one."""
    inside = np.zeros((size, size), np.uint8)
    outline = (landmarks[LIPS_INNER, :2] + 1) / 2 * size * 16
    cv2.fillPoly(inside, [outline.astype(np.int32)], [255], shift=4)
    return cv2.GaussianBlur(inside, (0, 0), 1).astype(np.float32) / 255


def transplant_mouth(speaker: np.ndarray, speaking: np.ndarray, still: np.ndarray, pair: Pair) -> np.ndarray:
    """A speaker's frame laid over a driven still, mouth on mouth: what that portrait's might show inside.

    Args:
        speaker: frame whose code drives the still, uint8 [256, 256, 3].
        speaking: its landmarks [478, 3].
        still: the portrait, uint8 [256, 256, 3].
        pair: from ``driven_still``.

    Returns:
        the speaker's frame moved onto the still's wanted inner lips and toned like the still, uint8
        [256, 256, 3]; the still itself where the speaker's mouth is all but closed.
    """
    size = len(still)
    if inner_gaps(speaking).max() < MOUTH_SHOWS:
        return still
    ours, theirs = ((lm[LIPS_INNER, :2] + 1) / 2 * size for lm in (pair.target, speaking))
    known = np.concatenate([theirs, np.ones((len(theirs), 1))], 1)
    affine = np.linalg.lstsq(known, ours, rcond=None)[0].T  # still from speaker
    moved = cv2.warpAffine(speaker, affine, (size, size), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    skin = [image[face_mask(lm, size) > 0].mean(0) for image, lm in ((still, pair.source), (speaker, speaking))]
    toned = moved.astype(np.float32) * np.clip(skin[0] / np.maximum(skin[1], 1), 0.5, 1.6)
    if np.abs(skin[0] - skin[0].mean()).max() < 4:  # a black-and-white portrait
        toned = np.repeat(toned.mean(2, keepdims=True), 3, 2)
    return np.clip(toned, 0, 255).astype(np.uint8)


def face_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Inside of the face's contour: [478, 3] -> float32 [size, size]."""
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [((landmarks[FACE_OVAL, :2] + 1) / 2 * size).astype(np.int32)], [1])
    return mask.astype(np.float32)
