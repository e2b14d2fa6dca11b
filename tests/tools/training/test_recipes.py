"""A family runs from nothing to a checkpoint that the engine renders with, and goes on where it was."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from engine.api import StepRow
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from engine.s3dnerf.engine import S3DNerfEngine
from tools import train
from tools.training.compact import compact_family
from tools.training.family import hold_out_videos
from tools.training.job import Job
from tools.training.judges import train_perceptual
from tools.training.recipes import RECIPES, needed_stages, train_all
from tools.training.stages import pack, train_field, train_finish


@pytest.fixture(scope="module")
def family(quicken):
    return replace(quicken(compact_family()), held_out=lambda folder: {"bert_0"})


def test_compact_runs_from_nothing_to_a_frame(family, data, tmp_path, capsys):
    first = Job(family=family, data=data, out=tmp_path, stop_at=time.monotonic())
    assert not train_all(first)
    assert torch.load(tmp_path / "audio.pt")["step"] == 1
    assert train_all(replace(first, resume=True, stop_at=None))
    for name, steps in (
        ("audio", 3),
        ("deform", 3),
        ("sync", 2),
        ("perceptual", 2),
        ("render", 3),
        ("field", 2),
        ("finish", 2),
    ):
        assert torch.load(tmp_path / f"{name}.pt")["step"] == steps
    told = capsys.readouterr().out
    assert "hearing 2 clips" in told and "audio: held out: corr" in told and "VGG is not used" in told
    assert {"sync", "perceptual", "adversary"} <= set(told.split())
    engine = S3DNerfEngine(tmp_path / "s3dnerf_compact.safetensors", backend="eager")
    avatar = engine.enrol((DEFAULT_CHECKPOINT.parent / "default_portrait.jpg").read_bytes())
    row = StepRow(avatar=avatar, slot=0, samples=np.zeros(640, np.float32))
    (frame,) = engine.step([row], engine.init_state(1))
    assert frame.shape == (256, 256, 3) and frame.std() > 20


def test_stages_go_on_from_a_checkpoint(family, data, tmp_path):
    job = Job(family=family, data=data, out=tmp_path, begin=DEFAULT_CHECKPOINT)
    assert RECIPES["compact_unpack"].run(job)
    assert train_perceptual(job) and train_field(job) and train_finish(job) and pack(job)
    before, after = (load_file(path) for path in (DEFAULT_CHECKPOINT, tmp_path / "s3dnerf_compact.safetensors"))
    changed = {
        name.split(".")[1] for name in before if name.startswith("model.") and not before[name].equal(after[name])
    }
    assert changed == {"field", "renderer", "superres"}, "encoder and slots are those that the field knows"


def test_judges_are_trained_where_they_are_asked(family):
    asked = ["audio", "deform", "sync", "perceptual", "render", "field", "finish", "pack"]
    assert needed_stages(family) == asked
    silent = replace(family, render=replace(family.render, weights=replace(family.render.weights, sync=0.0)))
    assert needed_stages(silent) == [stage for stage in asked if stage != "sync"]


def test_stage_3_says_which_stage_is_missing(family, data, tmp_path):
    with pytest.raises(FileNotFoundError, match="run python -m tools.train compact_audio first"):
        RECIPES["compact_render"].run(Job(family=family, data=data, out=tmp_path))


def test_missing_data_are_told_in_a_sentence(tmp_path, capsys):
    for recipe, folder in (("compact", "grid_s1"), ("paper_hdtf", "hdtf")):
        assert train.main([recipe, "--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert folder in told and "prepare_data" in told and told.count("\n") == 1


def test_every_family_and_stage_is_listed():
    lines = train.describe_recipes().splitlines()
    assert {"compact", "compact_render", "paper_hdtf", "paper_hdtf_audio"} <= {line.split()[0] for line in lines}
    assert all(len(line.split()) > 4 for line in lines)


def test_all_clips_of_a_video_are_held_out_together(tmp_path):
    names = [f"RD_Radio{video}_{cut}" for video in range(60) for cut in (0, "1__000", "1__001")]
    for name in [*names, "lip_motion", "codes"]:
        (tmp_path / f"{name}.npz").touch()
    held = hold_out_videos(tmp_path)
    assert 0 < len(held) < len(names) / 5 and held < set(names)
    assert len(held) == 3 * len({name.split("_")[1] for name in held})


def test_of_few_videos_one_is_held_out(data):
    held = hold_out_videos(data / "talk")
    assert held in ({"anna_0", "anna_1"}, {"bert_0"})
