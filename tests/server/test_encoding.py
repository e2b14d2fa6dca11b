from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from aiortc import RTCRtpCodecParameters
from aiortc.codecs import get_decoder, get_encoder
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.vpx import vp8_depayload
from aiortc.jitterbuffer import JitterFrame

from server.encoding import LOOK_UPS, keep_to_one_thread, make_executor


def picture(shade: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.full((256, 256, 3), shade, np.uint8), format="rgb24")
    frame.pts, frame.time_base = shade * 3600, Fraction(1, 90_000)
    return frame


@pytest.mark.parametrize("name", ["VP8", "H264"])
def test_a_picture_of_ours_is_encoded_by_one_thread(name: str) -> None:
    keep_to_one_thread()
    encoder = get_encoder(RTCRtpCodecParameters(mimeType=f"video/{name}", clockRate=90_000, payloadType=97))
    for shade in range(3):
        payloads, _ = encoder.encode(picture(shade))
        assert payloads
    assert encoder.codec.thread_count == 1  # type: ignore[attr-defined]
    encoder.target_bitrate = 1_400_000  # type: ignore[attr-defined]
    encoder.encode(picture(4))
    assert encoder.codec.bit_rate == 1_400_000 and encoder.codec.thread_count == 1, "and the next codec too"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "depayload"), [("H264", h264_depayload), ("VP8", vp8_depayload)])
def test_what_is_encoded_still_decodes_to_the_picture(name: str, depayload: Callable[[bytes], bytes]) -> None:
    keep_to_one_thread()
    codec = RTCRtpCodecParameters(mimeType=f"video/{name}", clockRate=90_000, payloadType=97)
    encoder, decoder = get_encoder(codec), get_decoder(codec)
    seen = []
    for shade in (60, 120, 180):
        payloads, timestamp = encoder.encode(picture(shade))
        data = b"".join(depayload(payload) for payload in payloads)
        for frame in decoder.decode(JitterFrame(data, timestamp)):
            assert isinstance(frame, av.VideoFrame)
            seen.append(frame.to_ndarray(format="rgb24").mean())
    assert seen == pytest.approx([60, 120, 180], abs=3)


@pytest.mark.parametrize(("cores", "threads"), [(0.5, 2), (1, 2), (2, 2), (3.5, 4), (64, 64)])
def test_there_is_a_thread_for_each_core_and_two_to_look_names_up(cores: float, threads: int) -> None:
    executor = make_executor(cores)
    assert executor._max_workers == threads + LOOK_UPS
    executor.shutdown()
