"""A call as a user makes it: the sound that was sent comes back, and the lips move with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from engine.api import StepRow, StreamOptions
from engine.landmarks import FaceMesh, eye_distance, mouth_opening
from engine.registry import create_engine
from tests.browser.conftest import GRANT_FAKE_MICROPHONE, ROOT, StartBrowser, StartServer, add_portrait, send_portrait
from tests.browser.recording import (
    Found,
    Recording,
    Sound,
    Trace,
    find_offset,
    find_sent,
    mouth_brightness,
    mouth_changes,
    record_call,
    watch_peers,
)

DEFAULT_PORTRAIT = ROOT / "engine" / "assets" / "default_portrait.jpg"
RECORD_S = 15.0  # two rounds of speech and pause
CONTROL_DELAY_S = 0.2
MOST_OFFSET_S = 0.060
SETTLE_MS = 3000  # the browser's jitter buffers take about so long to find their length


@dataclass(frozen=True, kw_only=True)
class Call:
    """A recorded call, where the sent wav was found in it, and what the mouth did and should have done."""

    engine: str
    recording: Recording
    found: Found
    sent: Sound  # the wav, laid on the page's clock
    mouth: Trace  # as received
    asked: np.ndarray  # float64 [wav samples]: the mouth that the engine draws for the wav
    refusal: str  # what the page said of a picture without a face; "" of an engine that wants none

    def asked_by(self, sound: Sound, found: Found) -> Trace:
        """The mouth that fits what was heard, on the page's clock."""
        return Trace(times_s=sound.times_s, values=self.asked[found.position])


def _measure_mouth(engine: str, frames: list[np.ndarray]) -> np.ndarray:
    """How far the mouth is open, [frames]: brightness for the fake engine, else the inner lips' distance."""
    if engine == "fake":
        return mouth_brightness(frames)
    mesh = FaceMesh(video=True)
    faces = [mesh.find(frame) for frame in frames]
    mesh.close()
    assert all(faces), f"no face was found in {sum(not f for f in faces)} of {len(faces)} frames"
    return np.array([mouth_opening(face[0]) / eye_distance(face[0]) for face in faces])


def _draw_mouth(engine_name: str, portrait: bytes, speech: np.ndarray) -> np.ndarray:
    """The mouth that an engine draws for a repeated wav, float64 [wav samples], by no way but ``step``.

    A sharper ruler than loudness: in filmed speech the opening follows it so loosely that the best lag of
    single 3 s clips lies anywhere within 0.3 s (16 GRID clips; together they peak at -20 ms).
    """
    engine = create_engine(engine_name)
    avatar = engine.enrol(portrait)
    state = engine.init_state(1)
    state.reset(0, StreamOptions(motion=0))
    hop, ahead = engine.spec.hop_samples, engine.spec.lookahead_hops
    hops = len(speech) // hop
    frames = [
        engine.step([StepRow(slot=0, avatar=avatar, samples=speech[h % hops * hop :][:hop])], state)[0]
        for h in range(hops + hops // 4)  # the first quarter again, now with a past before it
    ]
    engine.close()
    drawn = _measure_mouth(engine_name, frames)
    index = np.arange(hops) + ahead - 1  # frame k is drawn once k + ahead hops are heard
    index[index < hops // 4] += hops
    return np.interp(np.arange(len(speech)), np.arange(hops) * hop, drawn[index])


@pytest.fixture(scope="module", params=["fake", "s3dnerf"])
def call(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    start_browser: StartBrowser,
    microphone_wav: Path,
    speech: np.ndarray,
    picture: Path,
) -> Call:
    if request.param == "s3dnerf" and not list((ROOT / "engine" / "assets").glob("*.safetensors")):
        pytest.skip("no checkpoint is in engine/assets")
    server = start_server("--engine", request.param, "--max-sessions", "1")
    browser = start_browser([*GRANT_FAKE_MICROPHONE, f"--use-file-for-fake-audio-capture={microphone_wav}"])
    page = browser.new_page()
    watch_peers(page)
    page.goto(server.url)
    page.get_by_role("radio").first.wait_for(state="attached")
    refusal = ""
    if request.param == "fake":
        add_portrait(page, picture)
    else:
        send_portrait(page, picture)
        page.locator("#upload-message").wait_for()
        refusal = page.locator("#upload-message").inner_text()
    page.get_by_label("Head movement").fill("0")  # so that only speech moves the mouth
    page.get_by_role("button", name="Start talking").click()
    page.wait_for_selector("#frame[data-state=live]", timeout=30_000)
    page.wait_for_function("document.getElementById('video').videoWidth > 0", timeout=30_000)
    page.wait_for_timeout(SETTLE_MS)
    recording = record_call(page, seconds=RECORD_S, control_delay_s=CONTROL_DELAY_S)
    page.get_by_role("button", name="Stop").click()
    page.close()
    server.kill()  # its threads would slow the next one down
    found = find_sent(speech, recording.heard)
    return Call(
        engine=request.param,
        recording=recording,
        found=found,
        sent=Sound(start_s=recording.heard.start_s, samples=speech[found.position]),
        mouth=Trace(times_s=recording.shown_s, values=_measure_mouth(request.param, recording.frames)),
        asked=_draw_mouth(request.param, DEFAULT_PORTRAIT.read_bytes(), speech),
        refusal=refusal,
    )


def test_frames_are_256_square(call: Call) -> None:
    assert {frame.shape for frame in call.recording.frames} == {(256, 256, 3)}


def test_frames_come_at_25_per_second(call: Call) -> None:
    assert call.recording.frames_per_second == pytest.approx(25, abs=1)


def test_received_sound_is_the_sent_sound(call: Call, speech: np.ndarray) -> None:
    backwards = find_sent(speech[::-1], call.recording.heard)
    # The browser's own noise suppression and gain control, and Opus twice, keep it from being 1.
    assert call.found.correlation > 0.5
    assert call.found.correlation > 2 * backwards.correlation  # the control: the same spectrum, other sound


def test_mouth_moves_with_speech_and_rests_in_silence(call: Call) -> None:
    changes = mouth_changes(call.recording.frames)
    loudness = call.sent.envelope(call.recording.shown_s[1:], width_s=0.4)
    heard = loudness > 0.4
    silent = call.sent.envelope(call.recording.shown_s[1:], width_s=0.8) == 0
    assert heard.sum() > 100 and silent.sum() > 25
    assert changes[silent].mean() < changes[heard].mean() / 4


def test_lips_are_with_the_sound(call: Call) -> None:
    offset = find_offset(call.mouth, call.asked_by(call.recording.heard, call.found))
    assert offset.correlation > 0.5, offset
    assert abs(offset.lag_s) <= MOST_OFFSET_S, offset


def test_lips_follow_the_loudness(call: Call) -> None:
    """The same by a ruler that owes nothing to the engine: the loudness of what was received."""
    heard = call.recording.heard
    times_s = heard.times_s[::80]
    offset = find_offset(call.mouth, Trace(times_s=times_s, values=heard.envelope(times_s)))
    assert offset.correlation > 0.5, offset
    assert abs(offset.lag_s) <= MOST_OFFSET_S, offset


def test_an_offset_would_be_seen(call: Call, speech: np.ndarray) -> None:
    """The control: sound that the browser was made to delay is found to come late by that much."""
    late = call.recording.heard_late
    straight = find_offset(call.mouth, call.asked_by(call.recording.heard, call.found))
    delayed = find_offset(call.mouth, call.asked_by(late, find_sent(speech, late)))
    # Passing through the Web Audio graph adds some tens of milliseconds of its own.
    assert CONTROL_DELAY_S - 0.03 < straight.lag_s - delayed.lag_s < CONTROL_DELAY_S + 0.1


def test_a_picture_without_a_face_is_refused_in_words(call: Call) -> None:
    if call.engine == "fake":
        assert call.refusal == ""
    else:
        assert "No face was found" in call.refusal
