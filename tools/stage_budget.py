"""Where the time of single frames went: the server's own spans and the peer's, laid on one clock. Pure.

Both write ``time.monotonic()``, which is one clock for all processes of a machine. What they call a frame
and a sample differs by constants that are worked out here: RTP times begin anywhere, and the peer counts
samples from its first, the server from its first packet's arrival.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SOUND_RATE_HZ = 48_000
PACKET = 960  # samples of 48 kHz in a packet of 20 ms
HOP = 1920  # samples of 48 kHz in a hop, for which a frame stands
HOP_MS = 40
FRAME_TICKS = 3600  # of the 90 kHz video clock
LONGEST_S = 2.0  # no frame is longer on its way down
NAMES = {"superres": "super_resolution"}  # of an engine's stages; others keep their own


@dataclass(frozen=True, kw_only=True)
class FrameTimes:
    """One frame in the server, in seconds."""

    came_s: float  # the newest hop that it needed was complete
    step_s: float  # its step began
    stages_ms: Mapping[str, float] = field(default_factory=dict)
    shelf_s: float  # it lay ready


@dataclass(frozen=True, kw_only=True)
class Tick:
    """One 25th of a second of the stream as it left."""

    frame: int  # which frame was shown; an earlier one than the tick's own where that was late
    left_s: float  # it was taken from the shelf
    sent_s: float  # it was encoded and its packets were sent


@dataclass(frozen=True, kw_only=True)
class ServerTimes:
    """What a traced server wrote of one session."""

    packets: np.ndarray  # [P, 2]: 48 kHz position where a packet ends (nan: nowhere yet), when it had arrived
    frames: Mapping[int, FrameTimes]
    ticks: Mapping[int, Tick]


def read_server_times(spans: Sequence[Mapping[str, Any]]) -> ServerTimes:
    """Sort a server's trace (``engine.trace.read_trace``) by frames. It must hold one session only."""
    by_stage: dict[str, list[Mapping[str, Any]]] = {}
    for span in spans:
        by_stage.setdefault(span["stage"], []).append(span)
    packets = [(np.nan if span["end"] is None else span["end"], span["start_s"]) for span in by_stage.get("packet", ())]
    came = {span["frame"]: span["start_s"] for span in by_stage.get("hop_to_frame", ())}
    shelf = {span["frame"]: span["start_s"] for span in by_stage.get("wait_for_tick", ())}
    frames = {}
    for step, stages in zip(by_stage.get("step", ()), _stages_of(by_stage), strict=True):
        for frame in step["frames"].values():
            if frame in came and frame in shelf:
                frames[frame] = FrameTimes(
                    came_s=came[frame], step_s=step["start_s"], stages_ms=stages, shelf_s=shelf[frame]
                )
    ticks = {
        span["tick"]: Tick(frame=span["frame"], left_s=span["start_s"], sent_s=_end_s(span))
        for span in by_stage.get("encode", ())
    }
    return ServerTimes(packets=np.array(packets, np.float64).reshape(-1, 2), frames=frames, ticks=ticks)


def _stages_of(by_stage: Mapping[str, list[Mapping[str, Any]]]) -> list[dict[str, float]]:
    """The stages of each step, in milliseconds."""
    steps = by_stage.get("step", [])
    stages: list[dict[str, float]] = [{} for _ in steps]
    begins = np.array([step["start_s"] for step in steps])
    for name, spans in by_stage.items():
        if name.startswith("step."):
            short = name.removeprefix("step.")
            for span in spans:
                index = int(np.searchsorted(begins, span["start_s"] + 1e-6)) - 1
                if index >= 0:
                    stages[index][NAMES.get(short, short)] = span["ms"]
    return stages


def _end_s(span: Mapping[str, Any]) -> float:
    return float(span["start_s"] + span["ms"] / 1000)


def match_ticks(arrived_s: np.ndarray, frame_ticks: np.ndarray, ticks: Mapping[int, Tick]) -> np.ndarray | None:
    """Which of the server's ticks each received frame is: int [N], or None where they do not fit.

    The latest assignment in which no frame arrives before it left the shelf: the next would have some arrive 40 ms
    too early, unless not a single one took less than 40 ms to encode and send.

    Args:
        arrived_s: [N], when the last packet of each came.
        frame_ticks: [N], 90 kHz RTP time of each, from any origin.
    """
    if not len(arrived_s) or not ticks:
        return None
    steps = np.round((frame_ticks - frame_ticks[0]) / FRAME_TICKS).astype(int)
    left_s = np.full(max(ticks) + 1 + int(steps.max()), np.nan)
    left_s[list(ticks)] = [tick.left_s for tick in ticks.values()]
    near = np.flatnonzero((left_s > arrived_s[0] - LONGEST_S) & (left_s <= arrived_s[0]))
    for first in near[::-1]:
        left = left_s[np.minimum(first + steps, len(left_s) - 1)]
        known = np.isfinite(left)
        if known.sum() > len(steps) / 2 and (arrived_s[known] >= left[known]).all():
            return first + steps  # most of what was received is known to have been sent
    return None


def match_packets(packets: np.ndarray, started_s: float) -> int | None:
    """How many packets of the peer went by before the first that the server has.

    The peer's packet n is full at ``started_s + (n + 1) * 20 ms``, and the quickest of all took between nothing and
    20 ms to the server. None where the server has no packet.

    Args:
        packets: [P, 2], as ``ServerTimes``; over loopback none is lost between them.
        started_s: when the peer's first sample was heard.
    """
    if not len(packets):
        return None
    filled_s = started_s + (np.arange(len(packets)) + 1) * PACKET / SOUND_RATE_HZ
    return int(np.floor((packets[:, 1] - filled_s).min() * SOUND_RATE_HZ / PACKET))


def hear_hop(server: ServerTimes, skipped: int, started_s: float, end: int) -> tuple[float, float] | None:
    """When the peer spoke the last sample before position ``end`` (48 kHz), and when its packet was full.

    None where the server never had the packet.

    Args:
        skipped: as ``match_packets`` says.
        started_s: when the peer's first sample was heard.
    """
    ends = server.packets[:, 0]
    holding = np.flatnonzero((ends >= end) & (ends - PACKET < end))
    if not len(holding):
        return None
    index = int(holding[0])
    filled_s = started_s + (index + skipped + 1) * PACKET / SOUND_RATE_HZ
    return filled_s - (float(ends[index]) - end) / SOUND_RATE_HZ, filled_s


def follow_frame(
    tick: Tick,
    frame: FrameTimes,
    *,
    onset_s: float,
    arrived_s: float,
    shown_s: float,
    lookahead_ms: float,
    heard: tuple[float, float] | None,
) -> dict[str, float]:
    """The stages of one frame in milliseconds, in order; they add up to ``shown_s - onset_s``.

    Args:
        onset_s: when the sound began that this frame is the first to show.
        arrived_s, shown_s: of the received frame.
        heard: as ``hear_hop`` says of the newest hop that the frame needed; None where that cannot be known: then all
            between sound and hop is one stage.
    """
    if heard is None:
        before = {"rise_and_way_up": (frame.came_s - onset_s) * 1000 - lookahead_ms, "lookahead": lookahead_ms}
    else:
        end_s, filled_s = heard
        before = {
            "rise": (end_s - onset_s) * 1000 - lookahead_ms,
            "lookahead": lookahead_ms,
            "packet_filling": (filled_s - end_s) * 1000,
            "way_up": (frame.came_s - filled_s) * 1000,
        }
    # A busy sender books its last packet some time after that has left.
    sent_s = min(tick.sent_s, arrived_s)
    return {
        **before,
        "queue": (frame.step_s - frame.came_s) * 1000,
        **frame.stages_ms,
        "engine_rest": (frame.shelf_s - frame.step_s) * 1000 - sum(frame.stages_ms.values()),
        "wait_for_tick": (tick.left_s - frame.shelf_s) * 1000,
        "encode": (sent_s - tick.left_s) * 1000,
        "way_down": (arrived_s - sent_s) * 1000,
        "decode": (shown_s - arrived_s) * 1000,
    }


def average_stages(frames: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each stage over frames, so that the means add up to the mean of the whole."""
    names = list(dict.fromkeys(itertools.chain.from_iterable(frames)))
    return {name: round(float(np.mean([frame.get(name, 0.0) for frame in frames])), 3) for name in names}
