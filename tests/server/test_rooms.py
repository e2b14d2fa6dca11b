"""Rooms: everyone sees and hears everyone else, nobody themself; places become free; nobody hears strangers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
import websockets
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from engine.fake import MOUTH
from server.config import LimitConfig
from tests.server.caller import Caller, Microphone, Server, beeps
from tests.server.test_session import until


class Guest:
    """A participant as a browser would be one: a socket, a microphone, and a connection for each one watched."""

    def __init__(self, server: Server, room: str, name: str, **entry: Any) -> None:
        self.server, self.room, self.name = server, room, name
        self.entry = {"type": "enter", "name": name, "avatar_id": "default", **entry}
        self.told: list[dict[str, Any]] = []
        self.peers: list[RTCPeerConnection] = []
        self.views: dict[str, Caller] = {}
        self._answers: dict[str | None, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def enter(self) -> Guest:
        url = self.server.url.replace("http", "ws") + f"/v1/rooms/{self.room}/ws"
        self.socket = await websockets.connect(url, proxy=None)
        await self.socket.send(json.dumps(self.entry))
        self._tasks.append(asyncio.create_task(self._hear()))
        await until(lambda: self.last("welcome") or self.last("error"))
        return self

    def last(self, kind: str) -> dict[str, Any] | None:
        return next((m for m in reversed(self.told) if m["type"] == kind), None)

    @property
    def id(self) -> str:
        welcome = self.last("welcome")
        assert welcome is not None, self.told
        return welcome["id"]

    @property
    def people(self) -> list[dict[str, Any]]:
        told = self.last("people")
        return [] if told is None else told["people"]

    async def speak(self, recording: np.ndarray) -> None:
        peer = self._peer()
        peer.addTransceiver(Microphone(recording), "sendonly")
        await self._connect(peer, {"type": "publish"}, None)

    async def watch(self, watched: str, *kinds: str) -> Caller:
        peer = self._peer()
        view = Caller(peer=peer, reply={}, microphone=None)  # type: ignore[arg-type]
        peer.on("track", view.listen)
        for kind in kinds or ("audio", "video"):
            peer.addTransceiver(kind, "recvonly")
        self.views[watched] = view
        await self._connect(peer, {"type": "watch", "id": watched}, watched)
        return view

    async def say(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def vanish(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.socket.close()
        for view in self.views.values():
            await view.hang_up()
        await asyncio.gather(*(peer.close() for peer in self.peers))

    def _peer(self) -> RTCPeerConnection:
        self.peers.append(RTCPeerConnection(RTCConfiguration(iceServers=[])))
        return self.peers[-1]

    async def _connect(self, peer: RTCPeerConnection, message: dict[str, Any], about: str | None) -> None:
        await peer.setLocalDescription(await peer.createOffer())
        self._answers[about] = asyncio.get_running_loop().create_future()
        await self.say(**message, sdp=peer.localDescription.sdp)
        answer = await asyncio.wait_for(self._answers[about], 10)
        await peer.setRemoteDescription(RTCSessionDescription(sdp=answer["sdp"], type="answer"))

    async def _hear(self) -> None:
        async for text in self.socket:
            message = json.loads(text)
            self.told.append(message)
            if message["type"] == "answer":
                self._answers[message["id"]].set_result(message)


def tone(hz: float) -> np.ndarray:
    return beeps(60, hz=hz)


def loudest_hz(sound: list[tuple[float, np.ndarray]]) -> float:
    samples = np.concatenate([s for _, s in sound]).astype(float)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * 48_000 / len(samples))


def brightest_mouth(view: Caller) -> float:
    """Of the fake engine's pictures, whose mouth is as bright as its sound is loud; not of the first, at rest."""
    return max((float(luma[MOUTH].mean()) for _, luma in view.frames[5:]), default=0.0)


async def test_two_people_see_and_hear_each_other_and_not_themselves(serve) -> None:
    server = await serve(max_sessions=4)
    ann, bob = await Guest(server, "tea", "Ann").enter(), await Guest(server, "tea", "Bob").enter()
    try:
        await until(lambda: [p["name"] for p in ann.people] == ["Ann", "Bob"])
        await ann.speak(tone(440))
        await bob.speak(np.zeros(48_000, np.int16))
        await until(lambda: [p["live"] for p in ann.people] == [True, True])
        of_ann, of_bob = await bob.watch(ann.id), await ann.watch(bob.id)
        self_view = await ann.watch(ann.id, "video")
        await until(lambda: brightest_mouth(of_ann) > 100 and len(of_ann.sound) > 60, patience_s=40)
        await of_bob.wait_for(10)
        await self_view.wait_for(10)
        assert loudest_hz(of_ann.sound[25:]) == pytest.approx(440, abs=10)
        assert max(float(np.abs(s).max()) for _, s in of_bob.sound) < 200, "nobody's sound comes out of another"
        assert brightest_mouth(of_bob) < 60, "and moves nobody else's lips"
        assert not self_view.sound
        live = server.house.rooms._rooms["tea"].people[ann.id].live
        assert live.broadcast.encodings == {("colour", "VP8"): 2, ("colour", "opus"): 1}, "one encode per stream"
        await until(lambda: any(ann.id in m.get("speaking", []) for m in bob.told))
        assert not any(bob.id in m.get("speaking", []) for m in ann.told)
        await ann.say(type="watch", id=ann.id, sdp=bob.peers[1].localDescription.sdp)
        await until(lambda: "own sound" in (ann.last("error") or {}).get("message", ""))
        await ann.say(type="mute", muted=True)
        await until(lambda: [p["muted"] for p in bob.people] == [True, False])
        await bob.say(type="leave")
        await until(lambda: [p["name"] for p in ann.people] == ["Ann"])
        await until(lambda: len(server.house.sessions) == 1)
    finally:
        await asyncio.gather(ann.vanish(), bob.vanish())


async def test_one_who_is_gone_frees_the_place_and_one_who_comes_back_keeps_it(
    serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.rooms.GONE_S", 1.5)
    server = await serve(max_sessions=4)
    ann, bob = await Guest(server, "tea", "Ann").enter(), await Guest(server, "tea", "Bob").enter()
    old = bob.last("welcome")
    assert old is not None
    await bob.vanish()
    back = await Guest(server, "tea", "Bob", token=old["token"]).enter()
    assert back.id == old["id"]
    for _ in range(20):
        await ann.say(type="ping", t=1)
        await back.say(type="ping", t=1)
        await asyncio.sleep(0.1)
    assert len(ann.people) == 2, "who speaks on the socket stays"
    await back.vanish()

    async def gone() -> None:
        while len(ann.people) != 1:
            await ann.say(type="ping", t=1)
            await asyncio.sleep(0.1)

    await asyncio.wait_for(gone(), 6)
    await until(lambda: len(server.house.sessions) == 1)
    await ann.vanish()
    await until(lambda: len(server.house.rooms) == 0 and len(server.house.sessions) == 0)


async def test_where_no_render_is_left_one_is_heard_alone(serve) -> None:
    server = await serve(max_sessions=1)
    ann, bob = await Guest(server, "tea", "Ann").enter(), await Guest(server, "tea", "Bob").enter()
    try:
        await until(lambda: [p["seen"] for p in ann.people] == [True, False])
        await bob.speak(tone(440))
        of_bob = await ann.watch(bob.id, "audio")
        await until(lambda: any(np.abs(s).max() > 3_000 for _, s in of_bob.sound), patience_s=30)
        assert len(server.house.sessions) == 1
    finally:
        await asyncio.gather(ann.vanish(), bob.vanish())


@pytest.mark.parametrize(
    ("room", "entry", "code"),
    [
        ("tea", {"room_key": "wrong"}, "room_key_wrong"),
        ("tea", {"room_key": "k", "avatar_id": "nosuch"}, "avatar_not_found"),
        ("tea", {"room_key": "k"}, "room_full"),
        ("tea", {"room_key": "k", "name": ""}, "request_invalid"),
        ("tea", {"room_key": "k", "name": "x" * 41}, "request_invalid"),
        ("tea", {"type": "dance"}, "request_invalid"),
        ("b%20ad", {}, "request_invalid"),
        ("other", {}, "room_full"),
    ],
)
async def test_who_may_not_enter_is_told_why(serve, room: str, entry: dict[str, Any], code: str) -> None:
    full = code == "room_full"
    server = await serve(limits=LimitConfig(rooms=1, room_people=1 if full else 8))
    host = await Guest(server, "tea", "Ann", room_key="k").enter()
    guest = await Guest(server, room, entry.pop("name", "Bob"), **entry).enter()
    error = guest.last("error")
    assert error is not None and error["code"] == code and error["message"]
    await asyncio.gather(host.vanish(), guest.vanish())
