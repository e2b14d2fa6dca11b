"""Measure barge-in: from ``clear`` to closed lips and silence at a real WebRTC receiver.

    python -m tools.barge_in --json F [--engine NAME] [--times N] [--url URL]

A real server in a process of its own, on loopback; a program pushes several seconds of sound at once, as an agent
does, and sends ``clear`` at a random moment while lips move and sound is heard. A peer (aiortc) that only looks on
notes when each picture and each 20 ms of sound arrive, decoded.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from client.agents.avatar import AgentAvatar, an_avatar
from client.agents.errors import AgentError
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, engine_names
from tools.bench_engine import SAMPLE_SPEECH
from tools.bursts import cut_mouth
from tools.report import describe_machine, percentiles, positive_int, write_json
from tools.server_process import ServerProcess
from tools.sound_file import read_mono

RATE_HZ = 24_000
SPEECH_S = 8.0  # pushed at once
IDLE_S, QUIET_S = 1.0, 0.8  # watched before the first speech; after each clear
EARLIEST_S, LATEST_S = 0.8, 2.0  # from the first movement of the lips to the clear
GIVE_UP_S = 15.0
AUDIBLE = 300  # int16 peak of 20 ms; Opus leaves less than that behind
OPEN_SHARE = 0.25  # of the way from rest to the wider half of the mouths: more is open
EPILOG = """\
keys of the JSON file:
  lips_ms, silence_ms   {p50, p95, max}: from just before `clear` is sent to the arrival of the first closed mouth, or
                        silent packet, after which nothing opens or sounds again for 0.8 s
  both_ms               the later of the two, each time
  times, missed         how often; and how often one of them did not come to rest (there should be none)
  trials                a list of {lips_ms, silence_ms}
  engine, machine

exit status: 0 measured, 1 when something did not come to rest, 2 when the run could not be made.
"""


class Seen:
    """What a viewer received: arrival (monotonic seconds) and how far the mouth is from rest, or the sound's peak."""

    def __init__(self) -> None:
        self.mouths: list[tuple[float, float]] = []
        self.peaks: list[tuple[float, float]] = []
        self._idle: list[np.ndarray] = []
        self._rest: np.ndarray | None = None

    async def look(self, avatar: AgentAvatar) -> None:
        """Note everything until the connection ends."""
        while (frame := await avatar.viewer.frame()) is not None:
            now_s = time.monotonic()
            if isinstance(frame, av.VideoFrame):
                self._note_mouth(now_s, cut_mouth(frame.to_ndarray(format="rgb24")).astype(np.float32))
            else:
                self.peaks.append((now_s, float(np.abs(frame.to_ndarray().astype(np.int32)).max())))

    def settle_rest(self) -> None:
        """Take what has been seen so far for the mouth at rest."""
        self._rest = np.median(self._idle, axis=0)

    def _note_mouth(self, now_s: float, mouth: np.ndarray) -> None:
        if self._rest is None:
            self._idle.append(mouth)
        else:
            self.mouths.append((now_s, float(np.abs(mouth - self._rest).mean())))


def open_above(mouths: Sequence[float], at_rest: Sequence[float]) -> float:
    """The distance from rest above which a mouth counts as open: a quarter of the way from the farthest that was seen
    at rest to the median of the wider half while speaking."""
    spoken = np.sort(np.asarray(mouths))
    wide = float(np.median(spoken[len(spoken) // 2 :]))
    rest = float(np.max(at_rest)) if len(at_rest) else 0.0
    return rest + OPEN_SHARE * max(0.0, wide - rest)


def settled_ms(values: Sequence[tuple[float, float]], limit: float, cleared_s: float) -> float | None:
    """Milliseconds from ``cleared_s`` to the arrival of the first value within ``limit`` after which none is above it.

    None: there is no such value.
    """
    after = [(at, value) for at, value in values if at >= cleared_s]
    first = 1 + max((place for place, (_, value) in enumerate(after) if value > limit), default=-1)
    return (after[first][0] - cleared_s) * 1000 if first < len(after) else None


def sum_up(trials: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """Percentiles over the trials."""
    whole = [t for t in trials if t["lips_ms"] is not None and t["silence_ms"] is not None]
    figures: dict[str, list[float]] = {key: [float(t[key] or 0) for t in whole] for key in ("lips_ms", "silence_ms")}
    figures["both_ms"] = [max(pair) for pair in zip(figures["lips_ms"], figures["silence_ms"], strict=True)]
    return {
        **{k: {**percentiles(v, (50, 95)), "max": round(max(v), 3) if v else None} for k, v in figures.items()},
        "times": len(trials),
        "missed": len(trials) - len(whole),
        "trials": list(trials),
    }


def speech_of(engine: str) -> bytes:
    """SPEECH_S of sound: a tone for the engine that shows loudness, speech without long pauses for the others."""
    if engine == "fake":
        sound = 0.4 * np.sin(2 * np.pi * 300 * np.arange(int(SPEECH_S * RATE_HZ)) / RATE_HZ)
    else:
        spoken = read_mono(SAMPLE_SPEECH, RATE_HZ)
        sound = np.resize(spoken, int(SPEECH_S * RATE_HZ))
    return (np.clip(sound, -1, 1) * 32_767).astype("<i2").tobytes()


async def measure(url: str, engine: str, times: int, seed: int = 0) -> dict[str, Any]:
    """Break speech off ``times`` times; the figures.

    Raises:
        AgentError: the server cannot be reached, or refuses.
    """
    moments, sound = random.Random(seed), speech_of(engine)
    trials: list[dict[str, float | None]] = []
    async with an_avatar(url, rate_hz=RATE_HZ, options={"motion": 0.0, "seed": 1}) as avatar:
        seen = Seen()
        looking = asyncio.create_task(seen.look(avatar))
        try:
            while len(seen.peaks) < 10:
                await asyncio.sleep(0.02)
            await asyncio.sleep(IDLE_S)
            seen.settle_rest()
            await asyncio.sleep(IDLE_S)
            at_rest = [value for _, value in seen.mouths]
            for _ in range(times):
                trials.append(await _break_off(avatar, seen, sound, at_rest, moments))
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    return {**sum_up(trials), "engine": engine}


async def _break_off(
    avatar: AgentAvatar, seen: Seen, sound: bytes, at_rest: list[float], moments: random.Random
) -> dict[str, float | None]:
    seen.mouths.clear()
    seen.peaks.clear()
    await avatar.speech.say(sound)
    async with asyncio.timeout(GIVE_UP_S):
        while not any(peak > AUDIBLE for _, peak in seen.peaks):
            await asyncio.sleep(0.01)
        await asyncio.sleep(moments.uniform(EARLIEST_S, LATEST_S))
        limit = open_above([value for _, value in seen.mouths], at_rest)
        while seen.mouths[-1][1] <= limit or seen.peaks[-1][1] <= AUDIBLE:  # between words there is nothing to stop
            await asyncio.sleep(0.005)
    cleared_s = time.monotonic()
    await avatar.speech.clear()
    await asyncio.sleep(QUIET_S)
    return {
        "lips_ms": _rounded(settled_ms(seen.mouths, limit, cleared_s)),
        "silence_ms": _rounded(settled_ms(seen.peaks, AUDIBLE, cleared_s)),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.barge_in",
        description="From `clear` to closed lips and silence at a real receiver.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures go")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names())
    parser.add_argument("--times", type=positive_int, default=20)
    parser.add_argument("--url", help="a server that runs already, with this engine; default: one of its own")
    given = parser.parse_args(argv)
    try:
        if given.url:
            report = asyncio.run(measure(given.url, given.engine, given.times))
        else:
            with ServerProcess(given.engine, max_sessions=1) as server:
                report = asyncio.run(measure(server.url, given.engine, given.times))
        write_json(given.json, {**report, "machine": describe_machine()})
    except (VisavisError, AgentError, TimeoutError) as error:
        print(f"barge_in: {error or 'no speech was seen or heard in time'}", file=sys.stderr)
        return 2
    for name, key in (("lips closed", "lips_ms"), ("silence", "silence_ms"), ("both", "both_ms")):
        figures = report[key]
        print(f"{name:12} p50 {figures['p50']} ms   p95 {figures['p95']} ms   max {figures['max']} ms")
    return 1 if report["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
