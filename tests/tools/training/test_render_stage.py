"""Stage 3 runs with every term, and goes on where it was."""

import time
from dataclasses import replace

import pytest
import torch

from engine.s3dnerf.config import compact
from engine.s3dnerf.losses import LossWeights
from engine.s3dnerf.model import S3DNerf
from tools.training.loop import Run, train
from tools.training.render_recipe import RenderRecipe
from tools.training.render_stage import RenderStage
from tools.training.rows import Rows

CPU = torch.device("cpu")
RECIPE = RenderRecipe(steps=4, sources=2, targets=1)


@pytest.fixture
def stage_of(track, still, heard, motion):
    def make(recipe: RenderRecipe, **parts) -> RenderStage:
        torch.manual_seed(1)
        rows = Rows([track], [still], heard, motion, recipe)
        return RenderStage(S3DNerf(compact()), recipe, rows, CPU, **parts)

    return make


def test_resumed_is_unbroken(stage_of, tmp_path):
    whole = stage_of(RECIPE)
    assert train(whole, Run(out=tmp_path / "whole.pt"))
    out = tmp_path / "parts.pt"
    for step in (1, 2):
        assert not train(stage_of(RECIPE), Run(out=out, resume=True, stop_at=time.monotonic()))
        assert torch.load(out)["step"] == step
    rest = stage_of(RECIPE)
    assert train(rest, Run(out=out, resume=True))
    assert (tmp_path / "parts.png").stat().st_size > 10_000
    before = stage_of(RECIPE).model.state_dict()
    moved = 0.0
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(rest.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
        moved += float((value - before[name]).abs().sum())
        if name.startswith(("features.", "audio.")):
            assert torch.equal(value, before[name])  # stage 1 stays as it was
    assert moved > 0


def test_a_sync_loss_without_a_judge_is_refused(stage_of):
    with pytest.raises(ValueError, match="discriminator"):
        stage_of(replace(RECIPE, weights=LossWeights(perceptual=0.0, adversarial=0.0)))
