"""The engine's thread, with the fake engine, and with the real one where its checkpoint is there."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.api import Avatar, Engine, StepRow, StreamOptions, StreamState
from engine.cache import DEFAULT_PORTRAIT
from engine.errors import CheckpointError, VisavisError
from engine.fake import FakeEngine
from engine.registry import create_engine
from server.engine_worker import EngineWorker
from server.errors import NotReady
from server.stream import INBOX_HOPS, Stream

HAS_CHECKPOINT = "VISAVIS_CHECKPOINT" in os.environ or any(DEFAULT_PORTRAIT.parent.glob("*.safetensors"))
REAL = pytest.param("s3dnerf", marks=pytest.mark.skipif(not HAS_CHECKPOINT, reason="no checkpoint is installed"))


class Harness:
    """A worker and what it hands back."""

    def __init__(self, make_engine: Callable[[], Engine] = FakeEngine, *, slots: int | None = 4, **fields: Any) -> None:
        self.worker = EngineWorker(
            make_engine, slots=slots, loop=asyncio.get_running_loop(), **{"marked": False, **fields}
        )
        self.worker.start()

    async def loaded(self) -> Harness:
        await asyncio.wrap_future(self.worker.loaded)
        return self

    def add(self, avatar: Avatar, seed: int = 0) -> tuple[Stream, dict[int, np.ndarray], list[VisavisError]]:
        frames: dict[int, np.ndarray] = {}
        failures: list[VisavisError] = []
        stream = self.worker.add(
            avatar,
            StreamOptions(seed=seed),
            due_s=lambda frame: time.monotonic() + 60,
            deliver=lambda index, frame, ms: frames.__setitem__(index, frame),
            fail=failures.append,
        )
        return stream, frames, failures


Make = Callable[..., Any]


@pytest.fixture
async def harness() -> AsyncIterator[Make]:
    made: list[Harness] = []

    async def make(*args: Any, **fields: Any) -> Harness:
        made.append(Harness(*args, **fields))
        return await made[-1].loaded()

    yield make
    for one in made:
        await asyncio.to_thread(one.worker.close)


def avatar_of(shade: int) -> Avatar:
    return Avatar(engine="fake", fingerprint="fake-1", arrays={"crop": np.full((256, 256, 3), shade, np.uint8)})


def voice(seed: int, hops: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loud = np.repeat(rng.random(hops), 640)
    return (rng.standard_normal(hops * 640) * loud * 0.3).astype(np.float32).reshape(hops, 640)


async def until(condition: Callable[..., bool], patience_s: float = 30) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.005)


class Bucketed(FakeEngine):
    """Steps 2, 4 or 8 rows and no other number."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, buckets=(2, 4, 8), max_batch=8)
        self.sizes: list[int] = []

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        assert len(rows) in self.spec.buckets
        masks = [row.masked for row in rows]
        assert masks == sorted(masks) and not masks[0]
        self.sizes.append(len(rows) - sum(masks))
        return super().step(rows, state)


@pytest.mark.parametrize("name", ["fake", "buckets", REAL])
async def test_frames_do_not_change_when_another_session_joins_and_leaves(harness: Make, name: str) -> None:
    hops = 24
    one = await harness(Bucketed if name == "buckets" else lambda: create_engine(name))
    portrait = DEFAULT_PORTRAIT.read_bytes() if name == "s3dnerf" else None
    avatar = (
        avatar_of(70)
        if portrait is None
        else await asyncio.wrap_future(one.worker.run(lambda engine: engine.enrol(portrait)))
    )
    speech, other = voice(1, hops), voice(2, hops)

    async def speak(company: bool) -> dict[int, np.ndarray]:
        stream, frames, _ = one.add(avatar, seed=5)
        guest = None
        for hop in range(hops):
            if company and hop == 6:
                guest, guest_frames, _ = one.add(avatar, seed=9)
            if company and hop == 18 and guest is not None:
                await until(lambda seen=guest_frames: len(seen) >= 5)
                one.worker.remove(guest)
                guest = None
            if guest is not None:
                one.worker.push(guest, hop - 6, other[hop])
            one.worker.push(stream, hop, speech[hop])
            await until(lambda hop=hop: hop < 3 or hop - 2 in frames)
        one.worker.remove(stream)
        return frames

    alone, together = await speak(company=False), await speak(company=True)
    assert alone.keys() == together.keys() and len(alone) == hops - 2
    for index in alone:
        difference = np.abs(alone[index].astype(int) - together[index]).max()
        assert difference <= (1 if name == "s3dnerf" else 0), index


async def test_frame_k_needs_the_lookahead_after_it(harness: Make) -> None:
    one = await harness()
    stream, frames, _ = one.add(avatar_of(0))
    for hop in range(3):
        one.worker.push(stream, hop, np.zeros(640, np.float32))
    await until(lambda: 0 in frames)
    assert list(frames) == [0]


async def test_the_mark_is_on_every_frame_unless_left_out(harness: Make) -> None:
    plain, marked = await harness(), await harness(marked=True)
    seen = []
    for one in (plain, marked):
        stream, frames, _ = one.add(avatar_of(0))
        for hop in range(8):
            one.worker.push(stream, hop, np.zeros(640, np.float32))
        await until(lambda seen=frames: len(seen) == 6)
        seen.append(frames)
    assert all((seen[0][k] != seen[1][k]).any() for k in seen[0])


async def test_a_backlog_drops_the_oldest_and_keeps_frames_in_their_place(harness: Make) -> None:
    gate = threading.Event()

    class Slow(FakeEngine):
        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            gate.wait(10)
            return super().step(rows, state)

    one = await harness(Slow)
    stream, frames, _ = one.add(avatar_of(0))
    total = INBOX_HOPS * 3
    for hop in range(total):
        one.worker.push(stream, hop, np.zeros(640, np.float32))
    assert len(stream.inbox) <= INBOX_HOPS
    gate.set()
    await until(lambda: total - 3 in frames)


class Picky(FakeEngine):
    """Fails for one avatar."""

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        if any(row.avatar.crop[0, 0, 0] == 13 for row in rows):
            raise RuntimeError("thirteen")
        return super().step(rows, state)


class Halfway(FakeEngine):
    """Fails in the middle of its rows, where an avatar has no picture; before that it waits for ``gate``."""

    begun, gate = threading.Event(), threading.Event()

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        self.begun.set()
        self.gate.wait(10)
        return super().step(rows, state)


class HalfwayInBuckets(Halfway, Bucketed):
    pass


@pytest.mark.parametrize("make_engine", [Halfway, HalfwayInBuckets])
async def test_a_row_that_fails_does_not_make_its_neighbours_hear_twice(
    harness: Make, make_engine: Callable[[], Engine]
) -> None:
    speech = voice(3, 8)
    one = await harness(make_engine)

    async def speak(company: bool) -> dict[int, np.ndarray]:
        Halfway.gate.clear()
        Halfway.begun.clear()
        good, frames, _ = one.add(avatar_of(70))
        if company:
            nothing = Avatar(engine="fake", fingerprint="fake-1", arrays={"crop": np.zeros(5, np.uint8)})
            bad, _, failures = one.add(nothing)
        for hop in range(len(speech)):
            one.worker.push(good, hop, speech[hop])
            await until(Halfway.begun.is_set)  # the first step is on its way; all else waits for the second
            if company and hop:
                one.worker.push(bad, hop - 1, speech[hop])
        Halfway.gate.set()
        await until(lambda: len(speech) - 3 in frames)
        assert not company or failures
        one.worker.remove(good)
        return frames

    alone, together = await speak(company=False), await speak(company=True)
    assert alone.keys() == together.keys()
    assert all((alone[index] == together[index]).all() for index in alone)


async def test_a_session_that_says_nothing_stalls_nobody(harness: Make) -> None:
    one = await harness(Bucketed)
    speaking, frames, _ = one.add(avatar_of(70))
    silent, none, _ = one.add(avatar_of(20))
    for hop in range(8):
        one.worker.push(speaking, hop, np.zeros(640, np.float32))
        await until(lambda hop=hop: hop < 3 or hop - 2 in frames)
    assert not none and not silent.removed


async def test_a_failing_session_ends_alone_and_with_its_reason(harness: Make) -> None:
    one = await harness(Picky)
    good, good_frames, good_failures = one.add(avatar_of(70))
    bad, _, bad_failures = one.add(avatar_of(13))
    for hop in range(20):
        one.worker.push(bad, hop, np.zeros(640, np.float32))
        one.worker.push(good, hop, np.zeros(640, np.float32))
    await until(lambda: 17 in good_frames)
    assert not good_failures
    assert len(bad_failures) == 1 and "thirteen" in str(bad_failures[0])
    assert bad.removed


async def test_slots_are_used_again_and_begin_anew(harness: Make) -> None:
    one = await harness(slots=1)
    for _ in range(5):
        stream, frames, _ = one.add(avatar_of(0))
        for hop in range(3):
            one.worker.push(stream, hop, np.zeros(640, np.float32))
        await until(lambda seen=frames: 0 in seen)
        assert frames[0][128, 128, 0] == 16, "nothing of the session before is heard"
        one.worker.push(stream, 3, np.full(640, 0.5, np.float32))
        one.worker.remove(stream)


class TwoLanes(FakeEngine):
    """Steps of slots in ``held`` do not end while they are in it."""

    lanes = 2

    def __init__(self) -> None:
        super().__init__()
        self.held: set[int] = set()
        self.stepping: list[int] = []
        self.twice = False  # one slot in two steps at a time

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        (row,) = rows
        self.twice |= row.slot in self.stepping
        self.stepping.append(row.slot)
        while row.slot in self.held:
            time.sleep(0.001)
        self.stepping.remove(row.slot)
        return super().step(rows, state)


async def test_a_step_that_lasts_holds_up_nobody_while_a_lane_is_free(harness: Make) -> None:
    engine = TwoLanes()
    one = await harness(lambda: engine)
    slow, slow_frames, _ = one.add(avatar_of(10))
    quick, quick_frames, _ = one.add(avatar_of(20))
    engine.held.add(slow.slot)
    for hop in range(6):
        one.worker.push(slow, hop, np.zeros(640, np.float32))
        one.worker.push(quick, hop, np.zeros(640, np.float32))
    await until(lambda: 3 in quick_frames)
    assert not slow_frames and engine.stepping == [slow.slot]
    engine.held.clear()
    await until(lambda: 3 in slow_frames)
    assert not engine.twice


async def test_a_slot_is_not_used_again_before_its_step_is_over(harness: Make) -> None:
    engine = TwoLanes()
    one = await harness(lambda: engine, slots=1)
    first, frames, _ = one.add(avatar_of(10))
    engine.held.add(first.slot)
    one.worker.push(first, 0, np.zeros(640, np.float32))
    await until(lambda: engine.stepping == [first.slot])
    one.worker.remove(first)
    second, _, _ = one.add(avatar_of(20))
    assert second.slot != first.slot
    engine.held.clear()
    await until(lambda: not engine.stepping)
    one.worker.remove(second)
    slots = set()
    for _ in range(3):
        stream, _, _ = one.add(avatar_of(30))
        slots.add(stream.slot)
    assert first.slot in slots and not frames


async def test_an_enrolment_does_not_hold_up_a_live_session(harness: Make) -> None:
    begun, gate = threading.Event(), threading.Event()

    class SlowToEnrol(FakeEngine):
        def enrol(self, image: bytes) -> Avatar:
            begun.set()
            gate.wait(20)
            return avatar_of(1)

    one = await harness(SlowToEnrol)
    stream, frames, _ = one.add(avatar_of(70))
    enrolling = asyncio.wrap_future(one.worker.run(lambda engine: engine.enrol(b"")))
    await asyncio.to_thread(begun.wait, 10)
    for hop in range(10):
        one.worker.push(stream, hop, np.zeros(640, np.float32))
    await until(lambda: 7 in frames)
    assert not enrolling.done()
    gate.set()
    assert (await enrolling).crop[0, 0, 0] == 1


@pytest.mark.parametrize(("step_s", "slots", "room"), [(0.5, None, 1), (0.0, None, 16), (0.5, 3, 3)])
async def test_there_is_room_for_as_many_as_can_be_drawn_in_time(
    harness: Make, step_s: float, slots: int | None, room: int
) -> None:
    now_s = 0.0

    class Timed(FakeEngine):
        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            nonlocal now_s
            now_s += step_s * len(rows)
            return super().step(rows, state)

    one = await harness(Timed, slots=slots, now=lambda: now_s, cores=64)
    await asyncio.wrap_future(one.worker.warm_up(avatar_of(0)))
    assert one.worker.slots == room


async def test_an_engine_that_cannot_load_says_why() -> None:
    def broken() -> Engine:
        raise CheckpointError("the checkpoint is damaged")

    one = Harness(broken)
    with pytest.raises(CheckpointError):
        await one.loaded()
    with pytest.raises(NotReady, match="damaged"):
        _ = one.worker.engine
    await asyncio.to_thread(one.worker.close)


async def test_nothing_is_left_after_close(harness: Make) -> None:
    one = await harness()
    before = [t.name for t in threading.enumerate()]
    assert "visavis-engine" in before
    await asyncio.to_thread(one.worker.close)
    assert "visavis-engine" not in [t.name for t in threading.enumerate()]
    with pytest.raises(NotReady):
        one.worker.run(lambda engine: None).result()


async def test_enrolments_that_still_wait_at_close_are_refused(harness: Make) -> None:
    begun, gate = threading.Event(), threading.Event()

    def hold(engine: Engine) -> None:
        begun.set()
        gate.wait(10)

    one = await harness()
    one.add(avatar_of(70))
    one.worker.run(hold)
    waiting = one.worker.run(lambda engine: None)
    await asyncio.to_thread(begun.wait, 10)
    closing = asyncio.create_task(asyncio.to_thread(one.worker.close))
    with pytest.raises(NotReady, match="stopping"):
        await asyncio.wait_for(asyncio.wrap_future(waiting), 5)
    gate.set()
    await closing


async def test_an_engine_that_breaks_its_contract_ends_its_sessions_not_the_thread(harness: Make) -> None:
    class Short(FakeEngine):
        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            frames = super().step(rows, state)
            return frames[:0] if rows[0].avatar.crop[0, 0, 0] == 13 else frames

    one = await harness(Short)
    bad, _, failures = one.add(avatar_of(13))
    one.worker.push(bad, 0, np.zeros(640, np.float32))
    await until(lambda: bool(failures))
    stream, frames, _ = one.add(avatar_of(70))
    for hop in range(3):
        one.worker.push(stream, hop, np.zeros(640, np.float32))
    await until(lambda: 0 in frames)


async def test_after_a_hush_no_frame_of_older_sound_comes_and_the_next_one_is_dark(harness: Make) -> None:
    class Held(FakeEngine):
        entered, go_on = threading.Event(), threading.Event()

        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            self.entered.set()
            self.go_on.wait(10)
            return super().step(rows, state)

    one = await harness(Held)
    stream, frames, _ = one.add(avatar_of(90))
    loud = np.full(640, 0.5, np.float32)
    for hop in range(5):
        one.worker.push(stream, hop, loud)
    await asyncio.to_thread(Held.entered.wait, 10)
    one.worker.push(stream, 5, loud)  # waits while the step is held
    one.worker.hush(stream)
    one.worker.push(stream, 6, np.zeros(640, np.float32))
    Held.go_on.set()
    await until(lambda: 4 in frames)
    assert all(frame[180, 120, 0] == 16 for frame in frames.values()), "only frames of silence were delivered"
