"""An avatar's tensors, and how idle motion and codes drive them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from engine.api import Avatar
from engine.landmarks import FACE_OVAL, eye_openness
from engine.motion import Motion
from engine.portrait import Portrait
from engine.s3dnerf.eyelids import Eyelid, find_eyelids
from engine.s3dnerf.geometry import CROP_PX, Anchor, Pose, anchor_of
from engine.s3dnerf.renderer import table_of

LID_SCALE, BROW_SCALE = 10.0, 20.0  # controls of about unit size
BROW_RAISE = 0.03  # eye distances for brow = 1
PIVOT_DEPTH = 0.45  # the head turns about a point this far behind the mouth, crop units
BORDER_PX = 28  # nothing moves at the crop's edge, all of the head does so far inside
JAW_DROP = 0.16  # the paint may reach this far below the resting chin, crop units


@dataclass(frozen=True, kw_only=True)
class Face:
    """Float32 tensors of one avatar, batch of one."""

    image: Tensor  # [1, 3, 256, 256] in [-1, 1]
    planes: Tensor  # as a table of rows
    aggregate: Tensor
    shallow: Tensor
    depth: Tensor
    head: Tensor  # [1, 1, 256, 256]
    paintable: Tensor  # [1, 1, 256, 256], where super-resolution may cover
    own_code: Tensor  # [1, K]
    eyes: float  # openness
    lids: list[Eyelid]
    anchor: Anchor

    @classmethod
    def of(cls, avatar: Avatar) -> Face:
        arrays = {name: torch.from_numpy(np.array(value)) for name, value in avatar.arrays.items()}
        landmarks = avatar.arrays["landmarks"]
        return cls(
            image=arrays["crop"].permute(2, 0, 1)[None].float().contiguous() / 127.5 - 1,
            planes=table_of(arrays["planes"].float()),
            aggregate=arrays["aggregate"][None],
            shallow=arrays["shallow"][None].float(),
            depth=arrays["depth"][None],
            head=arrays["head_share"][None, None].float() / 255,
            paintable=torch.from_numpy(paintable(landmarks))[None, None],
            own_code=arrays["own_code"][None],
            eyes=float(eye_openness(landmarks)),
            lids=find_eyelids(landmarks),
            anchor=anchor_of(torch.from_numpy(landmarks)[None]),
        )


def controls(target_eyes: float, source_eyes: float, brow_change: float) -> np.ndarray:
    """The face controls, float32 [3]: change of eye openness, the portrait's own, change of brow height."""
    change = (target_eyes - source_eyes) * LID_SCALE
    return np.array([change, (source_eyes - 0.3) * LID_SCALE, brow_change * BROW_SCALE], np.float32)


def drive_of(codes: Tensor, face: Face, motion: Motion) -> Tensor:
    """Wanted codes [1, K] and idle motion -> drive [1, 2K + 3]."""
    change = torch.from_numpy(controls(face.eyes, face.eyes, motion.brow * BROW_RAISE))  # lids: see eyelids.py
    return torch.cat([codes, face.own_code, change[None]], 1)


def head_turn(face: Face, motion: Motion) -> Pose:
    """Idle motion as the pose that leads from the moved head back to the portrait."""
    return head_turns(face.anchor.mouth.numpy(), [motion])


def head_turns(mouths: np.ndarray, motions: Sequence[Motion]) -> Pose:
    """``head_turn`` of several faces, by the places of their mouths, float32 [B, 3]."""
    # With y down and z away from the camera, plain rotations turn the nose to the left and down.
    angles = np.radians([(-m.yaw_deg, -m.pitch_deg, m.roll_deg) for m in motions]).T
    (cy, cp, cr), (sy, sp, sr) = np.cos(angles), np.sin(angles)
    no, yes = np.zeros(len(motions)), np.ones(len(motions))

    def rotations(*entries: np.ndarray) -> np.ndarray:
        return np.stack(entries, -1).reshape(-1, 3, 3)

    turn = (
        rotations(cy, no, sy, no, yes, no, -sy, no, cy)
        @ rotations(yes, no, no, no, cp, -sp, no, sp, cp)
        @ rotations(cr, -sr, no, sr, cr, no, no, no, yes)
    )
    pivot = mouths + np.array([0, 0, PIVOT_DEPTH])
    moved = np.array([(*m.shift, 0.0) for m in motions])
    back = turn.transpose(0, 2, 1)  # x_tar = turn (x_src - pivot) + pivot + moved, solved for x_src
    shift = pivot - (back @ (pivot + moved)[..., None])[..., 0]
    return Pose(torch.from_numpy(back.astype(np.float32)).contiguous(), torch.from_numpy(shift.astype(np.float32)))


def head_share(portrait: Portrait) -> np.ndarray:
    """How far each pixel moves with the head, float32 [256, 256] in [0, 1].

    One on the head; fading over the neck, over the background around the hair and towards the crop's
    edge, so that shoulders and picture frame stand still and nothing tears.
    """
    size = len(portrait.matte)
    person = cv2.dilate(portrait.matte, np.ones((9, 9), np.uint8)).astype(np.float32) / 255
    around = cv2.GaussianBlur(person, (0, 0), 9)
    ramp: np.ndarray = np.clip((np.arange(size) + 0.5) / BORDER_PX, 0, 1)
    edge = np.minimum(ramp, ramp[::-1])
    side = edge * edge * (3 - 2 * edge)
    chin = (portrait.landmarks[FACE_OVAL, 1].max() + 1) / 2 * size
    below = np.clip((np.arange(size) - chin) / max(size - 4 - chin, 1), 0, 1)
    neck = 1 - below * below * (3 - 2 * below)
    return (around * side[None] * np.minimum(side, neck)[:, None]).astype(np.float32)


def draw_cutout(out: np.ndarray, frame: np.ndarray, cutout: np.ndarray, flow: np.ndarray) -> None:
    """The person of a frame: moved as the portrait was, by the very same coordinates.

    Args:
        out: uint8 [256, 256, 4], written to.
        frame: uint8 [256, 256, 3], as drawn.
        cutout: uint8 [256, 256, 4] of the portrait, see ``engine.cutout``.
        flow: float32 [2, 256, 256], where in the portrait each pixel looks, in crop units.
    """
    where = flow * (CROP_PX / 2) + (CROP_PX - 1) / 2  # OpenCV's pixels: the first one's centre is (0, 0)
    cv2.remap(cutout, where[0], where[1], cv2.INTER_LINEAR, dst=out, borderMode=cv2.BORDER_REPLICATE)
    # What is all person is as drawn, paint and lids included; mixed pixels have their own unmixed colour.
    np.copyto(out[..., :3], frame, where=out[..., 3:] == 255)


def paintable(landmarks: np.ndarray, size: int = 256) -> np.ndarray:
    """Inside of the face with room for a dropped jaw, soft-edged: float32 [256, 256] in [0, 1]."""
    oval = landmarks[FACE_OVAL, :2]
    dropped = oval + np.array([0, JAW_DROP]) * (oval[:, 1:] > landmarks[13, 1])
    mask = np.zeros((size, size), np.uint8)
    for outline in (oval, dropped):
        cv2.fillPoly(mask, [((outline + 1) / 2 * size).astype(np.int32)], [255])
    return cv2.GaussianBlur(mask, (0, 0), 4).astype(np.float32) / 255
