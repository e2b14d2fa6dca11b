"""A program speaks through a session, and a peer that only looks on sees and hears it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import av
import numpy as np
import pytest
import websockets

from client.agents.avatar import AgentAvatar, an_avatar, request
from client.agents.errors import Refused
from engine.api import StepRow, StreamState
from engine.fake import MOUTH, FakeEngine
from server.config import LimitConfig, TimingConfig
from tests.server.caller import Microphone, beeps

RATE = 24_000
LOUD, DARK = 120, 40  # shades of the fake mouth


def tone(seconds: float, *, rate_hz: int = RATE, hz: float = 440.0) -> bytes:
    return (np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz) * 12_000).astype("<i2").tobytes()


class Watched:
    """What a viewer has received: when, and how bright or loud."""

    def __init__(self, avatar: AgentAvatar) -> None:
        self.avatar = avatar
        self.mouth: list[tuple[float, float]] = []  # arrival, shade
        self.sound: list[tuple[float, int]] = []  # arrival, peak
        self.events: list[dict[str, Any]] = []

    async def look(self) -> None:
        while (frame := await self.avatar.viewer.frame()) is not None:
            if isinstance(frame, av.VideoFrame):
                self.mouth.append((time.monotonic(), float(frame.to_ndarray(format="gray")[MOUTH].mean())))
            else:
                self.sound.append((time.monotonic(), int(np.abs(frame.to_ndarray()).max())))

    async def listen(self) -> None:
        async for event in self.avatar.speech.events():
            self.events.append(event)

    def told(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["type"] == kind]

    async def until(self, condition: Any, patience_s: float = 15) -> None:
        async with asyncio.timeout(patience_s):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def watching(server: Any, picture: bytes, **given: Any) -> AsyncIterator[Watched]:
    avatar_id = (await server.upload(picture)).json()["id"]
    async with an_avatar(server.url, **{"rate_hz": RATE, "avatar_id": avatar_id, **given}) as avatar:
        watched = Watched(avatar)
        tasks = [asyncio.create_task(watched.look()), asyncio.create_task(watched.listen())]
        try:
            yield watched
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def watched(server: Any, picture: bytes) -> AsyncIterator[Watched]:
    async with watching(server, picture) as it:
        yield it


def loud(watched: Watched) -> list[float]:
    return [at for at, peak in watched.sound if peak > 3_000]


def bright(watched: Watched) -> list[float]:
    return [at for at, shade in watched.mouth if shade > LOUD]


def is_still(watched: Watched) -> bool:
    """Whether the newest ten packets are silent and the newest ten pictures closed."""
    return all(peak <= 3_000 for _, peak in watched.sound[-10:]) and all(s <= LOUD for _, s in watched.mouth[-10:])


async def test_a_burst_is_spoken_in_real_time_by_lips_and_sound_together(watched: Watched) -> None:
    await watched.until(lambda: len(watched.mouth) > 10)
    assert not bright(watched) and not loud(watched), "it idles, silent, before anything is sent"
    begun = time.monotonic()
    await watched.avatar.speech.say(tone(1.6))
    await watched.avatar.speech.end()
    assert time.monotonic() - begun < 0.5, "sending took no real time"
    await watched.until(lambda: watched.told("speech_ended"))
    await asyncio.sleep(0.3)
    (started,), (ended,) = watched.told("speech_started"), watched.told("speech_ended")
    assert started["utterance"] == ended["utterance"] == 1 and started["epoch"] == 0
    assert ended["reason"] == "done" and ended["played_ms"] == pytest.approx(1_600, abs=5)
    assert ended["at_ms"] - started["at_ms"] == ended["played_ms"]
    assert len(loud(watched)) == pytest.approx(80, abs=4)
    assert len(bright(watched)) == pytest.approx(40, abs=3)
    assert abs(bright(watched)[0] - loud(watched)[0]) < 0.15 and abs(bright(watched)[-1] - loud(watched)[-1]) < 0.15


async def test_clear_stops_lips_and_sound_and_the_next_speech_is_whole(watched: Watched) -> None:
    for epoch in range(1, 3):
        await watched.avatar.speech.say(tone(5))
        await watched.until(lambda: len(bright(watched)) > 10 and watched.mouth[-1][1] > LOUD)
        await watched.avatar.speech.clear()
        await watched.until(lambda: len(watched.told("cleared")) == epoch)  # noqa: B023
        await watched.until(lambda: is_still(watched))
        assert len(loud(watched)) < 4 * 50 and len(bright(watched)) < 4 * 25, "of five seconds"
        assert watched.told("cleared")[-1]["epoch"] == epoch
        assert watched.told("speech_ended")[-1]["reason"] == "cleared"
        assert watched.told("speech_ended")[-1]["played_ms"] < 4_900
        watched.mouth.clear()
        watched.sound.clear()
    await watched.avatar.speech.say(tone(0.8))
    await watched.avatar.speech.end()
    await watched.until(lambda: watched.told("speech_ended")[-1]["reason"] == "done")
    assert watched.told("speech_ended")[-1]["played_ms"] == pytest.approx(800, abs=5)
    assert watched.told("speech_ended")[-1]["epoch"] == 2


async def test_no_frame_of_an_older_epoch_is_shown_after_a_clear(serve: Any, picture: bytes) -> None:
    class Slow(FakeEngine):
        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            time.sleep(0.03 * len(rows))
            return super().step(rows, state)

    server = await serve(make_engine=Slow, max_sessions=1)
    async with watching(server, picture) as watched:
        await watched.avatar.speech.say(tone(4))
        await watched.until(lambda: len(bright(watched)) > 10)
        live = next(iter(server.house.sessions))
        await watched.avatar.speech.clear()
        await watched.until(lambda: watched.told("cleared"))
        shown = []
        for _ in range(40):
            shown.append(int(live.shelf.take(live.shelf._taken_index)[180, 120, 0]))
            await asyncio.sleep(0.01)
        first_dark = next(i for i, shade in enumerate(shown) if shade < DARK)
        assert all(shade < DARK for shade in shown[first_dark:]), "it never lights up again"
        assert live.shelf.dropped >= 0 and live._stream.epoch == 1


async def test_a_sender_within_its_credit_never_waits_to_be_read(serve: Any, picture: bytes) -> None:
    server = await serve(limits=LimitConfig(speech_ms=1_000))
    async with watching(server, picture) as watched:
        saying = asyncio.create_task(watched.avatar.speech.say(tone(60)))
        await watched.until(lambda: bright(watched))
        live = next(iter(server.house.sessions))
        assert 500 < live.seat.queue.held_ms <= 1_000 and not saying.done()
        await watched.avatar.speech.clear()
        await asyncio.wait_for(saying, 2)
        await watched.until(lambda: watched.told("cleared"), 2)
        assert live.seat.queue.held == 0


async def test_a_sender_that_ignores_its_credit_is_slowed_down_and_loses_nothing(serve: Any, picture: bytes) -> None:
    server = await serve(limits=LimitConfig(speech_ms=500))
    async with watching(server, picture) as watched:
        socket = watched.avatar.speech._connection
        for piece in np.array_split(np.frombuffer(tone(2.4), np.int16), 100):
            await socket.send(piece.tobytes())
        await watched.avatar.speech.end()
        live = next(iter(server.house.sessions))
        await watched.until(lambda: live.seat.queue.held_ms > 400)

        def played_ms() -> int:  # a loop that stood still for a moment parts it in two
            return sum(event["played_ms"] for event in watched.told("speech_ended"))

        await watched.until(lambda: played_ms() > 2_390)
        assert played_ms() < 2_450


async def test_low_water_and_buffered_are_told(watched: Watched) -> None:
    await watched.avatar.speech.say(tone(0.6))
    await watched.avatar.speech.ask("buffered")
    await watched.until(lambda: watched.told("buffered") and watched.told("buffer_low"))
    assert watched.told("buffered")[0]["buffered_ms"] > 300
    assert 100 < watched.told("buffer_low")[0]["buffered_ms"] < 200
    await watched.until(lambda: watched.told("speech_ended"))
    assert watched.told("speech_ended")[0]["reason"] == "starved"


async def refused(address: str) -> tuple[dict[str, Any], int]:
    async with websockets.connect(address, proxy=None) as socket:
        message = json.loads(await asyncio.wait_for(socket.recv(), 5))
        await socket.wait_closed()
        assert socket.close_code is not None
        return message, socket.close_code


async def test_sockets_that_cannot_be_served_say_why(server: Any, picture: bytes, watched: Watched) -> None:
    base = server.url.replace("http", "ws")
    own = base + watched.avatar.reply["pcm"]
    for address, code, close in (
        (f"{base}/v1/sessions/nosuch/pcm?rate=16000", "session_not_found", 4404),
        (f"{own}?rate=16000", "source_taken", 4409),
        (f"{own}?rate=7", "request_invalid", 4400),
        (f"{own}?rate=16000&format=f32le", "request_invalid", 4400),
    ):
        message, closed = await refused(address)
        assert (message["type"], message["code"], closed) == ("error", code, close)
    caller = await server.call(avatar_id=(await server.upload(picture)).json()["id"])
    message, closed = await refused(f"{base}/v1/sessions/{caller.id}/pcm?rate=16000")
    assert (message["code"], closed) == ("request_invalid", 4400) and '"source": "pcm"' in message["message"]


async def test_wrong_messages_are_answered_and_the_socket_goes_on(server: Any, picture: bytes) -> None:
    avatar_id = (await server.upload(picture)).json()["id"]
    reply = await request(server.url, "POST", "/v1/sessions", {"avatar_id": avatar_id, "source": "pcm"})
    assert reply["answer"] is None
    async with websockets.connect(server.url.replace("http", "ws") + reply["pcm"], proxy=None) as socket:

        async def answer(message: str | bytes) -> dict[str, Any]:
            await socket.send(message)
            return json.loads(await asyncio.wait_for(socket.recv(), 5))

        assert (await answer(b"ab"))["code"] == "request_invalid", "sound before its format"
        assert (await answer("{"))["code"] == "request_invalid"
        assert (await answer('{"type": "start", "rate": 1}'))["code"] == "request_invalid"
        ready = await answer('{"type": "start", "rate": 8000}')
        assert (ready["type"], ready["rate"], ready["session"]) == ("ready", 8_000, reply["id"])
        assert (await answer(b"abc"))["code"] == "request_invalid"
        assert (await answer('{"type": "ping", "t": 7}')) == {"type": "pong", "t": 7}
        await socket.send(tone(0.4, rate_hz=8_000))
        async with asyncio.timeout(5):
            while json.loads(await socket.recv())["type"] != "speech_started":  # its credit may be told before
                pass
        await server.http.delete(f"/v1/sessions/{reply['id']}")
        last = [json.loads(text) async for text in socket][-1]
    assert (last["type"], last["reason"], socket.close_code) == ("ended", "ended on request", 1000)


async def test_a_session_without_program_and_viewer_ends_by_itself(serve: Any, picture: bytes) -> None:
    server = await serve(timing=TimingConfig(connect_timeout_s=1.0))
    avatar_id = (await server.upload(picture)).json()["id"]
    reply = await request(server.url, "POST", "/v1/sessions", {"avatar_id": avatar_id, "source": "pcm"})
    async with websockets.connect(server.url.replace("http", "ws") + reply["pcm"] + "?rate=8000", proxy=None):
        await asyncio.sleep(2.5)
        assert len(server.house.sessions) == 1
    async with asyncio.timeout(6):
        while len(server.house.sessions):
            await asyncio.sleep(0.05)
    described = await request(server.url, "GET", f"/v1/sessions/{reply['id']}")
    assert "neither a program nor a viewer" in described["reason"]


async def test_what_was_sent_is_spoken_after_its_sender_left_and_another_may_follow(watched: Watched) -> None:
    await watched.avatar.speech.say(tone(1.0))
    await watched.avatar.speech.close()
    await watched.until(lambda: len(loud(watched)) > 40)
    from client.agents.pcm_socket import open_socket

    again = await open_socket(watched.avatar._server, watched.avatar.reply["pcm"], rate_hz=16_000)
    count = len(loud(watched))
    await again.say(tone(0.6, rate_hz=16_000))
    await watched.until(lambda: len(loud(watched)) > count + 20)
    await again.close()


async def test_a_session_with_a_microphone_needs_an_offer(server: Any) -> None:
    with pytest.raises(Refused, match="offer is missing"):
        await request(server.url, "POST", "/v1/sessions", {"avatar_id": "default"})
    peer, _ = await server.offer(Microphone(beeps(1)))
    only_looks = peer.localDescription.sdp.replace("a=sendrecv", "a=recvonly")
    body = {"offer": {"type": "offer", "sdp": only_looks}}
    with pytest.raises(Refused, match="sendrecv or sendonly"):
        await request(server.url, "POST", "/v1/sessions", body)
