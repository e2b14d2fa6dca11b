"""What an agent and the server say to each other on ``/v1/sessions/{id}/pcm``, without any I/O.

::

    agent                                   server
    start {rate, format} or ?rate=  --->
                                    <---    ready {epoch, credit, ...}
    sound, sound, sound (binary)    --->
                                    <---    credit, speech_started, buffer_low
    end                             --->    (the utterance is complete)
                                    <---    speech_ended
    clear                           --->
                                    <---    speech_ended {reason: cleared}, cleared {epoch}

Flow control is a credit, as in TCP's window: the number of the last sample, counted in the agent's own rate since the
socket opened, that the agent may send now. It only grows. Who sends beyond it loses nothing, but is not read
until there is room, and neither is a ``clear`` that comes behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from server.errors import RequestInvalid
from server.ingest import SOUND_RATE_HZ
from server.messages import read_message
from server.pcm_format import FORMAT, PcmFormat, Upsampler
from server.speech_queue import Marks, SpeechQueue

MAX_SOUND_BYTES = 1 << 20  # of one message, eleven seconds at 48 kHz; a longer one closes the socket (1009)
MAX_TEXT_CHARS = 4_096
CREDIT_EVERY_MS = 200  # how much more must fit before it is told
SLACK_MS = 100  # of the capacity that no credit is given for, so that rounding never stops the reading
LOW_MS_MOST, PREBUFFER_MS_MOST = 5_000, 1_000


@dataclass(frozen=True, kw_only=True)
class Start:
    """What an agent settles before its first sound."""

    pcm: PcmFormat
    low_ms: int
    prebuffer_ms: int

    @classmethod
    def read(cls, fields: Mapping[str, Any]) -> Start:
        """Of a query or a ``start`` message.

        Raises:
            RequestInvalid: which field is wrong, and what is taken.
        """
        marks = Marks()
        return cls(
            pcm=PcmFormat(rate_hz=_whole(fields.get("rate"), "rate"), format=str(fields.get("format", FORMAT))),
            low_ms=_within(fields.get("low_ms", marks.low_ms), "low_ms", LOW_MS_MOST),
            prebuffer_ms=_within(fields.get("prebuffer_ms", marks.prebuffer_ms), "prebuffer_ms", PREBUFFER_MS_MOST),
        )


class PcmProtocol:
    """One socket's conversation about one queue.

    ``hear_text`` and ``hear_sound`` take what came, ``tell`` adds what is to be sent, ``outgoing`` gives it.

    Args:
        queue: where the sound goes; its marks are set by ``start``.
        outgoing_most: messages that wait to be sent; the oldest go when the agent does not read.
    """

    def __init__(self, queue: SpeechQueue, *, outgoing_most: int = 256) -> None:
        self.queue = queue
        self.outgoing: deque[dict[str, Any]] = deque(maxlen=outgoing_most)
        self.wants_clear = False  # the session must drop what is on its way, then call ``cleared``
        self.left_over = np.zeros(0, np.int16)  # 48 kHz, read and without room: nothing more is to be read now
        self._start: Start | None = None
        self._upsampler = Upsampler(SOUND_RATE_HZ)
        self._received = 0  # samples, in the agent's rate
        self._credit = 0

    @property
    def started(self) -> bool:
        return self._start is not None

    def begin(self, start: Start, **facts: Any) -> None:
        """Settle the format, and say that sound may come. ``facts`` go into ``ready``."""
        self._start = start
        self._upsampler = Upsampler(start.pcm.rate_hz)
        self.queue.marks = replace(self.queue.marks, low_ms=start.low_ms, prebuffer_ms=start.prebuffer_ms)
        self._credit = self._credit_now()
        self.tell(
            {
                "type": "ready",
                "rate": start.pcm.rate_hz,
                "format": start.pcm.format,
                "low_ms": start.low_ms,
                "prebuffer_ms": start.prebuffer_ms,
                "capacity_ms": self.queue.marks.capacity_ms,
                "credit": self._credit,
                "epoch": self.queue.epoch,
                **facts,
            }
        )

    def hear_sound(self, data: bytes, now_s: float) -> None:
        """Take one binary message.

        Raises:
            RequestInvalid: it is not whole samples, too long, or came before the format; nothing of it is kept.
        """
        if self._start is None:
            raise RequestInvalid(
                'sound came before its format: give ?rate= in the address, or send {"type": "start", "rate": ...} first'
            )
        if len(data) > MAX_SOUND_BYTES:
            raise RequestInvalid(f"a message of sound has {len(data)} bytes: at most {MAX_SOUND_BYTES} are taken")
        self._received += self._start.pcm.count(data)
        self._put(self._upsampler.convert(data), now_s)

    def hear_text(self, text: str, now_s: float) -> Start | None:
        """Take one text message. What ``start`` settles is returned, for ``begin``.

        Raises:
            RequestInvalid: it cannot be read or obeyed.
        """
        message = read_message(text, max_chars=MAX_TEXT_CHARS)
        match message.get("type"):
            case "start":
                if self.started:
                    raise RequestInvalid("the format is settled already: open another socket to change it")
                return Start.read(message)
            case "end":
                self._put(self._upsampler.finish(), now_s)
                self.left_over = self.left_over[:0]  # at most the filter's millisecond, where the queue was full
                if not self.queue.end():  # it has starved, or was empty: every end is answered
                    self.tell({"type": "speech_ended", "epoch": self.queue.epoch, "reason": "done", "played_ms": 0})
            case "clear":
                self.wants_clear = True
            case "buffered":
                self.tell({"type": "buffered", "epoch": self.queue.epoch, "buffered_ms": self.queue.held_ms})
            case "ping":
                self.tell({"type": "pong", "t": message.get("t")})
            case other:
                raise RequestInvalid(
                    f"no message is of type {str(other)[:40]!r}: there are start, end, clear, buffered and ping"
                )
        return None

    def forget(self) -> None:
        """Before a new epoch: what is on its way in is gone too."""
        self.wants_clear = False
        self._upsampler.forget()
        self.left_over = self.left_over[:0]

    def cleared(self, dropped: int) -> None:
        """The queue has begun a new epoch.

        Args:
            dropped: 48 kHz samples that waited.
        """
        dropped_ms = dropped * 1000 // SOUND_RATE_HZ
        self.tell({"type": "cleared", "epoch": self.queue.epoch, "dropped_ms": dropped_ms})
        self.give_credit()

    def make_room(self, now_s: float) -> None:
        """Sound has come out of the queue: take what was left over, and tell of the room."""
        if len(self.left_over):
            self._put(np.zeros(0, np.int16), now_s)
        self.give_credit()

    def give_credit(self) -> None:
        """Tell the agent how far it may send, where that is news enough."""
        if self._start is None:
            return
        credit = self._credit_now()
        if credit - self._credit >= self._start.pcm.samples_of_ms(CREDIT_EVERY_MS):
            self._credit = credit
            self.tell({"type": "credit", "credit": credit, "buffered_ms": self.queue.held_ms})

    def tell(self, message: dict[str, Any]) -> None:
        self.outgoing.append(message)

    def _put(self, samples: np.ndarray, now_s: float) -> None:
        samples = np.concatenate((self.left_over, samples)) if len(self.left_over) else samples
        self.left_over = samples[self.queue.push(samples, now_s) :]

    def _credit_now(self) -> int:
        assert self._start is not None
        waiting = self.queue.held + len(self.left_over)
        free = (self.queue.marks.capacity_ms - SLACK_MS) * SOUND_RATE_HZ // 1000 - waiting
        return max(self._credit, self._received + free * self._start.pcm.rate_hz // SOUND_RATE_HZ)


def _whole(value: Any, name: str) -> int:
    try:
        if isinstance(value, bool) or (isinstance(value, float) and value != int(value)):
            raise ValueError
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestInvalid(f"{name} is {str(value)[:40]}: it must be a whole number") from error


def _within(value: Any, name: str, most: int) -> int:
    number = _whole(value, name)
    if not 0 <= number <= most:
        raise RequestInvalid(f"{name} is {number}: it must be from 0 to {most} milliseconds")
    return number
