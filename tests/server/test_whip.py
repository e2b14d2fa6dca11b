"""WHIP in, WHEP out, spoken by an aiortc peer over plain HTTP: media, status codes, who may cross origins."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from client.agents.avatar import an_avatar
from engine.fake import MOUTH
from server.config import ServerConfig
from server.errors import ConfigError, RequestInvalid
from server.ice_fragment import read_fragment
from tests.server.caller import Caller, Microphone, Server, beeps
from tests.server.test_session import IMPATIENT, until

SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


async def make_offer(*sections: tuple[str, str]) -> str:
    """An offer with sections (kind, direction), from a peer that is closed at once."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind, direction in sections:
        peer.addTransceiver(kind, direction)
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    await peer.close()
    return sdp


@asynccontextmanager
async def speaking(peer: RTCPeerConnection, server: Server, path: str) -> AsyncIterator[httpx.Response]:
    """Offer what ``peer`` has at ``path``, and close it afterwards."""
    await peer.setLocalDescription(await peer.createOffer())
    reply = await server.http.post(path, content=peer.localDescription.sdp, headers=SDP)
    assert reply.status_code == 201, reply.text
    await peer.setRemoteDescription(RTCSessionDescription(sdp=reply.text, type="answer"))
    try:
        yield reply
    finally:
        await peer.close()


def make_publisher(*, video: bool = False) -> RTCPeerConnection:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver(Microphone(beeps(60)), "sendonly")
    if video:
        peer.addTransceiver("video", "sendonly")
    return peer


def make_player() -> tuple[RTCPeerConnection, Caller]:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("video", "recvonly")
    peer.addTransceiver("audio", "recvonly")
    player = Caller(peer=peer, reply={}, microphone=None)  # type: ignore[arg-type]
    peer.on("track", player.listen)
    return peer, player


async def test_what_is_published_is_seen_and_heard_by_all_players_of_one_render(server, picture: bytes) -> None:
    avatar_id = (await server.upload(picture)).json()["id"]
    publisher = make_publisher(video=True)
    async with speaking(publisher, server, f"/whip/stage?avatar={avatar_id}") as published:
        assert published.headers["content-type"] == "application/sdp"
        assert published.headers["location"].startswith("/whip/stage/") and published.headers["etag"]
        assert "a=recvonly" in published.text and "a=sendrecv" not in published.text
        (first_peer, first), (second_peer, second) = make_player(), make_player()
        async with (
            speaking(first_peer, server, "/whep/stage") as watched,
            speaking(second_peer, server, "/whep/stage"),
        ):
            assert watched.text.count("a=sendonly") == 2
            await first.wait_for(50, patience_s=30)
            await second.wait_for(5)
            for player in (first, second):
                assert player.frames[0][1].shape == (256, 256)
            mouth = [float(luma[MOUTH].mean()) for _, luma in first.frames]
            assert max(mouth) - min(mouth) > 100, "the lips move with the published sound"
            assert max(float(np.abs(s).max()) for _, s in first.sound) > 5_000
            live = server.house.sessions.find("stage")
            assert live.broadcast.encodings == {("colour", "VP8"): 2, ("colour", "opus"): 2}
            assert len(server.house.sessions) == 1, "one render"
            assert (await server.http.delete(watched.headers["location"])).status_code == 200
            assert (await server.http.delete(watched.headers["location"])).status_code == 404
            assert live.broadcast.encodings == {("colour", "VP8"): 1, ("colour", "opus"): 1}
        assert (await server.http.delete(published.headers["location"])).status_code == 200
        assert live.state == "ended" and len(server.house.sessions) == 0
    assert (await server.http.get("/v1/sessions/" + live.id)).json()["reason"] == "the publisher ended it"


async def test_a_session_lives_as_long_as_its_publisher(serve) -> None:
    server = await serve(timing=IMPATIENT)
    publisher = make_publisher()
    peer, player = make_player()
    async with speaking(publisher, server, "/whip/stage"), speaking(peer, server, "/whep/stage"):
        await player.wait_for(3)
        await publisher.close()
        await until(lambda: len(server.house.sessions) == 0 and len(server.house.viewers) == 0)
        await until(lambda: not server.house.viewers._closing)


async def test_a_player_watches_a_session_in_which_a_program_speaks(server, picture: bytes) -> None:
    avatar_id = (await server.upload(picture)).json()["id"]
    peer, player = make_player()
    async with (
        an_avatar(server.url, rate_hz=48_000, avatar_id=avatar_id) as agent,
        speaking(peer, server, f"/whep/{agent.id}"),
    ):
        await player.wait_for(5)
        await agent.speech.say(beeps(3).tobytes())
        await until(lambda: max(float(luma[MOUTH].mean()) for _, luma in player.frames) > 100)
        await until(lambda: max(float(np.abs(sound).max()) for _, sound in player.sound) > 5_000)


async def test_status_codes_of_the_endpoints(server) -> None:
    http = server.http
    speak, watch = await make_offer(("audio", "sendonly")), await make_offer(("audio", "recvonly"))
    odd = "".join(f"{line}\r\n" for line in re.sub("opus|PCM.|G722", "L16", speak).splitlines())
    table = [
        ("POST", "/whep/nobody", watch, SDP, 409),  # before its publisher
        ("POST", "/whip/stage", speak, {"Content-Type": "text/plain"}, 415),
        ("POST", "/whip/stage", speak, {}, 415),
        ("POST", "/whip/stage", "hello", SDP, 400),
        ("POST", "/whip/stage", "", SDP, 400),
        ("POST", "/whip/a%20b", speak, SDP, 400),
        ("POST", "/whip/stage", watch, SDP, 422),  # recvonly
        ("POST", "/whip/stage", await make_offer(("video", "sendonly")), SDP, 422),
        ("POST", "/whip/stage", await make_offer(("audio", "sendonly"), ("audio", "sendonly")), SDP, 422),
        ("POST", "/whep/stage", speak, SDP, 422),
        ("POST", "/whip/stage", odd, SDP, 422),  # no codec that is known here
        ("POST", "/whip/stage?avatar=nosuch", speak, SDP, 404),
        ("GET", "/whip/stage", None, {}, 204),
        ("HEAD", "/whep/stage", None, {}, 204),
        ("PUT", "/whip/stage", speak, SDP, 405),
        ("PATCH", "/whip/stage", speak, SDP, 405),
        ("DELETE", "/whep/stage", None, {}, 405),
        ("PATCH", "/whip/stage/nosuch", "a=ice-ufrag:x", FRAGMENT, 404),
        ("DELETE", "/whip/stage/nosuch", None, {}, 404),
        ("DELETE", "/whep/stage/nosuch", None, {}, 404),
    ]
    for method, path, body, headers, status in table:
        reply = await http.request(method, path, content=body, headers=headers)
        assert reply.status_code == status, f"{method} {path}: {reply.status_code} {reply.text}"
        if reply.status_code >= 400 and method != "HEAD":
            assert reply.json()["error"]["message"]
    early = await http.post("/whep/nobody", content=watch, headers=SDP)
    assert int(early.headers["retry-after"]) >= 1 and early.json()["error"]["code"] == "nothing_live"
    assert len(server.house.sessions) == 0, "nothing that was refused left anything"
    options = await http.options("/whip/stage")
    assert (options.status_code, options.headers["accept-post"]) == (200, "application/sdp")
    assert "POST" in (await http.put("/whip/stage")).headers["allow"]


async def test_status_codes_of_a_session(server) -> None:
    http = server.http
    publisher = make_publisher()
    async with speaking(publisher, server, "/whip/stage") as published:
        where, tag = published.headers["location"], published.headers["etag"]
        offer = publisher.localDescription.sdp
        assert (await http.post("/whip/stage", content=offer, headers=SDP)).status_code == 409
        ufrag = next(line for line in offer.splitlines() if line.startswith("a=ice-ufrag:"))
        candidate = "a=candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host"
        good = f"{ufrag}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{candidate}\r\na=end-of-candidates\r\n"
        table = [
            (good, FRAGMENT | {"If-Match": tag}, 204),
            (good, FRAGMENT | {"If-Match": "*"}, 204),
            (good, FRAGMENT | {"ETag": tag}, 204),  # as @eyevinn/whip-web-client has it
            (good, FRAGMENT, 428),
            (good, FRAGMENT | {"If-Match": '"other"'}, 412),
            (good, SDP | {"If-Match": tag}, 415),
            ("nonsense", FRAGMENT | {"If-Match": tag}, 400),
            ("m=audio 9 x 1\r\na=mid:0\r\na=candidate:junk\r\n", FRAGMENT | {"If-Match": tag}, 400),
            (good.replace(ufrag, "a=ice-ufrag:new1\r\na=ice-pwd:" + "p" * 24), FRAGMENT | {"If-Match": "*"}, 422),
        ]
        for body, headers, status in table:
            reply = await http.patch(where, content=body, headers=headers)
            assert reply.status_code == status, f"{headers}: {reply.status_code} {reply.text}"
            assert "etag" not in reply.headers
        assert server.house.sessions.find("stage").state != "ended", "a refused restart changes nothing"
        assert (await http.post(where, content=offer, headers=SDP)).status_code == 405
        assert (await http.get(where)).status_code == 204
        assert (await http.delete(where.replace("stage", "other"))).status_code == 404
        assert (await http.delete(where, headers={"If-Match": '"any"'})).status_code == 200


async def test_candidates_that_trickle_are_enough_to_connect(server) -> None:
    """The publisher's offer and the server's answer carry no candidates that work; those of PATCH must."""
    publisher = make_publisher()
    await publisher.setLocalDescription(await publisher.createOffer())
    offer = publisher.localDescription.sdp
    blind = "".join(f"{line}\r\n" for line in offer.splitlines() if "candidate" not in line)
    reply = await server.http.post("/whip/stage", content=blind, headers=SDP)
    answer = "".join(f"{line}\r\n" for line in reply.text.splitlines() if "candidate" not in line)
    await publisher.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    fragment = "\r\n".join(line for line in offer.splitlines() if line.startswith(("m=", "a=mid", "a=cand", "a=ice-u")))
    headers = FRAGMENT | {"If-Match": reply.headers["etag"]}
    assert (await server.http.patch(reply.headers["location"], content=fragment, headers=headers)).status_code == 204
    await until(lambda: server.house.sessions.find("stage").state == "live")
    await publisher.close()


async def test_a_full_server_says_when_to_come_back(serve) -> None:
    server = await serve(max_sessions=1)
    publisher = make_publisher()
    async with speaking(publisher, server, "/whip/stage"):
        full = await server.http.post("/whip/other", content=publisher.localDescription.sdp, headers=SDP)
        assert full.status_code == 503 and int(full.headers["retry-after"]) >= 1


async def test_the_token_is_asked_for(serve) -> None:
    server = await serve(api_key="correct horse")
    offer = await make_offer(("audio", "sendonly"))
    for headers, status in (({}, 401), ({"Authorization": "Bearer wrong key"}, 401)):
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as stranger:
            reply = await stranger.post("/whip/stage", content=offer, headers=SDP | headers)
            assert reply.status_code == status and reply.headers["www-authenticate"].startswith("Bearer")
    assert (await server.http.post("/whip/stage", content=offer, headers=SDP)).status_code == 201


async def test_only_listed_origins_may_cross_and_only_here(serve) -> None:
    friend, stranger = "https://player.example", "https://evil.example"
    server = await serve(api_key="correct horse", cross_origins=(friend,))
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as browser:
        ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
        allowed = await browser.options("/whep/stage", headers=ask | {"Origin": friend})
        assert allowed.status_code == 200 and allowed.headers["access-control-allow-origin"] == friend
        assert "Authorization" in allowed.headers["access-control-allow-headers"]
        assert "PATCH" in allowed.headers["access-control-allow-methods"]
        assert (await browser.options("/whep/stage", headers=ask | {"Origin": stranger})).status_code == 403
        key = {"Authorization": "Bearer correct horse"}
        offer = await make_offer(("audio", "recvonly"))
        answer = await browser.post("/whep/stage", content=offer, headers=SDP | key | {"Origin": friend})
        assert answer.status_code == 409 and answer.headers["access-control-allow-origin"] == friend
        assert "Location" in answer.headers["access-control-expose-headers"]
        unkeyed = await browser.post("/whep/stage", content=offer, headers=SDP | {"Origin": friend})
        assert unkeyed.status_code == 401, "the key is asked of listed pages too"
        assert (await browser.get("/v1/info", headers=key | {"Origin": friend})).status_code == 403


@pytest.mark.parametrize("origin", ["*", "player.example", "https://player.example/", "ftp://x"])
def test_an_origin_must_be_one(origin: str) -> None:
    with pytest.raises(ConfigError, match="cross origin"):
        ServerConfig(cross_origins=(origin,))


def test_a_fragment_is_read_and_repeated_candidates_once() -> None:
    line = "a=candidate:1 1 udp 1 192.0.2.7 5000 typ host"
    read = read_fragment(
        f"a=ice-ufrag:abcd\r\nm=audio 9 x 0\r\na=mid:0\r\n{line}\r\nm=video 9 x 0\r\na=mid:1\r\n{line}"
    )
    assert (read.ice_ufrag, read.complete) == ("abcd", False)
    assert read.candidates == ({"candidate": line.removeprefix("a="), "sdpMid": "0"},)


@pytest.mark.parametrize("text", ["", "junk", "a=candidate:1 1 udp 1 192.0.2.7 5000 typ host", "x=1\n" * 1_001])
def test_a_fragment_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestInvalid):
        read_fragment(text)
