"""The render stage as a CPU wants it: the same arguments, the same picture, by kernels instead of tensor operations."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from engine.s3dnerf.geometry import CROP_PX, Pose
from engine.s3dnerf.ray_kernel import Box, composite_rays, sample_rays
from engine.s3dnerf.stages import SETTLE_PX, Render
from engine.s3dnerf.warp_kernel import warp_head


class CpuRender:
    """Runs ``Render`` by kernels; called as the stage is. The results are valid until the next call.

    Args:
        stage: in evaluation mode; it keeps its weights.
        threads: that share a frame's rows.
    """

    def __init__(self, stage: Render, threads: int = 1) -> None:
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
        n, outputs = renderer.rays, int(renderer.decoder[-1].get_parameter("weight").shape[0])
        self._places = np.zeros((n, n, renderer.samples, 2), np.float32)
        self._found = torch.zeros(n * n * renderer.samples, len(self._bias))
        self._seen = np.zeros((outputs + 2, n, n), np.float32)
        self._warped = np.zeros((3, CROP_PX, CROP_PX), np.float32)
        self._flow = np.zeros((2, CROP_PX, CROP_PX), np.float32)
        self._seam = _array(stage.seam[0, 0])
        self._threads = threads
        self._others = ThreadPoolExecutor(threads - 1, "render") if threads > 1 else None

    @torch.inference_mode()
    def __call__(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """As ``Render.forward``."""
        lattice, planes, depth, image, head, mouth, unit, rotation, shift = arguments
        plain = _array(self._stage._plain_head(depth, Pose(rotation, shift))[0])
        given = (lattice[0], planes, depth[0, 0], rotation[0], shift[0], mouth[0])
        arrays, yardstick, found = [_array(x) for x in given], np.float32(unit.item()), self._found.numpy()
        decoder = self._stage.renderer.decoder
        rays, samples = self._places.shape[1:3]

        @torch.inference_mode()
        def cast(begin: int, end: int) -> None:
            sample_rays(self._places, found, begin, end, *arrays, yardstick, self._box)
            rows = self._found[begin * rays * samples : end * rays * samples]
            told = decoder(rows.add_(self._bias)).view(end - begin, rays, samples, -1).numpy()
            composite_rays(self._seen, told, self._places, begin, end, self._slab)

        self._share(cast, rays)
        around = (_array(image[0]), _array(head[0, 0]), plain, self._seen[-2:], self._seam)
        box = (self._stage.top, self._stage.left, SETTLE_PX)
        self._share(
            lambda begin, end: warp_head(self._warped, self._flow, begin, end, *around, *box),
            CROP_PX,
        )
        return tuple(torch.from_numpy(x)[None] for x in (self._warped, self._flow, self._seen))

    def _share(self, work: Callable[[int, int], None], rows: int) -> None:
        """``work(begin, end)`` over all rows, a part on each thread."""
        edges = [rows * i // self._threads for i in range(self._threads + 1)]
        parts = list(itertools.pairwise(edges))
        waiting = [self._others.submit(work, *part) for part in parts[1:]] if self._others else []
        work(*parts[0])
        for part in waiting:
            part.result()


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().contiguous().numpy()
