"""The avatar in LiveKit's own ``AvatarRunner``, at a real Visavis server. There is no LiveKit server here: the runner's
room is not connected, so what it would publish ends in its (real) audio and video sources."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

pytest.importorskip("livekit.agents", reason="LiveKit Agents has an environment of its own: make test-agents")

from livekit import rtc  # noqa: E402
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarRunner, QueueAudioOutput  # noqa: E402

from client.agents.errors import Unreachable  # noqa: E402
from client.agents.livekit_avatar import VisavisAvatar  # noqa: E402
from client.examples.livekit_avatar import frames_of  # noqa: E402
from tests.client.agents.conftest import RATE_HZ, mouth_of, tone  # noqa: E402


@pytest.fixture
async def avatar(server_url: str) -> AsyncIterator[VisavisAvatar]:
    made = VisavisAvatar(server=server_url, sample_rate_hz=RATE_HZ)
    await made.open()
    yield made
    await made.aclose()


class Audience:
    """What a generator gives out."""

    def __init__(self, avatar: VisavisAvatar) -> None:
        self.mouths: list[tuple[float, float]] = []
        self.peaks: list[tuple[float, int]] = []
        self.ends: list[float] = []
        self.task = asyncio.create_task(self._watch(avatar))

    async def _watch(self, avatar: VisavisAvatar) -> None:
        async for frame in avatar:
            now = time.monotonic()
            if isinstance(frame, AudioSegmentEnd):
                self.ends.append(now)
            elif isinstance(frame, rtc.VideoFrame):
                assert (frame.width, frame.height) == (256, 256)
                self.mouths.append((now, mouth_of(np.frombuffer(frame.data, np.uint8).reshape(256, 256, 4))))
            else:
                self.peaks.append((now, int(np.abs(np.frombuffer(frame.data, np.int16)).max())))

    async def until(self, condition) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.02)


async def test_a_segment_is_said_and_its_end_is_told(avatar: VisavisAvatar) -> None:
    audience = Audience(avatar)
    for frame in frames_of(tone(1.0), RATE_HZ):
        await avatar.push_audio(frame)
    await avatar.push_audio(AudioSegmentEnd())
    await audience.until(lambda: audience.ends)
    audience.task.cancel()
    loud = [at for at, peak in audience.peaks if peak > 3_000]
    bright = [at for at, shade in audience.mouths if shade > 120]
    assert len(loud) == pytest.approx(50, abs=4) and len(bright) == pytest.approx(25, abs=4)
    assert len(audience.peaks) < 65, "no sound is given out while nothing is said"
    assert audience.ends[0] >= loud[-1] and len(audience.ends) == 1


async def test_clear_buffer_stops_lips_and_sound(avatar: VisavisAvatar) -> None:
    audience = Audience(avatar)
    for frame in frames_of(tone(10.0), RATE_HZ):
        await avatar.push_audio(frame)
    await audience.until(lambda: sum(shade > 120 for _, shade in audience.mouths) > 15)
    cleared_s = time.monotonic()
    await avatar.clear_buffer()
    await asyncio.sleep(1.0)
    audience.task.cancel()
    assert not any(at > cleared_s + 0.1 for at, peak in audience.peaks)
    assert not any(shade > 120 for at, shade in audience.mouths if at > cleared_s + 0.5)
    assert not audience.ends


async def test_livekits_runner_plays_a_segment_and_tells_the_agent_how_much(avatar: VisavisAvatar) -> None:
    speech = QueueAudioOutput(sample_rate=RATE_HZ, wait_playback_start=True)
    room = rtc.Room()
    runner = AvatarRunner(room, audio_recv=speech, video_gen=avatar, options=avatar.runner_options)

    async def no_room() -> None:
        runner._video_publication = object()  # type: ignore[assignment]

    runner._publish_track = no_room  # type: ignore[method-assign]
    await runner.start()
    try:
        for frame in frames_of(tone(1.2), RATE_HZ):
            await speech.capture_frame(frame)
        speech.flush()
        played = await asyncio.wait_for(speech.wait_for_playout(), 20)
        assert not played.interrupted and played.playback_position == pytest.approx(1.2, abs=0.25)
        for frame in frames_of(tone(10.0), RATE_HZ):
            await speech.capture_frame(frame)
        await asyncio.sleep(1.5)
        speech.clear_buffer()
        played = await asyncio.wait_for(speech.wait_for_playout(), 5)
        assert played.interrupted and 0.5 < played.playback_position < 2.5
    finally:
        await runner.aclose()


async def test_wrong_rates_and_missing_servers_are_said(avatar: VisavisAvatar) -> None:
    with pytest.raises(ValueError, match="16000 samples a second, the avatar was opened for 24000"):
        await avatar.push_audio(rtc.AudioFrame(bytes(640), 16_000, 1, 320))
    with pytest.raises(Unreachable, match="no server at"):
        await VisavisAvatar(server="http://127.0.0.1:9").open()
