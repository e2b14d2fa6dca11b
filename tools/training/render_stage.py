"""Stage 3: pictures. The encoder, slots, renderer and super-resolution, with stages 1 and 2 as initialisation."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.landmarks import LIPS
from engine.s3dnerf.geometry import CROP_PX, Anchor, Pose, box_grid
from engine.s3dnerf.lip_motion import LipMotion, inner_gaps
from engine.s3dnerf.losses import LossWeights, deform_loss
from engine.s3dnerf.model import Frame, Identity, S3DNerf
from engine.s3dnerf.sync_discriminator import SyncDiscriminator
from tools.training.deform_stage import Points, landmark_error, stack
from tools.training.faces import (
    MOUTH_SHOWS,
    FaceTrack,
    Pair,
    change_tone,
    driven_still,
    face_mask,
    frame_pair,
    inner_lips,
    moved_still,
    transplant_mouth,
)
from tools.training.sync_stage import made_sync_loss


@dataclass(frozen=True, kw_only=True)
class RenderRecipe:
    minutes: float = 60.0
    sources: int = 5  # portraits of a batch; each is encoded once
    targets: int = 2  # frames of each
    in_a_row: bool = False  # frames follow one another, as the lip-sync discriminator wants them
    moved_stills: float = 0.12  # share of rows that are stills rebuilt from themselves
    driven_stills: float = 0.33  # share of rows that are stills with a speaker's lips and inside of the mouth
    rate: float = 6e-4
    field_rate: float = 1.5e-4
    lip_weight: float = 8.0
    inside_weight: float = 16.0  # of the inside of a driven still's mouth, the only picture that it has
    smooth_weight: float = 20.0  # on squared differences of neighbouring lattice points
    weights: LossWeights = LossWeights()  # the paper's, for the terms of equation (9) that are on
    seed: int = 0


class Group(NamedTuple):
    """Frames of one portrait."""

    pairs: list[Pair]
    images: list[np.ndarray]  # the portrait, then each frame, float32 [3, 256, 256]
    driving: list[Tensor]  # a_dri of each frame
    pictured: bool  # whether the frames are real pictures
    spoken: bool  # whether they are a clip's, with its own sound


class Rows:
    """Draws batches; JPEGs are decoded and tones changed on a thread of its own."""

    def __init__(
        self,
        tracks: list[FaceTrack],
        stills: list[FaceTrack],
        driving: list[Tensor],
        motion: LipMotion,
        recipe: RenderRecipe,
    ) -> None:
        self.tracks, self.stills, self.driving, self.motion, self.recipe = tracks, stills, driving, motion, recipe
        self._rng = np.random.default_rng(recipe.seed)
        self._queue: Queue[dict[str, Tensor]] = Queue(4)  # the thread waits while it is full
        threading.Thread(target=self._fill, daemon=True).start()

    def draw(self) -> dict[str, Tensor]:
        """One batch of S portraits and B = S * targets frames, frames of a portrait one behind the other.

        ``source_image`` [S, 3, 256, 256], ``target_image`` [B, 3, 256, 256], ``driving``
        [B, tokens, width], ``mask`` [B, 1, 256, 256], ``inside`` of the lips
        [B, 1, 256, 256], ``pictured`` [B] (0: only the inside of the lips is a picture), ``spoken`` [B]
        (a clip with its own sound), and a ``Pair``'s fields [B, ...].
        """
        return self._queue.get()

    def _fill(self) -> None:
        while True:
            groups = [self._group() for _ in range(self.recipe.sources)]
            pairs = [pair for group in groups for pair in group.pairs]
            images = [image for group in groups for image in group.images[1:]]
            batch = stack(pairs)
            batch["source_image"] = torch.from_numpy(np.stack([group.images[0] for group in groups]))
            batch["target_image"] = torch.from_numpy(np.stack(images))
            batch["driving"] = torch.stack([driving for group in groups for driving in group.driving])
            batch["pictured"] = torch.tensor([float(group.pictured) for group in groups for _ in group.pairs])
            batch["inside"] = torch.from_numpy(np.stack([shown_inside(pair) for pair in pairs]))[:, None]
            batch["spoken"] = torch.tensor([float(group.spoken) for group in groups for _ in group.pairs])
            batch["mask"] = torch.from_numpy(np.stack([face_mask(pair.target, CROP_PX) for pair in pairs]))[:, None]
            self._queue.put(batch)

    def _group(self) -> Group:
        rng, recipe = self._rng, self.recipe
        which = int(rng.integers(len(self.tracks)))
        track = self.tracks[which]
        source, *targets = (int(i) for i in rng.integers(0, len(track.clip), 1 + recipe.targets))
        if recipe.in_a_row:
            first = int(rng.integers(0, len(track.clip) - recipe.targets + 1))
            targets = list(range(first, first + recipe.targets))
        kind = rng.random() if self.stills else 1.0
        if kind >= recipe.moved_stills + recipe.driven_stills:
            images = change_tone([track.clip.frame(i) for i in (source, *targets)], rng)
            pairs = [frame_pair(track, target, source) for target in targets]
            return Group(pairs, images, [self.driving[which][t] for t in targets], True, True)
        still = self.stills[rng.integers(len(self.stills))]
        image = still.clip.frame(0)
        if kind < recipe.driven_stills:
            pairs = [driven_still(still, track.codes[target], self.motion) for target in targets]
            mouths = [
                transplant_mouth(track.clip.frame(target), track.clip.landmarks[target], image, pair)
                for target, pair in zip(targets, pairs, strict=True)
            ]
            images = change_tone([image, *mouths], rng)
            return Group(pairs, images, [self.driving[which][t] for t in targets], False, False)
        moves = [moved_still(still, rng) for _ in targets]
        images = change_tone([image, *(_move(image, affine) for _, affine in moves)], rng)
        nearest = int(np.abs(track.codes - still.own[0]).sum(1).argmin())
        driving = [self.driving[which][nearest]] * len(moves)
        return Group([pair for pair, _ in moves], images, driving, True, False)


def shown_inside(pair: Pair) -> np.ndarray:
    """Where the inside of the mouth is to be painted, float32 [256, 256].

    Nowhere on a still that shows its own teeth: warped, they look better than a speaker's.
    """
    own_teeth = inner_gaps(pair.source).max() > 1.5 * MOUTH_SHOWS and pair.trusted.min() == 0
    return np.zeros((CROP_PX, CROP_PX), np.float32) if own_teeth else inner_lips(pair.target, CROP_PX)


def _move(image: np.ndarray, source_from_target: np.ndarray) -> np.ndarray:
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, source_from_target, (CROP_PX, CROP_PX), flags=how, borderMode=cv2.BORDER_REPLICATE)


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


def bend_loss(lattice: Tensor) -> Tensor:
    """Mean squared difference of neighbouring displacements: keeps the field from folding where nothing is known."""
    return lattice.diff(dim=-1).pow(2).mean() + lattice.diff(dim=-2).pow(2).mean()


def lip_blob(landmarks: Tensor, grid: Tensor) -> Tensor:
    """Soft spot over the mouth: [B, 478, 3] at grid [B, h, w, 2] -> [B, 1, h, w]."""
    lips = landmarks[:, torch.from_numpy(LIPS), :2]
    width = (lips[..., 0].amax(1) - lips[..., 0].amin(1))[:, None, None] * 0.6
    away = (grid - lips.mean(1)[:, None, None]).pow(2).sum(-1)
    return torch.exp(-away / width**2)[:, None]


def picture_losses(model: S3DNerf, frame: Frame, batch: dict[str, Tensor], recipe: RenderRecipe) -> dict[str, Tensor]:
    """The terms of equation (9) that need a picture; each already weighted."""
    config = model.config
    has = batch["pictured"][:, None, None, None]
    target, source = batch["target_image"], batch["source_image"]
    top, left, size = config.face_box_top, (CROP_PX - config.face_box) // 2, config.face_box
    box = (..., slice(top, top + size), slice(left, left + size))
    mask, wanted = batch["mask"][box] * has, target[box]
    small = F.interpolate(wanted, size=(config.rays, config.rays), mode="area")
    small_mask = F.interpolate(mask, size=(config.rays, config.rays), mode="area")
    flow = F.interpolate(frame.coarse.flow, size=(size, size), mode="bilinear").permute(0, 2, 3, 1)
    warped = F.grid_sample(source, flow, align_corners=False, padding_mode="border")

    grid = box_grid(frame.centre, config.mouth_box / CROP_PX, config.mouth_box)
    truth = F.grid_sample(target, grid, align_corners=False, padding_mode="border")
    # A driven still has no picture: its warped self, with a speaker's inside of the mouth, stands in.
    inside = F.grid_sample(batch["inside"], grid, align_corners=False)
    stand_in = torch.lerp(frame.warped.detach().float(), truth, inside)
    truth = torch.where(has > 0, truth, stand_in)
    weight = 1 + recipe.lip_weight * lip_blob(batch["target"], grid) + recipe.inside_weight * inside * (1 - has)
    miss = frame.fine - truth
    losses = {
        "coarse": ((frame.coarse.colour - small).abs() * small_mask).mean() * 0.5,
        "warp": ((warped - wanted).abs() * mask).mean(),
        "fine": (miss.abs() * weight).mean(),
        "edge": (miss.diff(dim=-1).abs() * weight[..., 1:]).mean()
        + (miss.diff(dim=-2).abs() * weight[..., 1:, :]).mean(),
        "opacity": ((1 - frame.coarse.opacity).pow(2) * small_mask).mean() * 0.1,
    }
    # The paint must cover the inside of the lips on any face; elsewhere it is free.
    uncovered = -torch.log(frame.paint.cover + 1e-3) * inside
    losses["cover"] = uncovered.sum() / (inside.sum() + 100) * 0.03
    half = F.avg_pool2d(miss, 4)
    losses["blurred"] = (half.abs() * F.avg_pool2d(weight, 4)).mean()
    return losses


def train_render(
    model: S3DNerf,
    recipe: RenderRecipe,
    tracks: list[FaceTrack],
    stills: list[FaceTrack],
    driving: list[Tensor],
    motion: LipMotion,
    out: Path,
    *,
    resume: bool,
    judge: SyncDiscriminator | None = None,
) -> None:
    """Train until the recipe's minutes are over; the state is written every three minutes and at the end.

    Raises:
        ValueError: the model's configuration asks for the lip-sync loss and there is no judge, or the
            recipe's frames do not follow one another.
    """
    if model.config.sync_loss and (judge is None or not recipe.in_a_row):
        raise ValueError("sync_loss needs a trained lip-sync discriminator and a recipe with in_a_row=True")
    judge = judge if model.config.sync_loss else None
    torch.manual_seed(recipe.seed)
    optimiser, points = make_optimiser(model, recipe), Points()
    step, spent = 0, 0.0
    if resume and out.exists():
        state = torch.load(out)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step, spent = state["step"], state["spent"]
    rows = Rows(tracks, stills, driving, motion, recipe)
    begin = time.monotonic() - spent
    written = time.monotonic()
    seen: dict[str, list[float]] = {}
    while (now := time.monotonic()) - begin < recipe.minutes * 60:
        set_rates(optimiser, recipe, step, (now - begin) / (recipe.minutes * 60))
        batch = rows.draw()
        frame = draw_frames(model, batch, recipe)
        losses = all_losses(model, frame, batch, recipe, points, judge)
        optimiser.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_([p for group in optimiser.param_groups for p in group["params"]], 1.0)
        optimiser.step()
        step += 1
        for name, loss in losses.items():
            seen.setdefault(name, []).append(loss.item())
        if step % 50 == 0:
            said = " ".join(f"{name} {np.mean(values[-50:]):.4f}" for name, values in seen.items())
            print(f"render {step} {now - begin:.0f} s {said}", flush=True)
        if now - written > 180:
            written = now
            _write(out, model, optimiser, step, now - begin)
            _draw_sample(out.with_suffix(".png"), batch, frame, model)
    _write(out, model, optimiser, step, recipe.minutes * 60)


def make_optimiser(model: S3DNerf, recipe: RenderRecipe) -> torch.optim.AdamW:
    """The pictures' parts at the recipe's rate, the field slower; the audio branch is frozen."""
    for frozen in (model.features, model.audio):
        frozen.requires_grad_(False).eval()
    fast = [p for part in (model.encoder, model.slots, model.renderer, model.superres) for p in part.parameters()]
    groups = [dict(params=fast, lr=recipe.rate), dict(params=list(model.field.parameters()), lr=recipe.field_rate)]
    return torch.optim.AdamW(groups, betas=(0.9, 0.99))


def set_rates(optimiser: torch.optim.Optimizer, recipe: RenderRecipe, step: int, share: float) -> None:
    """Warm up over 100 steps, then a cosine over the recipe's time (``share`` of it is spent)."""
    scale = min(1.0, (step + 1) / 100) * (0.02 + 0.98 * (0.5 + 0.5 * np.cos(np.pi * share)))
    for group, rate in zip(optimiser.param_groups, (recipe.rate, recipe.field_rate), strict=True):
        group["lr"] = float(rate * scale)


def draw_frames(model: S3DNerf, batch: dict[str, Tensor], recipe: RenderRecipe) -> Frame:
    """Render a batch; leaves each frame's own copy of its portrait in ``batch["source_image"]``."""
    drive = batch["drive"] + 0.05 * torch.randn_like(batch["drive"])
    with torch.autocast("cpu", torch.bfloat16):
        identity = model.enrol(batch["source_image"], batch["source"][:: recipe.targets])
        identity = spread_identity(identity, recipe.targets)
        batch["source_image"] = batch["source_image"].repeat_interleave(recipe.targets, 0)
        pose = Pose(batch["rotation"], batch["shift"])
        return model(identity, batch["source_image"], drive, batch["driving"], pose, batch["pictured"])


def all_losses(
    model: S3DNerf,
    frame: Frame,
    batch: dict[str, Tensor],
    recipe: RenderRecipe,
    points: Points,
    judge: SyncDiscriminator | None,
) -> dict[str, Tensor]:
    """Every term of this stage by name, weighted."""
    error, _ = landmark_error(model.field, frame.lattice.float(), batch)
    losses = picture_losses(model, frame, batch, recipe)
    losses["points"] = points(error, batch["trusted"]) * 4
    losses["deform"] = deform_loss(frame.lattice) * recipe.weights.deform
    losses["smooth"] = bend_loss(frame.lattice.float()) * recipe.smooth_weight
    if judge is not None:
        extent = model.config.mouth_box / CROP_PX
        told = made_sync_loss(judge, frame.fine, frame.centre, extent, batch, recipe.targets)
        losses["sync"] = told * recipe.weights.sync
    return losses


def _write(out: Path, model: S3DNerf, optimiser: torch.optim.Optimizer, step: int, spent: float) -> None:
    state = dict(model=model.state_dict(), optimiser=optimiser.state_dict(), step=step, spent=spent)
    torch.save(state, out.with_suffix(".part"))
    out.with_suffix(".part").replace(out)


def _draw_sample(path: Path, batch: dict[str, Tensor], frame: Frame, model: S3DNerf) -> None:
    """A row a sample: portrait, wanted frame, warped mouth, painted mouth, cover, coarse face."""
    config = model.config
    size = config.mouth_box
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
    image = ((sheet.clamp(-1, 1) + 1) * 127.5).byte().permute(1, 2, 0).numpy()
    cv2.imwrite(str(path), image[..., ::-1])
