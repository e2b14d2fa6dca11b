"""Encoded pictures -> pixels. Every byte here may come from a stranger.

Only JPEG, PNG and WebP are decoded, sizes are judged from the header, and large pictures are decoded
no larger than asked for where the format allows it.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageCms

from engine.errors import ImageTooLarge, ImageUnreadable

MAX_MEGAPIXELS = 40
MAX_FILE_MB = 64
FORMATS = ("JPEG", "PNG", "WEBP")
MAX_FINER = 16  # most that a view is drawn larger for antialiasing, each way
BACKGROUND = 190  # grey that shows where a picture is transparent

ORIENTATION_TAG = 0x0112  # EXIF: how the picture must be turned to stand upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# First bytes of what people upload by mistake -> what to call it.
_FOREIGN = (
    (b"GIF8", "a GIF"),
    (b"BM", "a BMP"),
    (b"II*\0", "a TIFF or camera raw file"),
    (b"MM\0*", "a TIFF or camera raw file"),
    (b"%PDF", "a PDF"),
    (b"\0\0\0\x18ftyphei", "a HEIC"),
    (b"<svg", "an SVG"),
    (b"<?xml", "an SVG or XML file"),
    (b"8BPS", "a Photoshop file"),
)


@dataclass(frozen=True)
class Photo:
    """A decoded picture, upright."""

    pixels: np.ndarray  # uint8 [H, W, 3] RGB, over grey where transparent
    alpha: np.ndarray | None  # uint8 [H, W], None where nothing is transparent
    full_size: tuple[int, int]  # (w, h) of the upright picture at full resolution

    @property
    def scale(self) -> np.ndarray:
        """Pixels of this copy per pixel at full resolution, float64 [2] (x, y)."""
        height, width = self.pixels.shape[:2]
        return np.array([width, height]) / self.full_size


class PhotoFile:
    """An encoded picture whose header has been judged.

    Only JPEG decodes quickly to a smaller copy. The pixels of other formats are therefore held, so that
    reading a small copy and then the whole decodes them once.

    Args:
        data: JPEG, PNG or WebP; of several frames or pictures in one file the first is taken.

    Raises:
        ImageUnreadable: empty, broken or of another format.
        ImageTooLarge: more than ``MAX_MEGAPIXELS``, told from the header without decoding.
    """

    def __init__(self, data: bytes) -> None:
        if not data:
            raise ImageUnreadable("the picture is empty (0 bytes): choose a JPEG, PNG or WebP file")
        if len(data) > MAX_FILE_MB << 20:
            raise ImageTooLarge(
                f"the picture's file has {len(data) >> 20} MB, at most {MAX_FILE_MB} MB are read: save it smaller"
            )
        self._data = data
        with _quietly():
            self._image = _open(data)
        self._size = self._image.size

    def read(self, *, fit: int | None = None) -> Photo:
        """Decode it.

        Args:
            fit: long side in pixels that is enough; the copy is between that and twice that, never
                enlarged. None: full resolution.

        Raises:
            ImageUnreadable: truncated or broken.
            ImageTooLarge: some part of it unpacks to too much.
        """
        with _quietly():
            if self._image.size != self._size:  # it was decoded smaller
                self._image = _open(self._data)
            try:
                return _decode(self._image, fit)
            except Image.DecompressionBombError as error:
                raise ImageTooLarge(f"the picture unpacks to too much ({error}): save it smaller") from error
            except MemoryError:
                raise
            except Exception as error:  # a hostile file can fail anywhere in a decoder, in any way
                raise ImageUnreadable(
                    f"the {self._image.format} picture is truncated or damaged ({error}): export or download it again"
                ) from error


def read_photo(data: bytes, *, fit: int | None = None) -> Photo:
    """Decode a picture once; arguments and errors are those of ``PhotoFile`` and its ``read``."""
    return PhotoFile(data).read(fit=fit)


def sample(image: np.ndarray, view_from_image: np.ndarray, size: int) -> np.ndarray:
    """The square view [size, size] of a picture under a similarity, antialiased where it shrinks.

    Beyond the picture's edge its last pixels go on.

    Args:
        image: uint8 [H, W] or [H, W, C].
        view_from_image: float [2, 3], pixels to pixels, the centre of the first being (0.5, 0.5).
        size: side of the view in pixels.
    """
    scale = float(np.hypot(*view_from_image[:, 0]))
    finer = int(np.clip(np.ceil(1 / scale), 1, MAX_FINER))  # drawn so much larger, then averaged down
    matrix = view_from_image.astype(np.float64) * finer
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV puts (0, 0) at the first pixel's centre
    how = cv2.INTER_LINEAR if scale < 1 else cv2.INTER_CUBIC
    side = size * finer
    view = cv2.warpAffine(image, matrix, (side, side), flags=how, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(view, (size, size), interpolation=cv2.INTER_AREA) if finer > 1 else view


@contextmanager
def _quietly() -> Iterator[None]:
    """Pillow warns of sizes and EXIF oddities; both are handled here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes) -> Image.Image:
    """Header only."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:  # Pillow's own limit lies above ours; it tells the count alone
        counted = re.search(r"\((\d+) pixels\)", str(error))
        size = f"{int(counted[1]) / 1e6:.0f} megapixels" if counted else f"far more than {MAX_MEGAPIXELS} megapixels"
        raise _too_many(size) from error
    except Exception as error:
        what = next((name for start, name in _FOREIGN if data.startswith(start)), None)
        kind = f"is {what}" if what else f"is no picture that can be read (it begins with {data[:8]!r})"
        raise ImageUnreadable(f"the file {kind}: save it as JPEG, PNG or WebP") from error
    width, height = image.size
    if width * height > MAX_MEGAPIXELS * 1_000_000:
        raise _too_many(f"{width} x {height} = {width * height / 1e6:.0f} megapixels")
    return image


def _too_many(size: str) -> ImageTooLarge:
    return ImageTooLarge(f"the picture has {size}, at most {MAX_MEGAPIXELS} are read: save it smaller")


def _decode(image: Image.Image, fit: int | None) -> Photo:
    orientation = image.getexif().get(ORIENTATION_TAG, 1)
    width, height = image.size
    if fit is not None and max(image.size) > fit:
        # JPEG decodes at 1/2, 1/4 or 1/8 much faster; other formats take no notice.
        image.draft(None, (max(1, width * fit // max(image.size)), max(1, height * fit // max(image.size))))
    image.load()
    profile = image.info.get("icc_profile")
    image = _plain_mode(image)
    factor = 1 if fit is None else max(image.size) // fit
    if factor > 1:
        image = image.reduce(factor)
    if orientation in _UPRIGHT:
        image = image.transpose(_UPRIGHT[orientation])
    full_size = (height, width) if orientation in (5, 6, 7, 8) else (width, height)
    if image.mode != "RGBA":
        return Photo(np.asarray(_to_srgb(image, profile)), None, full_size)
    alpha = np.asarray(image.getchannel("A"))
    image = Image.alpha_composite(Image.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255)), image)
    return Photo(np.asarray(_to_srgb(image.convert("RGB"), profile)), alpha, full_size)


def _plain_mode(image: Image.Image) -> Image.Image:
    """Any of Pillow's modes -> L, RGB, RGBA or CMYK."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        opaque = image.getchannel("A").getextrema()[0] == 255
        return image.convert("RGB") if opaque else image
    return image if image.mode in ("L", "RGB", "CMYK") else image.convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB by the picture's colour profile; a missing or broken profile counts as sRGB."""
    if profile and image.mode in ("RGB", "CMYK", "L"):
        try:
            source: Any = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                if converted is not None:
                    return converted
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    return image if image.mode == "RGB" else image.convert("RGB")
