"""Ablations differ in what they leave out alone, go on where they were, and end in a table."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from engine.s3dnerf.config import compact
from tests.tools.talking_face import write_talk
from tools import ablate
from tools.training.ablations import list_ablations, seconds_spent, train_ablation
from tools.training.audio_stage import AudioBranch
from tools.training.compact import compact_family
from tools.training.job import Job
from tools.training.judges import train_sync


@pytest.fixture(scope="module")
def family(quicken):
    family = replace(quicken(compact_family()), held_out=lambda folder: {"bert_0"})
    weights = replace(family.render.weights, perceptual=0.0)
    return replace(family, render=replace(family.render, weights=weights, shape_weight=0.0))


@pytest.fixture(scope="module")
def base(family, data, tmp_path_factory) -> Path:
    """Stage 1 as it begins, and a judge of two steps."""
    folder = tmp_path_factory.mktemp("base")
    torch.save({"branch": AudioBranch(compact()).state_dict()}, folder / "audio.pt")
    assert train_sync(Job(family=family, data=data, out=folder))
    return folder


def test_each_leaves_out_one_thing(family):
    full, *others = list_ablations(family, steps=20, deform_steps=7)
    assert full.name == "full" and full.family.config == compact()
    assert full.family.render.weights.adversarial == 0 and full.family.render.weights.sync > 0
    for one in others[:-1]:
        assert one.family.config == compact(deformation=one.name)
        assert one.family.render == full.family.render
    assert others[-1].name == "no_sync_loss" and others[-1].family.config == compact()
    weights = replace(full.family.render.weights, sync=0.0)
    assert others[-1].family.render == replace(full.family.render, weights=weights)
    assert {(one.family.render.steps, one.family.deform.steps) for one in (full, *others)} == {(20, 7)}


def test_a_recipe_without_sync_loss_gets_it_in_its_ablation(family):
    silent = replace(family.render, weights=replace(family.render.weights, sync=0.0))
    *_, last = list_ablations(replace(family, render=silent), steps=20, deform_steps=7)
    assert last.name == "sync_loss" and last.family.render.weights.sync > 0


def test_one_is_trained_from_what_the_base_holds_and_not_twice(family, base, data, tmp_path):
    before = {path.name: path.read_bytes() for path in base.iterdir() if path.name != "driving.pt"}
    job = Job(family=family, data=data, out=tmp_path / "naive", base=base)
    (one,) = [one for one in list_ablations(family, steps=2, deform_steps=2) if one.name == "naive"]
    path = train_ablation(one, job)
    assert load_checkpoint(path).model.config == compact(deformation="naive")
    assert {path.name: path.read_bytes() for path in base.iterdir() if path.name in before} == before
    assert set(seconds_spent(job.out)) == {"deform", "render"}
    made = path.stat().st_mtime_ns
    assert train_ablation(one, job) == path and path.stat().st_mtime_ns == made
    (longer,) = [one for one in list_ablations(family, steps=3, deform_steps=2) if one.name == "naive"]
    with pytest.raises(ValueError, match="steps 2, not 3.*another --out"):
        train_ablation(longer, job)


def test_a_missing_stage_1_is_told(family, data, tmp_path):
    job = Job(family=family, data=data, out=tmp_path / "x", base=tmp_path)
    with pytest.raises(FileNotFoundError, match="run stage 1 first \\(compact_audio\\)"):
        train_ablation(list_ablations(family, 2, 2)[0], job)


def test_a_stage_1_of_other_sizes_is_told(family, data, tmp_path):
    torch.save({"branch": {"x": torch.zeros(1)}}, tmp_path / "audio.pt")
    job = Job(family=family, data=data, out=tmp_path / "x", base=tmp_path)
    with pytest.raises(ValueError, match="of a model of other sizes; run compact_audio anew"):
        train_ablation(list_ablations(family, 2, 2)[-2], job)


def test_the_command_ends_in_a_page_and_goes_on(family, base, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "compact_family", lambda: family)
    write_talk(tmp_path / "clips" / "talk.mp4", frames=10)
    folders = dict(data=data, base=base, out=tmp_path / "out", clips=tmp_path / "clips", markdown=tmp_path / "page.md")
    command = [text for name, path in folders.items() for text in (f"--{name}", str(path))]
    command += ["--steps", "2", "--only", "none"]
    assert ablate.main(command) == 0
    told, page = capsys.readouterr().out, (tmp_path / "page.md").read_text()
    assert "no deformation" in told and "anchor: still first frame" in told
    assert str(tmp_path) not in page and "--steps 2 --deform-steps 2" in page and "| no deformation " in page
    assert not (tmp_path / "out" / "none" / "deform.pt").exists()
    assert ablate.main(command) == 0
    assert "none: done before" in capsys.readouterr().out


def test_unknown_names_and_clips_that_set_the_gain_are_refused(family, base, data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablate, "compact_family", lambda: family)
    clip = DEFAULT_CHECKPOINT.parent / "default_portrait.jpg"
    (tmp_path / "bert_0.mp4").write_bytes(clip.read_bytes())
    command = ["--data", str(data), "--base", str(base), "--out", str(tmp_path / "out"), "--steps", "2"]
    assert ablate.main([*command, "--clips", str(tmp_path)]) == 2
    assert "set the gain" in capsys.readouterr().err
    (tmp_path / "other.mp4").write_bytes(clip.read_bytes())
    assert ablate.main([*command, "--clips", str(tmp_path), "--only", "nothing"]) == 2
    assert "no ablation is called nothing; there are full, no_correlation" in capsys.readouterr().err


def test_the_command_on_the_page_names_no_place():
    args = argparse.Namespace(steps=5, deform_steps=6, seed=0, list=Path("/a/b/held.txt"), limit=8)
    told = ablate.format_command(args)
    assert "/a/b" not in told and told.endswith("--clips GRID_S1 --list held.txt --limit 8")
