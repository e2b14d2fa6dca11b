"""All that ``server/`` and ``tools/`` may see of an engine.

Time is a count of samples. A stream takes 16 kHz mono sound in hops of one video frame
(640 samples = 40 ms); after ``n`` hops it can draw frame ``k = n - lookahead_ms / 40``, which stands
at ``k / 25`` seconds of the sound. Frames before 0 exist (they look at rest) and are not sent.
"""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from engine.turn import FRONT, Turn

MASKED = -1  # no stream's slot


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What an engine takes and gives; constant over its life."""

    name: str
    sample_rate_hz: int = 16_000
    fps: int = 25
    window_ms: int  # sound that one frame looks at, past and lookahead together
    lookahead_ms: int  # the part of the window after the frame's own instant; whole frames
    frame_size: int = 256  # frames are frame_size x frame_size
    max_batch: int  # most rows of one step
    buckets: tuple[int, ...] = ()  # the only sizes that a step may have, rising; none: any up to max_batch
    thrift_levels: int = 0  # cheaper ways to draw that it knows, a little worse each (StepRow.thrift)
    cuts_out: bool = False  # whether it can tell the person from the background (StepRow.cutout)

    @property
    def hop_samples(self) -> int:
        """Samples of one video frame (640)."""
        return self.sample_rate_hz // self.fps

    @property
    def lookahead_hops(self) -> int:
        return self.lookahead_ms * self.fps // 1000

    def frame_after(self, hops: int) -> int:
        """Index of the frame that a stream can draw once it has taken ``hops`` hops (may be negative)."""
        return hops - self.lookahead_hops


@dataclass(frozen=True, kw_only=True)
class Avatar:
    """One enrolled portrait: everything about it that does not change while it speaks.

    ``arrays`` always holds ``crop``, uint8 [S, S, 3] RGB, the aligned view; the rest is the engine's
    own. Plain arrays, so that an avatar round-trips through safetensors and crosses threads freely.
    Shared by sessions and never written to.
    """

    engine: str  # EngineSpec.name of the engine that made it
    fingerprint: str  # Engine.fingerprint at enrolment; another one makes the avatar stale
    arrays: Mapping[str, np.ndarray]
    notes: Mapping[str, str] = field(default_factory=dict)  # text to keep with it, e.g. warnings

    @property
    def crop(self) -> np.ndarray:
        """uint8 [S, S, 3] RGB."""
        return self.arrays["crop"]

    @property
    def nbytes(self) -> int:
        return sum(a.nbytes for a in self.arrays.values())


@dataclass(frozen=True, kw_only=True)
class StreamOptions:
    """What a client may choose for one stream."""

    seed: int = 0  # of the idle motion; the same seed gives the same motion
    motion: float = 1.0  # amount of head sway and blinking, 0 (pose locked) to 1


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One stream's part of a step."""

    slot: int  # index into the StreamState; MASKED: the row only fills a bucket
    avatar: Avatar
    samples: np.ndarray  # float32 [n * hop_samples] in [-1, 1], n >= 1: new sound since the last step
    # With n > 1 all of it is heard and only the last frame is drawn.
    thrift: int = 0  # 0 draws as well as it can; up to EngineSpec.thrift_levels: cheaper. Hearing is always whole.
    turn: Turn = FRONT  # of the head, beside the idle motion; an engine of flat pictures may leave it out
    cutout: np.ndarray | None = None  # uint8 [S, S, 4], where the step is to draw the person without background too:
    # the frame's colours, not multiplied by the alpha behind them. None: not wanted, and costs nothing.

    @property
    def masked(self) -> bool:
        """Nobody's row: it touches no state, and nobody looks at its frame."""
        return self.slot == MASKED


class StreamState(abc.ABC):
    """Slabs of per-stream state, indexed by slot; never kept on the model."""

    @abc.abstractmethod
    def reset(self, slot: int, options: StreamOptions) -> None:
        """Make ``slot`` as if no sound had ever arrived."""

    @abc.abstractmethod
    def hush(self, slot: int) -> None:
        """Take all that ``slot`` has heard for silence; the count of its frames and its motion go on."""

    @abc.abstractmethod
    def adjust(self, slot: int, options: StreamOptions) -> None:
        """Change the options of a running stream; what it has heard stays."""


class Enrols(Protocol):
    """The part of an engine that an avatar store needs; every ``Engine`` is one."""

    @property
    def spec(self) -> EngineSpec: ...

    @property
    def fingerprint(self) -> str: ...

    def enrol(self, image: bytes) -> Avatar:
        """As ``Engine.enrol``."""
        ...


class Engine(abc.ABC):
    """Speech and a portrait in, frames out. ``enrol`` runs on one thread, ``step`` on as many at a time as there are
    ``lanes``; none of them is the event loop's."""

    spec: EngineSpec
    fingerprint: str  # changes whenever avatars made earlier may not be used any more

    @abc.abstractmethod
    def enrol(self, image: bytes) -> Avatar:
        """Make an avatar of an encoded image (JPEG, PNG, WebP). Heavy, once per avatar.

        Raises:
            PortraitError: one of its kinds, when the picture cannot become an avatar.
        """

    @abc.abstractmethod
    def batch_key(self, avatar: Avatar) -> Hashable:
        """Avatars with equal keys may share a step."""

    @abc.abstractmethod
    def init_state(self, max_batch: int) -> StreamState:
        """State for ``max_batch`` streams; every slot must be reset before its first step."""

    @abc.abstractmethod
    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        """Hear each row's samples and draw its newest frame; into its ``cutout``, where it has one, the person alone.

        Rows name distinct slots. A row's frame does not depend on the other rows. All or nothing: where it raises,
        no row has heard anything.

        Args:
            rows: at most ``EngineSpec.max_batch``; as many as one of ``EngineSpec.buckets``, where it has any, the
                last ones masked.
            state: of ``init_state``.

        Returns:
            uint8 [B, frame_size, frame_size, 3] RGB; whatever it likes for masked rows.
        """

    @property
    def backend(self) -> str:
        """What computes, in a word, for logs and benches."""
        return "python"

    @property
    def lanes(self) -> int:
        """Steps that may run at the same time, each on a thread of its own, where they have no slot in common."""
        return 1

    @property
    def threads(self) -> int:
        """Threads that a step may use, for benches."""
        return 1

    @property
    def stage_ms(self) -> Mapping[str, float]:
        """Milliseconds that the last step on this thread spent in each stage, in order."""
        return {}

    def close(self) -> None:  # noqa: B027 (an engine with nothing to give back needs none)
        """Give back what the engine holds. The engine is not used afterwards."""
