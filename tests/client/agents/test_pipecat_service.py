"""The video service in a real pipecat pipeline, at a real server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("pipecat", reason="pipecat has an environment of its own: make test-agents")

from pipecat.frames.frames import (  # noqa: E402
    EndFrame,
    ErrorFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    SpeechOutputAudioRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from client.agents.pipecat_service import VisavisVideoService  # noqa: E402
from client.examples.pipecat_avatar import run  # noqa: E402
from tests.client.agents.conftest import RATE_HZ, mouth_of, tone  # noqa: E402


class Ear(FrameProcessor):
    """Notes what comes out of the service."""

    def __init__(self) -> None:
        super().__init__()
        self.mouths: list[tuple[float, float]] = []
        self.peaks: list[tuple[float, int]] = []
        self.others: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputImageRawFrame):
            image = np.frombuffer(frame.image, np.uint8).reshape(256, 256, 3)
            self.mouths.append((time.monotonic(), mouth_of(image)))
        elif isinstance(frame, SpeechOutputAudioRawFrame):
            self.peaks.append((time.monotonic(), int(np.abs(np.frombuffer(frame.audio, np.int16)).max())))
        else:
            self.others.append(frame)
        await self.push_frame(frame, direction)


async def play(server: str, script, ear: Ear) -> list[ErrorFrame]:
    errors: list[ErrorFrame] = []
    service = VisavisVideoService(server=server)
    params = PipelineParams(audio_out_sample_rate=RATE_HZ)
    worker = PipelineWorker(Pipeline([service, ear]), params=params, cancel_on_idle_timeout=False)
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def begin(worker, frame) -> None:
        started.set()

    @worker.event_handler("on_pipeline_error")
    async def note(worker, frame) -> None:
        errors.append(frame)

    async def act() -> None:
        await started.wait()
        await script(worker)
        await worker.queue_frame(EndFrame())

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.wait_for(asyncio.gather(runner.run(), act()), 40)
    return errors


async def say(worker: PipelineWorker, seconds: float) -> None:
    await worker.queue_frame(TTSStartedFrame())
    pcm = tone(seconds)
    for at in range(0, len(pcm), 4_800):
        await worker.queue_frame(TTSAudioRawFrame(audio=pcm[at : at + 4_800], sample_rate=RATE_HZ, num_channels=1))
    await worker.queue_frame(TTSStoppedFrame())


async def test_speech_comes_back_with_its_pictures_before_the_pipeline_ends(server_url: str) -> None:
    ear = Ear()

    async def script(worker: PipelineWorker) -> None:
        await asyncio.sleep(0.5)
        await say(worker, 1.2)

    assert await play(server_url, script, ear) == []
    loud = [at for at, peak in ear.peaks if peak > 3_000]
    bright = [at for at, shade in ear.mouths if shade > 120]
    assert len(loud) == pytest.approx(60, abs=5) and len(bright) == pytest.approx(30, abs=4)
    assert abs(loud[0] - bright[0]) < 0.2
    assert not any(isinstance(f, TTSAudioRawFrame) for f in ear.others), "the TTS's own sound does not pass as well"


async def test_an_interruption_stops_lips_and_sound_and_the_next_answer_is_said(server_url: str) -> None:
    ear, at_s = Ear(), []

    async def script(worker: PipelineWorker) -> None:
        await say(worker, 20)
        await asyncio.sleep(1.5)
        at_s.append(time.monotonic())
        await worker.queue_frame(InterruptionFrame())
        await asyncio.sleep(1.0)
        at_s.append(time.monotonic())
        await say(worker, 0.6)

    assert await play(server_url, script, ear) == []
    quiet_s = at_s[0] + 0.5
    assert any(peak > 3_000 for at, peak in ear.peaks if at < at_s[0])
    assert not any(peak > 3_000 for at, peak in ear.peaks if quiet_s < at < at_s[1])
    assert not any(shade > 120 for at, shade in ear.mouths if quiet_s < at < at_s[1])
    assert sum(peak > 3_000 for at, peak in ear.peaks if at > at_s[1]) == pytest.approx(30, abs=4)


async def test_without_a_server_the_pipeline_is_told_and_ends(server_url: str) -> None:
    ear = Ear()

    async def script(worker: PipelineWorker) -> None:
        await say(worker, 0.2)

    errors = await play("http://127.0.0.1:9", script, ear)
    assert errors and "no server at http://127.0.0.1:9" in errors[0].error


async def test_the_example_writes_a_film(server_url: str, tmp_path: Path) -> None:
    made = await run(server_url, tone(1.0), RATE_HZ, tmp_path / "talk.mp4")
    assert made.pictures > 40
    with av.open(str(tmp_path / "talk.mp4")) as film:
        mouths = [mouth_of(f.to_ndarray(format="rgb24")) for f in film.decode(video=0)]
    assert sum(shade > 120 for shade in mouths) == pytest.approx(25, abs=4)
