"""The engine's thread on a machine whose speed the test decides: what is saved, and who is still let in."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from engine.api import StepRow, StreamOptions, StreamState
from engine.fake import FakeEngine
from engine.thrift import CALM_S
from server.engine_worker import EngineWorker
from server.stream import Stream
from tests.server.test_engine_worker import avatar_of, voice

HOP_S = 0.04
MARGIN_S = 0.12  # a frame is due so long after its sound came: nothing is late for being spared


class Machine(FakeEngine):
    """A fake engine on its own clock: a full row takes ``row_s`` of it, a thrifty one four fifths."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = replace(self.spec, thrift_levels=1)
        self.row_s = 0.0
        self.now_s = 0.0
        self.levels: list[int] = []

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        for row in rows:
            self.now_s += self.row_s * (0.8 if row.thrift else 1)
            self.levels.append(row.thrift)
        return super().step(rows, state)


class Bench:
    """A worker on such a machine, and one stream that speaks in the machine's time."""

    def __init__(self, **fields) -> None:
        self.machine = Machine()
        self.worker = EngineWorker(
            lambda: self.machine,
            marked=False,
            loop=asyncio.get_running_loop(),
            now=lambda: self.machine.now_s,
            **{"slots": None, "cores": 64, **fields},
        )
        self.worker.start()
        self.hops = 0
        self.frames: dict[int, np.ndarray] = {}
        self.spared: list[int] = []  # rising

    async def measured(self, row_s: float) -> Bench:
        await asyncio.wrap_future(self.worker.loaded)
        self.machine.row_s = row_s
        await asyncio.wrap_future(self.worker.warm_up(avatar_of(70)))
        self.machine.levels.clear()
        return self

    def begin(self) -> Stream:
        born_s = self.machine.now_s
        self.stream = self.worker.add(
            avatar_of(70),
            StreamOptions(),
            due_s=lambda frame: born_s + (frame + 3) * HOP_S + MARGIN_S,
            deliver=lambda index, frame, ms: self.frames.__setitem__(index, frame),
            spare=self.spared.append,
            fail=lambda error: pytest.fail(str(error)),
        )
        self.born_s = born_s
        return self.stream

    async def speak(self, sound: np.ndarray, *, row_s: float) -> None:
        """Say float32 [hops, 640], hop after hop as time passes, on a machine of that speed."""
        self.machine.row_s = row_s
        for samples in sound:
            self.hops += 1
            self.machine.now_s = max(self.machine.now_s, self.born_s + self.hops * HOP_S)
            self.worker.push(self.stream, self.hops - 1, samples)
            frame = self.hops - 3
            async with asyncio.timeout(10):
                while frame >= 0 and frame not in self.frames and frame not in self.spared:
                    await asyncio.sleep(0.0005)
        await asyncio.sleep(0.01)  # the thread may still be counting

    def shares(self, kind: str) -> dict[str, float]:
        pace = self.worker.pace()
        return dict(zip(pace.levels, getattr(pace, kind), strict=True))


Make = Callable[..., Awaitable[Bench]]


@pytest.fixture
async def bench() -> AsyncIterator[Make]:
    made: list[Bench] = []

    async def make(row_s: float, **fields) -> Bench:
        made.append(Bench(**fields))
        return await made[-1].measured(row_s)

    yield make
    for one in made:
        await asyncio.to_thread(one.worker.close)


def hops_of(seconds: float) -> int:
    return round(seconds / HOP_S)


async def test_it_saves_step_by_step_under_load_and_comes_back_after_it(bench: Make) -> None:
    one = await bench(0.016)
    one.begin()
    await one.speak(voice(1, hops_of(1)), row_s=0.016)
    assert one.worker.pace().level == 0 and not one.spared
    await one.speak(voice(2, hops_of(4)), row_s=0.06)
    assert one.worker.pace().level == 2, "48 of 40 ms the thrifty way: only half as many frames fit"
    await one.speak(voice(3, hops_of(2 * CALM_S + 2)), row_s=0.016)
    assert one.worker.pace().level == 0
    assert all(drawn > 10 for drawn in one.shares("drawn").values())
    assert all(spent > 0.4 for spent in one.shares("seconds").values())


async def test_at_half_rate_all_is_heard_and_every_other_frame_is_told_as_spared(bench: Make) -> None:
    speech = voice(4, hops_of(7))
    calm, loaded = await bench(0.016), await bench(0.016)
    for one, row_s in ((calm, 0.016), (loaded, 0.06)):
        one.begin()
        await one.speak(speech[: hops_of(5)], row_s=row_s)
        await one.speak(speech[hops_of(5) :], row_s=0.016)  # it has time again, and waits some seconds yet
    assert loaded.worker.pace().level == 2 and len(loaded.spared) > hops_of(2)
    late = [index for index in loaded.frames if index > hops_of(4)]
    assert len({index % 2 for index in late}) == 1 and set(np.diff(late)) == {2}
    assert set(late).isdisjoint(loaded.spared)
    assert all((loaded.frames[index] == calm.frames[index]).all() for index in late)


async def test_streams_take_turns_in_sparing(bench: Make) -> None:
    one = await bench(0.016, slots=4)
    one.begin()
    await one.speak(voice(5, hops_of(4)), row_s=0.06)
    other_spared: list[int] = []
    other = one.worker.add(
        avatar_of(20),
        StreamOptions(),
        due_s=lambda frame: 1e9,
        deliver=lambda *frame: None,
        spare=other_spared.append,
        fail=lambda error: None,
    )
    for hop in range(12):
        one.worker.push(other, hop, np.zeros(640, np.float32))
    await asyncio.sleep(0.05)
    assert {index % 2 for index in other_spared} != {index % 2 for index in one.spared}


async def test_nothing_is_saved_for_the_next_one_when_the_last_has_gone(bench: Make) -> None:
    one = await bench(0.016)
    stream = one.begin()
    await one.speak(voice(6, hops_of(4)), row_s=0.06)
    one.worker.remove(stream)
    assert one.worker.pace().level == 0


async def test_the_capacity_is_what_the_measured_row_time_allows(bench: Make) -> None:
    one = await bench(0.016)
    assert one.worker.capacity is not None
    assert (one.worker.slots, one.worker.fit_now()) == (2, 2)
    assert one.worker.capacity.row_s[1] == pytest.approx(0.016)


async def test_a_machine_that_has_become_slower_takes_nobody_more(bench: Make) -> None:
    one = await bench(0.0085)
    assert one.worker.fit_now() == 4
    one.begin()
    await one.speak(voice(7, hops_of(10)), row_s=0.017)
    assert one.worker.pace().level == 0 and one.worker.pace().slowness == pytest.approx(2, abs=0.05)
    assert one.worker.fit_now() == 2 and one.worker.slots == 4
    await one.speak(voice(8, hops_of(10)), row_s=0.0085)
    assert one.worker.fit_now() == 4, "and takes them again when it has recovered"


class TwoLanes(FakeEngine):
    """Steps that meet take a half longer, as where a row alone is shared out; each thread has a clock of its own."""

    lanes = 2
    ROW_S, BESIDE_S = 0.0134, 0.0202

    def __init__(self) -> None:
        super().__init__()
        self.own = threading.local()
        self.both = threading.Barrier(2)
        self.meet = False

    def now(self) -> float:
        return getattr(self.own, "now_s", 0.0)

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        if self.meet:
            self.both.wait(10)
        took_s = self.BESIDE_S if self.meet or len(rows) > 1 else self.ROW_S
        self.own.now_s = self.now() + took_s * max(1, len(rows) // 2)
        return super().step(rows, state)


def into(kept: dict[int, np.ndarray]) -> Callable[[int, np.ndarray, float], None]:
    return lambda index, frame, ms: kept.__setitem__(index, frame)


async def test_a_second_call_does_not_make_the_machine_look_slower() -> None:
    engine = TwoLanes()
    worker = EngineWorker(
        lambda: engine, marked=False, loop=asyncio.get_running_loop(), now=engine.now, slots=None, cores=2
    )
    worker.start()
    try:
        await asyncio.wrap_future(worker.loaded)
        await asyncio.wrap_future(worker.warm_up(avatar_of(70)))
        frames: list[dict[int, np.ndarray]] = [{}, {}]
        failures: list[Exception] = []
        streams = [
            worker.add(
                avatar_of(70),
                StreamOptions(),
                due_s=lambda frame: 1e9,
                deliver=into(kept),
                fail=failures.append,
            )
            for kept in frames
        ]
        for hop, samples in enumerate(voice(11, 150)):
            engine.meet = hop >= 3  # from the first hop on that brings a frame: no stream runs ahead of the other then
            for stream in streams:
                worker.push(stream, hop, samples)
            async with asyncio.timeout(10):
                while any(s.inbox or s.stepping for s in streams) or any(hop - 3 not in f for f in frames if hop >= 3):
                    await asyncio.sleep(0.0005)
        assert not failures and worker.pace().slowness == pytest.approx(1, abs=0.02)
        assert worker.fit_now() == worker.slots
    finally:
        await asyncio.to_thread(worker.close)


async def test_while_anything_is_saved_nobody_is_let_in(bench: Make) -> None:
    one = await bench(0.0085)
    one.begin()
    await one.speak(voice(9, hops_of(2)), row_s=0.06)
    assert one.worker.pace().level > 0 and one.worker.fit_now() == 0


async def test_the_operators_own_number_is_not_doubted(bench: Make) -> None:
    one = await bench(0.0085, slots=3)
    one.begin()
    await one.speak(voice(10, hops_of(2)), row_s=0.06)
    assert one.worker.fit_now() == one.worker.slots == 3
