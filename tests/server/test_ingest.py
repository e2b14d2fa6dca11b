import fractions

import av
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from server.ingest import Decimator, Intake, listen, make_sound_ring
from server.media_clock import MediaClock

PACKET, PACKET_S = 960, 0.02


class Scene:
    """An intake with its clock, and a microphone that is told when to speak."""

    def __init__(self) -> None:
        self.clock = MediaClock(0.0, 0.16)
        self.intake = Intake(self.clock, make_sound_ring(), patience_ms=100)
        self.hops: dict[int, np.ndarray] = {}

    def speak(self, n: int, at_s: float | None = None, *, timestamp: int | None = None, value: int = 1_000) -> None:
        """Packet ``n`` arrives, on time unless told otherwise."""
        at_s = (n + 1) * PACKET_S if at_s is None else at_s
        samples = np.full(PACKET, value, np.int16)
        self.intake.push(n * PACKET if timestamp is None else timestamp, samples, at_s)
        self.look(at_s)

    def look(self, now_s: float) -> None:
        for hop, samples in self.intake.hops(now_s):
            assert hop == len(self.hops), "hops come in order, each once"
            self.hops[hop] = samples

    def loud(self, hop: int) -> bool:
        return bool(np.abs(self.hops[hop][40:-40]).min() > 0.02)

    def sound(self, n: int) -> np.ndarray:
        return self.intake.sound.read(n * PACKET, PACKET)


def test_packets_become_hops_at_once() -> None:
    scene = Scene()
    for n in range(6):
        scene.speak(n)
    assert list(scene.hops) == [0, 1, 2]
    assert all(scene.loud(h) for h in (1, 2))
    assert scene.hops[1].dtype == np.float32 and scene.hops[1].shape == (640,)


def test_without_packets_silence_is_heard_in_real_time() -> None:
    scene = Scene()
    for tick in range(1, 1_001):
        scene.look(tick * 0.01)
    assert len(scene.hops) == 250


def test_a_lost_packet_is_a_gap_and_moves_nothing() -> None:
    scene = Scene()
    for n in (0, 1, 2, 4, 5, 6, 7):
        scene.speak(n)
    assert len(scene.hops) == 4
    assert not scene.sound(3).any() and scene.sound(4).all()


def test_sound_that_stalls_becomes_silence_after_patience_and_not_before() -> None:
    scene = Scene()
    for n in range(10):
        scene.speak(n)
    scene.look(0.2 + 0.09)
    assert len(scene.hops) == 5
    scene.look(0.2 + 0.13)
    assert len(scene.hops) == 8, "from then on silence keeps the time"
    scene.look(0.2 + 0.8)
    assert len(scene.hops) == 25


def test_late_sound_still_reaches_the_peer() -> None:
    scene = Scene()
    for n in range(10):
        scene.speak(n)
    scene.look(0.33)
    scene.speak(10, at_s=0.33)
    assert scene.sound(10).all(), "it leaves at 0.36 s"


def test_a_burst_after_a_stall_finds_its_place() -> None:
    scene = Scene()
    for n in range(10):
        scene.speak(n)
    scene.look(0.59)
    for n in range(10, 30):
        scene.speak(n, at_s=0.6)
    for n in range(30, 40):
        scene.speak(n)
    assert len(scene.hops) == 20 and scene.loud(19)
    assert scene.intake.dropped_samples > 0, "the first of the burst came after they were due"
    assert scene.sound(29).all() and scene.sound(39).all()


def test_a_source_whose_time_stood_still_is_heard_again() -> None:
    scene = Scene()
    for n in range(10):
        scene.speak(n)
    for tick in range(300):
        scene.look(0.2 + tick * 0.01)
    for n in range(10, 60):  # resumes 3 s later, with timestamps that go on as if nothing had been
        scene.speak(n, at_s=(n + 1) * PACKET_S + 3)
    assert scene.intake.heard == pytest.approx(4.2 * 16_000, abs=320)
    assert scene.loud(len(scene.hops) - 1)


@pytest.mark.parametrize("jump", [2**32, -(2**32), 48_000 * 60])
def test_wild_timestamps_cost_a_moment_and_no_time(jump: int) -> None:
    scene = Scene()
    for n in range(10):
        scene.speak(n)
    for n in range(10, 60):
        scene.speak(n, timestamp=n * PACKET + jump)
    assert scene.intake.heard == pytest.approx(1.2 * 16_000, abs=320)
    assert scene.loud(len(scene.hops) - 1)


def test_a_source_faster_than_time_does_not_run_away() -> None:
    scene = Scene()
    for n in range(1_000):  # 20 s of sound in 5 s
        scene.speak(n, at_s=(n + 1) * PACKET_S / 4)
    assert scene.intake.heard / 16_000 < 5.0 * 1.02 + 0.35


def test_a_giant_packet_is_cut() -> None:
    scene = Scene()
    scene.intake.push(0, np.ones(48_000 * 30, np.int16), 0.02)
    assert scene.intake.dropped_samples >= 48_000 * 29
    scene.look(0.02)
    assert len(scene.hops) <= 13


def test_muted_sound_is_silence_for_the_engine_and_the_peer() -> None:
    scene = Scene()
    scene.intake.muted = True
    for n in range(10):
        scene.speak(n)
    assert len(scene.hops) == 5
    assert not any(h.any() for h in scene.hops.values()) and not scene.sound(5).any()


def test_what_comes_back_is_what_was_sent() -> None:
    scene = Scene()
    voice = np.random.default_rng(0).integers(-20_000, 20_000, PACKET * 20).astype(np.int16)
    for n in range(20):
        scene.intake.push(n * PACKET, voice[n * PACKET : (n + 1) * PACKET], (n + 1) * PACKET_S)
    np.testing.assert_array_equal(scene.intake.sound.read(0, len(voice)), voice)


def test_decimation_in_chunks_equals_decimation_at_once() -> None:
    voice = np.random.default_rng(0).integers(-20_000, 20_000, 9_600).astype(np.int16)
    whole, chunked = Decimator(), Decimator()
    parts = [chunked.decimate(voice[i : i + 1_920]) for i in range(0, 9_600, 1_920)]
    np.testing.assert_allclose(np.concatenate(parts), whole.decimate(voice), atol=1e-6)


@pytest.mark.parametrize(("hz", "kept"), [(1_000, True), (6_000, True), (10_000, False), (15_000, False)])
def test_decimation_keeps_speech_and_lets_no_alias_through(hz: int, kept: bool) -> None:
    tone = (np.sin(2 * np.pi * hz * np.arange(48_000) / 48_000) * 16_384).astype(np.int16)
    rms = float(np.sqrt(np.mean(Decimator().decimate(tone)[200:] ** 2)))
    assert rms == pytest.approx(0.5 / 2**0.5, rel=0.1) if kept else rms < 0.005


class Recording(MediaStreamTrack):
    kind = "audio"

    def __init__(self, frames: list[av.AudioFrame]) -> None:
        super().__init__()
        self._frames = frames

    async def recv(self) -> av.AudioFrame:
        if not self._frames:
            raise MediaStreamError
        return self._frames.pop(0)


@pytest.mark.parametrize(("rate", "layout"), [(48_000, "stereo"), (48_000, "mono"), (16_000, "mono"), (8_000, "mono")])
async def test_any_rate_and_layout_is_heard(rate: int, layout: str) -> None:
    frames, size = [], rate // 50
    for n in range(10):
        shape = (1, size * (2 if layout == "stereo" else 1))
        frame = av.AudioFrame.from_ndarray(np.full(shape, 8_000, np.int16), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, n * size, fractions.Fraction(1, rate)
        frames.append(frame)
    clock, ring = MediaClock(0.0, 0.16), make_sound_ring()
    pushed: list[tuple[int, int, int]] = []
    intake = Intake(clock, ring, patience_ms=100)

    def push(timestamp: int, samples: np.ndarray, now_s: float) -> None:
        pushed.append((timestamp, len(samples), int(samples[len(samples) // 2])))

    intake.push = push  # type: ignore[method-assign]
    await listen(Recording(frames), intake, lambda: None)
    assert [t for t, _, _ in pushed] == [n * PACKET for n in range(10)]
    assert sum(count for _, count, _ in pushed) == pytest.approx(10 * PACKET, abs=200)
    assert pushed[5][2] == pytest.approx(8_000, rel=0.02)


def test_a_hush_fades_what_is_to_leave_and_silences_the_rest() -> None:
    scene = Scene()
    for n in range(10):
        scene.speak(n)
    scene.intake.hush(5 * PACKET)
    assert (scene.sound(4) == 1_000).all()
    fading = scene.sound(5)
    assert fading[0] == 1_000 and (np.diff(fading[:240]) <= 0).all() and not fading[240:].any()
    assert not scene.intake.sound.read(6 * PACKET, 4 * PACKET).any()
    scene.speak(10)
    assert (scene.sound(10) == 1_000).all(), "what comes later is heard"


def test_scheduled_sound_goes_to_the_first_position_that_was_not_heard() -> None:
    scene = Scene()
    scene.look(0.1)
    scene.intake.schedule(np.full(1_920, 1_000, np.int16))
    assert scene.intake.heard == 1_600 + 640
    heard = scene.intake.sound.read(0, 4_800 + 1_920)
    assert not heard[:4_800].any() and (heard[4_800:] == 1_000).all()
