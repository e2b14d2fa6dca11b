"""When received sound and pictures are to leave this machine: one clock for both.

The server stamps both streams from one media clock, each from an origin of its own, and its sender reports
say which wall time stands at which stamp (RFC 3550 section 6.4.1). From them follows how the two count
against each other. *Media time* here is the seconds of the sound's stamps since the first; a picture's
stamps are moved onto it. Media time ``m`` leaves at ``due_s(m)``, whatever carries it, so nothing can
move one against the other.

``due_s`` is ``m`` plus an offset: as long after its making as nearly all that came lately needed to be in
hand, and SPARE_S more. The offset moves slowly, up faster than down, and jumps only when the source did.

Pure: every method is told the time (monotonic seconds).
"""

from __future__ import annotations

import statistics
from collections import deque

RATE_HZ = {"audio": 48_000, "video": 90_000}
FIRST_SPARE_S = 0.08  # before anything is known of the network
SPARE_S = 0.03  # beyond what nearly all needed
NEARLY_ALL = 0.97
OBSERVED = 300  # arrivals looked back on: four seconds of both streams
UP_PER_S, DOWN_PER_S = 0.05, 0.005  # sound follows by being played so much slower or faster
JUMP_S = 0.4  # further off than this, the source has moved
REPORTS = 15  # looked back on; each is off by what the sender's encoder took


class Timeline:
    """The clock of one session at its receiver. Bounded: keeps the newest OBSERVED arrivals and REPORTS reports."""

    def __init__(self) -> None:
        self._needed_s: deque[float] = deque(maxlen=OBSERVED)  # from media time to being in hand
        self._least_s: dict[str, float] = {}  # per kind: arrival minus stamp of the fastest, until reports come
        self._origin_s: dict[str, float] = {}  # per kind: the sender's wall time at stamp 0, by its last report
        self._shifts_s: deque[float] = deque(maxlen=REPORTS)
        self._offset_s: float | None = None
        self._moved_at_s = 0.0
        self.jumps = 0

    @property
    def is_synced(self) -> bool:
        """Whether the sender has told how its streams belong together; until then their arrival must do."""
        return bool(self._shifts_s)

    def report(self, kind: str, ticks: int, sent_s: float) -> None:
        """A sender report: what is stamped ``ticks`` left at the sender's wall time ``sent_s``."""
        self._origin_s[kind] = sent_s - ticks / RATE_HZ[kind]
        if len(self._origin_s) == len(RATE_HZ):
            self._shifts_s.append(self._origin_s["video"] - self._origin_s["audio"])

    def observe(self, kind: str, ticks: int, came_s: float) -> None:
        """What is stamped ``ticks`` has come, decoded, at ``came_s``."""
        stamp_s = ticks / RATE_HZ[kind]
        self._least_s[kind] = min(self._least_s.get(kind, came_s - stamp_s), came_s - stamp_s)
        media_s = self.media_s(kind, ticks)
        if media_s is None:
            return
        self._needed_s.append(came_s - media_s)
        self._advance(came_s)

    def media_s(self, kind: str, ticks: int) -> float | None:
        """Media time of a stamp; None for pictures while nothing is known that links them to sound."""
        stamp_s = ticks / RATE_HZ[kind]
        if kind == "audio":
            return stamp_s
        if self._shifts_s:
            return stamp_s + statistics.median(self._shifts_s)
        if len(self._least_s) == len(RATE_HZ):
            return stamp_s + self._least_s["video"] - self._least_s["audio"]
        return None

    def due_s(self, media_s: float) -> float | None:
        """When what stands at ``media_s`` leaves; None before anything came."""
        return None if self._offset_s is None else self._offset_s + media_s

    def leaving_s(self, now_s: float) -> float | None:
        """The media time that leaves at ``now_s``."""
        return None if self._offset_s is None else now_s - self._offset_s

    @property
    def buffer_s(self) -> float:
        """How long the fastest waits here."""
        return 0.0 if self._offset_s is None else self._offset_s - min(self._needed_s)

    def _advance(self, now_s: float) -> None:
        if self._offset_s is None:
            self._offset_s, self._moved_at_s = self._needed_s[-1] + FIRST_SPARE_S, now_s
            return
        ordered = sorted(self._needed_s)
        spare_s = SPARE_S if len(ordered) == OBSERVED else FIRST_SPARE_S
        wanted_s = ordered[int(NEARLY_ALL * (len(ordered) - 1))] + spare_s
        missing_s = wanted_s - self._offset_s
        past_s = max(0.0, now_s - self._moved_at_s)
        self._moved_at_s = max(now_s, self._moved_at_s)
        if abs(missing_s) > JUMP_S:
            self._offset_s = wanted_s
            self.jumps += 1
        else:
            self._offset_s += max(-DOWN_PER_S * past_s, min(UP_PER_S * past_s, missing_s))
