"""The paper's recipe starts, steps and goes on, on a model and published weights of its kind but tiny."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model

from engine.errors import CheckpointError
from engine.s3dnerf.config import S3DConfig, paper
from tools.training.job import Job
from tools.training.paper_hdtf import paper_hdtf
from tools.training.recipes import STAGES, needed_stages
from tools.training.vgg import TOLD_AFTER, WIDTHS, VggFeatures

CONV = (16,) * 7
TINY: dict[str, Any] = dict(
    encoder_widths=(8, 8, 8, 8),
    plane_channels=4,
    slots=4,
    slot_width=16,
    attention_heads=2,
    lattice_width=8,
    plane_features=8,
    rays=22,
    samples=4,
    features=4,
    superres_width=8,
    superres_blocks=1,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """What stands for wav2vec2-base: its kind of norms, and its settings for masking and dropping out."""
    config = Wav2Vec2Config(
        conv_dim=CONV,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    assert config.mask_time_prob > 0 and config.layerdrop > 0 and config.feat_extract_norm == "group"
    folder = tmp_path_factory.mktemp("wav2vec2")
    Wav2Vec2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(weights) -> S3DConfig:
    sizes: dict[str, Any] = dict(hidden=32, layers=1, heads=2, feed_forward=48, position_kernel=16, position_groups=2)
    audio = replace(paper().audio, pretrained=str(weights), width=16, conv_dim=CONV, **sizes)
    return paper(audio=audio, **TINY)


@pytest.fixture
def job(config, quicken, data, tmp_path) -> Job:
    return Job(family=quicken(replace(paper_hdtf(), config=config)), data=data, out=tmp_path)


def test_it_starts_steps_and_goes_on(job, weights, tmp_path):
    stages = needed_stages(job.family)
    assert stages == ["audio", "deform", "sync", "perceptual", "render", "field", "finish", "pack"]
    for stage in stages[:-1]:
        assert not STAGES[stage](replace(job, stop_at=time.monotonic()))
        assert torch.load(tmp_path / f"{stage}.pt")["step"] == 1
        assert STAGES[stage](replace(job, resume=True))
    assert STAGES["pack"](job) and (tmp_path / "s3dnerf_paper.safetensors").is_file()
    published = Wav2Vec2Model.from_pretrained(weights).state_dict()
    kept = torch.load(tmp_path / "render.pt")["model"]
    for name in ("feature_extractor.conv_layers.0.conv.weight", "encoder.layers.0.attention.k_proj.weight"):
        assert torch.equal(kept[f"features.encoder.{name}"], published[name])


def test_the_weights_are_the_papers_and_the_adversary_plays_from_the_first_step():
    recipe = paper_hdtf().render
    assert vars(recipe.weights) == dict(pixel=1.0, perceptual=0.01, adversarial=1.0, sync=0.5, deform=0.001)
    assert recipe.adversary_step == 0 and recipe.matching_share == 0


def test_missing_weights_are_told_in_a_sentence(job, tmp_path):
    audio = replace(job.family.config.audio, pretrained=str(tmp_path / "none"))
    family = replace(job.family, config=replace(job.family.config, audio=audio))
    with pytest.raises(CheckpointError, match="none' cannot be loaded.*give their folder"):
        STAGES["audio"](replace(job, family=family))


def test_weights_of_other_sizes_are_told(job):
    audio = replace(job.family.config.audio, hidden=48)
    family = replace(job.family, config=replace(job.family.config, audio=audio))
    with pytest.raises(CheckpointError, match="other sizes than the configuration"):
        STAGES["audio"](replace(job, family=family))


def test_vgg_tells_maps_at_four_scales():
    network = VggFeatures()
    picture = torch.zeros(1, 3, 32, 32, requires_grad=True)
    maps = network.features(picture)
    assert [(m.shape[1], m.shape[2]) for m in maps] == [(64, 32), (128, 16), (256, 8), (512, 4)]
    assert [WIDTHS[place] for place in TOLD_AFTER] == [64, 128, 256, 512]
    maps[-1].sum().backward()
    assert picture.grad is not None and picture.grad.abs().sum() > 0
