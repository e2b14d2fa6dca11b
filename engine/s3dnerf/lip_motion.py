"""Lip-motion codes: what lips do, apart from whose they are and where the head is.

Lip points, head motion removed, in eye distances, minus the same person's closed mouth; projected on
the first principal directions of the training clips and scaled to unit variance. Eight hold 99 % of it.
A portrait has no clip to show its closed mouth: its own code is guessed from the gaps between its inner
lips, which are nothing on every closed mouth, whatever its shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.landmarks import LIPS, NOSE_BRIDGE, eye_distance, mouth_opening, relative_pose


def still_head(landmarks: np.ndarray) -> np.ndarray:
    """A clip's landmarks [n, 478, 3] with the head's motion removed: each frame laid on the clip's mean face."""
    mean = landmarks.mean(0)
    rows = []
    for frame in landmarks:
        rotation, shift = relative_pose(frame, mean)
        rows.append(frame @ rotation.T + shift)
    return np.stack(rows)


def lip_offsets(landmarks: np.ndarray) -> np.ndarray:
    """A clip's lip points [n, 478, 3] -> [n, 80] eye distances from the clip's closed mouth.

    Horizontally relative to the mouth, vertically to the nose bridge; closed is the median of the fifth
    of the frames with the smallest opening.
    """
    still = still_head(landmarks)
    unit = eye_distance(still.mean(0))
    lips = still[:, LIPS, :2] / unit
    lips = lips - lips.mean(1, keepdims=True) * np.array([1, 0]) - still[:, [NOSE_BRIDGE], :2] / unit
    lips = lips.reshape(len(landmarks), -1)
    order = np.argsort(mouth_opening(landmarks))
    return lips - np.median(lips[order[: max(3, len(order) // 5)]], 0)


INNER_PAIRS = ((191, 95), (80, 88), (81, 178), (82, 87), (13, 14), (312, 317), (311, 402), (310, 318), (415, 324))


def inner_gaps(landmarks: np.ndarray) -> np.ndarray:
    """Gaps between the inner lips from corner to corner, in eye distances: [..., 478, 3] -> [..., 9]."""
    upper, lower = (np.array(side) for side in zip(*INNER_PAIRS, strict=True))
    gaps = np.linalg.norm(landmarks[..., upper, :2] - landmarks[..., lower, :2], axis=-1)
    return gaps / eye_distance(landmarks)[..., None]


@dataclass(frozen=True, kw_only=True)
class LipMotion:
    """The basis of the codes and the guess of a portrait's own code; all float32."""

    basis: np.ndarray  # [K, 80]
    scale: np.ndarray  # [K]
    guess: np.ndarray  # [9, K], ridge regression from the inner gaps
    gap_mean: np.ndarray  # [9]

    def codes(self, landmarks: np.ndarray) -> np.ndarray:
        """A clip's landmarks [n, 478, 3] -> codes [n, K]."""
        return (lip_offsets(landmarks) @ self.basis.T / self.scale).astype(np.float32)

    def guess_code(self, landmarks: np.ndarray) -> np.ndarray:
        """A still face's landmarks [..., 478, 3] -> its own code [..., K]."""
        return ((inner_gaps(landmarks) - self.gap_mean) @ self.guess).astype(np.float32)

    def offsets(self, codes: np.ndarray) -> np.ndarray:
        """Codes [..., K] -> movement of the lip points [..., 40, 2] in eye distances."""
        return (codes * self.scale @ self.basis).reshape(*codes.shape[:-1], -1, 2)


def fit_lip_motion(clips: list[np.ndarray], codes: int, ridge: float = 0.1) -> LipMotion:
    """Find the basis over clips of landmarks ([n, 478, 3] each)."""
    offsets = np.concatenate([lip_offsets(clip) for clip in clips])
    basis = np.linalg.svd(offsets, full_matrices=False)[2][:codes]
    scale = (offsets @ basis.T).std(0)
    target = offsets @ basis.T / scale
    gaps = np.concatenate([inner_gaps(clip) for clip in clips])
    mean = gaps.mean(0)
    gram = (gaps - mean).T @ (gaps - mean) + ridge * np.eye(gaps.shape[1])
    guess = np.linalg.solve(gram, (gaps - mean).T @ (target - target.mean(0)))
    arrays = {"basis": basis, "scale": scale, "guess": guess, "gap_mean": mean}
    return LipMotion(**{name: value.astype(np.float32) for name, value in arrays.items()})
