"""How many sessions this machine carries: what the engine draws in time, and what sending takes beside it. Pure.

Three things can run out first, and each leaves a share of itself for what was not foreseen:

- **the engine's time**: it draws ``fps`` frames a second for each session, one step after the other;
- **the cores**: what a frame costs them on all of the engine's threads together, and a session's media;
- **the event loop**: one thread under the interpreter's lock receives, paces and sends for all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A tenth of the engine's time is for what else the machine does. Whatever goes beyond that is caught by thrift, which
# gives back a tenth and more before a frame is lost (engine/thrift.py).
ENGINE_LOAD = 0.9
CORE_LOAD = 0.75  # with less to spare, frames wait for encoders and the loop though no core is quite busy
LOOP_LOAD = 0.75  # pacing is done on the loop: a packet that waits for it leaves late
MEDIA_CORES = 0.15  # of a core: VP8 of 256x256 at 25 frames/s, Opus, SRTP, and the microphone received
LOOP_CORES = 0.04  # the part of it that the loop does itself; encoding and decoding let go of the lock
STEP_BUDGET_S = 0.02  # a step takes no more rows than it can draw in so long: the first must not wait for the last ...
HARDLY_LONGER = 1.3  # ... or in so many times what the smallest step takes: some engines draw rows side by side


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many sessions at a time, and what that was worked out from."""

    sessions: int  # at least 1
    bound_by: str  # what runs out first: "engine", "cores", "loop", or "slots", the engine's own limit
    row_s: Mapping[int, float]  # rows of a step -> seconds for each
    row_cpu_s: Mapping[int, float]  # the same in processor seconds, of all threads together
    cores: float
    media_cores: float = MEDIA_CORES  # per session

    def to_json(self) -> dict[str, Any]:
        """For ``GET /v1/info``."""
        return {
            "sessions": self.sessions,
            "bound_by": self.bound_by,
            "row_ms": {str(rows): round(seconds * 1000, 2) for rows, seconds in self.row_s.items()},
            "row_cpu_ms": {str(rows): round(seconds * 1000, 2) for rows, seconds in self.row_cpu_s.items()},
            "cores": self.cores,
            "media_cores": self.media_cores,
        }


def plan_capacity(
    row_s: Mapping[int, float], row_cpu_s: Mapping[int, float], *, fps: int, cores: float, most: int, lanes: int = 1
) -> Capacity:
    """Count the sessions that fit.

    Args:
        row_s: rows of a step -> seconds for each, as measured; one entry at least.
        row_cpu_s: the same keys -> processor seconds for each, of all threads together.
        fps: frames a second of one session.
        cores: that this process may use.
        most: slots of the engine.
        lanes: of the engine: rows that it draws at a time, of one step or of several.
    """

    def busy(sessions: int) -> float:  # the engine's share of the time
        return sessions * fps * row_s[shared_rows(row_s, sessions)]

    def drawing(sessions: int) -> float:  # cores; a row among others is one thread's work, in a step of its own too
        beside = max((n for n in row_s if n <= min(sessions, lanes)), default=min(row_s))
        return sessions * fps * row_cpu_s[max(shared_rows(row_s, sessions), beside)]

    bounds: dict[str, Callable[[int], bool]] = {
        "engine": lambda n: busy(n) <= ENGINE_LOAD,
        "cores": lambda n: drawing(n) + n * MEDIA_CORES <= cores * CORE_LOAD,
        "loop": lambda n: n * LOOP_CORES <= LOOP_LOAD,
        "slots": lambda n: n <= most,
    }
    fit = {name: max((n for n in range(1, most + 1) if holds(n)), default=0) for name, holds in bounds.items()}
    least = min(fit.values())
    bound_by = "slots" if least == most else min(fit, key=lambda name: fit[name])
    return Capacity(
        sessions=max(1, least), bound_by=bound_by, row_s=dict(row_s), row_cpu_s=dict(row_cpu_s), cores=cores
    )


def is_in_time(row_s: Mapping[int, float], rows: int) -> bool:
    """Whether steps of so many rows are drawn soon enough for the first of them; ``rows`` has been measured."""
    least = min(row_s)
    return rows * row_s[rows] <= max(STEP_BUDGET_S, HARDLY_LONGER * least * row_s[least])


def shared_rows(row_s: Mapping[int, float], sessions: int) -> int:
    """Rows of a step where so many sessions share it: of the largest one measured that they fill in time."""
    return max((n for n in row_s if n <= sessions and is_in_time(row_s, n)), default=min(row_s))


def usable_cores(cgroup: Path = Path("/sys/fs/cgroup")) -> float:
    """Cores that this process may use: of the machine, less where it or its container is confined to some.

    Args:
        cgroup: where Linux tells of a container's limit (version 2).
    """
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no such limit: the file is missing, or says "max"
        return cores
