"""Sheets show pixels as they are, each in its labelled place."""

import numpy as np
from PIL import Image

from tools import comparison_sheet
from tools.comparison_sheet import Cell
from tools.contact_sheet import GAP_PX, LABEL_PX


def frames(count: int, side: int = 64) -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (count, side, side, 3), np.uint8)


def test_pictures_stand_pixel_for_pixel_with_ink_below():
    a, b = frames(2)
    sheet = np.asarray(comparison_sheet.draw_cells([[Cell(a, "real 0.00 s")], [Cell(b, "")]]))
    np.testing.assert_array_equal(sheet[GAP_PX : GAP_PX + 64, GAP_PX : GAP_PX + 64], a)
    below = GAP_PX + 64
    assert sheet[below : below + LABEL_PX].min() < 100, "no caption"
    second = GAP_PX + 64 + LABEL_PX + GAP_PX
    np.testing.assert_array_equal(sheet[second : second + 64, GAP_PX : GAP_PX + 64], b)
    assert sheet[second + 64 : second + 64 + LABEL_PX].min() > 200, "ink without a caption"


def test_mouths_follow_the_face_and_stay_inside_the_picture():
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[200:, :100] = 255
    landmarks = np.zeros((478, 3), np.float32) + np.array([-0.4, 0.8, 0], np.float32)  # the mouth is low on the left
    cut = comparison_sheet.cut_mouth(picture, landmarks)
    assert cut.shape == (174, 174, 3) and cut.mean() > 100
    assert comparison_sheet.cut_mouth(picture, np.full((478, 3), np.nan)).shape == (174, 174, 3)
    assert comparison_sheet.cut_mouth(picture, landmarks * 9).shape == (174, 174, 3)


def test_a_clip_shorter_than_a_row_has_its_sheets_too(tmp_path):
    landmarks = np.full((3, 478, 3), np.nan)
    comparison_sheet.save_clip_sheets(tmp_path / "a.b", frames(3), frames(3), landmarks)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.b.png", "a.b_mouth.png"]


def test_the_overview_shows_the_most_shut_and_the_widest_mouth(tmp_path):
    spoken = np.stack([np.full((64, 64, 3), 20 * k, np.uint8) for k in range(6)])
    opening = np.array([3, 9, np.nan, 1, 4, 5.0])
    landmarks = np.zeros((478, 3))
    row = comparison_sheet.mouth_row("p", spoken[0], landmarks, {"v": (spoken, opening)})
    assert [int(c.picture.mean()) for c in row] == [0, 60, 20]
    assert [c.caption for c in row] == ["p", "v 0.12 s", "v 0.04 s"]
    comparison_sheet.save_overview(tmp_path, [row] * (comparison_sheet.PAGE_ROWS + 1))
    with Image.open(tmp_path / "portraits_mouths_2.png") as second:
        assert second.height < 100
