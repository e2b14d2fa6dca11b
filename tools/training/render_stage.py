"""Stage 3: pictures. The encoder, slots, renderer and super-resolution, with stages 1 and 2 as initialisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.s3dnerf.geometry import CROP_PX, Anchor, box_grid
from engine.s3dnerf.gpu_render import SummedPose
from engine.s3dnerf.lip_reader import LipReader
from engine.s3dnerf.losses import deform_loss
from engine.s3dnerf.model import Frame, Identity, S3DNerf
from engine.s3dnerf.sync_discriminator import SyncDiscriminator
from tools.training.correlation import CorrelationHead
from tools.training.deform_stage import Points, landmark_error
from tools.training.loop import Batch, cosine, half
from tools.training.opponent import Opponent
from tools.training.picture_losses import Truth, bend_loss, mouth_truth, picture_losses, reader_losses
from tools.training.render_recipe import RenderRecipe
from tools.training.rows import Rows
from tools.training.sync_stage import made_sync_loss
from tools.training.vgg import VggFeatures


class RenderStage:
    """Stage 3 for ``loop.train``.

    Args:
        model: with what stages 1 and 2 learned.
        recipe: terms whose weight is nothing are not computed.
        rows: what to learn from.
        device: where.
        reader: the frozen perceptual network, for its term.
        judge: the frozen lip-sync discriminator, for its.

    Raises:
        ValueError: the recipe has a term whose network is missing.
    """

    name = "render"

    def __init__(
        self,
        model: S3DNerf,
        recipe: RenderRecipe,
        rows: Rows,
        device: torch.device,
        *,
        reader: LipReader | VggFeatures | None = None,
        judge: SyncDiscriminator | None = None,
    ) -> None:
        if recipe.weights.sync > 0 and judge is None:
            raise ValueError("a lip-sync loss needs a trained lip-sync discriminator: train compact_sync first")
        if judge is not None and recipe.weights.sync > 0 and judge.frames != recipe.sync_targets:
            raise ValueError(f"the judge looks at {judge.frames} frames, the recipe gives it {recipe.sync_targets}")
        if recipe.reads and reader is None:
            raise ValueError("a perceptual loss needs a trained perceptual network: train compact_perceptual first")
        self.steps, self.seed, self.draw = recipe.steps, recipe.seed, rows.draw
        self.model, self.recipe, self.device = model.to(device).train(), recipe, device
        self.judge = judge.to(device) if judge is not None and recipe.weights.sync > 0 else None
        self.reader = reader.to(device) if reader is not None and recipe.reads else None
        size = model.config.mouth_box
        self.opponent = Opponent(size, recipe, device) if recipe.weights.adversarial > 0 else None
        self.points = Points().to(device)
        related = recipe.correlation_weight > 0 and model.config.deformation == "cross_modal"
        self.correlation = CorrelationHead(model.config).to(device) if related else None
        self.optimiser = make_optimiser(model, recipe, self.correlation)
        self._last: tuple[Batch, Frame] | None = None

    def learn(self, batch: Batch, step: int) -> dict[str, Tensor]:
        self._set_rates(step)
        frame, identity = draw_frames(self.model, batch)
        truth = mouth_truth(self.model.config, frame, batch)
        losses = self._losses(frame, batch, truth)
        if self.correlation is not None:
            with half(frame.fine.device):
                miss = self.correlation(self.model.field, identity.aggregate, batch)
            losses["correlation"] = miss.float() * self.recipe.correlation_weight
        real = batch["pictured"] > 0
        playing = self.opponent is not None and self.opponent.plays(step, int(real.sum()))
        if self.opponent is not None and playing:
            losses |= self.opponent.judge(frame.fine[real], truth.picture[real], step)
        self.optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_([p for group in self.optimiser.param_groups for p in group["params"]], 1.0)
        self.optimiser.step()
        if self.opponent is not None and playing:
            losses |= self.opponent.learn(frame.fine[real], truth.picture[real], step)
        self._last = batch, frame
        return losses

    def _losses(self, frame: Frame, batch: Batch, truth: Truth) -> dict[str, Tensor]:
        """Every term of this stage by name, weighted, but for the adversary's."""
        recipe, config = self.recipe, self.model.config
        error, _ = landmark_error(self.model.field, frame.lattice.float(), batch)
        losses = picture_losses(config, frame, batch, truth, recipe)
        losses["points"] = self.points(error, batch["trusted"]) * 4
        losses["deform"] = deform_loss(frame.lattice) * recipe.weights.deform
        losses["smooth"] = bend_loss(frame.lattice.float()) * recipe.smooth_weight
        if self.judge is not None and "sound" in batch:
            extent = config.mouth_box / CROP_PX
            told = made_sync_loss(self.judge, frame.fine, frame.centre, extent, batch)
            losses["sync"] = told * recipe.weights.sync
        if self.reader is not None:
            losses |= reader_losses(self.reader, config, frame, batch, truth, recipe)
        return losses

    def _set_rates(self, step: int) -> None:
        recipe = self.recipe
        scale = cosine(step, recipe.steps, recipe.warm_up, least=0.02)
        for group, rate in zip(self.optimiser.param_groups, (recipe.rate, recipe.field_rate), strict=True):
            group["lr"] = rate * scale

    def state(self) -> dict[str, Any]:
        state = dict(model=self.model.state_dict(), optimiser=self.optimiser.state_dict())
        if self.correlation is not None:
            state["correlation"] = self.correlation.state_dict()
        return state | (self.opponent.state() if self.opponent is not None else {})

    def restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.correlation is not None:
            self.correlation.load_state_dict(state["correlation"])
        if self.opponent is not None:
            self.opponent.restore(state)

    def show(self, path: Path) -> None:
        if self._last is not None:
            _draw_sample(path.with_suffix(".png"), *self._last, self.model)


def make_optimiser(
    model: S3DNerf, recipe: RenderRecipe, correlation: CorrelationHead | None = None
) -> torch.optim.AdamW:
    """Parts that are new at the recipe's rate, what stage 2 taught the field slower; the audio branch is frozen.

    Where the field does not learn at all, encoder and slots do not either: it would see another F_agg than it knows.
    """
    frozen: list[nn.Module] = [model.features, model.audio]
    fresh: list[nn.Module | None] = [model.renderer, model.superres, correlation]
    if recipe.field_rate > 0:
        fresh += [model.encoder, model.slots, *model.field.untaught()]
    else:
        frozen += [model.encoder, model.slots, model.field]
    for part in frozen:
        part.requires_grad_(False).eval()
    fast = [p for part in fresh if part is not None for p in part.parameters()]
    known = {id(p) for p in fast}
    slow = [p for p in model.field.parameters() if id(p) not in known and p.requires_grad]
    groups = [dict(params=fast, lr=recipe.rate), dict(params=slow, lr=recipe.field_rate)]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99))


def draw_frames(model: S3DNerf, batch: Batch) -> tuple[Frame, Identity]:
    """Render a batch; leaves each frame's own copy of its portrait in ``batch["source_image"]``."""
    targets = len(batch["target_image"]) // len(batch["source_image"])
    drive = batch["drive"] + 0.05 * torch.randn_like(batch["drive"])
    pose = SummedPose(batch["rotation"], batch["shift"])  # in half precision a product would shake the picture
    with half(drive.device):
        identity = model.enrol(batch["source_image"], batch["source"][::targets])
        identity = spread_identity(identity, targets)
        batch["source_image"] = batch["source_image"].repeat_interleave(targets, 0)
        frame = model(identity, batch["source_image"], drive, batch["driving"], pose, batch["pictured"])
        return frame, identity


def spread_identity(identity: Identity, targets: int) -> Identity:
    """Repeat each portrait for its frames: [S, ...] -> [S * targets, ...]; planes stay as they are."""

    def repeat(x: Tensor) -> Tensor:
        return x.repeat_interleave(targets, 0)

    return Identity(
        planes=identity.planes,  # the renderer shares them among a portrait's frames
        aggregate=repeat(identity.aggregate),
        shallow=repeat(identity.shallow),
        depth=repeat(identity.depth),
        anchor=Anchor(*(repeat(part) for part in identity.anchor)),
    )


def _draw_sample(path: Path, batch: Batch, frame: Frame, model: S3DNerf) -> None:
    """A row a sample: portrait, wanted frame, warped mouth, painted mouth, cover, coarse face."""
    size = model.config.mouth_box
    grid = box_grid(frame.centre, size / CROP_PX, size)
    pictures = [
        F.grid_sample(batch["source_image"], grid, align_corners=False),
        F.grid_sample(batch["target_image"], grid, align_corners=False),
        frame.warped,
        frame.fine,
        frame.paint.cover.expand(-1, 3, -1, -1) * 2 - 1,
        F.interpolate(frame.coarse.colour, size=(size, size), mode="bilinear"),
    ]
    sheet = torch.cat([torch.cat(list(p.detach().float()), 1) for p in pictures], 2)
    image: np.ndarray = ((sheet.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).cpu().numpy()
    cv2.imwrite(str(path), image[..., ::-1])
