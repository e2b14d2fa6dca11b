"""Speech that a program has sent and that waits for its time: 48 kHz, in utterances, bounded, of one epoch.

``clear`` begins a new epoch: what waited is gone, and nothing of it can come out later. Pure: every method is told the
time, in seconds, monotonic.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from server.ingest import SOUND_RATE_HZ

PER_MS = SOUND_RATE_HZ // 1000


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Water marks, in milliseconds of sound."""

    capacity_ms: int = 30_000  # what waits never exceeds this: more is not taken
    low_ms: int = 200  # below it the sender is told that it should send on
    prebuffer_ms: int = 40  # an utterance begins when so much of it is there, or when it has waited for so long


@dataclass(frozen=True)
class Piece:
    """A stretch of the session's sound, cut from the queue.

    Args:
        samples: int16 [n] at 48 kHz: speech, then silence.
        speech: how many of them are speech.
        begins: the first of them begins an utterance.
        done: the utterance's last sample is among them, and the sender said that it is the last.
    """

    samples: np.ndarray
    speech: int
    begins: bool
    done: bool


class SpeechQueue:
    """Holds at most ``marks.capacity_ms``; drops nothing by itself, but takes no more than fits."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.epoch = 0
        self.held = 0  # 48 kHz samples that wait
        self._room = marks.capacity_ms * PER_MS
        self._utterances: deque[_Utterance] = deque()  # the last one may still grow
        self._speaking = False  # the first one has begun to come out
        self._was_high = False

    @property
    def room(self) -> int:
        """48 kHz samples that would be taken now."""
        return self._room - self.held

    @property
    def held_ms(self) -> int:
        return self.held // PER_MS

    def push(self, samples: np.ndarray, now_s: float) -> int:
        """Append int16 [n] at 48 kHz to the utterance that is being sent.

        Returns:
            how many were taken, from the front; the rest found no room.
        """
        taken = samples[: self.room]
        if not len(taken):
            return 0
        if not self._utterances or self._utterances[-1].complete:
            self._utterances.append(_Utterance(begun_s=now_s))
        self._utterances[-1].chunks.append(np.array(taken, np.int16))
        self._utterances[-1].held += len(taken)
        self.held += len(taken)
        self._was_high = self._was_high or self.held_ms >= self.marks.low_ms
        return len(taken)

    def end(self) -> bool:
        """The utterance that is being sent is complete; what is pushed next begins another.

        Returns:
            whether a piece will say so (``Piece.done``); not where nothing was sent since the last one ended.
        """
        if self._utterances and not self._utterances[-1].complete:
            self._utterances[-1].complete = True
        elif not self._utterances and self._speaking:  # all of it has come out already
            self._utterances.append(_Utterance(begun_s=0.0, complete=True))
        else:
            return False
        return True

    def clear(self) -> int:
        """Begin a new epoch.

        Returns:
            48 kHz samples that waited and will never be heard.
        """
        dropped, self.held = self.held, 0
        self.epoch += 1
        self._utterances.clear()
        self._speaking = self._was_high = False
        return dropped

    def fell_low(self) -> bool:
        """Whether the low-water mark was passed downwards since the last call, with the utterance not complete."""
        if not self._was_high or self.held_ms >= self.marks.low_ms:
            return False
        self._was_high = False
        return not (self._utterances and self._utterances[-1].complete)

    def take(self, count: int, now_s: float) -> Piece:
        """Cut the next ``count`` samples of the session's sound: of one utterance at most, then silence."""
        out = np.zeros(count, np.int16)
        if not self._utterances or not (self._speaking or self._may_begin(now_s)):
            return Piece(out, 0, False, False)
        first = self._utterances[0]
        at = first.pour(out)
        self.held -= at
        begins = at > 0 and not self._speaking
        self._speaking = True
        done = first.complete and not first.held
        if done:
            self._speaking = False
        if not first.held:
            self._utterances.popleft()
        return Piece(out, at, begins, done)

    def starve(self) -> None:
        """The utterance that came out has ended for want of sound; what is pushed next begins another."""
        if not self._utterances:
            self._speaking = False

    def _may_begin(self, now_s: float) -> bool:
        first = self._utterances[0]
        waited_ms = (now_s - first.begun_s) * 1000
        return first.complete or first.held >= self.marks.prebuffer_ms * PER_MS or waited_ms >= self.marks.prebuffer_ms


@dataclass
class _Utterance:
    begun_s: float  # when its first sample came
    complete: bool = False
    held: int = 0

    def __post_init__(self) -> None:
        self.chunks: deque[np.ndarray] = deque()

    def pour(self, out: np.ndarray) -> int:
        """Fill ``out`` from its front; how many samples were there."""
        at = 0
        while self.chunks and at < len(out):
            chunk = self.chunks.popleft()
            part = chunk[: len(out) - at]
            out[at : at + len(part)] = part
            at += len(part)
            if len(part) < len(chunk):
                self.chunks.appendleft(chunk[len(part) :])
        self.held -= at
        return at
