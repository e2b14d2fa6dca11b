import cv2
import numpy as np
import pytest

from engine.image import sample
from tools.paste_back import LONG_SIDE_MAX_PX, PasteBack

SIZE = 256


def scene(height: int, width: int) -> np.ndarray:
    """A photo with fine grain, so that any resampling of it shows."""
    grain = np.random.default_rng(0).integers(60, 196, (height, width, 3)).astype(np.uint8)
    return cv2.GaussianBlur(grain, (0, 0), 0.7)


def affine(scale: float, degrees: float, left: float, top: float) -> np.ndarray:
    """photo_from_crop: a crop of this many photo pixels per pixel, leaning, its corner at (left, top)."""
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    return np.concatenate([turn, [[left], [top]]], axis=1)


def cut(photo: np.ndarray, photo_from_crop: np.ndarray) -> np.ndarray:
    return sample(photo, cv2.invertAffineTransform(photo_from_crop), SIZE)


PLACES = [affine(1.0, 0, 120, 90), affine(2.1, 12, 200, 20), affine(0.6, -8, 300, 250), affine(1.7, 0, -90, 400)]


@pytest.mark.parametrize("place", PLACES)
def test_a_frame_at_rest_leaves_the_photo_as_it_is(place):
    photo = scene(700, 900)
    crop = cut(photo, place)
    np.testing.assert_array_equal(PasteBack(photo, crop, place).paste(crop), photo)


@pytest.mark.parametrize("place", PLACES[:3])
def test_what_moves_lands_where_the_crop_was_cut(place):
    photo = scene(700, 900)
    crop = cut(photo, place)
    frame = crop.copy()
    cv2.circle(frame, (128, 170), 20, (255, 0, 0), -1)
    pasted = PasteBack(photo, crop, place).paste(frame)
    red = pasted[..., 0].astype(int) - pasted[..., 1] > 140  # the circle, and half of its soft edge
    rows, columns = np.nonzero(red)
    meant = place @ (128.5, 170.5, 1)
    assert np.abs(np.array([columns.mean() + 0.5, rows.mean() + 0.5]) - meant).max() < 0.6
    scale = np.hypot(*place[:, 0])
    assert red.sum() == pytest.approx(np.pi * (20.3 * scale) ** 2, rel=0.06)


def test_nothing_far_from_the_movement_is_touched():
    photo, place = scene(700, 900), PLACES[0]
    crop = cut(photo, place)
    frame = crop.copy()
    cv2.circle(frame, (128, 170), 20, (255, 0, 0), -1)
    changed = (PasteBack(photo, crop, place).paste(frame) != photo).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert rows.min() > 90 + 170 - 50 and rows.max() < 90 + 170 + 50
    assert columns.min() > 120 + 128 - 50 and columns.max() < 120 + 128 + 50


@pytest.mark.parametrize("place", PLACES)
def test_a_frame_that_differs_everywhere_has_no_edge(place):
    """The step from the untouched photo to the first touched pixels stays below what an eye finds."""
    photo = np.full((700, 900, 3), 90, np.uint8)
    pasted = PasteBack(photo, cut(photo, place), place).paste(np.full((SIZE, SIZE, 3), 170, np.uint8))
    assert pasted.max() == 170
    level = pasted[..., 0].astype(int)
    scale = np.hypot(*place[:, 0])
    steepest = max(np.abs(np.diff(level, axis=0)).max(), np.abs(np.diff(level, axis=1)).max())
    assert steepest <= 80 * 1.6 / (0.1 * SIZE * scale) + 1


def test_a_large_photo_is_made_smaller_and_even():
    photo = scene(1501, 2999)
    place = affine(4.0, 5, 900, 200)
    paster = PasteBack(photo, cut(photo, place), place)
    width, height = paster.size
    assert (width, height) == (LONG_SIDE_MAX_PX, 960)
    frame = cut(photo, place)
    cv2.circle(frame, (100, 100), 12, (0, 255, 0), -1)
    pasted = paster.paste(frame)
    rows, columns = np.nonzero((pasted[..., 1] > 240) & (pasted[..., 0] < 20))
    meant = place @ (100.5, 100.5, 1) * LONG_SIDE_MAX_PX / 2999
    assert np.abs(np.array([columns.mean() + 0.5, rows.mean() + 0.5]) - meant).max() < 0.7


def test_an_odd_photo_loses_its_last_row_and_column():
    photo = scene(301, 403)
    place = affine(1.0, 0, 60, 20)
    paster = PasteBack(photo, cut(photo, place), place)
    assert paster.size == (402, 300)
    np.testing.assert_array_equal(paster.paste(cut(photo, place)), photo[:300, :402])


def test_what_has_moved_is_given_back_slowly():
    photo, place = scene(200, 300), affine(0.6, 3, 40, 10)
    crop = cut(photo, place)
    frame = crop.copy()
    frame[120:200, 100:160] = 255
    paster = PasteBack(photo, crop, place)
    paster.paste(frame)
    soon = paster.paste(crop)
    assert (soon != photo).any(), "the frame still stands in for the photo"
    for _ in range(150):
        late = paster.paste(crop)
    np.testing.assert_array_equal(late, photo)
