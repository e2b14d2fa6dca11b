"""How our own side gathers its candidates: STUN and TURN servers, UDP ports from a range, a public address.

aioice binds each of this machine's addresses to any free port and has no option for it. What it does offer is one
method that gathers a component's candidates; it is wrapped here, one connection at a time. While it runs, the event
loop's ``create_datagram_endpoint`` takes the port from the range where "any" was asked for. Nothing else on the loop
sees that: the range travels in a context variable. ``tests/server/test_ice_gathering.py`` would notice an aioice
that gathers in another way.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import ipaddress
import random
import socket
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import aioice
from aioice.candidate import candidate_foundation, candidate_priority
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection

from server.errors import ServerFull
from server.network import NetworkConfig, PortRange

GATHER_S = 3.0  # for STUN and TURN servers to answer; one that is down holds every answer up for so long
_ports: ContextVar[PortRange | None] = ContextVar("ports", default=None)
_WRAPPED = "_visavis_port_range"

Gather = Callable[..., Coroutine[Any, Any, list[aioice.Candidate]]]


def make_connection(network: NetworkConfig) -> RTCPeerConnection:
    """A peer connection that uses the configured servers; ``shape_candidates`` sees to the rest."""
    # An empty list, not None: None would mean a public STUN server.
    servers = [
        RTCIceServer(urls=s["urls"], username=s.get("username"), credential=s.get("credential"))
        for s in network.hand_out()["ice_servers"]
    ]
    return RTCPeerConnection(RTCConfiguration(iceServers=servers))


def shape_candidates(connection: RTCPeerConnection, network: NetworkConfig) -> None:
    """Let a connection gather as the network is configured.

    To be called once its transceivers and channels are there, before its local description is set.
    """
    transports = {t.receiver.transport for t in connection.getTransceivers()}
    if connection.sctp is not None:
        transports.add(connection.sctp.transport)
    for transport in transports:
        ice: aioice.Connection = transport.transport.iceGatherer._connection
        wrapped = functools.partial(_gather, ice.get_component_candidates, network)
        ice.get_component_candidates = wrapped  # type: ignore[method-assign]


async def _gather(
    gather: Gather, network: NetworkConfig, component: int, addresses: list[str], timeout: float | None = None
) -> list[aioice.Candidate]:
    _wrap(asyncio.get_running_loop())
    token = _ports.set(network.udp_ports)
    try:
        candidates = await gather(component, addresses, timeout or GATHER_S)
    finally:
        _ports.reset(token)
    hosts = [c for c in candidates if c.type == "host"]
    if network.udp_ports is not None and addresses and not hosts:
        raise ServerFull(
            f"all UDP ports {network.udp_ports} of this server are in use: try again later, or let it have more "
            "with --udp-ports",
            retry_after_s=5,
        )
    return [*candidates, *_in_public(hosts, network.public_address)]


def _wrap(loop: asyncio.AbstractEventLoop) -> None:
    """Let the loop bind within the range, where there is one; once per loop."""
    if hasattr(loop, _WRAPPED):
        return
    bind = loop.create_datagram_endpoint

    async def bind_within(protocol_factory: Any, local_addr: Any = None, **more: Any) -> Any:
        ports = _ports.get()
        if ports is None or local_addr is None or local_addr[1] != 0:
            return await bind(protocol_factory, local_addr, **more)
        # At random, so that packets of a call that has just ended do not reach the next one.
        for port in random.sample(range(ports.first, ports.last + 1), len(ports)):
            try:
                return await bind(protocol_factory, (local_addr[0], port), **more)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, f"no UDP port of {ports} is free on {local_addr[0]}")

    setattr(loop, _WRAPPED, True)
    loop.create_datagram_endpoint = bind_within  # type: ignore[method-assign, assignment]


def _in_public(hosts: list[aioice.Candidate], public: str | None) -> list[aioice.Candidate]:
    """The same ports at the public address, as server-reflexive candidates (RFC 8839, section 5.1)."""
    if public is None or any(host.host == public for host in hosts):
        return []
    version = ipaddress.ip_address(public).version
    kin = [h for h in hosts if ipaddress.ip_address(h.host).version == version]
    outward = _source_towards(public)
    # Behind one NAT only the address that leads outside is forwarded; where that is unknown, try all.
    bases = [h for h in kin if h.host == outward] or kin
    return [
        aioice.Candidate(
            foundation=candidate_foundation("srflx", "udp", base.host),
            component=base.component,
            transport="udp",
            priority=candidate_priority(base.component, "srflx"),
            host=public,
            port=base.port,
            type="srflx",
            related_address=base.host,
            related_port=base.port,
        )
        for base in bases
    ]


def _source_towards(address: str) -> str | None:
    """Which of this machine's addresses leads there; sends nothing."""
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return probe.getsockname()[0]
    except OSError:
        return None
