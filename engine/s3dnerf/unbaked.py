"""The engine without any of its short cuts: what every other path is compared with, in picture and in speed.

One frame after the other in plain PyTorch, as the paper's equations stand. Kept of a portrait is what the
encoder says of it once (F_0..F_3 and D_0, the paper's identity) and the portrait as it was read. Worked out
anew for every frame: the features of the whole window of sound, the slots' F_agg, the depth map, the masks
and lids, the deformation, twelve look-ups (three planes at four scales) per sample with the decoder's whole
first layer behind them, and super-resolution. Nothing here is meant to be fast, and nothing is made slow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.api import Avatar, Engine, EngineSpec, StepRow, StreamOptions, StreamState
from engine.audio.speech_gate import SpeechGate
from engine.compile.openvino import engine_threads
from engine.landmarks import eye_openness
from engine.motion import Motion, idle_motion
from engine.portrait import read_portrait
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from engine.s3dnerf.eyelids import find_eyelids, shut_eyes
from engine.s3dnerf.face import Face, drive_of, head_share, head_turn, paintable
from engine.s3dnerf.geometry import CROP_PX, Anchor, Pose, anchor_of, depth_of, pixel_centres
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.renderer import Coarse
from engine.s3dnerf.stages import RIGID_POINTS, SEAM_PX, settle

SCALES = ("F_0", "F_1", "F_2", "F_3")
WHAT = (
    "our own model in eager PyTorch, nothing baked or cached but the encoder's output (F_0..F_3, D_0): every frame "
    "computes the features of its whole window of sound, slot attention, depth map, masks and lids, the deformation, "
    "twelve plane look-ups a sample (3 planes x 4 scales) with the decoder's whole first layer, and super-resolution"
)


class UnbakedState(StreamState):
    """Per stream: the window's sound, what was speech, hops heard, options."""

    def __init__(self, window_samples: int, slots: int) -> None:
        self.sound, self.gate = torch.zeros(slots, window_samples), SpeechGate(slots)
        self.hops = np.zeros(slots, np.int64)
        self.options = [StreamOptions()] * slots

    def reset(self, slot: int, options: StreamOptions) -> None:
        self.sound[slot] = 0
        self.gate.reset(slot)
        self.hops[slot] = 0
        self.options[slot] = options

    def hush(self, slot: int) -> None:
        self.sound[slot] = 0

    def adjust(self, slot: int, options: StreamOptions) -> None:
        self.options[slot] = options


class UnbakedEngine(Engine):
    """The reference. Its avatars are its own: other engines cannot draw them, nor it theirs.

    Args:
        checkpoint: default the one that ships, or ``VISAVIS_CHECKPOINT``.

    Raises:
        CheckpointError: it cannot be used.
    """

    def __init__(self, checkpoint: Path | None = None) -> None:
        loaded = load_checkpoint(checkpoint or Path(os.environ.get("VISAVIS_CHECKPOINT", DEFAULT_CHECKPOINT)))
        self._model, self._motion = loaded.model, loaded.motion
        self._closed, self._gain = torch.from_numpy(loaded.closed), torch.from_numpy(loaded.gain)
        audio = self._model.config.audio
        self.spec = EngineSpec(
            name="s3dnerf-unbaked",
            window_ms=audio.window_samples * 1000 // 16_000,
            lookahead_ms=audio.lookahead_ms,
            max_batch=64,
        )
        self.fingerprint = f"unbaked-{loaded.fingerprint}"
        self._stage_ms: dict[str, float] = {}

    @property
    def backend(self) -> str:
        return "eager"

    @property
    def stage_ms(self) -> Mapping[str, float]:
        return self._stage_ms

    @torch.inference_mode()
    def enrol(self, image: bytes) -> Avatar:
        portrait = read_portrait(image)
        pyramid, shallow = self._model.encoder(_picture(portrait.crop))
        arrays = {
            "crop": portrait.crop,
            "landmarks": portrait.landmarks,
            "own_code": np.clip(self._motion.guess_code(portrait.landmarks), -4, 4),
            "head_share": head_share(portrait),
            "D_0": shallow.numpy(),
            **{name: scale.numpy() for name, scale in zip(SCALES, pyramid, strict=True)},
        }
        return Avatar(engine=self.spec.name, fingerprint=self.fingerprint, arrays=arrays)

    def batch_key(self, avatar: Avatar) -> Hashable:
        return None

    def init_state(self, max_batch: int) -> UnbakedState:
        return UnbakedState(self._model.config.audio.window_samples, max_batch)

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        assert isinstance(state, UnbakedState)
        self._stage_ms = {}
        others = torch.get_num_threads()  # the engine beside it wants one
        torch.set_num_threads(engine_threads())
        try:
            return np.stack([self._draw(row, state) for row in rows])
        finally:
            torch.set_num_threads(others)

    @torch.inference_mode()
    def _draw(self, row: StepRow, state: UnbakedState) -> np.ndarray:
        model, begin = self._model, time.perf_counter()
        driving, codes = self._hear(row, state)
        begin = self._book("features", begin)
        pyramid = [torch.from_numpy(row.avatar.arrays[name]) for name in SCALES]
        face = self._face(row.avatar, pyramid)
        begin = self._book("identity", begin)
        options = state.options[row.slot]
        frame = self.spec.frame_after(int(state.hops[row.slot]))
        motion = row.turn.added_to(idle_motion(options.seed, frame, options.motion, self.spec.fps))
        drive = drive_of(codes, face, motion)
        lattice = model.field(drive, driving, face.aggregate, face.anchor)
        begin = self._book("deformation", begin)
        pose = head_turn(face, motion)
        coarse = render_rays(model, pyramid, face.depth, pose, lattice, face.anchor)
        warped = warp_portrait(model, face, coarse, pose, motion)
        begin = self._book("render", begin)
        picture = paint_mouth(model, face, coarse, pose, drive, warped)
        self._book("superres", begin)
        return picture

    def _hear(self, row: StepRow, state: UnbakedState) -> tuple[Tensor, Tensor]:
        new = torch.from_numpy(np.ascontiguousarray(row.samples, np.float32))
        window = torch.cat([state.sound[row.slot], new])[-state.sound.shape[1] :]
        state.sound[row.slot] = window
        state.hops[row.slot] += len(row.samples) // self.spec.hop_samples
        driving, codes, logit = self._model.audio.tell(self._model.features(window[None]))
        if self._model.audio.gated:
            share = state.gate.open(row.slot, logit.item(), row.samples)
            driving, codes = self._model.audio.shut(driving, codes, torch.tensor([share]))
        return driving, self._closed + (codes - self._closed) * self._gain

    def _face(self, avatar: Avatar, pyramid: list[Tensor]) -> Face:
        """All that the fast engine works out once per avatar, worked out now."""
        arrays = avatar.arrays
        landmarks = torch.from_numpy(arrays["landmarks"])[None]
        return Face(
            image=_picture(avatar.crop),
            planes=torch.empty(0),  # there are none: see render_rays
            aggregate=self._model.slots(pyramid),
            shallow=torch.from_numpy(arrays["D_0"]),
            depth=depth_of(landmarks),
            head=torch.from_numpy(arrays["head_share"])[None, None],
            paintable=torch.from_numpy(paintable(arrays["landmarks"]))[None, None],
            own_code=torch.from_numpy(arrays["own_code"])[None],
            eyes=float(eye_openness(arrays["landmarks"])),
            lids=find_eyelids(arrays["landmarks"]),
            anchor=anchor_of(landmarks),
        )

    def _book(self, stage: str, begin: float) -> float:
        now = time.perf_counter()
        self._stage_ms[stage] = self._stage_ms.get(stage, 0.0) + (now - begin) * 1000
        return now


def render_rays(
    model: S3DNerf, pyramid: list[Tensor], depth: Tensor, pose: Pose, lattice: Tensor, anchor: Anchor
) -> Coarse:
    """Equations (2), (4) and (5): samples of the face box's rays, deformed, looked up in all scales, composited.

    Args:
        pyramid: F_0..F_3, each [1, 3 * C, H_i, W_i].
        depth, pose, lattice, anchor: as ``Renderer.forward``.
    """
    renderer = model.renderer
    n, samples = renderer.rays, renderer.samples
    points = pose.to_source(renderer.ray_points(depth, pose))
    if model.field.kind != "none":
        points = model.field.displace(points, lattice, anchor)
    told = renderer.decoder(renderer.look_up_pyramid(pyramid, points)).unflatten(1, (samples, n * n))
    density = F.softplus(told[..., :1])  # [1, S, n^2, 1]
    passed = torch.exp(-(torch.cumsum(density, 1) - density))
    weight = passed * (1 - torch.exp(-density))
    opacity = weight.sum(1)
    expected = (weight * points.unflatten(1, (samples, n * n))).sum(1) / (opacity + 1e-4)
    colour = (weight * told[..., 1:4].tanh()).sum(1) - (1 - opacity)
    features = (weight * told[..., 4:]).sum(1)

    def square(x: Tensor) -> Tensor:  # [1, n^2, C] -> [1, C, n, n]
        return x.transpose(1, 2).reshape(1, -1, n, n)

    return Coarse(
        square(colour), square(features), square(opacity), square(expected[..., :2]), square(expected[..., 2:])
    )


def warp_portrait(model: S3DNerf, face: Face, coarse: Coarse, pose: Pose, motion: Motion) -> Tensor:
    """The portrait warped to where its pixels go, the mouth's paint still missing: [1, 3, 256, 256] in [-1, 1]."""
    size, top = model.config.face_box, model.config.face_box_top
    left = (CROP_PX - size) // 2
    axis = pixel_centres(CROP_PX)
    here = torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None]
    plain = _plain_head(face.depth, pose)
    ramp = ((torch.arange(size) + 0.5) / SEAM_PX).clamp(max=1)
    side = torch.minimum(ramp, ramp.flip(0))
    inner = F.interpolate(coarse.flow, size=(size, size), mode="bilinear")
    flow = plain.clone()
    box = (..., slice(top, top + size), slice(left, left + size))
    flow[box] += settle(side[:, None] * side * (inner - plain[box]))
    flow = here + face.head * (flow - here)
    image = shut_eyes(face.image, face.lids, motion.blink)
    return F.grid_sample(image, flow.permute(0, 2, 3, 1), align_corners=False, padding_mode="border")


def paint_mouth(model: S3DNerf, face: Face, coarse: Coarse, pose: Pose, drive: Tensor, warped: Tensor) -> np.ndarray:
    """Super-resolution in the mouth box, and the finished picture, uint8 [256, 256, 3]."""
    size = model.config.mouth_box
    centre = model.mouth_box_centre(face.anchor, pose)
    left, top = (round(float(c + 1) / 2 * CROP_PX) - size // 2 for c in centre[0])
    box = (..., slice(top, top + size), slice(left, left + size))
    paint = model.superres(coarse, face.shallow, warped[box], drive, centre, face.anchor)
    picture = warped.clone()
    picture[box] += paint.cover * face.paintable[box] * (paint.colour - warped[box])
    return ((picture[0] * 127.5 + 128).clamp(0, 255).byte()).permute(1, 2, 0).contiguous().numpy()


def _plain_head(depth: Tensor, pose: Pose) -> Tensor:
    """Flow of the undeformed head: [1, 2, 256, 256]."""
    axis = pixel_centres(RIGID_POINTS)
    xy = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
    z = F.interpolate(depth, size=(RIGID_POINTS, RIGID_POINTS), mode="bilinear").reshape(1, -1, 1)
    moved = pose.to_source(torch.cat([xy, z], -1))[..., :2].transpose(1, 2)
    flow = moved.reshape(1, 2, RIGID_POINTS, RIGID_POINTS)
    return F.interpolate(flow, size=(CROP_PX, CROP_PX), mode="bilinear")


def _picture(crop: np.ndarray) -> Tensor:
    """uint8 [256, 256, 3] -> [1, 3, 256, 256] in [-1, 1]."""
    return torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
