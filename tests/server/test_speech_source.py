"""Speech that is put on the session's clock: in real time, told by what leaves, broken off at once."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from engine.api import StreamOptions
from server.errors import SourceTaken
from server.ingest import RATIO, Intake, make_sound_ring
from server.live_avatar import LiveAvatar
from server.media_clock import MediaClock
from server.sources import Feed
from server.speech_queue import PER_MS, Marks, SpeechQueue
from server.speech_source import SpeechSource
from tests.server.test_session import until

DELAY_S = 0.16


class Stage:
    """A source on a clock, without a session; time is told."""

    def __init__(self, **marks: int) -> None:
        self.clock = MediaClock(0.0, DELAY_S)
        self.intake = Intake(self.clock, make_sound_ring(), patience_ms=100)
        self.told: list[dict[str, Any]] = []
        self.queue = SpeechQueue(Marks(**marks))
        self.source = SpeechSource(self.queue, tell=self.told.append)
        self.source.start(Feed(intake=self.intake, clock=self.clock, arrived=lambda: None, spawn=None))  # type: ignore[arg-type]
        self.hops: dict[int, np.ndarray] = {}
        self.handed_out_s: dict[int, float] = {}

    def run(self, begin_s: float, end_s: float) -> None:
        for tick in range(round(begin_s * 100), round(end_s * 100)):
            self.source.pump(tick / 100)
            for hop, samples in self.intake.hops(tick / 100):
                self.hops[hop] = samples
                self.handed_out_s[hop] = tick / 100

    def events(self) -> list[tuple[str, int]]:
        return [(m["type"], m["at_ms"]) for m in self.told if "at_ms" in m]


def speech(ms: int) -> np.ndarray:
    return np.full(ms * PER_MS, 1_000, np.int16)


def test_the_clock_runs_in_real_time_while_nothing_is_said() -> None:
    stage = Stage()
    stage.run(0.0, 2.0)
    assert sorted(stage.hops) == list(range(49))
    assert all(-1e-6 < at - (hop + 1) * 0.04 < 0.011 for hop, at in stage.handed_out_s.items())
    assert not any(samples.any() for samples in stage.hops.values()) and stage.told == []


def test_a_burst_is_let_in_at_the_pace_of_the_clock_without_a_seam() -> None:
    stage = Stage()
    stage.run(0.0, 0.5)
    stage.queue.push(speech(1_000), 0.5)
    stage.run(0.5, 2.0)
    heard = np.flatnonzero(stage.intake.sound.read(0, 2 * 48_000))
    assert len(heard) == 48_000 and heard[-1] - heard[0] == 47_999, "in one piece"
    assert 0.44 <= heard[0] / 48_000 <= 0.5, "at the first hop that had not been heard"


def test_events_tell_what_leaves_by_the_clock() -> None:
    stage = Stage()
    stage.run(0.0, 0.2)
    stage.queue.push(speech(400), 0.2)
    stage.queue.end()
    stage.run(0.2, 0.5)
    start_ms = stage.events()[0][1]
    assert stage.events() == [("speech_started", start_ms)]
    stage.run(0.5, 1.0)
    assert stage.events()[1:] == [("speech_ended", start_ms + 400)]
    assert stage.told[-1]["reason"] == "done" and stage.told[-1]["played_ms"] == 400


def test_speech_that_pauses_shorter_than_the_delay_goes_on_and_longer_ends() -> None:
    stage = Stage()
    stage.queue.push(speech(200), 0.0)
    stage.run(0.0, 0.32)
    stage.queue.push(speech(200), 0.32)
    stage.run(0.32, 2.0)
    assert [m["type"] for m in stage.told if "utterance" in m] == ["speech_started", "speech_ended"]
    assert stage.told[-1]["reason"] == "starved"
    stage.queue.push(speech(200), 2.0)
    stage.run(2.0, 3.0)
    assert sum(m["type"] == "speech_started" for m in stage.told) == 2


def test_two_utterances_are_told_apart() -> None:
    stage = Stage()
    for _ in range(2):
        stage.queue.push(speech(100), 0.0)
        stage.queue.end()
    stage.run(0.0, 1.0)
    assert [(m["type"], m["utterance"], m.get("reason")) for m in stage.told if "utterance" in m] == [
        ("speech_started", 1, None),
        ("speech_ended", 1, "done"),
        ("speech_started", 2, None),
        ("speech_ended", 2, "done"),
    ]


def test_a_loop_that_stood_still_goes_on_at_the_present() -> None:
    stage = Stage()
    stage.queue.push(speech(1_000), 0.0)
    stage.run(0.0, 0.3)
    held = stage.queue.held
    stage.run(2.0, 2.05)
    assert held - stage.queue.held <= 2 * 40 * PER_MS, "what it could not say in time it says now"
    assert stage.intake.heard >= 1.9 * 16_000


def test_a_flush_hands_out_a_silent_hop_ahead_of_its_time_and_no_more_speech() -> None:
    now_s = time.monotonic()
    clock = MediaClock(now_s - 1.0, DELAY_S)
    intake = Intake(clock, make_sound_ring(), patience_ms=100)
    source = SpeechSource(SpeechQueue(Marks()), tell=lambda message: None)
    source.start(Feed(intake=intake, clock=clock, arrived=lambda: None, spawn=None))  # type: ignore[arg-type]
    source.pump(now_s)
    list(intake.hops(now_s))
    source.queue.push(speech(2_000), now_s)
    source.pump(now_s + 0.2)
    before = dict(intake.hops(now_s + 0.2))
    assert any(samples.any() for samples in before.values())
    source.flush()
    intake.hush(clock.leaving(now_s + 0.2) * RATIO)
    after = dict(intake.hops(now_s + 0.2))
    assert len(after) == 1 and not next(iter(after.values())).any()
    assert source.queue.held == 0 and source.queue.epoch == 1


async def test_a_live_avatar_needs_no_peer_and_hears_one_source(server, picture: bytes) -> None:
    house = server.house
    avatar_id = (await server.upload(picture)).json()["id"]

    async def make_order():
        return await house.make_order(avatar_id, StreamOptions(seed=1, motion=0.0))

    live = await house.sessions.admit(make_order, LiveAvatar)
    source = SpeechSource(SpeechQueue(Marks()), tell=lambda message: None)
    live.attach(source)
    with pytest.raises(SourceTaken, match="already"):
        live.attach(source)
    live.begin()
    live.go_live()
    tone = (np.sin(np.arange(96_000) * 2 * np.pi * 440 / 48_000) * 12_000).astype(np.int16)
    source.queue.push(tone, time.monotonic())
    viewer = live.broadcast.video()
    await viewer.recv()
    await until(lambda: live.level > 0.5)
    live.flush()
    assert source.queue.held == 0
    first = live._feed.clock.leaving(time.monotonic()) * RATIO + 2 * 960  # the packet that leaves, and its fade
    assert not live._sound.read(first, 9_600).any()
    await until(lambda: live.level < 0.1)
    assert (await server.http.get(f"/v1/sessions/{live.id}")).json()["state"] == "live"
    await server.http.delete(f"/v1/sessions/{live.id}")
    assert viewer.readyState == "ended"
