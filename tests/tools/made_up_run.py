"""A made-up run through a server whose every stage takes a known time."""

from __future__ import annotations

from typing import Any

import numpy as np

from tools import bursts
from tools.bursts import Trace
from tools.latency import Recording

STARTED_S = 1000.0  # the microphone's first sample
POSITION = 500  # 48 kHz position of the server at which it stands
SKIPPED = 2  # packets of the peer that the server never had
FIRST_TICK = 3  # the first frame that the peer received
LOOKAHEAD_MS = 120
STAGES_MS = {
    "way_up": 3.0,
    "queue": 1.0,
    "features": 2.0,
    "render": 5.0,
    "super_resolution": 4.0,
    "engine_rest": 1.5,
    "encode": 2.5,
    "way_down": 0.7,
    "decode": 1.8,
}
DELAY_S = 0.16  # from a position's arrival until it leaves
EXPECTED = Trace(np.array([-0.02, 0.0, 0.4, 0.42]), np.array([0.0, 10.0, 10.0, 0.0]))


def position_s(position: float) -> float:
    """When 48 kHz position ``position`` was heard at the microphone."""
    return STARTED_S + (position - POSITION) / 48_000


def make_spans(frames: int) -> list[dict[str, Any]]:
    """What the server writes of ``frames`` frames."""
    spans: list[dict[str, Any]] = []
    for packet in range(SKIPPED, frames * 2 + 12):
        end = POSITION + (packet + 1) * 960
        spans.append({"stage": "packet", "start_s": position_s(end) + STAGES_MS["way_up"] / 1000, "end": end})
    for frame in range(frames):
        hop_end = (frame + 3) * 1920
        filled_s = STARTED_S + np.ceil((hop_end - POSITION) / 960) * 0.02
        came_s = filled_s + STAGES_MS["way_up"] / 1000
        step_s = came_s + STAGES_MS["queue"] / 1000
        at_s = step_s
        for stage in ("features", "render", "superres"):
            ms = STAGES_MS.get(stage, STAGES_MS["super_resolution"])
            spans.append({"stage": f"step.{stage}", "start_s": at_s, "ms": ms})
            at_s += ms / 1000
        spans.append({"stage": "step", "start_s": step_s, "ms": (at_s - step_s) * 1000 + 0.5, "frames": {"0": frame}})
        spans.append({"stage": "mark", "start_s": at_s + 0.0006, "ms": 0.1})
        shelf_s = at_s + STAGES_MS["engine_rest"] / 1000
        ms = (shelf_s - came_s) * 1000 - 0.1
        spans.append({"stage": "hop_to_frame", "start_s": came_s, "ms": ms, "frame": frame, "slot": 0})
        left_s = position_s(frame * 1920) + 0.02 + DELAY_S
        common = {"tick": frame, "frame": frame, "slot": 0}
        spans.append({"stage": "wait_for_tick", "start_s": shelf_s, "ms": (left_s - shelf_s) * 1000, **common})
        spans.append({"stage": "encode", "start_s": left_s, "ms": STAGES_MS["encode"], **common})
    return sorted(spans, key=lambda span: span["start_s"])


def make_run(seconds: float = 12.0) -> tuple[Recording, list[dict[str, Any]]]:
    """What the peer got, and what the server wrote meanwhile."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 19_200).astype(np.float32)
    sound = bursts.place_bursts([noise], seconds)
    frames = int(len(sound.samples) / 1920)
    spans = make_spans(frames)
    ticks = np.arange(FIRST_TICK, frames)
    instants_s = np.array([position_s(tick * 1920) for tick in ticks])
    mouth = np.zeros(len(ticks))
    for onset_s in sound.onsets_s:
        mouth += np.interp(instants_s - STARTED_S - onset_s, *EXPECTED)
    arrived_s = instants_s + 0.02 + DELAY_S + (STAGES_MS["encode"] + STAGES_MS["way_down"]) / 1000
    stats = [
        {"at_s": STARTED_S + s, "frames": 25 * s, "repeated": 0, "dropped": 0, "delay_ms": 160, "hop_to_frame_ms": 13.4}
        for s in range(1, int(seconds))
    ]
    recording = Recording(
        sound=sound,
        started_s=STARTED_S,
        mouth=Trace(arrived_s, mouth),
        arrived_s=arrived_s,
        shown_s=arrived_s + STAGES_MS["decode"] / 1000,
        frame_ticks=(ticks - FIRST_TICK) * 3600,
        loudness=bursts.measure_loudness(sound.samples, STARTED_S + 0.18),
        stats=stats,
        lookahead_ms=LOOKAHEAD_MS,
        packets_sent=frames * 2,
        sound_arrived_s=STARTED_S + 0.2 + np.arange(50) * 0.02,
    )
    return recording, spans
