"""A LiveKit Agents avatar: a ``VideoGenerator`` for its ``AvatarRunner``.

The runner takes the agent's speech from the room (``DataStreamAudioReceiver``) or from the same process
(``QueueAudioOutput``), gives it to ``push_audio``, and publishes the pictures and the sound that it iterates. When the
agent is interrupted, it calls ``clear_buffer``.

Made against livekit-agents 1.8. It wants protobuf 5 or newer, the Visavis server an older one: install this package in
the agent's environment, not in the server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import av
import numpy as np

from .avatar import AgentAvatar, open_avatar
from .errors import PackageMissing

try:
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator
except ImportError as error:
    raise PackageMissing(
        f"LiveKit Agents is not installed here, or too old ({error}): pip install 'visavis-agents[livekit]' "
        "(livekit-agents 1.x)"
    ) from error

SOUND_RATE_HZ = 48_000
FPS = 25
TAIL_S = 0.1  # sound comes so much later than the event that tells of its end, at most


class VisavisAvatar(VideoGenerator):
    """An avatar that says what it is pushed. ``open`` it before it is run, ``aclose`` it after.

    Sound is given out only while something is said, so that the runner's playback position counts speech; pictures
    always.

    Args:
        server: ``http://127.0.0.1:8000``.
        sample_rate_hz: of the speech, 8,000 to 48,000.
        avatar_id: whose face.
        api_key: of the server, where it has one.
        options: as in ``POST /v1/sessions``.
    """

    def __init__(
        self,
        *,
        server: str = "http://127.0.0.1:8000",
        sample_rate_hz: int = 24_000,
        avatar_id: str = "default",
        api_key: str | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self._server = server
        self._rate_hz = sample_rate_hz
        self._order: dict[str, Any] = {"avatar_id": avatar_id, "api_key": api_key, "options": options}
        self._avatar: AgentAvatar | None = None
        self._listening: asyncio.Task[None] | None = None
        self._speaking = False
        self._utterance = 0  # that began last
        self._timers: set[asyncio.TimerHandle] = set()
        self._ends = 0  # segments whose end is to be given out

    @property
    def runner_options(self) -> AvatarOptions:
        """What the runner must know of the picture and the sound."""
        return AvatarOptions(
            video_width=256, video_height=256, video_fps=FPS, audio_sample_rate=SOUND_RATE_HZ, audio_channels=1
        )

    async def open(self) -> None:
        """Open the session.

        Raises:
            AgentError: the server refused, or cannot be reached.
        """
        self._avatar = await open_avatar(self._server, rate_hz=self._rate_hz, **self._order)
        self._listening = asyncio.create_task(self._listen(self._avatar), name="visavis-events")

    async def aclose(self) -> None:
        """End the session. May be repeated."""
        avatar, self._avatar = self._avatar, None
        if avatar is not None:
            await avatar.close()
        if self._listening is not None:
            await asyncio.gather(self._listening, return_exceptions=True)
        self._forget_ends()

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Say this, after what was pushed before; waits while the server has enough.

        Raises:
            ValueError: another rate than ``sample_rate_hz``.
            AgentError: the session has ended.
        """
        avatar = self._opened()
        if isinstance(frame, AudioSegmentEnd):
            await avatar.speech.end()
            return
        if frame.sample_rate != self._rate_hz:
            raise ValueError(
                f"the speech has {frame.sample_rate} samples a second, the avatar was opened for {self._rate_hz}: "
                "give sample_rate to the agent's audio output, or sample_rate_hz to VisavisAvatar"
            )
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
        mono = samples[:, 0] if frame.num_channels == 1 else samples.astype(np.int32).mean(1).astype(np.int16)
        await avatar.speech.say(mono.tobytes())

    async def clear_buffer(self) -> None:
        """Stop lips and sound now."""
        avatar = self._opened()
        self._speaking = False
        self._forget_ends()
        avatar.viewer.drop("audio")
        await avatar.speech.clear()

    async def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        viewer = self._opened().viewer
        while (frame := await viewer.frame()) is not None:
            while self._ends:
                self._ends -= 1
                yield AudioSegmentEnd()
            if isinstance(frame, av.VideoFrame):
                yield picture_of(frame)
            elif self._speaking:
                yield sound_of(frame)

    def _opened(self) -> AgentAvatar:
        if self._avatar is None:
            raise RuntimeError("the avatar is not open: await open() first")
        return self._avatar

    async def _listen(self, avatar: AgentAvatar) -> None:
        async for event in avatar.speech.events():
            if event.get("epoch", avatar.speech.epoch) != avatar.speech.epoch:
                continue  # of what has been broken off
            if event["type"] == "speech_started":
                self._speaking, self._utterance = True, event["utterance"]
            elif event["type"] == "speech_ended" and event["reason"] != "cleared":
                done = event["reason"] == "done"
                loop = asyncio.get_running_loop()
                self._timers.add(loop.call_later(TAIL_S, self._end, event.get("utterance"), done))

    def _end(self, utterance: int | None, done: bool) -> None:
        if utterance == self._utterance:
            self._speaking = False
        self._ends += done
        self._timers = {timer for timer in self._timers if timer.when() > asyncio.get_running_loop().time()}

    def _forget_ends(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self._ends = 0


def picture_of(frame: av.VideoFrame) -> rtc.VideoFrame:
    """A decoded picture as LiveKit takes it."""
    plain = frame.to_ndarray(format="rgba")
    return rtc.VideoFrame(frame.width, frame.height, rtc.VideoBufferType.RGBA, plain.tobytes())


def sound_of(frame: av.AudioFrame) -> rtc.AudioFrame:
    """20 ms of decoded sound, one channel of it."""
    samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
    return rtc.AudioFrame(samples.tobytes(), frame.sample_rate, 1, len(samples))
