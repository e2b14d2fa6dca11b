"""Face landmarks: the detector, the point sets we use, alignment and relative pose.

Points are MediaPipe's 478 (face mesh with irises). In photos they are in pixels, the centre of the
top-left pixel being (0.5, 0.5); in crops they are in [-1, 1] over the crop's width and height, with z
in the same scale and growing away from the camera.
"""

from __future__ import annotations

from typing import Any

import numpy as np

CROP_SIZE = 256
CROP_TO_FACE = 1.6  # side of the crop / longer side of the face's bounding box
CROP_RISE = 0.03  # the crop's centre stands this part of its side above the face's

# Points that speech does not move: forehead, temples, nose bridge, eye corners.
RIGID = np.array(
    [10, 338, 297, 332, 284, 251, 389, 109, 67, 103, 54, 21, 162, 127, 356]
    + [6, 197, 195, 5, 4, 168, 8, 9, 151, 33, 133, 362, 263]
)
LIPS_OUTER = np.array([61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185])
LIPS_INNER = np.array([78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191])
LIPS = np.unique(np.concatenate([LIPS_OUTER, LIPS_INNER]))
FACE_OVAL = np.array(
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
    + [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
)
UPPER_LIP, LOWER_LIP = 13, 14  # inner lip centres; their distance is the mouth's *opening*
EYE_OUTER = (33, 263)  # right and left eye of the person, outer corners
EYE_LIDS = ((159, 145, 33, 133), (386, 374, 263, 362))  # upper lid, lower lid, outer, inner corner
BROWS = np.array([105, 66, 107, 334, 296, 336])
NOSE_BRIDGE = 168


class FaceMesh:
    """MediaPipe's face mesh; not thread-safe, one per thread."""

    def __init__(self, *, video: bool = False, max_faces: int = 1, min_confidence: float = 0.5) -> None:
        from mediapipe.python.solutions import face_mesh

        self._mesh: Any = face_mesh.FaceMesh(
            static_image_mode=not video,
            max_num_faces=max_faces,
            refine_landmarks=True,
            min_detection_confidence=min_confidence,
        )

    def find(self, image: np.ndarray) -> list[np.ndarray]:
        """Faces in a picture.

        Args:
            image: uint8 [H, W, 3] RGB.

        Returns:
            one float32 [478, 3] a face, in pixels (z in pixels too).
        """
        found = self._mesh.process(np.ascontiguousarray(image)).multi_face_landmarks or []
        height, width = image.shape[:2]
        scale = np.array([width, height, width], np.float32)
        return [np.array([[p.x, p.y, p.z] for p in face.landmark], np.float32) * scale for face in found]

    def close(self) -> None:
        self._mesh.close()


def alignment(landmarks: np.ndarray, *, size: int = CROP_SIZE) -> np.ndarray:
    """The similarity that makes the aligned crop: eyes level, face centred, side 1.6 x the face.

    Args:
        landmarks: float32 [478, 3] in photo pixels (a clip's mean serves for the whole clip).
        size: side of the crop in pixels.

    Returns:
        float32 [2, 3], crop pixels from photo pixels.
    """
    right, left = landmarks[EYE_OUTER[0], :2], landmarks[EYE_OUTER[1], :2]
    angle = np.arctan2(left[1] - right[1], left[0] - right[0])
    level = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)
    points = landmarks[:468, :2] @ level.T
    low, high = points.min(0), points.max(0)
    side = float((high - low).max()) * CROP_TO_FACE
    centre = (low + high) / 2 - np.array([0, side * CROP_RISE], np.float32)
    scale = size / side
    return np.concatenate([level * scale, (size / 2 - centre * scale)[:, None]], 1).astype(np.float32)


def crop_landmarks(landmarks: np.ndarray, crop_from_photo: np.ndarray, *, size: int = CROP_SIZE) -> np.ndarray:
    """Photo landmarks [..., 478, 3] in pixels -> crop landmarks in [-1, 1] (see the module)."""
    scale = float(np.hypot(*crop_from_photo[:, 0]))
    xy = landmarks[..., :2] @ crop_from_photo[:, :2].T + crop_from_photo[:, 2]
    return np.concatenate([xy * 2 / size - 1, landmarks[..., 2:] * scale * 2 / size], -1).astype(np.float32)


def relative_pose(target: np.ndarray, source: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rigid motion with scale that lays a target face on a source face: ``x_src = R x_tar + t``.

    This is ``Inv(P_src)`` of the paper's equation (2) with the target's pose taken out, found by
    Procrustes over points that speech does not move.

    Args:
        target, source: float32 [478, 3] in crop coordinates.

    Returns:
        R float32 [3, 3] (rotation times scale) and t float32 [3].
    """
    a, b = target[RIGID], source[RIGID]
    mean_a, mean_b = a.mean(0), b.mean(0)
    u, s, vt = np.linalg.svd((a - mean_a).T @ (b - mean_b))
    flip = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (s * flip).sum() / ((a - mean_a) ** 2).sum()
    rotation = (u @ np.diag(flip) @ vt).T * scale
    return rotation.astype(np.float32), (mean_b - rotation @ mean_a).astype(np.float32)


def eye_distance(landmarks: np.ndarray) -> np.ndarray:
    """Distance of the outer eye corners, [...], in the landmarks' unit: the face's own yardstick."""
    return np.linalg.norm(landmarks[..., EYE_OUTER[0], :2] - landmarks[..., EYE_OUTER[1], :2], axis=-1)


def mouth_centre(landmarks: np.ndarray) -> np.ndarray:
    """Mean of the lip points, [..., 2]."""
    return landmarks[..., LIPS, :2].mean(-2)


def mouth_opening(landmarks: np.ndarray) -> np.ndarray:
    """Distance of the inner lips' centres, [...], in the landmarks' unit."""
    return np.linalg.norm(landmarks[..., UPPER_LIP, :2] - landmarks[..., LOWER_LIP, :2], axis=-1)


def eye_openness(landmarks: np.ndarray) -> np.ndarray:
    """Lid distance / eye width, mean of both eyes, [...]; about 0.3 open, 0.05 shut."""
    ratios = []
    for upper, lower, outer, inner in EYE_LIDS:
        height = np.linalg.norm(landmarks[..., upper, :2] - landmarks[..., lower, :2], axis=-1)
        ratios.append(height / np.linalg.norm(landmarks[..., outer, :2] - landmarks[..., inner, :2], axis=-1))
    return (ratios[0] + ratios[1]) / 2


def brow_height(landmarks: np.ndarray) -> np.ndarray:
    """Height of the brows over the outer eye corners in eye distances, [...]."""
    eyes = (landmarks[..., EYE_OUTER[0], 1] + landmarks[..., EYE_OUTER[1], 1]) / 2
    return (eyes - landmarks[..., BROWS, 1].mean(-1)) / eye_distance(landmarks)
