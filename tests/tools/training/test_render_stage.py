"""Stage 3 runs with every term, and goes on where it was."""

import time
from dataclasses import replace

import pytest
import torch

from engine.s3dnerf.config import compact
from engine.s3dnerf.lip_reader import LipReader
from engine.s3dnerf.losses import LossWeights
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.sync_discriminator import SyncDiscriminator, freeze
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


def half_way_and_on(make, recipe: RenderRecipe, out, **parts) -> RenderStage:
    """Stopped after each of the first two steps, then run to the end."""
    for step in (1, 2):
        assert not train(make(recipe, **parts), Run(out=out, resume=True, stop_at=time.monotonic()))
        assert torch.load(out)["step"] == step
    rest = make(recipe, **parts)
    assert train(rest, Run(out=out, resume=True))
    return rest


def test_resumed_is_unbroken(stage_of, tmp_path):
    whole = stage_of(RECIPE)
    assert train(whole, Run(out=tmp_path / "whole.pt"))
    rest = half_way_and_on(stage_of, RECIPE, tmp_path / "parts.pt")
    assert (tmp_path / "parts.png").stat().st_size > 10_000
    before = stage_of(RECIPE).model.state_dict()
    moved = 0.0
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(rest.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
        moved += float((value - before[name]).abs().sum())
        if name.startswith(("features.", "audio.")):
            assert torch.equal(value, before[name])  # stage 1 stays as it was
    assert moved > 0


def test_the_judges_and_the_adversary_go_on_too(stage_of, tmp_path):
    weights = LossWeights(perceptual=0.5, adversarial=0.1, sync=0.1)
    recipe = replace(
        RECIPE,
        targets=2,
        sync_sources=1,
        sync_every=3,
        weights=weights,
        shape_weight=0.1,
        driven_stills=0.0,
        adversary_from=0.25,
        penalty_weight=0.1,
    )
    parts = dict(reader=LipReader().eval().requires_grad_(False), judge=freeze(SyncDiscriminator()))
    whole = stage_of(recipe, **parts)
    told: list[dict[str, torch.Tensor]] = []
    learn = whole.learn

    def listen(batch, step):
        told.append(learn(batch, step))
        return told[-1]

    whole.learn = listen  # type: ignore[method-assign]
    assert train(whole, Run(out=tmp_path / "whole.pt"))
    assert "perceptual" in told[0] and "shape" in told[0] and "adversary" not in told[0]
    assert {"adversarial", "matching", "adversary"} <= set(told[1])
    assert ["sync" in one for one in told] == [False, False, True, False]
    fresh, taught = stage_of(recipe, **parts).opponent, whole.opponent
    assert fresh is not None and taught is not None
    both = zip(fresh.adversary.parameters(), taught.adversary.parameters(), strict=True)
    assert any(not torch.equal(one, other) for one, other in both)
    rest = half_way_and_on(stage_of, recipe, tmp_path / "parts.pt", **parts)
    assert rest.opponent is not None
    for here, there in ((whole.model, rest.model), (taught.adversary, rest.opponent.adversary)):
        for one, other in zip(here.parameters(), there.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_perceptual_loss_without_its_network_is_refused(stage_of):
    with pytest.raises(ValueError, match="perceptual network"):
        stage_of(replace(RECIPE, weights=LossWeights(sync=0.0)))


def test_a_sync_loss_without_a_judge_is_refused(stage_of):
    with pytest.raises(ValueError, match="discriminator"):
        stage_of(replace(RECIPE, weights=LossWeights(perceptual=0.0, adversarial=0.0)))


def test_a_judge_of_other_lengths_is_refused(stage_of):
    recipe = replace(RECIPE, weights=LossWeights(perceptual=0.0, adversarial=0.0), sync_targets=4)
    with pytest.raises(ValueError, match="looks at 5 frames, the recipe gives it 4"):
        stage_of(recipe, judge=SyncDiscriminator())
