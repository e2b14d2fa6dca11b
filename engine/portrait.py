"""One portrait picture -> what an engine enrols: aligned crop, landmarks, pose and masks.

What cannot speak well later is refused here, with a reason and a remedy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from engine.errors import FaceCropped, FaceTooSmall, FaceTurned
from engine.faces import MAX_OUTSIDE, parts_outside, thread_finder
from engine.image import Photo, PhotoFile, read_photo, sample
from engine.landmarks import CROP_SIZE, alignment, crop_landmarks
from engine.matte import face_mask, person_matte

SEARCH_PX = 2048  # long side that pictures are decoded to at first; full size only for small faces
MIN_FACE_PX = 60  # longer side of the face mesh at full resolution
MAX_YAW_DEG = 42.0  # profiles measure 45 to 50: the mesh fits them badly
MAX_PITCH_DEG = 32.0
MAX_ROLL_DEG = 45.0
WIDE_TO_CROP = 1.5  # the matte's view of the surroundings / the crop

# Pairs that a head's left and right share, for its horizontal axis (none moves in speech), and the
# forehead's and the nose's end of its vertical one.
_PAIRS = np.array([[33, 263], [133, 362], [127, 356], [162, 389], [21, 251], [54, 284], [103, 332]])
_TOP, _BOTTOM = 10, 2


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """One face, checked and aligned. Not written to."""

    crop: np.ndarray = field(repr=False)  # uint8 [256, 256, 3] RGB
    landmarks: np.ndarray = field(repr=False)  # float32 [478, 3] in [-1, 1] over the crop, see engine.landmarks
    matte: np.ndarray = field(repr=False)  # uint8 [256, 256], 255 is the person
    face_mask: np.ndarray = field(repr=False)  # uint8 [256, 256], 255 is the inner face, soft edge
    photo_from_crop: np.ndarray  # float32 [2, 3], photo pixels from crop pixels
    photo_size: tuple[int, int]  # (w, h) of the upright photo, as ``decode_image`` gives it
    yaw_deg: float  # the face turns to the picture's right
    pitch_deg: float  # it looks up
    roll_deg: float  # it leans clockwise in the photo; the crop is level


def decode_image(image: bytes) -> np.ndarray:
    """The whole picture, upright and at full resolution: uint8 [H, W, 3] RGB.

    Raises:
        ImageUnreadable, ImageTooLarge: as ``engine.image.read_photo``.
    """
    return read_photo(image).pixels


def read_portrait(image: bytes) -> Portrait:
    """Decode, find the face, check it, align it.

    Args:
        image: encoded JPEG, PNG or WebP of at most 40 megapixels.

    Raises:
        ImageUnreadable, ImageTooLarge: about the file.
        NoFace, SeveralFaces, FaceTooSmall, FaceCropped, FaceTurned: about what it shows.
    """
    file = PhotoFile(image)
    photo = file.read(fit=SEARCH_PX)
    landmarks = thread_finder().find_one(photo.pixels)
    _check_size(landmarks, photo)
    _check_inside(landmarks, photo)
    yaw_deg, pitch_deg, roll_deg = head_angles_deg(landmarks)
    _check_angles(yaw_deg, pitch_deg, roll_deg)
    if np.hypot(*alignment(landmarks)[:, 0]) > 1 and photo.pixels.shape[1] < photo.full_size[0]:
        # The crop would be enlarged although the file has more pixels: take them all.
        points_scale = np.append(1 / photo.scale, 1 / photo.scale[0])
        photo = file.read()
        landmarks = (landmarks * points_scale).astype(np.float32)
    crop_from_copy = alignment(landmarks)
    crop = sample(photo.pixels, crop_from_copy, CROP_SIZE)
    points = crop_landmarks(landmarks, crop_from_copy)
    copy_from_crop = cv2.invertAffineTransform(crop_from_copy.astype(np.float64))
    return Portrait(
        crop=crop,
        landmarks=points,
        matte=_matte(photo, crop, crop_from_copy),
        face_mask=face_mask(points, CROP_SIZE),
        photo_from_crop=(copy_from_crop / photo.scale[:, None]).astype(np.float32),
        photo_size=photo.full_size,
        yaw_deg=yaw_deg,
        pitch_deg=pitch_deg,
        roll_deg=roll_deg,
    )


def head_angles_deg(landmarks: np.ndarray) -> tuple[float, float, float]:
    """Yaw (to the picture's right), pitch (up) and roll (clockwise) of a head, in degrees.

    Args:
        landmarks: float32 [478, 3], in any isotropic unit, y down, z away from the camera.
    """
    right = (landmarks[_PAIRS[:, 1]] - landmarks[_PAIRS[:, 0]]).sum(0).astype(np.float64)
    right /= np.linalg.norm(right)
    down = (landmarks[_BOTTOM] - landmarks[_TOP]).astype(np.float64)
    down -= right * (right @ down)
    down /= np.linalg.norm(down)
    back = np.cross(right, down)
    roll = np.arctan2(right[1], right[0])
    # Yaw and pitch as the level crop shows them: the lean is taken out first.
    sideways = np.cos(roll) * back[0] + np.sin(roll) * back[1]
    upwards = np.cos(roll) * back[1] - np.sin(roll) * back[0]
    yaw = np.arctan2(-sideways, back[2])
    pitch = np.arcsin(np.clip(upwards, -1, 1))
    return float(np.degrees(yaw)), float(np.degrees(pitch)), float(np.degrees(roll))


def _check_size(landmarks: np.ndarray, photo: Photo) -> None:
    side = float((np.ptp(landmarks[:468, :2], 0) / photo.scale).max())
    if side < MIN_FACE_PX:
        raise FaceTooSmall(
            f"the face is {side:.0f} pixels tall, at least {MIN_FACE_PX} are needed: "
            "choose a larger picture, or one taken from closer by"
        )


def _check_inside(landmarks: np.ndarray, photo: Photo) -> None:
    edge, part = max(parts_outside(landmarks, photo.pixels).items(), key=lambda item: item[1])
    if part > MAX_OUTSIDE:
        raise FaceCropped(
            f"the {edge} edge of the picture cuts off {part:.0%} of the face: "
            "choose a picture that shows the whole face with some room around it"
        )


def _check_angles(yaw_deg: float, pitch_deg: float, roll_deg: float) -> None:
    limits = (
        (yaw_deg, MAX_YAW_DEG, "turned to the side", "choose a picture that looks towards the camera"),
        (pitch_deg, MAX_PITCH_DEG, "tilted up or down", "choose a picture that looks straight at the camera"),
        (roll_deg, MAX_ROLL_DEG, "leaning sideways", "turn the picture upright"),
    )
    for angle, limit, what, remedy in limits:
        if abs(angle) > limit:
            raise FaceTurned(f"the face is {what} by {abs(angle):.0f} degrees, at most {limit:.0f} work: {remedy}")


def _matte(photo: Photo, crop: np.ndarray, crop_from_copy: np.ndarray) -> np.ndarray:
    """The person matte of the crop; a transparent picture's own alpha cuts it further."""
    # The wide view reaches down more than up: shoulders tell more than sky.
    shrink = 1 / WIDE_TO_CROP
    margin = CROP_SIZE * (1 - shrink)
    wide_from_crop = np.array([[shrink, 0, margin / 2], [0, shrink, margin * 0.4]])
    wide_from_copy = wide_from_crop @ np.vstack([crop_from_copy, [0, 0, 1]])
    wide = sample(photo.pixels, wide_from_copy, CROP_SIZE)
    matte = person_matte(wide, crop, cv2.invertAffineTransform(wide_from_crop))
    if photo.alpha is None:
        return matte
    alpha = sample(photo.alpha, crop_from_copy, CROP_SIZE).astype(np.uint16)
    return ((matte * alpha + 127) // 255).astype(np.uint8)
