"""A call as a user makes it: the sound that was sent comes back, and the lips move with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.landmarks import FaceMesh, eye_distance, mouth_opening
from tests.browser.conftest import GRANT_FAKE_MICROPHONE, ROOT, StartBrowser, StartServer, add_portrait
from tests.browser.recording import (
    Recording,
    Sound,
    find_offset,
    find_sent,
    mouth_brightness,
    mouth_changes,
    record_call,
    watch_peers,
)

RECORD_S = 15.0  # two rounds of speech and pause
CONTROL_DELAY_S = 0.2
MOST_OFFSET_S = 0.060
SETTLE_MS = 3000  # the browser's jitter buffers take about so long to find their length


@dataclass(frozen=True, kw_only=True)
class Call:
    """A recorded call and what was found in it."""

    engine: str
    recording: Recording
    sent: Sound  # the wav, laid on the page's clock where it was found in what was heard
    correlation: float  # of the two

    def opening(self) -> np.ndarray:
        """How far the mouth is open, [frames], in the engine's own unit."""
        frames = self.recording.frames
        return mouth_brightness(frames) if self.engine == "fake" else _lip_opening(frames)


def _lip_opening(frames: list[np.ndarray]) -> np.ndarray:
    mesh = FaceMesh(video=True)
    faces = [mesh.find(frame) for frame in frames]
    mesh.close()
    assert all(faces), f"no face was found in {sum(not f for f in faces)} of {len(faces)} frames"
    return np.array([mouth_opening(face[0]) / eye_distance(face[0]) for face in faces])


@pytest.fixture(scope="module", params=["fake", "s3dnerf"])
def call(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    start_browser: StartBrowser,
    microphone_wav: Path,
    speech: np.ndarray,
    picture: Path,
) -> Iterator[Call]:
    if request.param == "s3dnerf" and not list((ROOT / "engine" / "assets").glob("*.safetensors")):
        pytest.skip("no checkpoint is in engine/assets")
    server = start_server("--engine", request.param, "--max-sessions", "1")
    browser = start_browser([*GRANT_FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={microphone_wav}"])
    page = browser.new_page()
    watch_peers(page)
    page.goto(server.url)
    page.get_by_role("radio").first.wait_for(state="attached")
    if request.param == "fake":
        add_portrait(page, picture)
    page.get_by_label("Head movement").fill("0")  # so that only speech moves the mouth
    page.get_by_role("button", name="Start talking").click()
    page.wait_for_selector("#frame[data-state=live]", timeout=30_000)
    page.wait_for_function("document.getElementById('video').videoWidth > 0", timeout=30_000)
    page.wait_for_timeout(SETTLE_MS)
    recording = record_call(page, seconds=RECORD_S, control_delay_s=CONTROL_DELAY_S)
    correlation, sent = find_sent(speech, recording.heard)
    page.get_by_role("button", name="Stop").click()
    page.close()
    yield Call(engine=request.param, recording=recording, sent=sent, correlation=correlation)
    server.kill()  # its threads would slow the next one down


def test_frames_are_256_square(call: Call) -> None:
    assert {frame.shape for frame in call.recording.frames} == {(256, 256, 3)}


def test_frames_come_at_25_per_second(call: Call) -> None:
    assert call.recording.frames_per_second == pytest.approx(25, abs=1)


def test_received_sound_is_the_sent_sound(call: Call, speech: np.ndarray) -> None:
    backwards, _ = find_sent(speech[::-1], call.recording.heard)
    # The browser's own noise suppression and gain control, and Opus twice, keep it from being 1.
    assert call.correlation > 0.5
    assert call.correlation > 2 * backwards  # the control: the same spectrum, other sound


def test_mouth_moves_with_speech_and_rests_in_silence(call: Call) -> None:
    changes = mouth_changes(call.recording.frames)
    loudness = call.sent.envelope(call.recording.shown_s[1:], width_s=0.4)
    heard = loudness > 0.4
    silent = call.sent.envelope(call.recording.shown_s[1:], width_s=0.8) == 0
    assert heard.sum() > 100 and silent.sum() > 25
    assert changes[silent].mean() < changes[heard].mean() / 4


def test_lips_are_with_the_received_sound(call: Call) -> None:
    offset = find_offset(call.recording.shown_s, call.opening(), call.recording.heard)
    assert abs(offset.lag_s) <= MOST_OFFSET_S, offset


def test_lips_are_with_the_sent_sound(call: Call) -> None:
    offset = find_offset(call.recording.shown_s, call.opening(), call.sent)
    assert abs(offset.lag_s) <= MOST_OFFSET_S, offset


def test_offset_would_be_seen(call: Call) -> None:
    """The control: sound that the browser was made to delay is found to come late by that much."""
    straight = find_offset(call.recording.shown_s, call.opening(), call.recording.heard)
    late = find_offset(call.recording.shown_s, call.opening(), call.recording.heard_late)
    # Passing through the Web Audio graph adds some tens of milliseconds of its own.
    assert CONTROL_DELAY_S - 0.03 < straight.lag_s - late.lag_s < CONTROL_DELAY_S + 0.1
