"""The stages that a backend compiles, with arguments of the shapes that the engine gives them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engine.s3dnerf.geometry import CROP_PX, DEPTH_SIZE
from engine.s3dnerf.gpu_render import GpuRender
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.stages import Deform, Hear, Paint, Render

THRIFTY_SHARE = 0.5  # of the samples along a ray are left where a row saves; two at least


def thrifty_samples(samples: int) -> int:
    """Samples along a ray of a row that saves."""
    return max(2, round(samples * THRIFTY_SHARE))


def stages_of(model: S3DNerf, *, gpu: bool) -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    """All stages by name, in evaluation mode, each with example arguments for one row.

    ``render_thrifty`` takes what ``render`` takes and draws with fewer samples; it is left out where it has
    none to save.

    Args:
        model: whose weights they use.
        gpu: give them in the form that suits a GPU.
    """
    config, render = model.config, GpuRender if gpu else Render
    n, box = config.rays, config.mouth_box
    window = torch.zeros(1, config.audio.window_features, config.audio.conv_dim[-1])
    drive, driving = torch.zeros(1, 2 * config.codes + 3), torch.zeros(1, config.audio.tokens, config.audio.width)
    aggregate = torch.zeros(1, config.slot_grid**2, config.slot_width)
    mouth, unit = torch.tensor([[0.0, 0.4, 0.0]]), torch.tensor([[0.6]])
    lattice = torch.zeros(1, 3 * config.lattice_depths, config.lattice, config.lattice)
    planes = torch.zeros(3 * config.plane_size**2, config.plane_features)
    depth, image = torch.zeros(1, 1, DEPTH_SIZE, DEPTH_SIZE), torch.zeros(1, 3, CROP_PX, CROP_PX)
    head, turn, shift = torch.zeros(1, 1, CROP_PX, CROP_PX), torch.eye(3)[None], torch.zeros(1, 3)
    seen = torch.zeros(1, 3 + config.features + 1 + 2, n, n)
    shallow = torch.zeros(1, config.encoder_widths[0], CROP_PX // 2, CROP_PX // 2)
    warped, centre = torch.zeros(1, 3, box, box), torch.zeros(1, 2)
    drawing = (lattice, planes, depth, image, head, mouth, unit, turn, shift)
    stages: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
        "hear": (Hear(model), (window,)),
        "deform": (Deform(model), (drive, driving, aggregate, mouth, unit)),
        "render": (render(model), drawing),
        "paint": (Paint(model), (seen, shallow, warped, drive, centre, mouth, unit)),
    }
    few = thrifty_samples(config.samples)
    if few < config.samples:
        thrifty = render(model)
        thrifty.renderer = model.renderer.with_samples(few)
        stages["render_thrifty"] = (thrifty, drawing)
    return {name: (stage.eval(), example) for name, (stage, example) in stages.items()}
