"""Many viewers, one encoder: keyframes, queues that never hold anybody up, and an end for all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from aiortc import RTCRtpCodecParameters
from aiortc.codecs import get_decoder, get_encoder
from aiortc.codecs.h264 import h264_depayload
from aiortc.codecs.opus import OpusDecoder
from aiortc.codecs.vpx import vp8_depayload
from aiortc.jitterbuffer import JitterFrame
from aiortc.mediastreams import MediaStreamError

from server.broadcast import QUEUE_VIDEO, Broadcast, Encoded, PictureEncoder, Rendition, SoundEncoder, ViewerTrack
from server.ingest import make_sound_ring
from server.media_clock import MediaClock
from server.playout import FrameShelf


def shade(value: int) -> np.ndarray:
    return np.full((256, 256, 3), value, np.uint8)


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    return asyncio.get_running_loop().create_task(work, name=name)


@pytest.fixture
async def broadcast():
    made = Broadcast(FrameShelf(shade(100)), make_sound_ring(), spawn)
    made.start(MediaClock(time.monotonic() - 0.16, 0.16))
    yield made
    made.stop()


def blank(number: int, key: bool) -> Encoded:
    packet = av.Packet(bytes([number]))
    packet.pts, packet.time_base = number, Fraction(1, 90_000)
    return Encoded(packet, key)


@pytest.mark.parametrize(("codec", "depayload"), [("VP8", vp8_depayload), ("H264", h264_depayload)])
def test_a_packet_cut_by_the_sender_decodes_to_the_picture(codec: str, depayload) -> None:
    parameters = RTCRtpCodecParameters(mimeType=f"video/{codec}", clockRate=90_000, payloadType=97)
    cutter, decoder = get_encoder(parameters), get_decoder(parameters)
    encoder = PictureEncoder(FrameShelf(shade(0)), Rendition(name="brighter", draw=lambda p: p + 20), codec)
    seen, keys = [], []
    for step, value in enumerate((60, 120, 180)):
        encoded = encoder.encode(step, shade(value), step == 2)
        assert encoded is not None
        keys.append(encoded.key)
        payloads, timestamp = cutter.pack(encoded.packet)
        assert timestamp == step * 3600
        for frame in decoder.decode(JitterFrame(b"".join(depayload(p) for p in payloads), timestamp)):
            seen.append(frame.to_ndarray(format="rgb24").mean())  # type: ignore[attr-defined]
    assert keys == [True, False, True], "the first one, and the one asked for"
    assert seen == pytest.approx([80, 140, 200], abs=3)


async def test_viewers_share_one_encoder_and_each_begins_with_a_keyframe(broadcast: Broadcast) -> None:
    first = broadcast.video()
    started = await first.recv()
    await asyncio.sleep(0.6)
    second = broadcast.video()
    joined = await second.recv()
    assert not bytes(started)[0] & 1 and not bytes(joined)[0] & 1, "keyframes (RFC 6386, 9.1)"
    assert broadcast.encodings == {("colour", "VP8"): 2}
    assert (joined.pts or 0) > (started.pts or 0), "positions of the one clock"


async def test_each_codec_and_sound_have_an_encoder_while_somebody_looks(broadcast: Broadcast) -> None:
    vp8, h264, sound = broadcast.video(), broadcast.video(), broadcast.audio()
    h264.codec = "H264"
    packets = await asyncio.gather(vp8.recv(), h264.recv(), sound.recv())
    assert all(bytes(p) for p in packets)
    assert set(broadcast.encodings) == {("colour", "VP8"), ("colour", "H264"), ("colour", "opus")}
    for track in (vp8, h264, sound):
        track.stop()
    assert broadcast.encodings == {}


async def test_a_lost_picture_brings_a_keyframe_to_all(broadcast: Broadcast) -> None:
    one, other = broadcast.video(), broadcast.video()
    await asyncio.gather(one.recv(), other.recv())
    await asyncio.sleep(0.6)  # keyframes are not made more often than that
    one.ask_keyframe()
    async with asyncio.timeout(5):
        while bytes(await other.recv())[0] & 1:
            pass


async def test_a_viewer_that_does_not_read_loses_the_oldest_up_to_a_keyframe(broadcast: Broadcast) -> None:
    track = ViewerTrack(broadcast, "video", Rendition(name="none", draw=lambda p: p), 4)
    for number, key in enumerate([True, False, False, True, False]):
        track.put(blank(number, key))
    assert [e.packet.pts for e in track._queue] == [3, 4]
    for number in range(5, 8):
        track.put(blank(number, False))
    assert [e.packet.pts for e in track._queue] == [], "without a keyframe nothing of it can be shown"
    track.put(blank(8, False))
    track.put(blank(9, True))
    assert [e.packet.pts for e in track._queue] == [9]
    assert track.dropped == 8


async def test_a_slow_viewer_hinders_nobody(broadcast: Broadcast) -> None:
    slow, quick = broadcast.video(), broadcast.video()
    await asyncio.gather(slow.recv(), quick.recv())
    for _ in range(QUEUE_VIDEO + 5):
        last = await quick.recv()
    assert len(slow._queue) <= QUEUE_VIDEO
    assert (last.pts or 0) >= (QUEUE_VIDEO + 5) * 3600


async def test_the_end_wakes_every_viewer(broadcast: Broadcast) -> None:
    track = broadcast.video()
    waiting = asyncio.ensure_future(track.recv())
    await asyncio.sleep(0)
    broadcast.stop()
    with pytest.raises(MediaStreamError):
        await asyncio.wait_for(waiting, 1)
    assert broadcast.video().readyState == "ended", "and nobody comes later"


@pytest.mark.parametrize("at", [9_000, 14_321])
def test_sound_is_heard_at_the_time_that_its_packet_says(at: int) -> None:
    """Whatever Opus itself delays it by."""
    ring = make_sound_ring()
    samples = np.zeros(48_000, np.int16)
    samples[at : at + 240] = (12_000 * np.sin(np.arange(240) * 2 * np.pi / 48)).astype(np.int16)
    ring.write(0, samples)
    encoder, decoder, heard = SoundEncoder(ring), OpusDecoder(), np.zeros(48_000)
    for step in range(40):
        encoded = encoder.encode(step, encoder.take(step), False)
        assert encoded is not None
        (frame,) = decoder.decode(JitterFrame(data=bytes(encoded.packet), timestamp=step * 960))
        assert isinstance(frame, av.AudioFrame) and frame.pts is not None
        heard[frame.pts : frame.pts + frame.samples] = frame.to_ndarray().reshape(-1, 2)[:, 0]
    lags = range(-480, 481)
    likeness = [float(np.dot(heard[at + lag : at + lag + 240], samples[at : at + 240])) for lag in lags]
    assert abs(lags[int(np.argmax(likeness))]) <= 12, "a quarter of a millisecond"
