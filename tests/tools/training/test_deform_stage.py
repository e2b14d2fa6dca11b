"""Stage 2 learns, and goes on where it was."""

import time

import torch

from engine.landmarks import LIPS
from engine.s3dnerf.config import compact
from engine.s3dnerf.geometry import anchor_of
from tools.training.deform_stage import DeformRecipe, DeformStage, landmark_error, stack
from tools.training.faces import frame_pair
from tools.training.loop import Run, train

CPU = torch.device("cpu")


def stage_of(track, still, motion, steps: int) -> DeformStage:
    return DeformStage(compact(), DeformRecipe(steps=steps, batch=8), [track], [still], motion, CPU)


def test_it_learns_to_lead_back_to_the_source(track, still, motion, tmp_path):
    stage = stage_of(track, still, motion, 40)
    assert train(stage, Run(out=tmp_path / "deform.pt"))
    batch = stack([frame_pair(track, target, 0) for target in range(5, 40, 5)])
    with torch.inference_mode():
        silent = torch.zeros(len(batch["drive"]), 8, 128)
        lattice = stage.field(batch["drive"], silent, None, anchor_of(batch["source"]))
        error, held = landmark_error(stage.field, lattice, batch)
    lips = (slice(None), torch.from_numpy(LIPS), slice(0, 2))
    assert error[lips].pow(2).mean() < 0.7 * held[lips].pow(2).mean()


def test_resumed_is_unbroken(track, still, motion, tmp_path):
    whole = stage_of(track, still, motion, 3)
    train(whole, Run(out=tmp_path / "whole.pt"))
    out = tmp_path / "parts.pt"
    assert not train(stage_of(track, still, motion, 3), Run(out=out, stop_at=time.monotonic()))
    assert torch.load(out)["step"] == 1
    rest = stage_of(track, still, motion, 3)
    assert train(rest, Run(out=out, resume=True))
    for one, other in zip(whole.field.parameters(), rest.field.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
