"""Sound that is pushed: kept, let in at the clock's pace, flushed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from engine.api import StreamOptions
from server.errors import SourceTaken
from server.ingest import RATIO, Intake, make_sound_ring
from server.live_avatar import LiveAvatar
from server.media_clock import MediaClock
from server.sources import Feed, PcmSource
from tests.server.test_session import until


def feed() -> tuple[Feed, Intake]:
    clock = MediaClock(0.0, 0.16)
    intake = Intake(clock, make_sound_ring(), patience_ms=100)
    return Feed(intake=intake, clock=clock, arrived=lambda: None, spawn=None), intake  # type: ignore[arg-type]


def test_pushed_sound_is_heard_at_the_pace_of_the_clock_and_silence_between() -> None:
    source, (given, intake) = PcmSource(buffer_s=2.0), feed()
    source.start(given)
    source.pump(0.0)
    assert source.push(np.full(48_000, 1_000, np.int16)) == 48_000
    for tick in range(126):
        source.pump(tick / 100)
        assert source.buffered == max(0, 48_000 - 480 * tick)
    heard = intake.sound.read(0, 60_000)
    assert (heard[:48_000] == 1_000).all() and not heard[48_000:].any()


def test_what_finds_no_room_is_not_taken() -> None:
    source = PcmSource(buffer_s=1.0)
    assert source.push(np.ones(40_000, np.int16)) == 40_000
    assert source.push(np.ones(40_000, np.int16)) == 8_000
    assert (source.buffered, source.room) == (48_000, 0)


async def test_a_live_avatar_needs_no_peer_and_hears_one_source(server, picture: bytes) -> None:
    house = server.house
    avatar_id = (await server.upload(picture)).json()["id"]

    async def make_order():
        return await house.make_order(avatar_id, StreamOptions(seed=1, motion=0.0))

    live = await house.sessions.admit(make_order, LiveAvatar)
    source = PcmSource()
    live.attach(source)
    with pytest.raises(SourceTaken, match="already"):
        live.attach(PcmSource())
    live.begin()
    live.go_live()
    tone = (np.sin(np.arange(96_000) * 2 * np.pi * 440 / 48_000) * 12_000).astype(np.int16)
    source.push(tone)
    viewer = live.broadcast.video()
    await viewer.recv()
    await until(lambda: live.level > 0.5)
    live.flush()
    assert source.buffered == 0
    assert not live._sound.read(live._feed.clock.leaving(time.monotonic()) * RATIO + 480, 9_600).any()
    await until(lambda: live.level < 0.1)
    assert (await server.http.get(f"/v1/sessions/{live.id}")).json()["state"] == "live"
    await server.http.delete(f"/v1/sessions/{live.id}")
    assert viewer.readyState == "ended"
