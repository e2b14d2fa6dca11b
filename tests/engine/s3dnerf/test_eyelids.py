"""Blinks shut real eyes and leave everything else alone."""

import numpy as np
import pytest
import torch

from engine.landmarks import FaceMesh, eye_openness
from engine.portrait import read_portrait
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from engine.s3dnerf.eyelids import find_eyelids, shut_eyes


@pytest.fixture(scope="module")
def portrait():
    return read_portrait((DEFAULT_CHECKPOINT.parent / "default_portrait.jpg").read_bytes())


def blinked(portrait, blink: float) -> np.ndarray:
    image = torch.from_numpy(portrait.crop.copy()).permute(2, 0, 1)[None].float()
    return shut_eyes(image, find_eyelids(portrait.landmarks), blink)[0].permute(1, 2, 0).round().byte().numpy()


def test_eyes_are_found_shut_by_a_detector(portrait):
    mesh = FaceMesh()
    open_eyes, half, shut = (eye_openness(mesh.find(blinked(portrait, blink))[0]) for blink in (0.0, 0.5, 1.0))
    mesh.close()
    assert shut < half < open_eyes
    assert shut < 0.6 * open_eyes


def test_only_the_eyes_change(portrait):
    change = np.abs(blinked(portrait, 1.0).astype(int) - portrait.crop).max(2) > 0
    rows = np.flatnonzero(change.any(1))
    brow, nose = ((portrait.landmarks[point, 1] + 1) * 128 for point in (10, 4))
    assert brow < rows.min() and rows.max() < nose
    assert change.mean() < 0.05


def test_open_eyes_cost_nothing(portrait):
    image = torch.zeros(1, 3, 256, 256)
    assert shut_eyes(image, find_eyelids(portrait.landmarks), 0.0) is image


def test_the_portrait_itself_is_not_written_to(portrait):
    image = torch.from_numpy(portrait.crop.copy()).permute(2, 0, 1)[None].float()
    before = image.clone()
    shut_eyes(image, find_eyelids(portrait.landmarks), 1.0)
    assert torch.equal(image, before)
