"""What comes, into an mp4: pictures and sound stand in the file as they stand in media time, to the sample."""

from __future__ import annotations

import queue
import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from client.errors import ClientError
from client.pictures import Picture
from client.timeline import RATE_HZ
from engine.errors import VisavisError
from tools.files import check_writable
from tools.sound_file import SoundBlock
from tools.video_file import new_mp4

FPS = 25
WAITING = 250  # pictures and packets that wait for the encoder, about three seconds
_SOUND_HZ = RATE_HZ["audio"]


class Film(Protocol):
    """What ``Reel`` writes to; ``tools.video_file.Mp4Writer`` is one."""

    def write_frame(self, frame: np.ndarray) -> None: ...

    def write_sound(self, block: SoundBlock) -> None: ...


class Reel:
    """Media time -> the steady frames and the unbroken sound of a file. Pure.

    The file begins with the first picture. Missing pictures are the one before once more, missing sound is
    silence. Sessions follow each other at once: while the server was away, nothing is recorded.

    Args:
        film: written to.
    """

    def __init__(self, film: Film) -> None:
        self._film = film
        self._begun_s: float | None = None  # media time at which the session's part of the file begins
        self._begins_frame = 0  # of the file, in frames; there is where that instant stands
        self._frames = self._samples = 0  # written
        self._last: np.ndarray | None = None

    def start_session(self) -> None:
        """Media time begins anew."""
        self._begun_s = None
        self._begins_frame = max(self._frames, -(-self._samples * FPS // _SOUND_HZ))

    def add_picture(self, media_s: float, picture: np.ndarray) -> None:
        """uint8 [H, W, 3] at ``media_s``; one that is older than what is written is left out."""
        if self._begun_s is None:
            self._begun_s = media_s
        index = self._begins_frame + round((media_s - self._begun_s) * FPS)
        while self._last is not None and self._frames < index:
            self._write(self._last)
        if index >= self._frames:
            self._write(picture)
        self._last = picture

    def add_sound(self, media_s: float, samples: np.ndarray) -> None:
        """float32 [n] mono at 48 kHz from ``media_s`` on; what lies before the first picture is left out."""
        if self._begun_s is None:
            return
        start = self._begins_frame * _SOUND_HZ // FPS + round((media_s - self._begun_s) * _SOUND_HZ)
        if start > self._samples:
            self._write_sound(np.zeros(start - self._samples, np.float32))
        samples = samples[max(0, self._samples - start) :]
        if len(samples):
            self._write_sound(samples)

    def _write(self, picture: np.ndarray) -> None:
        self._film.write_frame(picture)
        self._frames += 1

    def _write_sound(self, samples: np.ndarray) -> None:
        self._film.write_sound(SoundBlock(samples=samples[:, np.newaxis], rate_hz=_SOUND_HZ, layout="mono"))
        self._samples += len(samples)


class Recorder:
    """Writes a file on a thread of its own. Holds WAITING items; drops the newest when the encoder is behind.

    Args:
        path: of the mp4, which is complete after ``close`` and not there before.

    ``failure`` is what went wrong while it was written; then nothing more is.

    Raises:
        FileError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        check_writable(path, "video")
        self._path = path
        self._waiting: queue.Queue[_Item] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self.failure: VisavisError | None = None
        self.dropped = 0

    def start_session(self) -> None:
        if self._thread is not None:
            self._put(None)

    def add_picture(self, media_s: float, picture: Picture) -> None:
        """A picture of media time ``media_s``; the first one opens the file."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, args=(picture.width, picture.height), name="recorder")
            self._thread.start()
        self._put((media_s, picture))

    def add_sound(self, media_s: float, samples: np.ndarray) -> None:
        """float32 [n] mono at 48 kHz."""
        if self._thread is not None:
            self._put((media_s, samples))

    def close(self) -> bool:
        """Complete the file; blocks. Whether there is one.

        Raises:
            VisavisError: what went wrong while it was written.
        """
        if self._thread is None:
            return False
        while self._thread.is_alive():
            try:
                self._waiting.put(_END, timeout=0.1)
                break
            except queue.Full:
                continue
        self._thread.join()
        if self.failure is not None:
            raise self.failure
        return True

    def _put(self, item: _Item) -> None:
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            self.dropped += 1

    def _write(self, width: int, height: int) -> None:
        try:
            with new_mp4(self._path, width=width, height=height, fps=FPS) as film:
                reel = Reel(film)
                while (item := self._waiting.get()) is not _END:
                    _add(reel, item)
        except VisavisError as error:
            self.failure = error
        except Exception as error:
            self.failure = ClientError(f"the recording {str(self._path)!r} failed: {error!r}")


_Item = tuple[float, Picture | np.ndarray] | None  # None: a new session
_END: _Item = (-1.0, np.zeros(0, np.float32))


def _add(reel: Reel, item: _Item) -> None:
    if item is None:
        reel.start_session()
    elif isinstance(item[1], Picture):
        reel.add_picture(item[0], item[1].rgb())
    else:
        reel.add_sound(item[0], item[1])
