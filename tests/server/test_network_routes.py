import asyncio

import httpx
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

from server import check_peers, ice_gathering
from server.network import NetworkConfig
from tests.server.caller import Server
from tests.server.conftest import Serve

SECRET = "a shared secret"
NOWHERE = NetworkConfig(ice_servers=("stun:127.0.0.1:9", "turn:127.0.0.1:9?transport=tcp"), turn_secret=SECRET)


async def offer_channel() -> tuple[RTCPeerConnection, dict, asyncio.Queue]:
    """A peer, its offer of a data channel, and what comes back on that; it says "there" once it is open."""
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    channel = peer.createDataChannel("echo")
    heard: asyncio.Queue = asyncio.Queue()
    channel.on("open", lambda: channel.send("there"))
    channel.on("message", heard.put_nowait)
    channel.on("close", lambda: heard.put_nowait(None))
    await peer.setLocalDescription(await peer.createOffer())
    return peer, {"offer": {"type": "offer", "sdp": peer.localDescription.sdp}}, heard


async def test_a_channel_comes_back(server: Server) -> None:
    peer, body, heard = await offer_channel()
    reply = await server.http.post("/v1/check", json=body)
    assert reply.status_code == 201
    await peer.setRemoteDescription(RTCSessionDescription(**reply.json()["answer"]))
    assert await asyncio.wait_for(heard.get(), 10) == "there"
    await peer.close()


async def test_only_a_channel_is_answered(server: Server) -> None:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    peer.addTransceiver("audio")
    await peer.setLocalDescription(await peer.createOffer())
    for sdp, said in ((peer.localDescription.sdp, "one data channel"), ("nonsense", "offer"), ("x" * 70_000, "70000")):
        reply = await server.http.post("/v1/check", json={"offer": {"type": "offer", "sdp": sdp}})
        assert reply.status_code == 400 and said in reply.json()["error"]["message"]
    await peer.close()
    assert not server.house.check_peers._lives


async def test_few_check_at_a_time_and_each_ends_by_itself(server: Server, monkeypatch) -> None:
    monkeypatch.setattr(check_peers, "LIFE_S", 1.0)
    peers = []
    for status in (*[201] * check_peers.MOST, 503):
        peer, body, _ = await offer_channel()
        peers.append(peer)
        reply = await server.http.post("/v1/check", json=body)
        assert reply.status_code == status
    assert int(reply.headers["retry-after"]) >= 1
    await asyncio.gather(*(peer.close() for peer in peers))
    async with asyncio.timeout(10):
        while server.house.check_peers._lives:
            await asyncio.sleep(0.05)


async def test_ice_servers_are_for_those_with_the_key(serve: Serve) -> None:
    server = await serve(api_key="long enough", network=NOWHERE)
    first, second = [(await server.http.get("/v1/ice-servers")).json() for _ in range(2)]
    assert first["ice_servers"][1]["username"] != second["ice_servers"][1]["username"]
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as stranger:
        for path in ("/v1/ice-servers", "/v1/network", "/v1/info"):
            assert (await stranger.get(path)).status_code == 401
    assert SECRET not in (await server.http.get("/v1/info")).text


async def test_servers_that_are_down_are_told_in_words(serve: Serve, caplog) -> None:
    server = await serve(network=NOWHERE)
    told = (await server.http.get("/v1/network")).json()["ice_servers"]
    assert [t["status"] for t in told] == ["fail", "fail"]
    assert "nothing listens at 127.0.0.1:9 over UDP" in told[0]["detail"]
    assert "nothing listens at 127.0.0.1:9 over TCP" in told[1]["detail"] and "coturn" in told[1]["remedy"]
    assert "turn:127.0.0.1:9?transport=tcp does not work" in caplog.text  # said at the start, unasked


async def test_a_call_is_made_although_the_servers_are_down(serve: Serve, monkeypatch) -> None:
    monkeypatch.setattr(ice_gathering, "GATHER_S", 0.5)
    server = await serve(network=NOWHERE)
    caller = await server.call()
    await caller.wait_for(frames=3)
    await server.http.delete(f"/v1/sessions/{caller.id}")


async def test_the_page_asks_for_the_key_it_lacks(serve: Serve) -> None:
    server = await serve(api_key="long enough")
    assert "Can you call from here?" in (await server.http.get("/check")).text
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as stranger:
        asked = await stranger.get("/check")
        assert asked.status_code == 401 and "This server needs a key" in asked.text
        let_in = await stranger.get("/check?key=long enough")
        assert let_in.status_code == 303 and let_in.headers["location"] == "/check"


async def test_publishers_get_relays_with_credentials(serve: Serve) -> None:
    """RFC 9725, section 4.6."""
    server = await serve(api_key="long enough", network=NOWHERE)
    links = (await server.http.options("/whip/anna")).headers.get_list("link")
    assert links[0] == '<stun:127.0.0.1:9>; rel="ice-server"'
    assert links[1].startswith('<turn:127.0.0.1:9?transport=tcp>; rel="ice-server"; username="')
    assert 'credential-type="password"' in links[1]
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as stranger:
        refused = await stranger.options("/whip/anna")
    assert refused.status_code == 401 and "link" not in refused.headers
