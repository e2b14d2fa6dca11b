"""How long the steps of an engine take, measured in one go or in turn with another engine's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions
from tools.report import percentiles

WARM_STEPS, LEAST_WARM_STEPS, WARM_S = 20, 3, 5.0  # a slow engine is not warmed up for minutes
ROUND_S = 1.0  # of each engine's turns, when several take turns


class StepTiming:
    """Steps of streams of speech through one engine, and what they took.

    Args:
        engine: to be measured.
        avatar: of that engine; several take turns among the streams.
        speech: float32 [n] at the engine's rate, at least one hop; repeated without end, each stream at its own place.
        streams: rows of each step.
    """

    def __init__(self, engine: Engine, avatar: Avatar | Sequence[Avatar], speech: np.ndarray, *, streams: int) -> None:
        hop = engine.spec.hop_samples
        self._engine, self._streams = engine, streams
        self._avatars = [avatar] if isinstance(avatar, Avatar) else list(avatar)
        self._hops = speech[: len(speech) // hop * hop].reshape(-1, hop)
        self._offsets = np.arange(streams) * len(self._hops) // streams
        self._state = engine.init_state(streams)
        for slot in range(streams):
            self._state.reset(slot, StreamOptions(seed=slot))
        self._step = 0
        self._step_ms: list[float] = []
        self._stages_ms: dict[str, list[float]] = {}
        self._elapsed_s = 0.0

    @property
    def fps(self) -> float:
        """Frames of all streams per second of the time that was measured."""
        return len(self._step_ms) * self._streams / self._elapsed_s

    def warm_up(self) -> None:
        """Steps that do not count: first ones allocate and compile."""
        begun_s = time.perf_counter()
        for count in range(1, WARM_STEPS + 1):
            self._draw()
            if count >= LEAST_WARM_STEPS and time.perf_counter() - begun_s > WARM_S:
                break

    def run(self, seconds: float) -> float:
        """Step for ``seconds``, at least once; returns frames per second of this run."""
        begun_s = end_s = time.perf_counter()
        count = 0
        while not count or end_s - begun_s < seconds:
            before_s = time.perf_counter()
            self._draw()
            end_s = time.perf_counter()
            self._step_ms.append((end_s - before_s) * 1000)
            for stage, ms in self._engine.stage_ms.items():
                self._stages_ms.setdefault(stage, []).append(ms)
            count += 1
        self._elapsed_s += end_s - begun_s
        return count * self._streams / (end_s - begun_s)

    def skip(self) -> None:
        """One step that does not count: after another engine's turn, memory is full of its data."""
        self._draw()

    def figures(self) -> dict[str, Any]:
        """fps, frames, seconds, step_ms and stages_ms, as ``bench_engine --help`` says."""
        return {
            "fps": round(self.fps, 2),
            "frames": len(self._step_ms) * self._streams,
            "seconds": round(self._elapsed_s, 3),
            "step_ms": percentiles(self._step_ms),
            "stages_ms": {stage: percentiles(values) for stage, values in self._stages_ms.items()},
        }

    def _draw(self) -> None:
        heard = self._hops[(self._offsets + self._step) % len(self._hops)]
        rows = [
            StepRow(slot=slot, avatar=self._avatars[slot % len(self._avatars)], samples=heard[slot])
            for slot in range(self._streams)
        ]
        frames = self._engine.step(rows, self._state)
        assert frames.shape[0] == self._streams
        self._step += 1


def take_turns(timings: Sequence[StepTiming], seconds: float) -> list[list[float]]:
    """Run each of ``timings`` for ``seconds`` in all, in short rounds A B A B, so that a machine that slows
    down or speeds up meanwhile does so to all of them.

    Returns:
        of each round, the frames per second of each.
    """
    rounds = max(2, round(seconds / ROUND_S))
    for timing in timings:
        timing.warm_up()
    rates = []
    for _ in range(rounds):
        rate = []
        for timing in timings:
            timing.skip()
            rate.append(timing.run(seconds / rounds))
        rates.append(rate)
    return rates
