"""A pipecat pipeline without any key: espeak-ng is the TTS, the avatar says it, an MP4 file is the audience.

    visavis serve                                                   # in one environment
    pip install './client/agents[pipecat]'                          # in another
    python -m client.examples.pipecat_avatar --out talk.mp4 [--text "..."] [--wav F] [--interrupt S]

In a real bot ``SayOnce`` is your TTS service and ``Recorder`` the output of your transport; give the transport
``video_out_enabled=True`` with the avatar's size, and ``video_out_is_live=True``.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import numpy as np
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from client.agents.pipecat_service import VisavisVideoService
from client.examples.recording import Recording
from client.examples.spoken import speech_of

TEXT = "Hello. I am a portrait, and I say whatever your agent sends me."


class Recorder(FrameProcessor):
    """Writes pictures and sound to a file."""

    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputImageRawFrame):
            self._recording.picture(np.frombuffer(frame.image, np.uint8).reshape(*frame.size[::-1], 3))
        elif isinstance(frame, OutputAudioRawFrame):
            self._recording.sound(np.frombuffer(frame.audio, np.int16))
        await self.push_frame(frame, direction)


async def run(server: str, pcm: bytes, rate_hz: int, out: Path, interrupt_s: float | None = None) -> Recording:
    """Say ``pcm`` once, broken off after ``interrupt_s``; the recording, finished."""
    recording = Recording(out)
    pipeline = Pipeline([VisavisVideoService(server=server), Recorder(recording)])
    params = PipelineParams(audio_out_sample_rate=rate_hz)
    worker = PipelineWorker(pipeline, params=params, cancel_on_idle_timeout=False)
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def begin(worker: PipelineWorker, frame: Frame) -> None:
        started.set()

    async def speak() -> None:
        await started.wait()
        await asyncio.sleep(1)  # of idling, so that the file begins with a mouth at rest
        await worker.queue_frame(TTSStartedFrame())
        step = rate_hz // 10 * 2
        for at in range(0, len(pcm), step):  # as fast as the pipeline takes it
            await worker.queue_frame(TTSAudioRawFrame(audio=pcm[at : at + step], sample_rate=rate_hz, num_channels=1))
        await worker.queue_frame(TTSStoppedFrame())
        if interrupt_s is not None:
            await asyncio.sleep(interrupt_s)
            await worker.queue_frame(InterruptionFrame())
            await asyncio.sleep(1)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    try:
        await asyncio.gather(runner.run(), speak())
    finally:
        recording.close()
    return recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=Path("talk.mp4"))
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--wav", type=Path, help="instead of espeak-ng")
    parser.add_argument("--interrupt", type=float, help="seconds after which the user interrupts")
    given = parser.parse_args()
    pcm, rate_hz = speech_of(given.text, given.wav)
    made = asyncio.run(run(given.server, pcm, rate_hz, given.out, given.interrupt))
    print(f"{given.out}: {made.pictures / 25:.1f} s of picture, {made.samples / 48_000:.1f} s of sound")


if __name__ == "__main__":
    main()
