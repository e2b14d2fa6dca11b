"""Frames of many streams at once, from resident portraits to finished pictures, as one program for a GPU.

Plain tensors of fixed shapes, nothing that asks the CPU: so that it can be recorded as a CUDA graph. On a CPU
it computes the same, which is how it is tested.
"""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from engine.s3dnerf.deformation import CONTROLS
from engine.s3dnerf.eyelids import shut_lids
from engine.s3dnerf.geometry import CROP_PX, Anchor
from engine.s3dnerf.gpu_render import MapRender
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.portrait_bank import Portraits
from engine.s3dnerf.stages import Paint


class Wants(NamedTuple):
    """What the CPU says of each row. Travels as one float32 table; places are whole numbers in it."""

    place: Tensor  # [B], of the portrait in the bank
    heard: Tensor  # [B], row of what was heard
    rotation: Tensor  # [B, 3, 3] and
    shift: Tensor  # [B, 3], the pose
    corner: Tensor  # [B, 2], left and top of the mouth box, pixels
    controls: Tensor  # [B, 3], of the face
    share: Tensor  # [B], of what was heard that the mouth follows
    blink: Tensor  # [B]


WIDTHS = (1, 1, 9, 3, 2, CONTROLS, 1, 1)  # of their columns in the table


def pack(*columns: np.ndarray) -> np.ndarray:
    """``Wants``' fields, [B, ...] each -> the table, float32 [B, sum(WIDTHS)]."""
    rows = len(columns[0])
    return np.concatenate([np.asarray(x, np.float32).reshape(rows, -1) for x in columns], 1)


def unpack(table: Tensor) -> Wants:
    place, heard, rotation, shift, corner, controls, share, blink = table.split(WIDTHS, 1)
    return Wants(
        place[:, 0].long(),
        heard[:, 0].long(),
        rotation.unflatten(1, (3, 3)),
        shift,
        corner,
        controls,
        share[:, 0],
        blink[:, 0],
    )


class BatchFrame(nn.Module):
    """What was heard and portraits by their places -> pictures.

    Args:
        model: where it shall compute; it is shared.
        samples: along a ray.
        closed, gain: of the checkpoint, [K].
        half: convolve and multiply in half precision; coordinates and pictures stay float32.
    """

    def __init__(self, model: S3DNerf, samples: int, closed: Tensor, gain: Tensor, *, half: bool = False) -> None:
        super().__init__()
        self.audio, self.field, self.paint = model.audio, model.field, Paint(model)
        self.render = MapRender(model)
        self.render.renderer = model.renderer.with_samples(samples)
        self.box, self.low_precision = model.config.mouth_box, half
        self.closed: Tensor
        self.gain: Tensor
        self.register_buffer("closed", closed, persistent=False)
        self.register_buffer("gain", gain, persistent=False)

    def forward(self, portraits: Portraits, driving: Tensor, codes: Tensor, table: Tensor) -> tuple[Tensor, Tensor]:
        """Draw B frames.

        Args:
            portraits: all of the bank.
            driving, codes: of all that was heard in this step, [R, tokens, width] and [R, K].
            table: ``Wants`` of B rows.

        Returns:
            pictures uint8 [B, 256, 256, 3]; where each pixel looks in its portrait, float32 [B, 2, 256, 256].
        """
        want = unpack(table)
        face = portraits.take(want.place)
        driving, codes = driving[want.heard], codes[want.heard]
        if self.audio.gated:
            driving, codes = self.audio.shut(driving, codes, want.share)
        codes = self.closed + (codes - self.closed) * self.gain
        drive = torch.cat([codes, face.own_code, want.controls], 1)
        with self._precision(table.device):
            lattice = self.field(drive, driving, face.aggregate, Anchor(face.mouth, face.unit)).float()
        image = shut_lids(face.image, face.lids, want.blink)
        anchor = (face.mouth, face.unit)
        warped, flow, seen = self.render(
            lattice, face.planes.float(), face.depth, image, face.head, *anchor, want.rotation, want.shift
        )
        centre = (want.corner + self.box // 2) / CROP_PX * 2 - 1
        inside = self._inside(want.corner)
        before = warped[inside].permute(0, 3, 1, 2).contiguous()  # indexed by lists, channels come last
        with self._precision(table.device):
            colour, cover = self.paint(seen, face.shallow.float(), before, drive, centre, *anchor)
        share = cover.float() * face.paintable[inside].permute(0, 3, 1, 2)
        painted = warped.clone()
        painted[inside] = (before + share * (colour.float() - before)).permute(0, 2, 3, 1)
        pictures = (painted * 127.5 + 128).clamp(0, 255).to(torch.uint8)  # as warp_kernel.finish
        return pictures.permute(0, 2, 3, 1).contiguous(), flow

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if not self.low_precision:
            return contextlib.nullcontext()
        # A recording must not keep rounded weights from its first run: their memory is not its own.
        kind = torch.float16 if device.type == "cuda" else torch.bfloat16
        return torch.autocast(device.type, kind, cache_enabled=False)

    def _inside(self, corner: Tensor) -> tuple[Tensor, slice, Tensor, Tensor]:
        """Index of the mouth boxes in maps [B, C, 256, 256]."""
        steps = torch.arange(self.box, device=corner.device)
        left, top = corner.long().unbind(1)
        rows, columns = top[:, None] + steps, left[:, None] + steps
        each = torch.arange(corner.shape[0], device=corner.device)[:, None, None]
        return each, slice(None), rows[:, :, None], columns[:, None]
