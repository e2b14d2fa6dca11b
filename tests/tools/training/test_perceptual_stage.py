import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engine.landmarks import CROP_SIZE, LIPS
from engine.s3dnerf.geometry import box_grid
from engine.s3dnerf.lip_reader import points_in_box
from tools.training.loop import Run, train
from tools.training.mouth_crops import change_place, cut_mouth, mouth_corner
from tools.training.perceptual_stage import PerceptualRecipe, PerceptualStage, load_lip_reader, measure_reader

RECIPE = PerceptualRecipe(steps=6, pictures=4, warm_up=1)
SIZE = 112


def centre_of(corner: np.ndarray) -> torch.Tensor:
    return torch.tensor(((corner + SIZE // 2) / CROP_SIZE * 2 - 1)[None], dtype=torch.float32)


def test_boxes_are_those_that_stage_3_paints(clip):
    picture, landmarks = clip.frame(0), clip.landmarks[0]
    crop = cut_mouth(picture, landmarks, SIZE)
    centre = centre_of(mouth_corner(landmarks, SIZE))
    whole = torch.from_numpy(picture.transpose(2, 0, 1).astype(np.float32))[None] / 127.5 - 1
    box = F.grid_sample(whole, box_grid(centre, SIZE / CROP_SIZE, SIZE), align_corners=False)[0]
    torch.testing.assert_close(torch.from_numpy(crop.picture), box, atol=0.01, rtol=0)
    wanted = points_in_box(torch.from_numpy(landmarks)[None], centre, SIZE / CROP_SIZE)[0]
    torch.testing.assert_close(torch.from_numpy(crop.points), wanted, atol=1e-5, rtol=0)


def test_points_move_with_the_picture():
    rng = np.random.default_rng(0)
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[LIPS, :2] = rng.uniform(-0.15, 0.15, (len(LIPS), 2))
    picture = np.zeros((CROP_SIZE, CROP_SIZE, 3), np.uint8)
    x, y = ((landmarks[LIPS[7], :2] + 1) / 2 * CROP_SIZE).astype(int)
    picture[y - 3 : y + 4, x - 3 : x + 4] = 255
    landmarks[LIPS[7], :2] = (np.array([x, y]) + 0.5) / CROP_SIZE * 2 - 1
    crop = cut_mouth(picture, landmarks, SIZE, change_place(rng))
    bright = crop.picture[0] + 1
    seen = [(bright.sum(axis) * (np.arange(SIZE) + 0.5)).sum() / bright.sum() for axis in (0, 1)]
    np.testing.assert_allclose((crop.points[7] + 1) / 2 * SIZE, seen, atol=0.1)


def test_learns_where_lips_are(clip, still_clip):
    stage = PerceptualStage(PerceptualRecipe(steps=12, pictures=6, warm_up=1), [clip], [still_clip])
    rng = np.random.default_rng(0)
    told = [float(stage.learn(stage.draw(rng, step), step)["away_px"]) for step in range(12)]
    assert np.mean(told[-3:]) < np.mean(told[:3]) * 0.7


def test_a_resumed_run_is_the_unbroken_one(clip, still_clip, tmp_path):
    unbroken, broken = tmp_path / "a.pt", tmp_path / "b.pt"
    assert train(PerceptualStage(RECIPE, [clip], [still_clip]), Run(out=unbroken))
    assert not train(PerceptualStage(RECIPE, [clip], [still_clip]), Run(out=broken, stop_at=0.0))
    assert train(PerceptualStage(RECIPE, [clip], [still_clip]), Run(out=broken, resume=True))
    first, second = (load_lip_reader(path).state_dict() for path in (unbroken, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_measures_in_pixels(clip, tmp_path):
    stage = PerceptualStage(RECIPE, [clip], [])
    told = measure_reader(stage.network.eval(), [clip])
    assert 1 < told["away_px"] < 100 and 1 < told["shape_px"] < 100


def test_says_what_to_run_first(tmp_path):
    with pytest.raises(FileNotFoundError, match="compact_perceptual"):
        load_lip_reader(tmp_path / "perceptual.pt")
