"""The engine on its shipped checkpoint and the default portrait: what sessions rely on."""

import gc
import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.api import StepRow, StreamOptions
from engine.errors import AvatarStale, CheckpointError, EngineUnavailable
from engine.landmarks import FaceMesh
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint, save_checkpoint
from engine.s3dnerf.engine import S3DNerfEngine
from engine.turn import FRONT, Turn

ASSETS = DEFAULT_CHECKPOINT.parent
HOP = 640


@pytest.fixture(scope="module")
def engine():
    made = S3DNerfEngine()
    yield made
    made.close()


@pytest.fixture(scope="module")
def avatar(engine):
    return engine.enrol((ASSETS / "default_portrait.jpg").read_bytes())


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    with wave.open(str(ASSETS / "sample_speech.wav")) as file:
        assert file.getframerate() == 16_000 and file.getnchannels() == 1
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(np.float32) / 32768


def draw(engine, avatar, sound, *, options=None, slot=0, state=None, thrift=(0,)) -> np.ndarray:
    """All frames of a sound, from its first hop on: [n, 256, 256, 3]; ``thrift`` hop by hop, its last for the rest."""
    state = state or engine.init_state(slot + 1)
    state.reset(slot, options or StreamOptions(motion=0.0))
    hops = sound[: len(sound) // HOP * HOP].reshape(-1, HOP)
    levels = [*thrift, *[thrift[-1]] * len(hops)]
    rows = [StepRow(slot=slot, avatar=avatar, samples=hop, thrift=t) for hop, t in zip(hops, levels, strict=False)]
    return np.concatenate([engine.step([row], state) for row in rows])


def mouth(frames: np.ndarray) -> np.ndarray:
    return frames[:, 150:215, 85:171].astype(np.float32)


def test_frames_are_pictures_of_the_documented_size(engine, avatar, speech):
    frames = draw(engine, avatar, speech[: 5 * HOP])
    assert frames.shape == (5, 256, 256, 3) and frames.dtype == np.uint8
    assert frames.std() > 20


def test_a_hushed_stream_looks_as_if_it_had_been_silent_and_moves_on(engine, avatar, speech):
    silence = np.zeros(HOP, np.float32)
    state = engine.init_state(2)
    for slot in range(2):
        state.reset(slot, StreamOptions(seed=3))
    for index in range(12):
        spoken = speech[(20 + index) * HOP :][:HOP]
        engine.step([StepRow(slot=0, avatar=avatar, samples=spoken)], state)
        engine.step([StepRow(slot=1, avatar=avatar, samples=silence)], state)
    state.hush(0)
    frames = engine.step([StepRow(slot=slot, avatar=avatar, samples=silence) for slot in range(2)], state)
    np.testing.assert_array_equal(frames[0], frames[1])


def test_a_frame_does_not_depend_on_its_neighbours(engine, avatar, speech):
    alone = draw(engine, avatar, speech[: 40 * HOP])[-5:]
    state = engine.init_state(3)
    for slot in range(3):
        state.reset(slot, StreamOptions(seed=slot, motion=0.0 if slot == 1 else 1.0))
    rng = np.random.default_rng(0)
    together = []
    for index in range(40):
        rows = [StepRow(slot=1, avatar=avatar, samples=speech[index * HOP : (index + 1) * HOP])]
        if index > 10:  # others join, before and behind it
            rows.insert(0, StepRow(slot=0, avatar=avatar, samples=rng.standard_normal(HOP).astype(np.float32) * 0.1))
            rows.append(StepRow(slot=2, avatar=avatar, samples=rng.standard_normal(HOP).astype(np.float32) * 0.1))
        frames = engine.step(rows, state)
        together.append(frames[0 if len(rows) == 1 else 1])
    # The paint of a row drawn alone is shared out among the cores, whose sums of bfloat16 come in another order.
    difference = np.abs(np.stack(together[-5:]).astype(int) - alone)
    assert difference.max() <= 1 and difference.mean() < 0.001


def test_hearing_several_hops_at_once_draws_the_same_last_frame(engine, avatar, speech):
    one_by_one = draw(engine, avatar, speech[: 30 * HOP])[-1]
    state = engine.init_state(1)
    state.reset(0, StreamOptions(motion=0.0))
    for begin, end in ((0, 11), (11, 29), (29, 30)):
        last = engine.step([StepRow(slot=0, avatar=avatar, samples=speech[begin * HOP : end * HOP])], state)
    np.testing.assert_allclose(last[0].astype(int), one_by_one.astype(int), atol=1)


def test_speech_moves_the_mouth_and_silence_rests_it(engine, avatar, speech):
    frames = mouth(draw(engine, avatar, speech))
    change = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    loud = np.sqrt((speech[: len(speech) // HOP * HOP].reshape(-1, HOP) ** 2).mean(1))
    ahead = engine.spec.lookahead_hops
    loud, change = loud[:-ahead], change[ahead - 1 :]  # frame k stands at k / 25 s
    near = np.convolve(loud > 0.01, np.ones(15), "same") > 0
    assert change[loud > 0.02].mean() > 5 * change[~near].mean()


def test_silence_closes_the_mouth_whatever_came_before(engine, avatar, speech):
    quiet = draw(engine, avatar, np.zeros(20 * HOP, np.float32))[-1]
    after = draw(engine, avatar, np.concatenate([speech[: 60 * HOP], np.zeros(25 * HOP, np.float32)]))[-1]
    np.testing.assert_allclose(after.astype(int), quiet.astype(int), atol=2)


def test_locked_pose_leaves_the_upper_face_alone(engine, avatar, speech):
    frames = draw(engine, avatar, speech[: 60 * HOP])[:, :105].astype(np.float32)
    error = ((frames - avatar.crop[:105].astype(np.float32)) ** 2).mean()
    assert 10 * np.log10(255**2 / error) > 30


def test_idle_motion_moves_the_head_and_is_decided_by_the_seed(engine, avatar):
    silence = np.zeros(80 * HOP, np.float32)
    one, again, other = (
        draw(engine, avatar, silence, options=StreamOptions(seed=seed))[-1].astype(int) for seed in (1, 1, 2)
    )
    still = draw(engine, avatar, silence)[-1].astype(int)
    assert (one == again).all()
    assert np.abs(one - other).mean() > 0.5
    assert np.abs(one - still)[60:200, 60:200].mean() > 0.5
    assert np.abs(one - still)[:3].mean() < 1  # the picture's edge stands still


def look(engine, avatar, turn=FRONT, *, cut=True) -> tuple[np.ndarray, np.ndarray]:
    """Frame and cutout of a silent, still head."""
    cutout = np.zeros((256, 256, 4), np.uint8)
    state = engine.init_state(1)
    state.reset(0, StreamOptions(motion=0.0))
    silence = np.zeros(20 * HOP, np.float32)
    row = StepRow(slot=0, avatar=avatar, samples=silence, turn=turn, cutout=cutout if cut else None)
    return engine.step([row], state)[0], cutout


def test_a_cutout_is_the_person_of_the_frame_and_leaves_the_frame_as_it_is(engine, avatar):
    frame, cutout = look(engine, avatar)
    np.testing.assert_array_equal(frame, look(engine, avatar, cut=False)[0])
    alpha = cutout[..., 3]
    assert (alpha[avatar.arrays["face_mask"] == 255] == 255).all(), "the inner face is inside"
    assert (alpha[:40, :20] == 0).all(), "the background is outside"
    np.testing.assert_array_equal(cutout[alpha == 255, :3], frame[alpha == 255])


def test_the_matte_goes_with_the_head(engine, avatar):
    """Turned right, head and matte go right together: the picture at the matte's edge stays the same."""
    frame, cutout = look(engine, avatar, Turn(yaw_deg=10))
    before = look(engine, avatar)[1]
    head = slice(20, 120)

    def middle(alpha: np.ndarray) -> float:
        return float(np.average(np.arange(256), weights=alpha[head].sum(0, dtype=np.float64)))

    assert middle(cutout[..., 3]) > middle(before[..., 3]) + 1
    edge = (cutout[..., 3] > 100) & (cutout[..., 3] < 155)
    assert 50 < edge.sum() < 3000
    ground = np.median(avatar.crop[:40, :20].reshape(-1, 3), 0)
    assert np.abs(cutout[edge][:, :3].mean(0) - ground).sum() > 90, "no background comes along"


@pytest.mark.parametrize(
    ("turn", "column", "sign"),
    [(Turn(yaw_deg=10), 0, 1), (Turn(yaw_deg=-10), 0, -1), (Turn(pitch_deg=8), 1, -1), (Turn(pitch_deg=-8), 1, 1)],
)
def test_the_nose_goes_where_the_head_is_turned(engine, avatar, turn, column, sign):
    """The nose, nearest to the camera, moves most; yaw is to the right, pitch up."""
    mesh = FaceMesh()
    (still,), (turned,) = mesh.find(look(engine, avatar)[0]), mesh.find(look(engine, avatar, turn)[0])
    mesh.close()
    nose, temples = 1, [127, 356]
    moved = (turned - still)[:, column]
    assert sign * (moved[nose] - moved[temples].mean()) > 3, "pixels"


def test_new_options_keep_what_was_heard(engine, avatar, speech):
    state = engine.init_state(2)
    for slot, motion in ((0, 1.0), (1, 0.0)):
        state.reset(slot, StreamOptions(motion=motion))
    for index in range(40):
        rows = [StepRow(slot=s, avatar=avatar, samples=speech[index * HOP : (index + 1) * HOP]) for s in (0, 1)]
        engine.step(rows, state)
        if index == 30:
            state.adjust(0, StreamOptions(motion=0.0))
    sound = StepRow(slot=0, avatar=avatar, samples=speech[40 * HOP : 41 * HOP])
    given = engine.step([sound], state)
    wanted = engine.step([StepRow(slot=1, avatar=avatar, samples=sound.samples)], state)
    np.testing.assert_array_equal(given, wanted)


def test_a_thrifty_frame_looks_like_the_full_one(engine, avatar, speech):
    """Half the samples: within 0.15 grey levels in the mean, 0.8 around the mouth, 12 at one subpixel of a thousand."""
    assert engine.spec.thrift_levels == 1
    full, thrifty = (
        draw(engine, avatar, speech[: 50 * HOP], options=StreamOptions(seed=3), thrift=(level,))[15:].astype(int)
        for level in (0, 1)
    )
    error = np.abs(thrifty - full)
    assert 0 < error.mean() < 0.15
    assert mouth(error).mean() < 0.8
    assert np.percentile(error, 99.9) <= 12


def test_thrift_leaves_nothing_behind(engine, avatar, speech):
    sound = speech[: 40 * HOP]
    given, wanted = (draw(engine, avatar, sound, thrift=levels) for levels in ([0] * 20 + [1] * 10 + [0], [0]))
    np.testing.assert_array_equal(given[30:], wanted[30:])
    assert (given[20:30] != wanted[20:30]).any()


def test_tensors_go_with_their_avatar(speech):
    own = S3DNerfEngine(backend="eager")
    avatar = own.enrol((ASSETS / "default_portrait.jpg").read_bytes())
    draw(own, avatar, speech[:HOP])
    assert len(own._faces) == 1
    del avatar
    gc.collect()
    assert len(own._faces) == 0


def test_compiled_equals_eager(engine, avatar, speech):
    """Within the rounding of bfloat16, which the compiled stages use where the CPU has it."""
    if engine.backend == "eager":
        pytest.skip("no compiled backend works on this machine")
    eager = S3DNerfEngine(backend="eager")
    given = draw(engine, avatar, speech[: 50 * HOP])[-20:].astype(int)
    wanted = draw(eager, avatar, speech[: 50 * HOP])[-20:].astype(int)
    error = np.abs(given - wanted)
    assert error.mean() < 0.1 and np.percentile(error, 99.9) <= 4


def test_avatar_of_another_checkpoint_is_stale(engine, avatar):
    from dataclasses import replace

    state = engine.init_state(1)
    state.reset(0, StreamOptions())
    old = replace(avatar, fingerprint="1-0000")
    with pytest.raises(AvatarStale, match="enrol the portrait again"):
        engine.step([StepRow(slot=0, avatar=old, samples=np.zeros(HOP, np.float32))], state)


def test_a_step_that_fails_for_one_row_is_heard_by_none(engine, avatar, speech):
    from dataclasses import replace

    state = engine.init_state(3)
    for slot in range(3):
        state.reset(slot, StreamOptions())
    sound = speech[40 * HOP : 45 * HOP].reshape(5, HOP)
    good = [StepRow(slot=0, avatar=avatar, samples=hop) for hop in sound]
    bad = StepRow(slot=1, avatar=replace(avatar, fingerprint="1-0000"), samples=sound[0])
    engine.step(good[:1], state)
    for row in good[1:4]:
        with pytest.raises(AvatarStale):
            engine.step([row, bad], state)
        engine.step([row], state)
    (given,) = engine.step(good[4:], state)
    for hop in sound:
        (wanted,) = engine.step([StepRow(slot=2, avatar=avatar, samples=hop)], state)
    np.testing.assert_array_equal(given, wanted)


def test_baked_avatar_does_not_change_while_it_speaks(engine, avatar, speech):
    before = {name: value.copy() for name, value in avatar.arrays.items()}
    draw(engine, avatar, speech[: 10 * HOP])
    for name, value in avatar.arrays.items():
        np.testing.assert_array_equal(value, before[name])


def test_checkpoint_carries_its_credits_and_is_small():
    assert "GRID" in load_checkpoint().credits
    assert DEFAULT_CHECKPOINT.stat().st_size < 20 * 2**20


def test_checkpoint_round_trips(tmp_path):
    first = load_checkpoint()
    path = tmp_path / "again.safetensors"
    save_checkpoint(path, first.model, first.motion, first.closed, first.gain, first.credits)
    second = load_checkpoint(path)
    for (name, a), b in zip(first.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, atol=0, rtol=0, msg=name)
    assert second.credits == first.credits


@pytest.mark.parametrize("damage", ["missing", "text", "truncated", "other format"])
def test_bad_checkpoint_is_refused_in_words(tmp_path: Path, damage):
    path = tmp_path / "bad.safetensors"
    if damage == "text":
        path.write_text("hello")
    elif damage == "truncated":
        path.write_bytes(DEFAULT_CHECKPOINT.read_bytes()[:100_000])
    elif damage == "other format":
        from safetensors.torch import save_file

        save_file({"x": torch.zeros(1)}, str(path), metadata={"format": "99"})
    with pytest.raises(CheckpointError, match="bad.safetensors"):
        S3DNerfEngine(checkpoint=path)


def test_unknown_backend_is_refused():
    with pytest.raises(EngineUnavailable, match="no_such"):
        S3DNerfEngine(backend="no_such")
