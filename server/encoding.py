"""Threads that encode: how many there are, and that none of them starts more.

aiortc encodes on the loop's default executor: for each session 25 pictures and 50 packets of sound a second.

- **Each encoder keeps to one thread.** A picture of 256x256 takes a thread few milliseconds; to share it out costs
  more than it brings. libvpx's threads spin while they wait for one another: where cores are scarce, two of them use
  many times the CPU of one. aiortc gives VP8 one thread at our size by itself. H.264 would get several. FFmpeg's colour
  conversion before both starts a thread per core for each picture, and lasts four times as long for it (256x256, two
  cores: 1.6 ms, and 0.4 ms with one).
- **The executor has a thread per core**, whatever the number of sessions: more would only take turns. They are started
  as they are needed. Looking up host names goes to the same executor, blocks for seconds and computes nothing, so
  there are two more for that.
- The engine keeps its own threads (``VISAVIS_THREADS``, up to four) and never waits for these.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import aiortc.codecs
import av
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from av.frame import Frame
from av.video.codeccontext import VideoCodecContext

LOOK_UPS = 2


class OneThreadVp8(Vp8Encoder):
    """aiortc's VP8 encoder, whose colour conversion starts no threads."""

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        return super().encode(_convert(frame), force_keyframe)


class OneThreadH264(H264Encoder):
    """aiortc's H.264 encoder on one thread. It makes its codec in passing; this catches it before it opens."""

    def encode(self, frame: Frame, force_keyframe: bool = False) -> tuple[list[bytes], int]:
        return super().encode(_convert(frame), force_keyframe)

    @property
    def codec(self) -> VideoCodecContext | None:
        return self._codec

    @codec.setter
    def codec(self, made: VideoCodecContext | None) -> None:
        if made is not None:
            made.thread_count = 1
        self._codec = made


def make_executor(cores: float) -> ThreadPoolExecutor:
    """Threads for the loop's default executor."""
    return ThreadPoolExecutor(max(2, math.ceil(cores)) + LOOK_UPS, "visavis-encode")


def keep_to_one_thread() -> None:
    """Let aiortc's encoders use one thread each, in this whole process. May be repeated.

    Raises:
        RuntimeError: this aiortc makes its encoders elsewhere.
    """
    for name, plain, ours in (("H264Encoder", H264Encoder, OneThreadH264), ("Vp8Encoder", Vp8Encoder, OneThreadVp8)):
        if not issubclass(getattr(aiortc.codecs, name, object), plain):
            raise RuntimeError(f"this version of aiortc has no {name} where it is expected: install aiortc 1.x")
        setattr(aiortc.codecs, name, ours)


def _convert(frame: Frame) -> av.VideoFrame:
    assert isinstance(frame, av.VideoFrame)
    return frame.reformat(format="yuv420p", threads=1)
