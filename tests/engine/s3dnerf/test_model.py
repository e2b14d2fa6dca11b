"""The model's blocks: shapes, what must commute, and the paper's switches."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.s3dnerf.config import compact, from_json, paper, to_json
from engine.s3dnerf.cross_attention import CrossAttention, heat_map
from engine.s3dnerf.deformation import DeformationField
from engine.s3dnerf.encoder import AppearanceEncoder
from engine.s3dnerf.geometry import Anchor, Pose, anchor_of
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.renderer import Renderer
from engine.s3dnerf.slot_attention import SlotAttention

torch.set_num_threads(1)


def still_pose(batch: int = 1) -> Pose:
    return Pose(torch.eye(3).repeat(batch, 1, 1), torch.zeros(batch, 3))


def a_face(batch: int = 1) -> torch.Tensor:
    """Landmarks [B, 478, 3] of no face in particular, but with eyes apart and a mouth below."""
    torch.manual_seed(3)
    points = torch.rand(batch, 478, 3) - 0.5
    points[:, 33], points[:, 263] = torch.tensor([-0.3, -0.2, 0.0]), torch.tensor([0.3, -0.2, 0.0])
    return points


def inputs(config, batch: int = 1):
    image = torch.rand(batch, 3, 256, 256) * 2 - 1
    drive = torch.randn(batch, 2 * config.codes + 3)
    driving = torch.randn(batch, config.audio.tokens, config.audio.width)
    return image, drive, driving


def test_configuration_round_trips():
    assert from_json(to_json(compact())) == compact()
    assert from_json(to_json(paper())) == paper()


@pytest.mark.parametrize("text", ["", "[]", '{"audio": {"no_such": 1}}', '{"audio": {}, "no_such": 1}'])
def test_configuration_of_another_version_is_refused(text):
    with pytest.raises(ValueError, match="not a configuration"):
        from_json(text)


def test_pyramid_has_four_scales_of_three_planes():
    config = compact()
    pyramid, shallow = AppearanceEncoder(config)(torch.zeros(2, 3, 256, 256))
    assert [tuple(f.shape) for f in pyramid] == [(2, 48, s, s) for s in (128, 64, 32, 16)]
    assert shallow.shape == (2, config.encoder_widths[0], 128, 128)


def test_slots_hand_every_place_a_mix():
    config = compact()
    pyramid = [torch.randn(2, 48, s, s) for s in (128, 64, 32, 16)]
    assert SlotAttention(config)(pyramid).shape == (2, config.slot_grid**2, config.slot_width)


def test_cross_attention_weighs_sound_by_place():
    config = compact()
    attention = CrossAttention(config)
    place = torch.randn(2, 256, config.slot_width)
    seen = attention(place, torch.randn(2, config.audio.tokens, config.audio.width))
    assert seen.shape == place.shape
    assert heat_map(seen).shape == (2, 16, 16)
    with torch.no_grad():
        attention.moment.zero_()
    same = torch.randn(2, 1, config.audio.width).expand(-1, config.audio.tokens, -1)
    heads = attention(place, same).unflatten(2, (config.attention_heads, -1))
    ways = nn.functional.normalize(heads, dim=-1)  # where all tokens are equal places choose how much, not what
    torch.testing.assert_close(ways, ways[:, :1].expand_as(ways))


def test_a_place_may_look_at_nothing():
    torch.manual_seed(0)
    config = compact()
    attention = CrossAttention(config)
    place = torch.randn(1, 256, config.slot_width)
    with torch.no_grad():
        attention.nothing.copy_(attention.query(place[:, :1]) * 50)
        seen = attention(place, torch.randn(1, config.audio.tokens, config.audio.width))[0].norm(dim=-1)
    assert seen[0] < 0.01 * seen.max()


def test_slots_keep_places_apart():
    """Untrained already: places of unlike content and position do not all get the same mix."""
    torch.manual_seed(0)
    aggregate = SlotAttention(compact())([torch.randn(1, 48, s, s) for s in (128, 64, 32, 16)])[0]
    assert aggregate.std(0).mean() > 0.3


def test_frame_has_the_documented_shapes():
    config = compact()
    model = S3DNerf(config).eval()
    image, drive, driving = inputs(config, 2)
    with torch.inference_mode():
        frame = model(model.enrol(image, a_face(2)), image, drive, driving, still_pose(2))
    assert frame.lattice.shape == (2, 3 * config.lattice_depths, config.lattice, config.lattice)
    assert frame.coarse.colour.shape == (2, 3, config.rays, config.rays)
    assert frame.coarse.flow.shape == (2, 2, config.rays, config.rays)
    assert frame.fine.shape == (2, 3, config.mouth_box, config.mouth_box)
    assert 0 <= frame.paint.cover.min() and frame.paint.cover.max() <= 1


def test_baked_planes_equal_the_look_up_as_printed():
    """Folding the first layer into the planes commutes with interpolation, but for the finer scales' borders."""
    config = compact()
    torch.manual_seed(0)
    renderer = Renderer(config)
    pyramid = [torch.randn(1, 48, 128, 128)] + [torch.zeros(1, 48, s, s) for s in (64, 32, 16)]
    points = torch.rand(1, 500, 3) * 1.6 - 0.8
    baked = renderer.look_up(renderer.bake(pyramid), points)
    torch.testing.assert_close(baked, renderer.look_up_pyramid(pyramid, points), atol=1e-5, rtol=1e-5)


def test_an_undeformed_face_looks_at_itself():
    """With no deformation and no turn every pixel's source coordinate is its own."""
    config = compact(deformation="none")
    model = S3DNerf(config).eval()
    image, drive, driving = inputs(config)
    with torch.inference_mode():
        frame = model(model.enrol(image, a_face()), image, drive, driving, still_pose())
    n, half = config.rays, config.face_box / 256
    axis = ((torch.arange(n) + 0.5) / n * 2 - 1) * half
    # the composited coordinate is scaled by opacity / (opacity + 1e-4)
    torch.testing.assert_close(frame.coarse.flow[0, 0, n // 2], axis, atol=2e-3, rtol=0)


def test_pose_moves_the_head_the_other_way_in_the_source():
    config = compact(deformation="none")
    model = S3DNerf(config).eval()
    image, drive, driving = inputs(config)
    with torch.inference_mode():
        identity = model.enrol(image, a_face())
        still = model(identity, image, drive, driving, still_pose()).coarse.flow
        moved = model(identity, image, drive, driving, Pose(torch.eye(3)[None], torch.tensor([[0.1, 0, 0]])))
    torch.testing.assert_close(moved.coarse.flow[:, 0] - still[:, 0], torch.full((1, 64, 64), 0.1), atol=2e-3, rtol=0)


def test_displacement_is_looked_up_in_eye_distances_around_the_mouth():
    config = compact()
    field = DeformationField(config)
    anchor = Anchor(torch.tensor([[0.1, 0.4, 0.0]]), torch.tensor([[0.5]]))
    lattice = torch.zeros(1, 6, 64, 64)
    lattice[:, [0, 3]] = 0.2  # dx on both depth levels
    points = torch.tensor([[[0.1, 0.4, 0.0], [0.1, 0.4, 5.0], [0.95, 0.95, 0.0]]])
    moved = field.displace(points, lattice, anchor) - points
    torch.testing.assert_close(moved[0, :, 0], torch.tensor([0.1, 0.1, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["cross_modal", "no_correlation", "concatenated", "naive", "none"])
def test_ablations_render_and_train(kind):
    config = compact(deformation=kind)
    model = S3DNerf(config)
    image, drive, driving = inputs(config)
    frame = model(model.enrol(image, a_face()), image, drive, driving.requires_grad_(), still_pose())
    frame.fine.square().mean().backward()
    assert torch.isfinite(frame.fine).all()
    if kind == "none":
        assert frame.lattice.abs().max() == 0
    else:
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.field.parameters())


def test_paper_configuration_renders():
    """Paper-sized, with the wav2vec2-base shape but without its published weights, which are not fetched here."""
    config = paper()
    config = replace(config, audio=replace(config.audio, layers=1))
    model = S3DNerf(config).eval()
    assert config.audio.stride_samples == 320 and config.audio.receptive_samples == 400
    image, drive, _ = inputs(config)
    with torch.inference_mode():
        driving, _ = model.audio(model.features(torch.randn(1, config.audio.window_samples)))
        frame = model(model.enrol(image, a_face()), image, drive, driving, still_pose())
    assert frame.fine.shape == (1, 3, config.mouth_box, config.mouth_box)


def test_pose_goes_there_and_back():
    pose = Pose(torch.linalg.qr(torch.randn(1, 3, 3))[0] * 1.1, torch.randn(1, 3))
    points = torch.randn(1, 7, 3)
    torch.testing.assert_close(pose.to_target(pose.to_source(points)), points, atol=1e-5, rtol=1e-4)


def test_anchor_measures_the_eyes():
    assert anchor_of(a_face()).unit.item() == pytest.approx(0.6)
