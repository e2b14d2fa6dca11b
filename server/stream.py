"""One session's place in the engine: what it has said and the engine has not heard yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np

from engine.api import Avatar, Engine, StepRow, StreamOptions
from engine.batch import Turn, Waiting
from engine.errors import VisavisError
from engine.thrift import is_late
from engine.turn import Turning

INBOX_HOPS = 25  # one second of unheard sound per stream; beyond it the oldest is dropped


class Hop(NamedTuple):
    """One frame's worth of sound."""

    number: int
    samples: np.ndarray  # float32 [640]
    came_s: float
    spared: bool  # its frame is not wanted


class Stream:
    """One session's place in the engine. Made by ``EngineWorker.add``; thread-safe through it.

    Args:
        slot: index into the engine's state.
        avatar: may be changed at any time.
        options: of the stream; a change takes effect with ``EngineWorker.set_options``.
        due_s: frame index -> wall time (monotonic) at which it must leave.
        deliver: called on the event loop with (frame index, uint8 [S, S, 3], ms since its hop came).
        deliver_cutout: called before it with (frame index, uint8 [S, S, 4]), while ``wants_cutout`` is set.
        spare: called on the event loop with the index of a frame that will not be drawn, on purpose.
        fail: called on the event loop with the error that ends this stream.
    """

    def __init__(
        self,
        *,
        slot: int,
        avatar: Avatar,
        options: StreamOptions,
        due_s: Callable[[int], float],
        deliver: Callable[[int, np.ndarray, float], None],
        spare: Callable[[int], None],
        fail: Callable[[VisavisError], None],
        deliver_cutout: Callable[[int, np.ndarray], None] = lambda index, cutout: None,
    ) -> None:
        self.slot = slot
        self.avatar = avatar
        self.options = options
        self.due_s = due_s
        self.deliver = deliver
        self.deliver_cutout = deliver_cutout
        self.wants_cutout = False  # may be changed at any time
        self.turning = Turning()  # may be told where to look at any time
        self.spare = spare
        self.fail = fail
        self.inbox: deque[Hop] = deque(maxlen=INBOX_HOPS)
        self.needs_reset = True
        self.needs_adjust = False
        self.needs_hush = False
        self.epoch = 0  # rises when what was said shall not be seen any more
        self.removed = False
        self.stepping = False  # a step of its is going on

    @property
    def wants_frame(self) -> bool:
        """Whether it has said something whose frame is wanted, and is free to be stepped."""
        return not self.stepping and not all(hop.spared for hop in self.inbox)

    def waiting(self, engine: Engine) -> Waiting:
        """What ``batch.plan`` must know of it; its inbox is not empty."""
        return Waiting(
            slot=self.slot,
            key=self._key(engine),
            hops=len(self.inbox),
            due_s=self.due_s(engine.spec.frame_after(self.inbox[0].number + 1)),
            spared=frozenset(place for place, hop in enumerate(self.inbox) if hop.spared),
        )

    def take(self, turn: Turn, thrift: int) -> Taken:
        """A turn's sound, out of the inbox; it is ``stepping`` from now on."""
        self.stepping = True
        heard = [self.inbox.popleft() for _ in range(turn.hops)]
        reset, self.needs_reset = self.needs_reset, False
        adjust, self.needs_adjust = self.needs_adjust and not reset, False
        hush, self.needs_hush = self.needs_hush, False
        samples = np.concatenate([hop.samples for hop in heard])
        row = StepRow(
            slot=self.slot,
            avatar=self.avatar,
            samples=samples,
            thrift=thrift,
            turn=self.turning.advance(turn.hops),
            cutout=np.empty((*self.avatar.crop.shape[:2], 4), np.uint8) if self.wants_cutout else None,
        )
        return Taken(self, row, heard, reset=reset, adjust=adjust, hush=hush)

    def _key(self, engine: Engine) -> Hashable:
        try:
            return engine.batch_key(self.avatar)
        except Exception:
            return self  # steps alone, and fails there where it can be told apart


class Taken:
    """A row on its way through a step."""

    def __init__(
        self, stream: Stream, row: StepRow, heard: list[Hop], *, reset: bool, adjust: bool, hush: bool
    ) -> None:
        self.stream = stream
        self.row = row
        self.heard = heard
        self.reset = reset  # begin anew first
        self.adjust = adjust  # take new options first
        self.hush = hush  # take what was heard for silence first
        self.epoch = stream.epoch

    @property
    def hops(self) -> int:
        """Heard by the stream, this row's included."""
        return self.heard[-1].number + 1

    @property
    def came_s(self) -> float:
        """When the newest of them came."""
        return self.heard[-1].came_s

    def count_late(self, engine: Engine, ready_s: float) -> tuple[int, int]:
        """How many frames the engine brought too late at ``ready_s`` (0 or 1), and how many it passed over for that."""
        spec = engine.spec
        late = [
            is_late(
                ready_s,
                due_s=self.stream.due_s(spec.frame_after(hop.number + 1)),
                came_s=hop.came_s,
                hop_s=1 / spec.fps,
            )
            for hop in self.heard
            if not hop.spared
        ]
        return (late[-1], sum(late[:-1])) if late else (0, 0)
