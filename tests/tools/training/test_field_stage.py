"""Stage 4 moves the field alone, and goes on where it was."""

import time
from copy import deepcopy

import numpy as np
import pytest
import torch

from engine.s3dnerf.config import compact
from engine.s3dnerf.model import S3DNerf
from tools.training.field_stage import FieldRecipe, FieldStage
from tools.training.loop import Run, train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> S3DNerf:
    torch.manual_seed(0)
    return S3DNerf(compact())


def stage_of(model, track, still, heard, motion, steps: int) -> FieldStage:
    return FieldStage(deepcopy(model), FieldRecipe(steps=steps, batch=6), [track], [still], heard, motion, CPU)


def test_it_moves_the_field_and_nothing_else(model, track, still, heard, motion, tmp_path):
    stage = stage_of(model, track, still, heard, motion, 2)
    assert train(stage, Run(out=tmp_path / "field.pt"))
    before, moved = model.state_dict(), set()
    for name, tensor in stage.model.state_dict().items():
        if not torch.equal(tensor, before[name]):
            moved.add(name.split(".")[0])
    assert moved == {"field"}


def test_rows_hold_the_portrait_and_the_sound_of_the_target(model, track, still, heard, motion):
    stage = stage_of(model, track, still, heard, motion, 1)
    batch = stage.draw(np.random.default_rng(0), 0)
    assert batch["aggregate"].shape == (6, 256, 64) and batch["driving"].shape == (6, 8, 128)
    assert all(any(torch.equal(row, one) for one in heard.driving[0]) for row in batch["driving"])


def test_resumed_is_unbroken(model, track, still, heard, motion, tmp_path):
    whole = stage_of(model, track, still, heard, motion, 3)
    train(whole, Run(out=tmp_path / "whole.pt"))
    out = tmp_path / "parts.pt"
    assert not train(stage_of(model, track, still, heard, motion, 3), Run(out=out, stop_at=time.monotonic()))
    rest = stage_of(model, track, still, heard, motion, 3)
    assert train(rest, Run(out=out, resume=True))
    for one, other in zip(whole.field.parameters(), rest.field.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
