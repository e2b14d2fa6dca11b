"""Whole calls: a real server, real peers, the fake engine whose brightness is loudness."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import websockets
from aiortc import RTCSessionDescription
from PIL import Image

from engine.api import StepRow, StreamState
from engine.errors import CheckpointError
from engine.fake import BADGE, MOUTH, FakeEngine
from server.config import TimingConfig
from server.row_time import Measured
from tests.server.caller import Microphone, beeps

IMPATIENT = TimingConfig(connect_timeout_s=1.5, vanish_timeout_s=2.0, orphan_timeout_s=1.0)


async def until(condition, patience_s: float = 20) -> None:
    async with asyncio.timeout(patience_s):
        while not condition():
            await asyncio.sleep(0.02)


def onsets(times: Sequence[float], levels: Sequence[float], threshold: float) -> list[float]:
    """Times at which a level rises through ``threshold``."""
    return [times[i] for i in range(1, len(times)) if levels[i - 1] <= threshold < levels[i]]


@pytest.mark.parametrize("codec", ["VP8", "H264"])
async def test_a_call_brings_the_sound_back_and_the_lips_with_it(server, picture: bytes, codec: str) -> None:
    caller = await server.call(avatar_id=(await server.upload(picture)).json()["id"], codec=codec)
    await caller.wait_for(80)
    times = [t for t, _ in caller.frames]
    assert caller.frames[0][1].shape == (256, 256)
    assert np.allclose(np.diff(times), 0.04), "25 frames per second"
    mouth = [float(luma[MOUTH].mean()) for _, luma in caller.frames]
    cheek = [float(luma[60:120, 100:156].mean()) for _, luma in caller.frames]
    loud = [float(np.abs(samples.astype(int)).mean()) for _, samples in caller.sound]
    assert max(mouth) - min(mouth) > 100 and max(mouth) > max(cheek) + 30
    heard = onsets([t for t, _ in caller.sound], loud, 1_000)
    seen = onsets(times, mouth, (max(mouth) + min(mouth)) / 2)
    offsets = [s - h for s, h in zip(seen, heard, strict=False)]
    assert len(offsets) >= 3
    # The median: on a machine that is busy with something else, single frames may be late.
    assert abs(float(np.median(offsets))) <= 0.06, offsets


async def test_the_default_avatar_can_be_called(server) -> None:
    caller = await server.call()
    await caller.wait_for(10)


async def test_the_way_of_a_session_is_told(server, picture: bytes) -> None:
    caller = await server.call(avatar_id=(await server.upload(picture)).json()["id"])
    told: list[dict[str, Any]] = []
    async with websockets.connect(server.url.replace("http", "ws") + caller.reply["ws"], proxy=None) as socket:
        await socket.send(json.dumps({"type": "ping", "t": 12.5}))
        while not any(m["type"] == "stats" and m["frames"] > 25 for m in told):
            told.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
        assert (await server.http.delete(f"/v1/sessions/{caller.id}")).status_code == 204
        async for text in socket:
            told.append(json.loads(text))
    assert [m["state"] for m in told if m["type"] == "status"] in (["connecting", "live", "ended"], ["live", "ended"])
    assert told[-1]["reason"] == "ended on request"
    assert {"type": "pong", "t": 12.5} in told
    stats = [m for m in told if m["type"] == "stats"][-1]
    assert set(stats) == {
        *("type", "fps", "frames", "repeated", "spared", "dropped", "level"),
        *("hop_to_frame_ms", "buffered_ms", "delay_ms", "muted"),
    }
    assert stats["delay_ms"] >= 160 and stats["hop_to_frame_ms"] > 0 and stats["muted"] is False
    ended = (await server.http.get(f"/v1/sessions/{caller.id}")).json()
    assert (ended["state"], ended["reason"]) == ("ended", "ended on request")
    assert (await server.http.delete(f"/v1/sessions/{caller.id}")).status_code == 404


async def test_control_messages_act_and_wrong_ones_are_answered(server, picture: bytes) -> None:
    avatar_id = (await server.upload(picture)).json()["id"]
    caller = await server.call(avatar_id=avatar_id)
    other = (await server.upload(_white())).json()["id"]
    await caller.wait_for(10)

    def badge() -> float:
        return float(caller.frames[-1][1][BADGE][4:-4, 4:-4].mean())

    red = badge()
    async with websockets.connect(server.url.replace("http", "ws") + caller.reply["ws"], proxy=None) as socket:

        async def refused(message: str) -> str:
            await socket.send(message)
            while (answer := json.loads(await asyncio.wait_for(socket.recv(), 5)))["type"] != "error":
                pass
            return answer["code"]

        assert await refused("no json") == "request_invalid"
        assert await refused("[]") == "request_invalid"
        assert await refused('{"type": "dance"}') == "request_invalid"
        assert await refused('{"type": "options", "motion": 7}') == "request_invalid"
        assert await refused('{"type": "options", "motion": %s}' % ("9" * 400)) == "request_invalid"
        assert await refused('{"type": "options", "motion": NaN}') == "request_invalid"
        assert await refused('{"type": "mute", "muted": "false"}') == "request_invalid"
        assert await refused('{"type": "candidate", "candidate": {"candidate": "x"}}') == "candidate_invalid"
        assert await refused('{"type": "avatar", "avatar_id": "nosuch"}') == "avatar_not_found"
        await socket.send(json.dumps({"type": "avatar", "avatar_id": other}))
        await until(lambda: badge() > red + 100)
        await socket.send('{"type": "options", "motion": 0.5}')
        await socket.send('{"type": "mute", "muted": true}')
        while not (stats := json.loads(await asyncio.wait_for(socket.recv(), 5))).get("muted"):
            pass
    assert stats["muted"]
    count, sounds = len(caller.frames), len(caller.sound)
    await caller.wait_for(count + 25)
    assert not any(np.abs(s).max() > 200 for _, s in caller.sound[sounds + 30 :]), "muted sound does not come back"
    assert all(luma[MOUTH].mean() < 40 for _, luma in caller.frames[count + 15 :])


def _white() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (255, 255, 255)).save(out, "PNG")
    return out.getvalue()


async def test_trickled_candidates_are_enough(server, picture: bytes) -> None:
    avatar_id = (await server.upload(picture)).json()["id"]
    peer, caller = await server.offer(Microphone(beeps(5)))
    sdp = peer.localDescription.sdp
    candidates = [line[2:] for line in sdp.splitlines() if line.startswith("a=candidate:")]
    bare = "".join(l + "\r\n" for l in sdp.splitlines() if "candidate" not in l)  # noqa: E741
    order = {"avatar_id": avatar_id, "offer": {"type": "offer", "sdp": bare}}
    caller.reply = (await server.http.post("/v1/sessions", json=order)).json()
    answer = caller.reply["answer"]
    # The peer must not find the way from the answer alone, so it does not get its candidates.
    blind = "".join(l + "\r\n" for l in answer["sdp"].splitlines() if "candidate" not in l)  # noqa: E741
    await peer.setRemoteDescription(RTCSessionDescription(sdp=blind, type="answer"))
    async with websockets.connect(server.url.replace("http", "ws") + caller.reply["ws"], proxy=None) as socket:
        for candidate in candidates:
            message = {"candidate": candidate, "sdpMid": "0", "sdpMLineIndex": 0}
            await socket.send(json.dumps({"type": "candidate", "candidate": message}))
        await socket.send(json.dumps({"type": "candidate", "candidate": None}))
        await caller.wait_for(5)


async def test_a_microphone_that_stops_and_returns_stalls_nothing(server, picture: bytes) -> None:
    caller = await server.call(avatar_id=(await server.upload(picture)).json()["id"])
    await caller.wait_for(30)
    caller.microphone.paused = True
    await asyncio.sleep(1.0)
    count, sounds = len(caller.frames), len(caller.sound)
    await caller.wait_for(count + 30)
    assert np.allclose(np.diff([t for t, _ in caller.frames]), 0.04)
    assert len(caller.sound) > sounds + 40, "silence is sent on"
    assert not any(np.abs(s).max() > 200 for _, s in caller.sound[sounds + 5 :])
    caller.microphone.paused = False
    sounds = len(caller.sound)
    await until(lambda: any(np.abs(s).max() > 5_000 for _, s in caller.sound[sounds:]))


async def test_a_full_server_says_so_and_a_place_becomes_free(serve, picture: bytes) -> None:
    server = await serve(max_sessions=1)
    avatar_id = (await server.upload(picture)).json()["id"]
    first = await server.call(avatar_id=avatar_id)
    await first.wait_for(3)
    peer, second = await server.offer(first.microphone)
    order = {"avatar_id": avatar_id, "offer": {"type": "offer", "sdp": peer.localDescription.sdp}}
    full = await server.http.post("/v1/sessions", json=order)
    assert (full.status_code, full.json()["error"]["code"]) == (503, "server_full")
    assert int(full.headers["retry-after"]) >= 1
    await server.http.delete(f"/v1/sessions/{first.id}")
    assert (await server.http.post("/v1/sessions", json=order)).status_code == 201


async def test_a_server_that_has_become_slow_takes_nobody_more_and_keeps_whom_it_has(serve, picture: bytes) -> None:
    class Slow(FakeEngine):
        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            time.sleep(len(rows) * 0.03)
            return super().step(rows, state)

    server = await serve(make_engine=Slow)
    worker = server.house.worker
    worker._take_measure(
        worker.engine, Measured(row_s={1: 0.002}, row_cpu_s={1: 0.002}, drawing_s=(0.002,))
    )  # it was fast then
    assert server.house.sessions.limit > 1
    avatar_id = (await server.upload(picture)).json()["id"]
    first = await server.call(avatar_id=avatar_id)
    await until(lambda: server.house.worker.fit_now() <= 1)
    peer, second = await server.offer(first.microphone)
    order = {"avatar_id": avatar_id, "offer": {"type": "offer", "sdp": peer.localDescription.sdp}}
    full = await server.http.post("/v1/sessions", json=order)
    assert (full.status_code, full.json()["error"]["code"]) == (503, "server_full")
    assert int(full.headers["retry-after"]) >= 1 and "busier" in full.json()["error"]["message"]
    assert 'refused_total{missing="pace"} 1' in (await server.http.get("/metrics")).text
    await first.wait_for(len(first.frames) + 10)
    await server.http.delete(f"/v1/sessions/{first.id}")
    assert (await server.http.post("/v1/sessions", json=order)).status_code == 201, "an empty server takes one"


async def test_a_failed_order_takes_no_place(serve, picture: bytes) -> None:
    server = await serve(max_sessions=1)
    peer, caller = await server.offer(Microphone(beeps(2)))
    sdp = peer.localDescription.sdp
    for order, status in (
        ({"avatar_id": "nosuch", "offer": {"type": "offer", "sdp": sdp}}, 404),
        ({"avatar_id": "nosuch", "offer": {"type": "offer", "sdp": "junk"}}, 400),
        ({"avatar_id": "nosuch", "offer": {"type": "offer", "sdp": ""}}, 400),
    ):
        answer = await server.http.post("/v1/sessions", json=order)
        assert answer.status_code == status and answer.json()["error"]["message"]
    avatar_id = (await server.upload(picture)).json()["id"]
    holed = sdp.replace("a=ice-ufrag", "a=x-ufrag")
    refused = await server.http.post(
        "/v1/sessions", json={"avatar_id": avatar_id, "offer": {"type": "offer", "sdp": holed}}
    )
    assert refused.status_code == 400
    good = await server.http.post("/v1/sessions", json={"avatar_id": avatar_id, "offer": {"type": "offer", "sdp": sdp}})
    assert good.status_code == 201


@pytest.mark.parametrize("way", ["hang up", "vanish", "never connect"])
async def test_a_peer_that_goes_frees_its_place(serve, picture: bytes, way: str) -> None:
    server = await serve(timing=IMPATIENT)
    avatar_id = (await server.upload(picture)).json()["id"]
    if way == "never connect":
        peer, caller = await server.offer(Microphone(beeps(2)))
        order = {"avatar_id": avatar_id, "offer": {"type": "offer", "sdp": peer.localDescription.sdp}}
        caller.reply = (await server.http.post("/v1/sessions", json=order)).json()
    else:
        caller = await server.call(avatar_id=avatar_id)
        await caller.wait_for(3)
        await (caller.hang_up() if way == "hang up" else caller.vanish())
    await until(lambda: len(server.house.sessions) == 0, patience_s=8)
    reason = (await server.http.get(f"/v1/sessions/{caller.id}")).json()["reason"]
    assert {"hang up": "closed", "vanish": "nothing came", "never connect": "did not connect"}[way] in reason


async def test_an_engine_failure_ends_one_session_with_its_reason(serve, picture: bytes) -> None:
    class Picky(FakeEngine):
        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            if any(row.avatar.crop[0, 0, 0] == 255 for row in rows):
                raise CheckpointError("no such weights")
            return super().step(rows, state)

    server = await serve(make_engine=Picky)
    good = await server.call(avatar_id=(await server.upload(picture)).json()["id"])
    await good.wait_for(3)
    bad = await server.call(avatar_id=(await server.upload(_white())).json()["id"])
    await until(lambda: len(server.house.sessions) == 1)
    assert (await server.http.get(f"/v1/sessions/{bad.id}")).json()["reason"] == "checkpoint: no such weights"
    await good.wait_for(len(good.frames) + 10)


async def test_a_slow_engine_costs_frames_and_never_sound(serve, picture: bytes) -> None:
    class Slow(FakeEngine):
        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            time.sleep(0.1)
            return super().step(rows, state)

    server = await serve(make_engine=Slow)
    caller = await server.call(avatar_id=(await server.upload(picture)).json()["id"])
    await caller.wait_for(100)
    assert np.allclose(np.diff([t for t, _ in caller.sound]), 0.02), "no packet is missing"
    assert np.allclose(np.diff([t for t, _ in caller.frames]), 0.04)
    session = next(iter(server.house.sessions))
    assert session.shelf.repeated > 10 and session.shelf.spared > 10
    behind = session.shelf.taken - 1 - session.shelf._shown_index
    assert behind < 25, "lips lag by a step or two; drawing every frame they would be 6 s behind by now"
