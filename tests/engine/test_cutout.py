"""A red disc with a soft edge on green ground, of which everything is known."""

import numpy as np
import pytest

from engine.cutout import SOFT_EDGE_PX, cut_out, own_colours, refine_matte

SIZE = 128
NO_FACE = np.zeros((SIZE, SIZE), np.uint8)


def disc(radius: float, soft_px: float, centre: float = SIZE / 2) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5 - centre
    return np.clip(0.5 + (radius - np.hypot(rows, columns)) / soft_px, 0, 1).astype(np.float32)


def picture_of(share: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 2, (*share.shape, 3))
    red, green = np.array([190, 40, 50]), np.array([30, 170, 60])
    return (share[..., None] * red + (1 - share[..., None]) * green + noise).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("off_px", [-2.0, 2.0])
def test_a_matte_that_is_pixels_off_is_drawn_to_the_edge(off_px):
    truth = disc(34, 3)
    coarse = (disc(34 + off_px, 2) * 255).astype(np.uint8)
    found = refine_matte(picture_of(truth), coarse, NO_FACE)
    before, after = np.abs(coarse / 255 - truth).mean(), np.abs(found - truth).mean()
    assert after < before / 3


def test_no_rim_of_the_old_background_is_left():
    share = disc(34, 5)
    picture = picture_of(share)
    near = (share > 0.05) & (share < 0.95)
    green = own_colours(picture, share)[near][:, 1].astype(float)
    assert picture[near][:, 1].mean() > 90, "mixed pixels are half green"
    assert abs(green.mean() - 40) < 12


def test_pixels_that_are_all_person_keep_their_colours():
    share = disc(34, 3)
    picture = picture_of(share)
    inside = share == 1
    np.testing.assert_array_equal(own_colours(picture, share)[inside], picture[inside])


def test_the_inner_face_is_never_transparent():
    face = np.zeros((SIZE, SIZE), np.uint8)
    face[40:60, 40:60] = 255
    cutout = cut_out(picture_of(disc(34, 3)), NO_FACE, face)
    assert (cutout[40:60, 40:60, 3] == 255).all()


def test_a_person_who_reaches_the_sides_fades_there_and_stands_on_the_lower_edge():
    whole = np.full((SIZE, SIZE), 255, np.uint8)
    alpha = cut_out(picture_of(np.ones((SIZE, SIZE), np.float32)), whole, NO_FACE)[..., 3]
    middle, inner = SIZE // 2, SOFT_EDGE_PX * SIZE // 256
    assert alpha[middle, 0] < 20 and alpha[middle, -1] < 20 and alpha[0, middle] < 20
    assert alpha[-1, middle] == 255 and (alpha[inner:, inner:-inner] == 255).all()
