"""The render stage as a GPU wants it: the same arguments, the same picture, other operations."""

from __future__ import annotations

import torch
from torch import Tensor

from engine.s3dnerf.geometry import Pose
from engine.s3dnerf.stages import Render


class SummedPose(Pose):
    """Turns points by products and sums of single numbers.

    A GPU may round the factors of a matrix product to 11 bits (TF32, half precision). For coordinates that
    is an eighth of a pixel, which would be seen as a quiver.
    """

    def to_source(self, points: Tensor) -> Tensor:
        return (points[:, :, None] * self.rotation[:, None]).sum(-1) + self.shift[:, None]

    def to_target(self, points: Tensor) -> Tensor:
        back = torch.linalg.inv(self.rotation.float())
        return ((points - self.shift[:, None])[:, :, None] * back[:, None]).sum(-1)


class MapRender(Render):
    """``Render`` for B frames at once on a GPU, which has samplers: all arguments [B, ...], planes as maps.

    ``planes`` are [B, 3, hidden, S, S].
    """

    def _pose(self, rotation: Tensor, shift: Tensor) -> Pose:
        return SummedPose(rotation, shift)


class GpuRender(MapRender):
    """``Render`` for backends that compute on a GPU what they are given on the CPU.

    A CPU gathers the corners of a look-up as rows of a table. Exported to ONNX the gathering becomes a loop
    over points, so the table is laid out as maps again, which costs next to nothing on a GPU. Takes B frames at
    once: the tables one behind the other as ``planes`` [B * 3 * S * S, hidden], all else [B, ...].
    """

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
        """As ``Render.forward``."""
        size = self.renderer.planes
        maps = planes.unflatten(0, (-1, 3, size, size)).permute(0, 1, 4, 2, 3)
        return super().forward(lattice, maps, depth, image, head, mouth, unit, rotation, shift)
