"""What the OBS page lives on: its address, names of sessions, cutouts and the turned head."""

from __future__ import annotations

import asyncio
import json

import av
import httpx
import numpy as np
import pytest
import websockets
from aiortc.mediastreams import MediaStreamTrack

from engine.fake import MOUTH
from server.broadcast import CUTOUT
from server.errors import SessionNotFound
from tests.server.caller import Caller, Microphone, Server, beeps

KEY = "a key nobody guesses"


async def picture_of(track: MediaStreamTrack, decoder: av.VideoCodecContext) -> np.ndarray:
    """The next picture, uint8 [H, W, 3]."""
    async with asyncio.timeout(10):
        while True:
            packet = await track.recv()
            assert isinstance(packet, av.Packet)
            for frame in decoder.decode(packet):
                return frame.to_ndarray(format="rgb24")


def place_of(matte: np.ndarray) -> tuple[float, float]:
    """Column and row of a matte's middle."""
    weights = matte[..., 1].astype(float)
    weights[230:, 170:] = 0  # the mark's corner
    return tuple(float(np.average(np.arange(256), weights=weights.sum(axis))) for axis in (0, 1))  # type: ignore


async def open_named(server: Server, name: str | None) -> tuple[httpx.Response, Caller]:
    peer, caller = await server.offer(Microphone(beeps(5)))
    order = {"offer": {"type": "offer", "sdp": peer.localDescription.sdp}, "name": name}
    return await server.http.post("/v1/sessions", json=order), caller


async def test_colour_and_matte_lie_side_by_side_with_the_mark_on_both(server) -> None:
    caller = await server.call()
    await caller.wait_for(3)
    live = server.house.sessions.get(caller.id)
    track, decoder = live.broadcast.video(CUTOUT), av.CodecContext.create("vp8", "r")
    for _ in range(40):
        picture = await picture_of(track, decoder)
    assert picture.shape == (256, 528, 3)
    colour, matte = picture[:, :256], picture[:, -256:]
    assert matte[128, 128].min() > 245 and matte[5, 5].max() < 10, "a disc"
    assert matte[238:248, 200:240].mean() > 120, "the mark is opaque enough, outside of the disc"
    assert colour[238:248, 190:245].max() > 200, "and its letters are light"
    track.stop()


async def test_cutouts_are_drawn_only_while_somebody_looks(server) -> None:
    caller = await server.call()
    await caller.wait_for(3)
    live = server.house.sessions.get(caller.id)
    stream = live._stream
    assert not stream.wants_cutout
    first, second = live.broadcast.video(CUTOUT), live.broadcast.video(CUTOUT)
    decoder = av.CodecContext.create("vp8", "r")
    await picture_of(first, decoder)
    await second.recv()
    assert stream.wants_cutout and live.broadcast.encodings == {("cutout", "VP8"): 2}
    first.stop()
    assert stream.wants_cutout
    second.stop()
    assert not stream.wants_cutout
    again = live.broadcast.video(CUTOUT)
    await again.recv()
    assert stream.wants_cutout
    again.stop()


async def test_the_lips_of_a_cutout_move_with_those_of_the_picture(server) -> None:
    caller = await server.call()
    await caller.wait_for(3)
    track, decoder = server.house.sessions.get(caller.id).broadcast.video(CUTOUT), av.CodecContext.create("vp8", "r")
    mouth = [float((await picture_of(track, decoder))[:, :256][MOUTH].mean()) for _ in range(50)]
    assert max(mouth) - min(mouth) > 80, "beeps are seen"
    track.stop()


async def test_pose_messages_turn_the_head_and_wrong_ones_are_answered(server) -> None:
    caller = await server.call()
    await caller.wait_for(3)
    track, decoder = server.house.sessions.get(caller.id).broadcast.video(CUTOUT), av.CodecContext.create("vp8", "r")
    for _ in range(20):
        picture = await picture_of(track, decoder)
    before = place_of(picture[:, -256:])
    async with websockets.connect(server.url.replace("http", "ws") + caller.reply["ws"], proxy=None) as socket:
        for wrong in ({"yaw": "left"}, {"yaw": float("nan")}, {"pitch": 900}, {"roll": True}):
            await socket.send(json.dumps({"type": "pose", **wrong}))
            while (answer := json.loads(await asyncio.wait_for(socket.recv(), 5)))["type"] != "error":
                pass
            assert answer["code"] == "request_invalid"
        await socket.send('{"type": "pose", "yaw": 90, "pitch": 5}')
        for _ in range(50):
            picture = await picture_of(track, decoder)
    after = place_of(picture[:, -256:])
    assert 12 < after[0] - before[0] < 22, "as far as looks right, and no further: 14 degrees of 1.28 px"
    assert -9 < after[1] - before[1] < -4, "up"
    track.stop()


async def test_a_session_is_found_by_its_name_until_it_ends(server) -> None:
    answer, _ = await open_named(server, "stage-1")
    assert answer.status_code == 201
    session_id = answer.json()["id"]
    assert server.house.sessions.find("stage-1").id == session_id
    taken, _ = await open_named(server, "stage-1")
    assert (taken.status_code, taken.json()["error"]["code"]) == (409, "name_taken")
    await server.http.delete(f"/v1/sessions/{session_id}")
    with pytest.raises(SessionNotFound):
        server.house.sessions.find("stage-1")
    assert (await open_named(server, "stage-1"))[0].status_code == 201


async def test_a_name_is_free_again_where_no_session_was_made(serve) -> None:
    server = await serve(max_sessions=1)
    await open_named(server, None)
    assert (await open_named(server, "stage"))[0].status_code == 503
    for session in list(server.house.sessions):
        session.end("room for the next")
    assert (await open_named(server, "stage"))[0].status_code == 201


async def test_names_are_letters_digits_and_dashes(server) -> None:
    for name in ("", "a b", "../x", "x" * 65, "né"):
        answer, _ = await open_named(server, name)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request_invalid"), name


async def test_the_page_is_there_before_its_session_and_loads_nothing_from_elsewhere(server) -> None:
    page = await server.http.get("/obs/anybody")
    assert page.status_code == 200 and "<canvas" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


async def test_obs_gives_the_key_in_the_address_and_keeps_its_wishes(serve) -> None:
    locked = await serve(api_key=KEY)
    async with httpx.AsyncClient(base_url=locked.url, trust_env=False) as obs:
        assert (await obs.get("/obs/stage")).status_code == 401
        welcome = await obs.get("/obs/stage", params={"caption": "J Ö|x", "key": KEY, "bg": "%23fff"})
        assert welcome.status_code == 303
        assert httpx.URL(welcome.headers["location"]).path == "/obs/stage"
        assert dict(httpx.URL(welcome.headers["location"]).params) == {"caption": "J Ö|x", "bg": "%23fff"}
        assert (await obs.get(welcome.headers["location"])).status_code == 200
        assert (await obs.get("/obs/stage", params={"monkey": "1"})).status_code == 200
