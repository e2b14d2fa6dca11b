"""Every kind of deformation is kept by a checkpoint and compiled like the full one."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from engine.api import StepRow
from engine.compile import compile_stage
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint, save_checkpoint
from engine.s3dnerf.config import DeformationKind, S3DConfig, compact
from engine.s3dnerf.engine import S3DNerfEngine
from engine.s3dnerf.lip_motion import LipMotion
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.stages import Deform


@pytest.fixture
def save(tmp_path, monkeypatch):
    monkeypatch.setenv("VISAVIS_CACHE", str(tmp_path))

    def save(config: S3DConfig) -> Path:
        torch.manual_seed(0)
        model = S3DNerf(config).eval()
        for parameter in model.field.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)  # layers that begin at nothing say something
        motion = LipMotion(
            basis=np.eye(8, 80, dtype=np.float32),
            scale=np.ones(8, np.float32),
            guess=np.zeros((9, 8), np.float32),
            gap_mean=np.zeros(9, np.float32),
        )
        save_checkpoint(tmp_path / "x.safetensors", model, motion, np.zeros(8), np.ones(8), "nobody")
        return tmp_path / "x.safetensors"

    return save


@pytest.mark.parametrize("kind", sorted({*get_args(DeformationKind)} - {"none"}))
def test_a_kind_is_kept_and_compiled(kind, save):
    config = compact(deformation=kind)
    loaded = load_checkpoint(save(config)).model
    assert loaded.config == config
    example = (
        torch.randn(1, 2 * config.codes + 3),
        torch.randn(1, config.audio.tokens, config.audio.width),
        torch.randn(1, config.slot_grid**2, config.slot_width),
        torch.tensor([[0.0, 0.4, 0.0]]),
        torch.tensor([[0.6]]),
    )
    deform = Deform(loaded).eval()
    (compiled,) = compile_stage("deform", deform, example, "openvino", f"test-{kind}")(*example)
    with torch.inference_mode():
        eager = deform(*example)
    assert eager.abs().max() > 1e-3
    torch.testing.assert_close(compiled, eager, rtol=0, atol=0.08 * float(eager.abs().max()))  # bfloat16, untrained


def test_without_a_deformation_the_engine_falls_back_to_eager(save):
    """OpenVINO drops the inputs of a stage that looks at none of them."""
    engine = S3DNerfEngine(save(compact(deformation="none")))
    assert engine.backend == "eager"
    avatar = engine.enrol((DEFAULT_CHECKPOINT.parent / "default_portrait.jpg").read_bytes())
    row = StepRow(avatar=avatar, slot=0, samples=np.zeros(640, np.float32))
    (frame,) = engine.step([row], engine.init_state(1))
    assert frame.shape == (256, 256, 3)
