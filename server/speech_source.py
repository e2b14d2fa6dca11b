"""Speech that a program sends, put on the session's clock: the source of a live avatar without a microphone.

A microphone's sound has a time of its own. This sound has none until it is its turn: whenever the media clock
has gone on by one hop (40 ms), the next hop is cut from the queue, silence where nothing waits, and placed at the
clock's present position. From there on it is like any sound: heard by the engine, kept in the ring, leaving with
its frame ``delay_s`` after its position. So the clock runs in real time from the session's start, the avatar
idles while nobody speaks, and from a sample's arrival at an empty queue to its leaving it takes the delay less 0 to
40 ms: there are no packets and no jitter to wait for.

``speech_started`` and ``speech_ended`` follow what *leaves*, by the same clock.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from server.ingest import HOP, RATIO
from server.media_clock import SAMPLE_RATE_HZ, MediaClock
from server.sources import Feed
from server.speech_queue import SpeechQueue

STOOD_STILL = SAMPLE_RATE_HZ // 4  # a loop that did not pump for so long
SPANS = 256  # utterances on their way out; they last a hop at least, so the delay never holds so many
Tell = Callable[[dict[str, Any]], None]


@dataclass
class Span:
    """One utterance on the session's clock, in positions (16 kHz)."""

    number: int
    start: int
    end: int
    done: bool = False  # no more will come
    started: bool = False  # told


class SpeechSource:
    """Places a queue's sound on the clock. A ``Source`` of ``LiveAvatar``.

    Args:
        queue: what waits.
        tell: called with each event, as the agent will read it.
        pumped: called after every hop, with the time.
    """

    def __init__(self, queue: SpeechQueue, *, tell: Tell, pumped: Callable[[float], None] = lambda now_s: None) -> None:
        self.queue = queue
        self._tell = tell
        self._pumped = pumped
        self._feed: Feed | None = None
        self._spans: deque[Span] = deque(maxlen=SPANS)
        self._number = 0
        self._stopped = False

    @property
    def buffered(self) -> int:
        """48 kHz samples that wait."""
        return self.queue.held

    def start(self, feed: Feed) -> None:
        self._feed = feed
        feed.intake.schedule(_silence(0))  # from here on the intake waits for us, and lets no silence in by itself

    def pump(self, now_s: float) -> None:
        """Place every hop whose time has come, and tell what has begun or ceased to be heard."""
        if self._stopped or self._feed is None:
            return
        intake, clock = self._feed.intake, self._feed.clock
        behind = clock.position(now_s) - intake.heard
        if behind > STOOD_STILL:  # its sound would be too late to leave: speech goes on at the present
            intake.schedule(_silence(behind))
        while clock.position(now_s) - intake.heard >= _rest_of_hop(intake.heard):
            start = intake.heard
            piece = self.queue.take(_rest_of_hop(start) * RATIO, now_s)
            intake.schedule(piece.samples)
            self._note(start, piece.speech // RATIO, piece.begins, piece.done)
            self._pumped(now_s)
        if self.queue.fell_low():
            self._tell({"type": "buffer_low", "epoch": self.queue.epoch, "buffered_ms": self.queue.held_ms})
        self._follow(clock, now_s)

    def flush(self) -> None:
        """Begin a new epoch: nothing that waits, or has been placed and not left, will be heard."""
        self.queue.clear()
        if self._feed is None:
            return
        self._cut_short(self._feed.clock.leaving(time.monotonic()))
        # One hop of silence ahead of its time, so that the engine can draw a closed mouth at once.
        self._feed.intake.schedule(_silence(_rest_of_hop(self._feed.intake.heard)))

    def stop(self) -> None:
        self._stopped = True

    def _note(self, start: int, speech: int, begins: bool, done: bool) -> None:
        if begins:
            self._number += 1
            self._spans.append(Span(self._number, start, start + speech))
        elif speech and self._spans:
            self._spans[-1].end = start + speech
        if done and self._spans:
            self._spans[-1].done = True

    def _follow(self, clock: MediaClock, now_s: float) -> None:
        leaving = clock.leaving(now_s)
        while self._spans:
            span = self._spans[0]
            if not span.started and leaving >= span.start:
                span.started = True
                self._tell({"type": "speech_started", **self._name(span), "at_ms": _ms(span.start)})
            if not span.started or leaving < span.end:
                return
            self._spans.popleft()
            if not span.done and not self._spans:
                self.queue.starve()
            self._tell_end(span, "done" if span.done else "starved", span.end)

    def _cut_short(self, leaving: int) -> None:
        epoch = self.queue.epoch - 1
        spans, self._spans = self._spans, deque(maxlen=SPANS)
        for span in spans:
            if span.started:
                self._tell_end(span, "cleared", min(span.end, max(span.start, leaving)), epoch)

    def _tell_end(self, span: Span, reason: str, end: int, epoch: int | None = None) -> None:
        self._tell(
            {
                "type": "speech_ended",
                **self._name(span, epoch),
                "reason": reason,
                "at_ms": _ms(end),
                "played_ms": _ms(end - span.start),
            }
        )

    def _name(self, span: Span, epoch: int | None = None) -> dict[str, int]:
        return {"epoch": self.queue.epoch if epoch is None else epoch, "utterance": span.number}


def _rest_of_hop(position: int) -> int:
    """16 kHz samples from ``position`` to the end of its hop."""
    return HOP - position % HOP


def _silence(count: int) -> np.ndarray:
    """``count`` 16 kHz samples of it, at 48 kHz."""
    return np.zeros(count * RATIO, np.int16)


def _ms(positions: int) -> int:
    return positions * 1000 // SAMPLE_RATE_HZ
