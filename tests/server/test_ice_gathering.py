"""These notice an aiortc or aioice that gathers in another way than ``server/ice_gathering.py`` expects."""

import asyncio
import socket

import pytest
from aiortc.sdp import SessionDescription

from server.errors import ConfigError, ServerFull
from server.ice_gathering import make_connection, shape_candidates
from server.network import NetworkConfig, PortRange, parse_port_range
from tests.server.conftest import Serve

PUBLIC = "203.0.113.7"  # of a block for documentation (RFC 5737)


def free_range(size: int) -> PortRange:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        first = min(max(1024, probe.getsockname()[1]), 65_535 - size)
    return PortRange(first=first, last=first + size - 1)


async def gather(network: NetworkConfig) -> list:
    """The candidates of a connection with sound, picture and a channel, which all gather."""
    connection = make_connection(network)
    connection.addTransceiver("audio")
    connection.addTransceiver("video")
    connection.createDataChannel("echo")
    shape_candidates(connection, network)
    try:
        await connection.setLocalDescription(await connection.createOffer())
        sections = SessionDescription.parse(connection.localDescription.sdp).media
        assert len(sections) == 3
        return [c for section in sections for c in section.ice_candidates]
    finally:
        await connection.close()


async def test_every_host_candidate_lies_in_the_range() -> None:
    ports = free_range(20)
    candidates = await gather(NetworkConfig(udp_ports=ports))
    assert candidates and all(c.type == "host" and c.port in ports for c in candidates)


async def test_other_sockets_of_the_loop_are_not_moved() -> None:
    ports = free_range(20)
    await gather(NetworkConfig(udp_ports=ports))
    made = asyncio.get_running_loop().create_datagram_endpoint(asyncio.DatagramProtocol, ("127.0.0.1", 0))
    transport, _ = await made
    assert transport.get_extra_info("sockname")[1] not in ports
    transport.close()


async def test_a_range_that_is_full_says_so() -> None:
    with pytest.raises(ServerFull, match="--udp-ports"):
        await gather(NetworkConfig(udp_ports=free_range(1)))  # three sections want three


async def test_the_public_address_stands_beside_the_private_one() -> None:
    candidates = await gather(NetworkConfig(public_address=PUBLIC))
    hosts = {(c.ip, c.port) for c in candidates if c.type == "host"}
    public = [c for c in candidates if c.type == "srflx"]
    assert len(public) >= 3 and {c.ip for c in public} == {PUBLIC}
    assert all((c.relatedAddress, c.port) in hosts and c.relatedPort == c.port for c in public)


async def test_a_server_with_one_port_takes_one_call_and_refuses_the_next_in_words(serve: Serve) -> None:
    server = await serve(network=NetworkConfig(udp_ports=free_range(1)), max_sessions=4)
    caller = await server.call()
    await caller.wait_for(frames=3)
    peer, second = await server.offer(caller.microphone)
    order = {"offer": {"type": "offer", "sdp": peer.localDescription.sdp}}
    refused = await server.http.post("/v1/sessions", json=order)
    assert refused.status_code == 503 and "UDP ports" in refused.json()["error"]["message"]
    await server.http.delete(f"/v1/sessions/{caller.id}")


@pytest.mark.parametrize("text", ["", "a-b", "40000-", "40100-40000", "80-90", "40000-70000", "-1"])
def test_ranges_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="40000-40100"):
        parse_port_range(text)


def test_a_range_is_read() -> None:
    assert parse_port_range("40000-40100") == PortRange(first=40_000, last=40_100)
    assert len(parse_port_range(" 40000 ")) == 1
