"""Rows drawn together against rows drawn one by one, both in eager PyTorch on the CPU."""

import dataclasses
import gc

import numpy as np
import pytest
import torch

from engine.api import Avatar, StepRow, StreamOptions
from engine.errors import AvatarStale
from engine.s3dnerf.batch_frame import WIDTHS, BatchFrame, pack, unpack
from engine.s3dnerf.batch_step import BatchStep
from engine.s3dnerf.checkpoint import load_checkpoint
from engine.s3dnerf.engine import S3DNerfEngine
from engine.s3dnerf.eyelids import find_eyelids, lid_columns, shut_eyes, shut_lids
from engine.s3dnerf.portrait_bank import PortraitBank, Portraits
from engine.turn import Turn
from tests.engine.compile.drawn import default_avatar, mirrored, speech

CPU, META = torch.device("cpu"), torch.device("meta")
MEAN, MOST = 0.15, 4  # grey levels; the latter but for one subpixel of a thousand


def batched_engine(buckets: tuple[int, ...] = (1, 2, 4)) -> S3DNerfEngine:
    engine = S3DNerfEngine(backend="eager")
    parts = (engine._model, engine.spec, engine._closed, engine._gain)
    engine._batched = BatchStep(*parts, CPU, buckets=buckets, places=4)
    return engine


@pytest.fixture(scope="module")
def one_by_one():
    return S3DNerfEngine(backend="eager")


@pytest.fixture(scope="module")
def together():
    return batched_engine()


@pytest.fixture(scope="module")
def avatars(one_by_one) -> list[Avatar]:
    avatar = default_avatar(one_by_one)
    return [avatar, mirrored(one_by_one, avatar)]


def draw(engine, steps: list[list[StepRow]]) -> list[np.ndarray]:
    """The frames of each step, on fresh streams."""
    state = engine.init_state(4)
    for slot in range(4):
        state.reset(slot, StreamOptions(seed=slot + 7, motion=1.0 if slot else 0.0))
    return [engine.step(rows, state) for rows in steps]


def compare(engines, steps) -> None:
    for given, wanted in zip(*(draw(engine, steps) for engine in engines), strict=True):
        error = np.abs(given.astype(int) - wanted)
        assert error.mean() < MEAN and np.percentile(error, 99.9) <= MOST


def test_rows_of_several_avatars_that_come_and_go(one_by_one, together, avatars):
    hops = speech()

    def row(slot: int, hop: int, **more) -> StepRow:
        return StepRow(slot=slot, avatar=avatars[slot % 2], samples=hops[hop], **more)

    late = np.concatenate(hops[:5])  # heard at once by one who fell behind
    compare(
        (together, one_by_one),
        [
            [row(0, 0), row(1, 4), row(2, 6)],  # three rows in a bucket of four
            [row(1, 5)],
            [row(2, 7), row(1, 6), row(0, 1), StepRow(slot=3, avatar=avatars[0], samples=late)],
            [row(0, 2, thrift=1), row(1, 7), row(2, 8, thrift=1, turn=Turn(yaw_deg=10, pitch_deg=-5))],
        ],
    )


def test_a_row_does_not_depend_on_its_neighbours(together, avatars):
    hops = speech()
    rows = [[StepRow(slot=i, avatar=avatars[i % 2], samples=hops[step + 4 * i]) for i in range(3)] for step in range(3)]
    alone = draw(together, [[row[1]] for row in rows])[-1][0]
    among = draw(together, rows)[-1][1]
    np.testing.assert_allclose(among.astype(int), alone.astype(int), atol=1)


def test_cutouts_are_those_of_their_rows(one_by_one, together, avatars):
    cut: list[list[np.ndarray]] = []
    for engine in (together, one_by_one):
        canvases = [np.zeros((256, 256, 4), np.uint8) for _ in range(2)]
        turn = Turn(yaw_deg=8)
        rows = [StepRow(slot=i, avatar=avatars[i % 2], samples=speech()[i], thrift=i % 2, turn=turn) for i in range(3)]
        rows[0] = dataclasses.replace(rows[0], cutout=canvases[0])
        rows[1] = dataclasses.replace(rows[1], cutout=canvases[1])
        draw(engine, [rows])
        cut.append(canvases)
    for given, wanted in zip(*cut, strict=True):
        assert wanted.any()
        error = np.abs(given.astype(int) - wanted)
        assert error.mean() < MEAN and np.percentile(error, 99.9) <= MOST


def test_rows_for_which_memory_is_too_small_are_drawn_in_parts(one_by_one, avatars, monkeypatch, caplog):
    engine = batched_engine()
    assert engine._batched is not None
    whole, rows_at_once = engine._batched._draw, []

    def cramped(thrift: int, rows: int) -> None:
        if rows > 2:
            raise torch.OutOfMemoryError
        rows_at_once.append(rows)
        whole(thrift, rows)

    monkeypatch.setattr(engine._batched, "_draw", cramped)
    compare((engine, one_by_one), [[StepRow(slot=i, avatar=avatars[i % 2], samples=speech()[i]) for i in range(3)]] * 2)
    assert rows_at_once == [2, 1, 2, 1] and "drawn in parts" in caplog.text


def test_a_step_that_fails_was_not_heard(together, avatars):
    state = together.init_state(2)
    state.reset(0, StreamOptions())
    stale = dataclasses.replace(avatars[0], fingerprint="other")
    before = state.windows.copy([0])
    with pytest.raises(AvatarStale):
        together.step([StepRow(slot=0, avatar=a, samples=speech()[0]) for a in (avatars[0], stale)], state)
    for given, wanted in zip(state.windows.copy([0]), before, strict=True):
        assert given.equal(wanted)


def test_places_go_with_their_avatars_and_to_those_used_last(avatars):
    bank = PortraitBank(load_checkpoint().model.config, 2, CPU)
    first, second = (dataclasses.replace(avatar) for avatar in avatars)
    assert len(set(bank.place([first, second, first]))) == 2
    bank.place([first])
    third = dataclasses.replace(avatars[1])
    at = dict(zip("ft", bank.place([first, third]), strict=True))  # the second had to go
    assert bank.portraits.image[at["t"]].equal(bank.portraits.image[bank.place([second])[0]])
    assert len(bank) == 2
    del first, second, third
    gc.collect()
    assert len(bank) == 0


@pytest.mark.parametrize("blink", [0.0, 0.4, 1.0])
def test_lids_of_several_faces_shut_as_each_ones_do(avatars, blink):
    images = torch.stack([torch.from_numpy(a.crop).permute(2, 0, 1).float() for a in avatars])
    lids = [find_eyelids(a.arrays["landmarks"]) for a in avatars]
    drawn = shut_lids(images, torch.stack([lid_columns(x) for x in lids]), torch.tensor([blink, 0.0]))
    torch.testing.assert_close(drawn[:1], shut_eyes(images[:1], lids[0], blink), atol=1e-2, rtol=0)
    assert drawn[1].equal(images[1])


def test_a_table_holds_what_was_packed():
    rows = 3
    columns = [np.arange(rows * width, dtype=np.float32).reshape(rows, width) for width in WIDTHS]
    for given, column in zip(unpack(torch.from_numpy(pack(*columns))), columns, strict=True):
        np.testing.assert_array_equal(given.numpy().reshape(rows, -1), column)


@torch.inference_mode()
def test_nothing_is_left_on_the_cpu_for_a_recording_to_trip_over():
    """The meta device, like a recording, refuses tensors of the CPU and questions about values."""
    loaded = load_checkpoint()
    model, config = loaded.model.to(META), loaded.model.config
    bank = PortraitBank(config, 2, META)
    driving = torch.zeros(2, config.audio.tokens, config.audio.width, device=META)
    codes, some = torch.zeros(2, config.codes, device=META), torch.zeros(config.codes)
    net = BatchFrame(model, config.samples, some, some).to(META)
    pictures, flows = net(bank.portraits, driving, codes, torch.zeros(2, sum(WIDTHS), device=META))
    assert isinstance(bank.portraits, Portraits)
    assert (pictures.device, flows.device) == (META, META) and pictures.shape == (2, 256, 256, 3)
