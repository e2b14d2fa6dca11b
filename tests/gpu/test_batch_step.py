"""Steps of many rows recorded as CUDA graphs against eager on the CPU, row by row."""

import dataclasses
import gc

import numpy as np
import pytest
import torch

from engine.api import Avatar, StepRow, StreamOptions
from engine.s3dnerf.engine import S3DNerfEngine
from engine.turn import Turn
from tests.engine.compile.drawn import HOPS, default_avatar, mirrored, speech

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no NVIDIA GPU"),
]
MEAN, MOST = 0.15, 4  # grey levels; the latter but for one subpixel of a thousand


@pytest.fixture(scope="module")
def eager():
    return S3DNerfEngine(backend="eager")


@pytest.fixture(scope="module")
def recorded():
    engine = S3DNerfEngine(backend="cuda-graph")
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def avatars(eager) -> list[Avatar]:
    avatar = default_avatar(eager)
    return [avatar, mirrored(eager, avatar)]


def rows_of(avatars: list[Avatar], count: int, hop: int, **more) -> list[StepRow]:
    hops = speech()
    return [StepRow(slot=i, avatar=avatars[i % 2], samples=hops[(hop + 5 * i) % HOPS], **more) for i in range(count)]


def draw(engine, steps: list[list[StepRow]]) -> list[np.ndarray]:
    state = engine.init_state(64)
    for slot in range(64):
        state.reset(slot, StreamOptions(seed=slot + 7))
    return [engine.step(rows, state) for rows in steps]


def check(given: np.ndarray, wanted: np.ndarray) -> None:
    error = np.abs(given.astype(int) - wanted)
    assert error.mean() < MEAN and np.percentile(error, 99.9) <= MOST


@pytest.mark.parametrize("count", [1, 3, 8, 12])
def test_rows_are_those_of_eager(eager, recorded, avatars, count):
    steps = [rows_of(avatars, count, hop) for hop in range(4)]
    for given, wanted in zip(*(draw(engine, steps) for engine in (recorded, eager)), strict=True):
        check(given, wanted)


def test_thrifty_and_turned_rows_and_cutouts(eager, recorded, avatars):
    cut: list[list[np.ndarray]] = []
    drawn = []
    for engine in (recorded, eager):
        canvases = [np.zeros((256, 256, 4), np.uint8) for _ in range(4)]
        rows = rows_of(avatars, 4, 0, turn=Turn(yaw_deg=9, pitch_deg=4))
        rows = [dataclasses.replace(row, cutout=canvases[i], thrift=i // 2) for i, row in enumerate(rows)]
        drawn += draw(engine, [rows])
        cut.append(canvases)
    check(*drawn)
    for given, wanted in zip(*cut, strict=True):
        check(given, wanted)


def test_a_full_step_draws_each_row_as_if_alone(recorded, avatars):
    steps = [rows_of(avatars, 64, hop) for hop in range(3)]
    together = draw(recorded, steps)[-1]
    for i in (0, 31, 63):
        check(draw(recorded, [[rows[i]] for rows in steps])[-1][0], together[i])


def test_no_memory_is_taken_by_steps_or_by_avatars_that_go(recorded, avatars):
    draw(recorded, [rows_of(avatars, 4, 0)])
    before = torch.cuda.memory_allocated()
    for _ in range(40):
        draw(recorded, [rows_of([dataclasses.replace(avatar) for avatar in avatars], 4, 0)])
    gc.collect()
    assert torch.cuda.memory_allocated() == before
    assert recorded._batched is not None and len(recorded._batched.bank) <= 2
