"""Rows of stage 3: what goes together stays together."""

from dataclasses import replace

import numpy as np
import torch

from engine.s3dnerf.geometry import Pose
from engine.s3dnerf.losses import LossWeights
from tools.training.loop import rng_of
from tools.training.pictures import zoom
from tools.training.render_recipe import RenderRecipe
from tools.training.rows import Rows

RECIPE = RenderRecipe(steps=8, sources=3, targets=2)


def rows_of(recipe, track, still, heard, motion) -> Rows:
    return Rows([track], [still], heard, motion, recipe)


def test_a_step_always_draws_the_same(track, still, heard, motion):
    one, other = (rows_of(RECIPE, track, still, heard, motion).draw(rng_of(0, 5), 5) for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert one["source_image"].shape == (3, 3, 256, 256) and one["target_image"].shape == (6, 3, 256, 256)


def test_clips_alone_are_driven_by_heard_codes_half_of_the_time(track, heard, motion):
    recipe = replace(RECIPE, sources=40, targets=1, mirrored=0.0)
    batch = Rows([track], [], heard, motion, recipe).draw(rng_of(0, 0), 0)
    told = batch["drive"][:, 0] > 50  # the made-up heard codes
    assert 10 <= int(told.sum()) <= 30
    for drive, driving in zip(batch["drive"][told], batch["driving"][told], strict=True):
        frame = int((drive[0].item() - 100) // 8)
        assert torch.equal(driving, heard.driving[0][frame])
    stills = replace(recipe, driven_stills=1.0, moved_stills=0.0)
    batch = Rows([track], [track], heard, motion, stills).draw(rng_of(0, 0), 0)
    assert (batch["drive"][:, 0] < 50).all() and not batch["pictured"].any()


def test_a_moved_still_looks_as_its_pose_says(track, still, heard, motion):
    recipe = replace(RECIPE, sources=4, moved_stills=1.0, driven_stills=0.0)
    batch = rows_of(recipe, track, still, heard, motion).draw(rng_of(0, 1), 1)
    laid = Pose(batch["rotation"], batch["shift"]).to_source(batch["target"])
    assert (laid - batch["source"]).abs().max() < 1e-4
    source = batch["source_image"].repeat_interleave(2, 0)
    for row in range(8):  # the skin beside the nose has the same colour in both
        for point in (50, 280):
            looks = [
                image[:, int((xy[1] + 1) * 128), int((xy[0] + 1) * 128)]
                for image, xy in (
                    (source[row], batch["source"][row, point]),
                    (batch["target_image"][row], batch["target"][row, point]),
                )
            ]
            assert (looks[0] - looks[1]).abs().max() < 0.15


def test_zoom_moves_the_picture_with_its_landmarks(portrait):
    marked = np.zeros((256, 256, 3), np.uint8)
    point = portrait.landmarks[4]
    x, y = ((point[:2] + 1) * 128).astype(int)
    marked[y - 1 : y + 2, x - 1 : x + 2] = 255
    image, landmarks = zoom(marked, portrait.landmarks, np.random.default_rng(3))
    found = np.array(np.unravel_index(image[..., 0].argmax(), (256, 256)))[::-1]
    assert np.abs(found - ((landmarks[4, :2] + 1) * 128)).max() < 3


def test_with_a_sync_loss_some_steps_have_frames_in_a_row_with_their_sound(track, still, heard, motion):
    recipe = replace(RECIPE, weights=LossWeights(sync=0.5), sync_every=4, mirrored=0.0, heard=1.0)
    rows = rows_of(recipe, track, still, heard, motion)
    assert "sound" not in rows.draw(rng_of(0, 2), 2)
    batch = rows.draw(rng_of(0, 3), 3)
    frames = ((batch["drive"][:, 0] - 100) // 8).reshape(2, 5)
    assert (frames.diff(dim=1) == 1).all() and batch["sound"].shape[0] == 2
    begin = int(frames[0, 2]) * 640 + 320 - 2560  # the 320 ms about the middle frame
    inside = slice(max(0, -begin), min(5120, len(track.clip.sound) - begin))
    heard_then = track.clip.sound[begin + inside.start : begin + inside.stop]
    np.testing.assert_array_equal(batch["sound"][0].numpy()[inside], heard_then)
