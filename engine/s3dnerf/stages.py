"""A frame's way in four stages, each plain tensors in and out, so that any backend can compile it.

Hear -> Deform -> Render -> Paint; what is constant per portrait comes in as an argument.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.geometry import CROP_PX, Anchor, Pose, pixel_centres
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.renderer import Coarse

SEAM_PX = 16  # the face box's flow turns into the plain head's over so many pixels
SETTLE_PX = (0.3, 1.0)  # the field's displacements fade to nothing between these
RIGID_POINTS = 64  # the plain head's flow is worked out on so many points a side


class Hear(nn.Module):
    def __init__(self, model: S3DNerf) -> None:
        super().__init__()
        self.features, self.audio = model.features, model.audio

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Conv features [1, T, C] -> a_dri [1, tokens, width], codes [1, K], logit of it being speech [1]."""
        return self.audio.tell(self.features.contextualise(window))


class Deform(nn.Module):
    def __init__(self, model: S3DNerf) -> None:
        super().__init__()
        self.field = model.field

    def forward(self, drive: Tensor, driving: Tensor, aggregate: Tensor, mouth: Tensor, unit: Tensor) -> Tensor:
        """Drive [1, 2K + 3], a_dri, F_agg, anchor -> lattice [1, 3 Dz, N, N]."""
        return self.field(drive, driving, aggregate, Anchor(mouth, unit))


def settle(moved: Tensor) -> Tensor:
    """Leave pixels where they are that the field moves by less than a small part of a pixel.

    To resample them would blur what only speech moves, and make the rest of the face quiver.

    Args:
        moved: displacements in crop units, [1, 2, H, W].

    Returns:
        the same, fading to nothing from SETTLE_PX[1] down to SETTLE_PX[0].
    """
    rest, full = SETTLE_PX
    across, down = moved[:, :1], moved[:, 1:]
    length = (across * across + down * down).sqrt()  # several times faster than norm() here
    px = CROP_PX / 2
    share = (length * (px / (full - rest)) - rest / (full - rest)).clamp(0, 1)
    return moved * (share * share * (3 - 2 * share))


class Render(nn.Module):
    """Rays of the face box, then the whole portrait warped: head by the pose, inner face by the rays."""

    def __init__(self, model: S3DNerf) -> None:
        super().__init__()
        self.renderer, self.field = model.renderer, model.field
        self.seam: Tensor
        self.here: Tensor
        size, self.mouth_box = model.config.face_box, model.config.mouth_box
        self.top, self.left, self.size = model.config.face_box_top, (CROP_PX - size) // 2, size
        ramp = ((torch.arange(size) + 0.5) / SEAM_PX).clamp(max=1)
        side = torch.minimum(ramp, ramp.flip(0))
        self.register_buffer("seam", (side[:, None] * side)[None, None], persistent=False)
        axis = pixel_centres(CROP_PX)
        self.register_buffer("here", torch.stack(torch.meshgrid(axis, axis, indexing="xy"))[None], persistent=False)

    def _around(self) -> tuple[int, int, int, int]:
        return (self.left, CROP_PX - self.size - self.left, self.top, CROP_PX - self.size - self.top)

    def forward(
        self,
        lattice: Tensor,
        planes: Tensor,
        depth: Tensor,
        image: Tensor,
        head: Tensor,
        mouth: Tensor,
        unit: Tensor,
        rotation: Tensor,
        shift: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Render one frame but for the paint.

        Args:
            lattice: of this frame, [1, 3 Dz, N, N].
            planes, depth: of the portrait.
            image: the portrait, [1, 3, 256, 256] in [-1, 1].
            head: how far each pixel moves with the head, [1, 1, 256, 256] in [0, 1].
            mouth, unit: the portrait's anchor.
            rotation, shift: the pose.

        Returns:
            the warped portrait [1, 3, 256, 256]; where each pixel looks [1, 2, 256, 256]; and colour,
            features, opacity and flow of the face box in one [1, 3 + F + 1 + 2, n, n].
        """
        pose = self._pose(rotation, shift)
        coarse = self.renderer(planes, depth, pose, self.field, lattice, Anchor(mouth, unit))
        face = F.interpolate(coarse.flow, size=(self.size, self.size), mode="bilinear")
        plain = F.interpolate(self.plain_head(depth, pose), size=(CROP_PX, CROP_PX), mode="bilinear")
        box = (..., slice(self.top, self.top + self.size), slice(self.left, self.left + self.size))
        flow = plain + F.pad(settle(self.seam * (face - plain[box])), self._around())
        flow = self.here + head * (flow - self.here)
        warped = F.grid_sample(image, flow.permute(0, 2, 3, 1), align_corners=False, padding_mode="border")
        return warped, flow, torch.cat([coarse.colour, coarse.features, coarse.opacity, coarse.flow], 1)

    def _pose(self, rotation: Tensor, shift: Tensor) -> Pose:
        return Pose(rotation, shift)

    @staticmethod
    def plain_head(depth: Tensor, pose: Pose) -> Tensor:
        """Flow of the undeformed head over the whole crop: [B, 2, RIGID_POINTS, RIGID_POINTS]."""
        axis = pixel_centres(RIGID_POINTS, depth.device)
        xy = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1).reshape(1, -1, 2)
        z = F.interpolate(depth, size=(RIGID_POINTS, RIGID_POINTS), mode="bilinear").flatten(2).transpose(1, 2)
        moved = pose.to_source(torch.cat([xy.expand(z.shape[0], -1, -1), z], -1))[..., :2]
        return moved.transpose(1, 2).unflatten(2, (RIGID_POINTS, RIGID_POINTS))


class Paint(nn.Module):
    """Super-resolution in the mouth box."""

    def __init__(self, model: S3DNerf) -> None:
        super().__init__()
        self.superres, self.features = model.superres, model.config.features

    def forward(
        self, seen: Tensor, shallow: Tensor, warped: Tensor, drive: Tensor, centre: Tensor, mouth: Tensor, unit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What ``Render`` saw of the face box, D_0, warped mouth box [1, 3, M, M], drive, box centre, anchor.

        Returns:
            colour [1, 3, M, M] in [-1, 1] and cover [1, 1, M, M].
        """
        f = self.features
        coarse = Coarse(seen[:, :3], seen[:, 3 : 3 + f], seen[:, 3 + f : 4 + f], seen[:, 4 + f :], seen[:, :1])
        return self.superres(coarse, shallow, warped, drive, centre, Anchor(mouth, unit))
