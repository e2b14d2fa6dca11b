"""One face in a picture: found, confirmed, fitted with landmarks, or refused with a reason.

MediaPipe's detector proposes boxes, looks a second time at each box alone (a cat passes the first
look, not the second), and its face mesh fits the landmarks. The models are made once per thread.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from engine.errors import FaceTurned, NoFace, SeveralFaces
from engine.image import sample
from engine.landmarks import FaceMesh, alignment, eye_distance

VIEW_PX = 1280  # long side of the copy that is searched
LOOK_PX = 256  # side of the view of one candidate for the second look
FIT_PX = 384  # side of the view that landmarks are fitted on
MIN_SCORE = 0.65  # of the second look; faces and painted faces 0.8 and more, cats up to 0.55
MIN_LEVEL_SCORE = 0.75  # of the third look, at the face level and centred; faces 0.86 and more
MIN_TURNED_SCORE = 0.85  # of the second look at a picture turned round; textures up to 0.7
UPSIDE_DOWN_GAIN = 0.1  # a face that scores so much better on its head was fitted upside down
SMALL_PART = 0.5  # of the short side: when no face is as large, the picture is searched in tiles too
SEVERAL_RATIO = 0.5  # a second face at least this much as wide as the first makes "several faces"
MAX_CANDIDATES = 8
MAX_OUTSIDE = 0.04  # part of the face's size that may lie beyond the picture's edge
MAX_UNSTEADY = 0.25  # two fits of one face differ by less, in eye distances


@dataclass(frozen=True)
class Box:
    """A face's square, in pixels of the picture searched."""

    x: float  # centre
    y: float
    side: float
    score: float  # 0..1

    def covers(self, other: Box) -> bool:
        """Both mean one face."""
        apart = max(abs(self.x - other.x), abs(self.y - other.y))
        return apart < 0.5 * max(self.side, other.side)


class FaceFinder:
    """MediaPipe's detectors and mesh; not thread-safe, ``thread_finder()`` gives each thread its own."""

    def __init__(self) -> None:
        from mediapipe.python.solutions.face_detection import FaceDetection

        # Short range knows faces that fill the picture, full range those across a room.
        self._detectors: list[Any] = [FaceDetection(model_selection=i, min_detection_confidence=0.5) for i in (0, 1)]
        self._mesh = FaceMesh(min_confidence=0.3)
        # MediaPipe's models keep their threads and 20 MB each for ever unless they are closed.
        self.close = weakref.finalize(self, _close_all, [*self._detectors, self._mesh])

    def find_one(self, image: np.ndarray) -> np.ndarray:
        """Landmarks of the one face in a picture.

        A second face smaller than ``SEVERAL_RATIO`` of the first (passers-by, a poster) is overlooked.

        Args:
            image: uint8 [H, W, 3] RGB.

        Returns:
            float32 [478, 3] in the picture's pixels; they may leave the picture where the face does.

        Raises:
            NoFace, SeveralFaces, FaceTurned: see their messages.
        """
        scale = min(1.0, VIEW_PX / max(image.shape[:2]))
        view = image
        if scale < 1:
            width, height = (max(1, round(side * scale)) for side in image.shape[1::-1])
            view = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        boxes = self._confirmed(view, self._candidates(view))
        if not boxes:
            boxes = self._confirmed(view, self._candidates_beyond(view))
        if not boxes:
            self._refuse_rotated(view)
            raise NoFace(
                "no face was found: choose a picture with one face, seen from the front, in good light, "
                "large in the picture"
            )
        boxes.sort(key=lambda box: -box.side)
        first = boxes[0]
        others = [box for box in boxes[1:] if box.side >= SEVERAL_RATIO * first.side]
        if others:
            raise SeveralFaces(
                f"{len(others) + 1} faces of similar size were found, {first.side / scale:.0f} and "
                f"{others[0].side / scale:.0f} pixels wide: cut the picture down to one person"
            )
        return self._fit(image, Box(first.x / scale, first.y / scale, first.side / scale, first.score))

    def _detect(self, image: np.ndarray, detectors: tuple[int, ...] = (0, 1)) -> list[Box]:
        height, width = image.shape[:2]
        boxes = []
        for index in detectors:
            for found in self._detectors[index].process(image).detections or []:
                box = found.location_data.relative_bounding_box
                boxes.append(
                    Box(
                        (box.xmin + box.width / 2) * width,
                        (box.ymin + box.height / 2) * height,
                        max(box.width * width, box.height * height),
                        float(found.score[0]),
                    )
                )
        return boxes

    def _candidates(self, view: np.ndarray) -> list[Box]:
        """Boxes in the whole picture and, where none is large, in overlapping tiles of it."""
        boxes = self._detect(view)
        short = min(view.shape[:2])
        if max((box.side for box in boxes), default=0.0) < SMALL_PART * short:
            for x, y, side in _tiles(*view.shape[:2]):
                tile = np.ascontiguousarray(view[y : y + side, x : x + side])
                boxes += [Box(b.x + x, b.y + y, b.side, b.score) for b in self._detect(tile, (1,))]
        return boxes

    def _candidates_beyond(self, view: np.ndarray) -> list[Box]:
        """Boxes of faces too large for the picture, found with room added around it."""
        height, width = view.shape[:2]
        room = max(height, width) // 2
        padded = cv2.copyMakeBorder(view, room, room, room, room, cv2.BORDER_REPLICATE)
        return [Box(b.x - room, b.y - room, b.side, b.score) for b in self._detect(padded)]

    def _confirmed(self, view: np.ndarray, boxes: list[Box]) -> list[Box]:
        """One box a face, of those that still look like a face when seen alone."""
        distinct: list[Box] = []
        for box in sorted(boxes, key=lambda b: -b.score):
            if not any(box.covers(kept) for kept in distinct):
                distinct.append(box)
        distinct = sorted(distinct, key=lambda b: -b.side)[:MAX_CANDIDATES]
        confirmed: list[Box] = []
        for box in distinct:
            scale = LOOK_PX / (2 * box.side)
            sight = sample(view, _square(box, scale, LOOK_PX), LOOK_PX)
            again = [b for b in self._detect(sight) if b.covers(Box(LOOK_PX / 2, LOOK_PX / 2, LOOK_PX / 2, 0))]
            best = max(again, key=lambda b: b.score, default=None)
            if best is not None and best.score >= MIN_SCORE:
                confirmed.append(Box(box.x, box.y, best.side / scale, best.score))
        return confirmed

    def _fit(self, image: np.ndarray, box: Box) -> np.ndarray:
        """The mesh, fitted twice: on the box, then level and centred on the first fit."""
        for room in (2.0, 1.6, 2.6):
            rough = self._mesh_through(image, _square(box, FIT_PX / (room * box.side), FIT_PX))
            if rough is None:
                continue
            fine = self._mesh_through(image, alignment(rough, size=FIT_PX))
            if fine is None:
                continue
            unsteady = np.abs(fine - rough)[:468, :2].mean() / max(float(eye_distance(fine)), 1e-6)
            if unsteady > MAX_UNSTEADY:
                continue
            if self._looks_level(image, fine) or max(parts_outside(fine, image).values()) > MAX_OUTSIDE:
                return fine  # half a face scores low; that it is cut off says more
        raise NoFace(
            f"something like a face (score {box.score:.2f}) was found at ({box.x:.0f}, {box.y:.0f}), but eyes, nose "
            "and mouth could not be made out: choose a picture that shows the face from the front, unobstructed"
        )

    def _mesh_through(self, image: np.ndarray, view_from_image: np.ndarray) -> np.ndarray | None:
        """Landmarks in image pixels, found in the view that a similarity [2, 3] makes."""
        faces = self._mesh.find(sample(image, view_from_image, FIT_PX))
        if not faces:
            return None
        image_from_view = cv2.invertAffineTransform(view_from_image)
        points = faces[0].astype(np.float64)
        xy = points[:, :2] @ image_from_view[:, :2].T + image_from_view[:, 2]
        z = points[:, 2:] * np.hypot(*image_from_view[:, 0])
        return np.concatenate([xy, z], 1).astype(np.float32)

    def _looks_level(self, image: np.ndarray, landmarks: np.ndarray) -> bool:
        """Whether the aligned view shows a face the right way up; the mesh fits one to a face on its head too."""
        level = sample(image, alignment(landmarks, size=LOOK_PX), LOOK_PX)
        score, headlong = (
            max((box.score for box in self._detect(np.ascontiguousarray(view))), default=0.0)
            for view in (level, level[::-1, ::-1])
        )
        if headlong > score + UPSIDE_DOWN_GAIN:
            raise FaceTurned("the face stands on its head: turn the picture upright and try again")
        return score >= MIN_LEVEL_SCORE

    def _refuse_rotated(self, view: np.ndarray) -> None:
        for turns, what in ((1, "on its side"), (3, "on its side"), (2, "on its head")):
            turned = np.ascontiguousarray(np.rot90(view, turns))
            if any(box.score > MIN_TURNED_SCORE for box in self._confirmed(turned, self._detect(turned))):
                raise FaceTurned(f"the face stands {what}: turn the picture upright and try again")


def parts_outside(landmarks: np.ndarray, image: np.ndarray) -> dict[str, float]:
    """How far a face leaves the picture over each edge, in parts of its size; negative inside."""
    height, width = image.shape[:2]
    low, high = landmarks[:468, :2].min(0), landmarks[:468, :2].max(0)
    size = float((high - low).max())
    beyond = {"left": -low[0], "top": -low[1], "right": high[0] - width, "bottom": high[1] - height}
    return {edge: float(pixels) / size for edge, pixels in beyond.items()}


def _close_all(models: list[Any]) -> None:
    for model in models:
        model.close()


def thread_finder() -> FaceFinder:
    """This thread's finder, made on first use (it is slow to make); it is closed when the thread ends."""
    finder = getattr(_of_thread, "finder", None)
    if finder is None:
        finder = _of_thread.finder = FaceFinder()
    return finder


_of_thread = threading.local()


def _square(box: Box, scale: float, size: int) -> np.ndarray:
    """The similarity [2, 3] that shows a box in the middle of a view of ``size`` pixels."""
    return np.array([[scale, 0, size / 2 - scale * box.x], [0, scale, size / 2 - scale * box.y]])


def _tiles(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """(x, y, side) of squares of half the short side, overlapping by half at least."""
    side = max(64, min(height, width) // 2)
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield x, y, side


def _starts(length: int, side: int) -> list[int]:
    count = max(1, -(-2 * (length - side) // side) + 1)
    return [round(i) for i in np.linspace(0, max(0, length - side), count)]
