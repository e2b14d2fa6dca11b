"""The render stage as a CPU wants it: the same arguments, the same picture, by kernels instead of tensor operations."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from engine.lanes import Lanes
from engine.s3dnerf.geometry import CROP_PX
from engine.s3dnerf.ray_kernel import Box, composite_rays, sample_rays, turn_head
from engine.s3dnerf.stages import RIGID_POINTS, SETTLE_PX, Render
from engine.s3dnerf.warp_kernel import warp_head

PARTS = 4  # that a frame's rows are drawn in: always these, so that no result hangs on how many lanes are idle


class CpuRender:
    """Runs ``Render`` by kernels; called as the stage is. The results are valid until the thread's next call.

    Args:
        stage: in evaluation mode; it keeps its weights.
        lanes: that share a frame's rows, where they are idle.
    """

    def __init__(self, stage: Render, lanes: Lanes) -> None:
        renderer, field = stage.renderer, stage.field
        self._stage, self._bias = stage, renderer.bias.detach()
        self._slab = np.float32(renderer.slab)
        self._box = Box(
            rays=renderer.rays,
            extent=np.float32(renderer.extent),
            top=np.float32(renderer.top),
            band=np.float32(renderer.band),
            lattice_extent=np.float32(field.extent),
            lattice_rise=np.float32(field.rise),
        )
        self._seam = _array(stage.seam[0, 0])
        self._lanes = lanes
        self._scratch = threading.local()

    @torch.inference_mode()
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """As ``Render.forward``."""
        lattice, planes, depth, image, head, mouth, unit, rotation, shift = arguments
        scratch = self._own_scratch()
        given = (lattice[0], planes, depth[0, 0], rotation[0], shift[0], mouth[0])
        arrays, yardstick, found = [_array(x) for x in given], np.float32(unit.item()), scratch.found.numpy()
        turn_head(scratch.plain, *arrays[2:5])
        decoder = self._stage.renderer.decoder
        rays, samples = scratch.places.shape[1:3]

        @torch.inference_mode()
        def cast(begin: int, end: int) -> None:
            sample_rays(scratch.places, found, begin, end, *arrays, yardstick, self._box)
            rows = scratch.found[begin * rays * samples : end * rays * samples]
            told = decoder(rows.add_(self._bias)).view(end - begin, rays, samples, -1).numpy()
            composite_rays(scratch.seen, told, scratch.places, begin, end, self._slab)

        self._share(cast, rays)
        around = (_array(image[0]), _array(head[0, 0]), scratch.plain, scratch.seen[-2:], self._seam)
        box = (self._stage.top, self._stage.left, SETTLE_PX)
        self._share(
            lambda begin, end: warp_head(scratch.warped, scratch.flow, begin, end, *around, *box),
            CROP_PX,
        )
        return tuple(torch.from_numpy(x)[None] for x in (scratch.warped, scratch.flow, scratch.seen))

    def _own_scratch(self) -> _Scratch:
        """The calling thread's."""
        if not hasattr(self._scratch, "arrays"):
            self._scratch.arrays = _Scratch(self._stage, len(self._bias))
        return self._scratch.arrays

    def _share(self, work: Callable[[int, int], None], rows: int) -> None:
        """``work(begin, end)`` over all rows, in parts."""
        edges = [rows * i // PARTS for i in range(PARTS + 1)]
        self._lanes.each(lambda part: work(*part), list(itertools.pairwise(edges)))


class _Scratch:
    """What a thread draws into."""

    def __init__(self, stage: Render, hidden: int) -> None:
        renderer = stage.renderer
        n, outputs = renderer.rays, int(renderer.decoder[-1].get_parameter("weight").shape[0])
        self.plain = np.zeros((2, RIGID_POINTS, RIGID_POINTS), np.float32)
        self.places = np.zeros((n, n, renderer.samples, 2), np.float32)
        self.found = torch.zeros(n * n * renderer.samples, hidden)
        self.seen = np.zeros((outputs + 2, n, n), np.float32)
        self.warped = np.zeros((3, CROP_PX, CROP_PX), np.float32)
        self.flow = np.zeros((2, CROP_PX, CROP_PX), np.float32)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()
