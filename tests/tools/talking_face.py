"""Videos of a face that talks, made of the default portrait: lips painted open as far as the sound is loud."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import cast

import av
import cv2
import numpy as np

from engine.faces import thread_finder
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from tools.prepare.media import read_sound

ASSETS = DEFAULT_CHECKPOINT.parent
SIZE = 288


@cache
def _portrait() -> tuple[np.ndarray, np.ndarray]:
    image = cv2.imread(str(ASSETS / "default_portrait.jpg"))[..., ::-1]
    image = cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    return image, thread_finder().find_one(image)


def still_face() -> np.ndarray:
    """uint8 [288, 288, 3] RGB."""
    return _portrait()[0].copy()


def open_mouth(amount: float) -> np.ndarray:
    """The portrait with its lower lip and chin moved down and darkness between the lips: uint8 [288, 288, 3]."""
    image, landmarks = _portrait()
    (left, right), middle = landmarks[[61, 291], 0], (landmarks[13, :2] + landmarks[14, :2]) / 2
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    across = np.clip(1 - ((x - middle[0]) / (0.55 * (right - left))) ** 2, 0, 1)
    drop = amount * 0.12 * SIZE * across
    below = y - middle[1]
    fade = np.clip(1 - np.maximum(below - drop, 0) / (0.35 * SIZE), 0, 1)
    moved = cv2.remap(image, x, np.where(below > 0, np.maximum(y - drop * fade, middle[1]), y), cv2.INTER_LINEAR)
    moved[(below > 0) & (below < drop)] = (60, 20, 20)
    return moved


def speech(seconds: float) -> np.ndarray:
    """The beginning of the shipped sample: float32 [n], 16 kHz."""
    return read_sound(ASSETS / "sample_speech.wav", seconds).astype(np.float32) / 32768


def loudness(samples: np.ndarray, frames: int) -> np.ndarray:
    """0..1 for each 40 ms: float32 [frames]."""
    padded = np.pad(samples, (0, max(0, frames * 640 - len(samples))))[: frames * 640]
    return (np.sqrt((padded.reshape(-1, 640) ** 2).mean(1)) / 0.1).clip(0, 1).astype(np.float32)


def write_video(
    path: Path,
    images: list[np.ndarray],
    samples: np.ndarray | None = None,
    *,
    fps: float = 25,
    times_s: list[float] | None = None,
    sound_later_s: float = 0.0,
    rotation: int = 0,
    keyframe_every: int = 12,
) -> Path:
    """Pictures at a steady rate or at given times, 16 kHz float sound beside them; the ending names the container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        video = cast(av.VideoStream, container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001)))
        video.height, video.width = images[0].shape[:2]
        video.options = {"crf": "12", "preset": "ultrafast"}
        video.gop_size = keyframe_every
        video.codec_context.time_base = Fraction(1, 6000)
        if rotation:
            video.set_display_rotation(rotation)
        audio = None
        if samples is not None:
            audio = cast(av.AudioStream, container.add_stream("aac", rate=16_000))
            audio.layout = "mono"
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = round(6000 * (index / fps if times_s is None else times_s[index]))
            frame.time_base = Fraction(1, 6000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None and samples is not None:
            sound = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), format="fltp", layout="mono")
            sound.sample_rate, sound.time_base = 16_000, Fraction(1, 16_000)
            sound.pts = round(sound_later_s * 16_000)
            container.mux(audio.encode(sound))
            container.mux(audio.encode(None))
    return path


def write_talk(path: Path, frames: int = 30, *, with_sound: bool = True) -> Path:
    """The portrait says the beginning of the shipped sample, from its first word on."""
    samples = speech(frames / 25 + 1.0)[16_000:]
    images = [open_mouth(float(level)) for level in loudness(samples, frames)]
    return write_video(path, images, samples if with_sound else None)
