"""CPBD on real pictures and on edges whose width is known."""

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from engine.cache import DEFAULT_PORTRAIT
from tools.sharpness import mean_cpbd, measure_cpbd


def pictures() -> list[np.ndarray]:
    with Image.open(DEFAULT_PORTRAIT) as portrait:
        return [astronaut(), np.asarray(portrait.convert("RGB"))]


def ramp(width_px: int, low: int = 40, high: int = 200) -> np.ndarray:
    """A rising and a falling edge, a block each, over ``width_px`` pixels."""
    x = np.arange(64)
    row = np.interp(x, [31 - width_px / 2, 31 + width_px / 2], [low, high])
    return np.tile(np.concatenate([row, row[::-1]]).round().astype(np.uint8), (128, 1))


@pytest.mark.parametrize("picture", pictures(), ids=["astronaut", "portrait"])
def test_every_further_blur_lowers_it(picture):
    blurred = [cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (0.6, 1.0, 2.0)]
    values = [measure_cpbd(x) or 0.0 for x in (picture, *blurred)]
    assert all(a > b + 0.01 or a < 0.02 for a, b in zip(values, values[1:], strict=False)), values
    assert values[0] > 3 * values[2]


def test_narrow_edges_are_sharp_and_wide_ones_blurred():
    assert measure_cpbd(ramp(2)) == 1.0
    assert measure_cpbd(ramp(8)) == 0.0


def test_at_low_contrast_wider_edges_still_look_sharp():
    assert measure_cpbd(ramp(4, 100, 220)) == 0.0
    assert measure_cpbd(ramp(4, 100, 140)) == 1.0


def test_a_picture_without_edges_has_none_and_is_left_out_of_the_mean():
    flat = np.full((128, 128, 3), 90, np.uint8)
    assert measure_cpbd(flat) is None and mean_cpbd(flat[None]) is None
    sharp = np.repeat(ramp(2)[..., None], 3, 2)
    assert mean_cpbd(np.stack([sharp, flat])) == 1.0


def test_one_blurred_frame_lowers_the_mean():
    sharp = astronaut()[:256, 100:356]
    blurred = cv2.GaussianBlur(sharp, (0, 0), 1.5)
    mixed, alone = mean_cpbd(np.stack([sharp, blurred])), mean_cpbd(sharp[None])
    assert mixed is not None and alone is not None and mixed < alone - 0.05
    assert mean_cpbd(np.stack([sharp, blurred]), every=2) == mean_cpbd(sharp[None])
