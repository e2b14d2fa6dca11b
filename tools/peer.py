"""A real WebRTC peer (``client/peer.py``) that notes when everything comes back. All times are ``time.monotonic()``."""

from __future__ import annotations

import time
from typing import Any

import av
import numpy as np

from client import peer
from client.speech import Microphone
from client.tap import Tap
from tools.bursts import Trace, cut_mouth, measure_loudness


class TimedTap(Tap):
    """Notes when each picture or packet was complete; grows with the session."""

    def __init__(self, *, is_video: bool) -> None:
        super().__init__(is_video=is_video)
        self.arrived_s: dict[int, float] = {}  # ticks since the first -> when the last packet came

    def note(self, ticks: int) -> None:
        self.arrived_s[ticks] = time.monotonic()


class Peer(peer.Peer):
    """One session on a server, measured.

    Args:
        url: of the server, on this machine.
        microphone: what it says.
        keep_mouths: note each frame's mouth and the sound's loudness, for latency; else only times.
    """

    def __init__(self, url: str, microphone: Microphone, *, keep_mouths: bool = True) -> None:
        super().__init__(url, microphone)
        self._keep = keep_mouths
        self.stats: list[dict[str, Any]] = []  # of the server, about one a second, with "at_s"
        self.shown_s: list[float] = []  # when each decoded frame was in hand
        self.frame_ticks: list[int] = []  # 90 kHz time of each, from the first
        self.mouths: list[np.ndarray] = []
        self._loudness: list[Trace] = []
        self.taps: dict[str, TimedTap] = {}

    @property
    def loudness(self) -> Trace:
        """Of the received sound: each packet's blocks stand where they would be heard if played on arrival."""
        times = [t.times_s for t in self._loudness] or [np.zeros(0)]
        values = [t.values for t in self._loudness] or [np.zeros(0)]
        return Trace(np.concatenate(times), np.concatenate(values))

    @property
    def arrived_s(self) -> list[float]:
        """When the last packet of each shown frame came."""
        arrivals = self.taps["video"].arrived_s
        return [arrivals[ticks] for ticks in self.frame_ticks]

    def make_tap(self, kind: str) -> Tap:
        self.taps[kind] = TimedTap(is_video=kind == "video")
        return self.taps[kind]

    def on_picture(self, frame: av.VideoFrame, came_s: float) -> bool:
        assert frame.pts is not None
        self.shown_s.append(came_s)
        self.frame_ticks.append(frame.pts)
        if self._keep:
            self.mouths.append(cut_mouth(frame.to_ndarray(format="rgb24")))
        return True

    def on_sound(self, frame: av.AudioFrame, came_s: float) -> None:
        if self._keep:
            assert frame.pts is not None
            samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(1) / 32_768
            self._loudness.append(measure_loudness(samples, self.taps["audio"].arrived_s[frame.pts]))

    def on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "stats":
            self.stats.append(message | {"at_s": time.monotonic()})
