"""The person without background, drawn while anybody looks at it and not otherwise."""

from __future__ import annotations

import numpy as np

from server.playout import FrameShelf
from server.stream import Stream

GAP_PX = 16  # one block of the codecs: their filters blend across blocks' edges, colours would reach the matte


class Cutouts:
    """Cutouts of one live avatar on their way from the engine to encoders.

    Args:
        side: of the frames, pixels. Until the first cutout comes there is nothing to see.
    """

    def __init__(self, side: int) -> None:
        self._blank = np.zeros((side, side, 4), np.uint8)
        self._shelf = FrameShelf(self._blank)
        self._stream: Stream | None = None
        self._users = 0

    def attach(self, stream: Stream) -> None:
        """The avatar is live: ``stream`` draws them from now on."""
        self._stream = stream
        stream.wants_cutout = self._users > 0

    def begin(self) -> FrameShelf:
        """Somebody wants them: uint8 [S, S, 4] by frame index, the mark drawn on."""
        if self._users == 0:
            self._shelf = FrameShelf(self._blank)  # the old one ends with a picture of long ago
        self._users += 1
        self._ask()
        return self._shelf

    def end(self) -> None:
        """Somebody who began wants them no more."""
        self._users -= 1
        self._ask()

    def cut(self) -> None:
        """Show nothing of what was drawn: it is of speech that was broken off."""
        self._shelf.cut()

    def put(self, index: int, cutout: np.ndarray) -> None:
        self._shelf.put(index, cutout)

    def _ask(self) -> None:
        if self._stream is not None:
            self._stream.wants_cutout = self._users > 0


def lay_beside(cutout: np.ndarray) -> np.ndarray:
    """Colours, and their alpha to the right of them in grey: video has no fourth channel.

    Args:
        cutout: uint8 [S, S, 4].

    Returns:
        uint8 [S, 2 S + GAP_PX, 3], black in the gap.
    """
    side = cutout.shape[1]
    beside = np.zeros((cutout.shape[0], 2 * side + GAP_PX, 3), np.uint8)
    beside[:, :side] = cutout[..., :3]
    beside[:, -side:] = cutout[..., 3:]
    return beside
