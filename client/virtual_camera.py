"""Pictures -> a camera that other programs see (pyvirtualcam)."""

from __future__ import annotations

import sys

import cv2
import numpy as np

from client.errors import CameraUnavailable, OrderInvalid

FPS = 25
MAX_EDGE = 4096
BARS = 16  # grey beside a square picture in a wide camera


def read_size(text: str) -> tuple[int, int]:
    """Width and height of e.g. ``1280x720``.

    Raises:
        OrderInvalid: no such size, or one that cameras do not have.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise OrderInvalid(f"the camera's size {text!r} is no size: give one such as 1280x720")
    size = int(width), int(height)
    if not all(64 <= edge <= MAX_EDGE and edge % 2 == 0 for edge in size):
        raise OrderInvalid(f"the camera's size is {text}: both must be even, from 64 to {MAX_EDGE}")
    return size


def fit(picture: np.ndarray, width: int, height: int) -> np.ndarray:
    """uint8 [H, W, 3] -> [height, width, 3]: whole, as large as fits, in the middle of grey bars.

    Nothing is cut off, for the mark that says "synthetic" stands at an edge.
    """
    scale = min(width / picture.shape[1], height / picture.shape[0])
    wide, high = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    out = np.full((height, width, 3), BARS, np.uint8)
    left, top = (width - wide) // 2, (height - high) // 2
    out[top : top + high, left : left + wide] = cv2.resize(picture, (wide, high), interpolation=kind)
    return out


class VirtualCamera:
    """A sink for pictures (``pictures.Sink``). When each is shown is the caller's affair.

    Args:
        width, height: of the camera, in pixels.
        device: its name or path; None takes the first.

    Raises:
        CameraUnavailable: there is none; says how to get one here.
    """

    def __init__(self, width: int, height: int, device: str | None) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise CameraUnavailable(
                "a virtual camera needs the package pyvirtualcam, which is not installed: "
                "pip install '.[client]' in Visavis's folder, or pip install pyvirtualcam"
            ) from error
        try:
            self._camera = pyvirtualcam.Camera(width, height, FPS, device=device)
        except (RuntimeError, ValueError) as error:
            said = str(error).rstrip(".")
            raise CameraUnavailable(f"no virtual camera can be opened ({said}). {camera_fix(sys.platform)}") from error
        self.name = self._camera.device

    def show(self, picture: np.ndarray) -> None:
        try:
            self._camera.send(fit(picture, self._camera.width, self._camera.height))
        except (RuntimeError, OSError) as error:
            raise CameraUnavailable(f"the virtual camera {self.name} takes no more pictures ({error})") from error

    def close(self) -> None:
        self._camera.close()


def camera_fix(platform: str) -> str:
    """How to get a virtual camera on ``sys.platform``."""
    if platform.startswith("linux"):
        return (
            "It needs the kernel module v4l2loopback. Debian and Ubuntu: sudo apt install v4l2loopback-dkms "
            "linux-headers-$(uname -r). Fedora: sudo dnf install akmod-v4l2loopback (from RPM Fusion). Then: "
            "sudo modprobe v4l2loopback exclusive_caps=1 card_label=Visavis. If it is loaded, see whether another "
            "program writes to it, and whether you may (group video)"
        )
    if platform == "darwin":
        return "macOS: install OBS, click 'Start Virtual Camera' there once, allow its extension, stop it, close OBS"
    return "Windows: install OBS (26 or later), which brings its virtual camera; close OBS, for only one may send to it"
