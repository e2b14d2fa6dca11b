import io

import numpy as np
from PIL import Image

from engine.api import Avatar, StepRow, StreamState
from engine.fake import FakeEngine
from server.row_time import RowTime, measure


class CompilesFirst(FakeEngine):
    """Takes four seconds for its first step and ten milliseconds for each row after, on a clock of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.clock_s = 0.0
        self.steps = 0

    def step(self, rows: list[StepRow], state: StreamState) -> np.ndarray:  # type: ignore[override]
        self.clock_s += 0.01 * len(rows) if self.steps else 4.0
        self.steps += 1
        return super().step(rows, state)


def grey(engine: FakeEngine) -> Avatar:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(picture, "PNG")
    return engine.enrol(picture.getvalue())


def test_a_first_step_that_compiles_is_not_what_a_frame_takes() -> None:
    engine = CompilesFirst()
    measured = measure(
        engine, engine.init_state(8), grey(engine), slots=8, now=lambda: engine.clock_s, used=lambda: engine.clock_s / 2
    )
    assert {rows: round(seconds, 6) for rows, seconds in measured.row_s.items()} == {1: 0.01, 2: 0.01, 4: 0.01}
    assert round(measured.row_cpu_s[1], 6) == 0.005 and round(measured.drawing_s[0], 6) == 0.01


def test_an_engine_that_takes_seconds_for_each_step_is_not_asked_for_many() -> None:
    engine = CompilesFirst()
    ticks = iter(range(0, 1000, 2))  # two seconds between two looks at the clock
    measured = measure(engine, engine.init_state(1), grey(engine), slots=1, now=lambda: float(next(ticks)))
    assert measured.row_s == {1: 2.0} and engine.steps <= 2


def test_a_step_beside_others_does_not_make_the_machine_slower() -> None:
    time = RowTime()
    time.begin({1: 0.0134, 2: 0.0101}, lanes=2)  # alone a row is shared out; of two at once each has one thread
    for _ in range(300):
        time.note(1, 0.0202, rows=1, full=True, beside=True)
    assert abs(time.slowness - 1) < 0.01
    for _ in range(300):
        time.note(1, 0.0202, rows=1, full=True)
    assert time.slowness > 1.4, "alone it would be"
