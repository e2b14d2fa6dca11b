"""An engine without a model: the brightness of a frame is the loudness of its sound.

It keeps the whole contract of ``engine/api.py`` with numpy and Pillow alone, so every server test
runs without torch, and the offset between sound and picture can be read off the frames exactly:
frame ``k`` shows the loudness of the 40 ms of sound centred on its instant ``k / 25`` s, neither
earlier nor later.
"""

from __future__ import annotations

import io
from collections.abc import Hashable, Sequence

import numpy as np
from PIL import Image, ImageOps

from engine.api import Avatar, Engine, EngineSpec, StepRow, StreamOptions, StreamState
from engine.errors import ImageTooLarge, ImageUnreadable
from engine.turn import Turn

QUIET_DB = -60.0  # this and below is black
MOUTH = (slice(160, 208), slice(88, 168))  # rows, columns of the brightest part: the lower middle
BADGE = (slice(0, 32), slice(0, 32))  # carries the avatar's mean colour, so that avatars can be told apart
MOUTH_WHITE, FACE_WHITE, BLACK = 255, 160, 16
DISC_PART = 0.45  # radius of the disc that a cutout keeps, of the frame's side
TURN_PART = 0.005  # of the side that a turned head's disc moves, per degree
_MAX_PIXELS = 40_000_000
_FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow knows more, some of which start other programs


class FakeState(StreamState):
    """The last ``lookahead + 1`` hops of each stream, float32 [slots, samples]."""

    def __init__(self, slots: int, samples: int) -> None:
        self.sound = np.zeros((slots, samples), np.float32)

    def reset(self, slot: int, options: StreamOptions) -> None:
        self.sound[slot] = 0

    def hush(self, slot: int) -> None:
        self.sound[slot] = 0

    def adjust(self, slot: int, options: StreamOptions) -> None:
        """Colours have no options."""


class FakeEngine(Engine):
    """Flat frames, grey by loudness. Same hop and lookahead as the real engine."""

    fingerprint = "fake-1"

    def __init__(self) -> None:
        self.spec = EngineSpec(name="fake", window_ms=160, lookahead_ms=120, max_batch=16, cuts_out=True)

    def enrol(self, image: bytes) -> Avatar:
        try:
            with Image.open(io.BytesIO(image), formats=_FORMATS) as opened:
                if opened.width * opened.height > _MAX_PIXELS:
                    raise ImageTooLarge(
                        f"the picture has {opened.width}x{opened.height} pixels; "
                        f"at most {_MAX_PIXELS // 1_000_000} million are read: make it smaller"
                    )
                upright = ImageOps.exif_transpose(opened).convert("RGB")
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise ImageTooLarge(f"the picture has too many pixels ({error}): make it smaller") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise ImageUnreadable(f"the picture cannot be read ({error}): send a JPEG, PNG or WebP") from error
        size = self.spec.frame_size
        crop = np.asarray(ImageOps.fit(upright, (size, size)), np.uint8)
        side = min(upright.size)  # what ``fit`` keeps: the largest square in the middle
        left, top = (upright.width - side) / 2, (upright.height - side) / 2
        photo_from_crop = np.array([[side / size, 0, left], [0, side / size, top]], np.float32)
        arrays: dict[str, np.ndarray] = {"crop": crop, "photo_from_crop": photo_from_crop}
        return Avatar(engine=self.spec.name, fingerprint=self.fingerprint, arrays=arrays)

    def batch_key(self, avatar: Avatar) -> Hashable:
        return "any"

    def init_state(self, max_batch: int) -> FakeState:
        return FakeState(max_batch, (self.spec.lookahead_hops + 1) * self.spec.hop_samples)

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        assert isinstance(state, FakeState)
        size = self.spec.frame_size
        frames = np.empty((len(rows), size, size, 3), np.uint8)
        heard = {}
        for frame, row in zip(frames, rows, strict=True):
            before = state.sound[row.slot]  # of a masked row: anyone's
            sound = np.concatenate((before, row.samples))[-len(before) :]
            if not row.masked:
                heard[row.slot] = sound
            frame[:] = shade_of(self._loudness(sound), FACE_WHITE)
            frame[MOUTH] = shade_of(self._loudness(sound), MOUTH_WHITE)
            frame[BADGE] = row.avatar.crop.reshape(-1, 3).mean(axis=0)
            if row.cutout is not None:
                row.cutout[..., :3] = frame
                row.cutout[..., 3] = disc(size, row.turn)
        for slot, sound in heard.items():  # all or nothing: only now, when every row has been drawn
            state.sound[slot] = sound
        return frames

    def _loudness(self, sound: np.ndarray) -> float:
        half = self.spec.hop_samples // 2
        centre = self.spec.hop_samples  # the newest frame's instant, ``lookahead`` before the end
        return loudness_of(sound[centre - half : centre + half])


def loudness_of(samples: np.ndarray) -> float:
    """Loudness of float32 [n] samples in [-1, 1]: 0 at QUIET_DB and below, 1 at full scale."""
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return float(np.clip(1 - 10 * np.log10(max(power, 1e-12)) / QUIET_DB, 0, 1))


def disc(size: int, turn: Turn) -> np.ndarray:
    """The fake person: uint8 [size, size], 255 inside a disc that moves as the head is turned, 0 outside."""
    rows, columns = np.mgrid[:size, :size] + 0.5 - size / 2
    moved = size * TURN_PART
    away = np.hypot(columns - turn.yaw_deg * moved, rows + turn.pitch_deg * moved)
    return (np.clip(size * DISC_PART + 0.5 - away, 0, 1) * 255).round().astype(np.uint8)


def shade_of(loudness: float, white: int) -> int:
    """Grey value of a loudness in [0, 1], from BLACK to ``white``."""
    return round(BLACK + (white - BLACK) * loudness)
