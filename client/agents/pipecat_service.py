"""A pipecat video service: put it behind the TTS, and before the output transport.

It takes the bot's speech (``TTSAudioRawFrame``), as fast as the TTS makes it, and gives back pictures
(``OutputImageRawFrame``) and the same speech at the moment at which the lips say it (``SpeechOutputAudioRawFrame``).
When the user interrupts (``InterruptionFrame``), lips and sound stop.

Made against pipecat-ai 1.14. It wants protobuf 5 or newer, the Visavis server an older one: install this package in the
agent's environment, not in the server's.
"""

from __future__ import annotations

import asyncio
from typing import Any

import av

from .avatar import AgentAvatar, open_avatar
from .errors import AgentError, PackageMissing

try:
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        SpeechOutputAudioRawFrame,
        StartFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
    from pipecat.services.ai_service import AIService
    from pipecat.services.settings import ServiceSettings
except ImportError as error:
    raise PackageMissing(
        f"pipecat is not installed here, or too old ({error}): pip install 'visavis-agents[pipecat]' (pipecat-ai 1.x)"
    ) from error

SOUND_RATE_HZ = 48_000
LAST_WORDS_S = 60.0  # at most so long an EndFrame waits for the speech before it


class VisavisVideoService(AIService):
    """Shows an avatar that says what the TTS says.

    Args:
        server: ``http://127.0.0.1:8000``.
        avatar_id: whose face.
        api_key: of the server, where it has one.
        options: as in ``POST /v1/sessions``.
    """

    def __init__(
        self,
        *,
        server: str = "http://127.0.0.1:8000",
        avatar_id: str = "default",
        api_key: str | None = None,
        options: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings=ServiceSettings(model=None), **kwargs)
        self._server = server
        self._order: dict[str, Any] = {"avatar_id": avatar_id, "api_key": api_key, "options": options}
        self._avatar: AgentAvatar | None = None
        self._rate_hz = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._said = asyncio.Event()  # nothing that was sent waits to be heard
        self._said.set()
        self._begun = asyncio.Event()  # those behind have been started
        self._hushed = False  # the sound of what was broken off is still on its way

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        self._rate_hz = setup.audio_out_sample_rate

    async def start(self, frame: StartFrame) -> None:
        """Open the avatar."""
        await super().start(frame)
        try:
            self._avatar = await open_avatar(self._server, rate_hz=self._rate_hz, **self._order)
        except AgentError as error:
            await self.push_error(error_msg=f"no avatar: {error}", exception=error)
            return
        self._tasks = [self.create_task(self._look(self._avatar)), self.create_task(self._listen(self._avatar))]

    async def stop(self, frame: EndFrame) -> None:
        """Let it say what it was given, then close."""
        await super().stop(frame)
        try:
            await asyncio.wait_for(self._said.wait(), LAST_WORDS_S)
        except TimeoutError:
            pass
        await self._close()

    async def cancel(self, frame: CancelFrame) -> None:
        """Close at once."""
        await super().cancel(frame)
        await self._close()

    async def cleanup(self) -> None:
        await super().cleanup()
        await self._close()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Speech goes to the avatar and comes back with its picture; everything else passes."""
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame) and self._avatar is not None:
            await self._say(self._avatar, frame)
            return
        if isinstance(frame, InterruptionFrame) and self._avatar is not None:
            await self._attempt(self._break_off(self._avatar))
        elif isinstance(frame, TTSStoppedFrame) and self._avatar is not None:
            await self._attempt(self._avatar.speech.end())
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._begun.set()

    async def _say(self, avatar: AgentAvatar, frame: TTSAudioRawFrame) -> None:
        if (frame.sample_rate, frame.num_channels) != (self._rate_hz, 1):
            await self.push_error(
                error_msg=f"speech came as {frame.sample_rate} Hz with {frame.num_channels} channels: the pipeline's "
                f"audio_out_sample_rate is {self._rate_hz}, and the avatar takes mono"
            )
            return
        self._said.clear()
        await self._attempt(avatar.speech.say(frame.audio))  # waits while the avatar has enough for some time

    async def _break_off(self, avatar: AgentAvatar) -> None:
        self._hushed = True
        self._said.set()
        await avatar.speech.clear()
        avatar.viewer.drop("audio")

    async def _look(self, avatar: AgentAvatar) -> None:
        await self._begun.wait()
        while (frame := await avatar.viewer.frame()) is not None:
            if isinstance(frame, av.VideoFrame):
                image = frame.to_ndarray(format="rgb24")
                await self.push_frame(
                    OutputImageRawFrame(image=image.tobytes(), size=(frame.width, frame.height), format="RGB")
                )
            elif not self._hushed:
                sound = frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0]
                await self.push_frame(
                    SpeechOutputAudioRawFrame(audio=sound.tobytes(), sample_rate=SOUND_RATE_HZ, num_channels=1)
                )

    async def _listen(self, avatar: AgentAvatar) -> None:
        async for event in avatar.speech.events():
            match event["type"]:
                case "speech_started":
                    self._hushed = False
                case "speech_ended":
                    if event["reason"] != "cleared":
                        self._said.set()
                case "cleared":
                    self._hushed = False
                case "error":
                    await self.push_error(error_msg=f"the avatar's server: {event['code']}: {event['message']}")
                case "ended":
                    self._said.set()
                    await self.push_error(error_msg=f"the avatar's session has ended: {event['reason']}")

    async def _attempt(self, doing: Any) -> None:
        try:
            await doing
        except AgentError as error:
            self._said.set()
            await self.push_error(error_msg=f"the avatar did not take the speech: {error}", exception=error)

    async def _close(self) -> None:
        """May be repeated."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            await self.cancel_task(task)
        avatar, self._avatar = self._avatar, None
        if avatar is not None:
            await avatar.close()
