"""One person's face through a video: found, confirmed to be the only one, and followed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from engine.errors import PortraitError
from engine.faces import thread_finder
from engine.landmarks import FaceMesh, eye_distance
from tools.prepare import Unusable
from tools.prepare.media import FPS

LOOK_EVERY = 10 * FPS  # frames between two searches for further faces
SEARCH_EVERY = FPS // 2  # while no face was found yet
MAX_JUMP = 0.35  # of the face's size from one frame to the next; more is a cut or another face
MAX_GROWTH = 1.25
MIN_PART = 0.5  # of the clip that the longest stretch with the face must hold


@dataclass(frozen=True, kw_only=True)
class Track:
    """The longest unbroken stretch of a video with its one face."""

    landmarks: np.ndarray  # float32 [n, 478, 3] in photo pixels
    first: int  # frame at 25 fps that the stretch begins with


def follow_face(frames: Iterable[np.ndarray], window: tuple[int, int, int, int, int] | None = None) -> Track:
    """Landmarks of the face that a video shows.

    Args:
        frames: uint8 [H, W, 3] RGB at 25 fps.
        window: where the face is (``Source.window``); None where it is the only one.

    Raises:
        Unusable: no face, several, or none that stays for a second and half of the clip.
    """
    rows: list[np.ndarray | None] = []
    follower: _Follower | None = None
    refused = "no frame of it can be decoded"
    try:
        for index, image in enumerate(frames):
            if follower is None and index % SEARCH_EVERY == 0:
                try:
                    follower = _Follower(image, window)
                except PortraitError as error:
                    refused = f"frame {index}: {error.args[0].split(':')[0]}"
                    if error.code == "several_faces":
                        raise Unusable(refused) from None
            elif follower is not None and index % LOOK_EVERY == 0:
                follower.look_for_others(image, index)
            rows.append(None if follower is None else follower.find(image))
    finally:
        if follower is not None:
            follower.close()
    if follower is None:
        raise Unusable(refused)
    if len(rows) < FPS:
        raise Unusable(f"only {len(rows) / FPS:.2f} s of picture")
    first, last = longest_stretch(rows)
    if last - first < FPS or last - first < MIN_PART * len(rows):
        raise Unusable(
            f"the face stays for {(last - first) / FPS:.1f} s at most of {len(rows) / FPS:.1f} s before it is lost "
            "or the picture changes"
        )
    return Track(landmarks=np.stack([row for row in rows[first:last] if row is not None]), first=first)


def longest_stretch(rows: list[np.ndarray | None]) -> tuple[int, int]:
    """Begin and end of the longest run of frames in which a face moves as faces do."""
    best, begin = (0, 0), 0
    for index in range(len(rows) + 1):
        broken = index == len(rows) or rows[index] is None
        if broken or (index > begin and _jumps(rows[index - 1], rows[index])):
            if index - begin > best[1] - best[0]:
                best = (begin, index)
            begin = index + 1 if broken else index
    return best


def _jumps(before: np.ndarray | None, now: np.ndarray | None) -> bool:
    if before is None or now is None:
        return False
    size, size_now = float(eye_distance(before)), float(eye_distance(now))
    low, high = before[:, :2].min(0), before[:, :2].max(0)
    moved = np.linalg.norm(now[:, :2].mean(0) - before[:, :2].mean(0)) / (high - low).max()
    turned = abs(size_now / size - 1) > 0.5  # eyes draw near as a head turns; only a leap is a cut
    tall = np.ptp(now[:, 1]) / np.ptp(before[:, 1])
    return bool(moved > MAX_JUMP or turned or not 1 / MAX_GROWTH < tall < MAX_GROWTH)


class _Follower:
    """The mesh on the part of the picture where the face was found."""

    def __init__(self, image: np.ndarray, window: tuple[int, int, int, int, int] | None) -> None:
        self._area = _area_of(window, image)
        face = thread_finder().find_one(self._cut(image))
        low, high = face[:, :2].min(0), face[:, :2].max(0)
        self._mesh = FaceMesh(video=True)
        seen = self._mesh.find(self._cut(image))
        if not seen or np.linalg.norm((seen[0] - face)[:, :2].mean(0)) > 0.5 * (high - low).max():
            # The mesh's own detector sees near faces only: show it this one, with room to move.
            x, y = (low + high) / 2 + self._area[:2]
            reach = 1.5 * float((high - low).max())
            height, width = image.shape[:2]
            self._area = np.array([max(0, x - reach), max(0, y - reach), min(width, x + reach), min(height, y + reach)])
            self._area = self._area.astype(int)
            self._mesh.close()
            self._mesh = FaceMesh(video=True)

    def find(self, image: np.ndarray) -> np.ndarray | None:
        """Landmarks in the picture's pixels, None where the face is lost."""
        found = self._mesh.find(self._cut(image))
        return found[0] + np.array([*self._area[:2], 0], np.float32) if found else None

    def look_for_others(self, image: np.ndarray, index: int) -> None:
        try:
            thread_finder().find_one(self._cut(image))
        except PortraitError as error:
            if error.code == "several_faces":
                raise Unusable(f"frame {index}: {error.args[0].split(':')[0]}") from None

    def close(self) -> None:
        self._mesh.close()

    def _cut(self, image: np.ndarray) -> np.ndarray:
        left, top, right, bottom = self._area
        return np.ascontiguousarray(image[top:bottom, left:right])


def _area_of(window: tuple[int, int, int, int, int] | None, image: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom in pixels, with a quarter of the window's size around it."""
    height, width = image.shape[:2]
    if window is None:
        return np.array([0, 0, width, height])
    x, y, wide, tall = (value * height / window[4] for value in window[:4])
    room = max(wide, tall) / 4
    area = [max(0, x - room), max(0, y - room), min(width, x + wide + room), min(height, y + tall + room)]
    if area[2] - area[0] < 16 or area[3] - area[1] < 16:
        raise Unusable(f"the annotated window {window[:4]} lies outside the picture ({width}x{height})")
    return np.array(area).astype(int)
