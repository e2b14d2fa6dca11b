"""The network: the server's port, UDP and its ports, addresses, STUN and TURN servers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from functools import partial

from server.ice_probe import Probe, probe_all
from server.network import NetworkConfig, PortRange
from tools.checkup.finding import Finding, guarded

FEW_PORTS = 10


def check_port(host: str, port: int) -> Finding:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        detail = f"{host}:{port} cannot be listened on: {error.strerror or error}"
        return Finding("port", "warn", detail, "a server may run there already; if not, choose another --port")
    return Finding("port", "ok", f"{host}:{port} is free")


def check_udp() -> Finding:
    """A packet from this machine to itself, as WebRTC media goes in a local call."""
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(2.0)
        sender.sendto(b"visavis", receiver.getsockname())
        try:
            receiver.recvfrom(64)
        except TimeoutError:
            return Finding("udp", "fail", "a packet to 127.0.0.1 did not arrive", "allow local UDP in the firewall")
    return Finding("udp", "ok", "packets arrive on the loopback")


def check_network() -> Finding:
    """WebRTC never offers the loopback as a candidate: without another address no call connects."""
    import ifaddr

    ips = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)]
    outside = [ip for ip in ips if not ip.startswith("127.")]
    if not outside:
        return Finding("network", "fail", "this machine has no address but 127.0.0.1", "connect it to a network")
    return Finding("network", "ok", f"{len(outside)} address{'es' if len(outside) > 1 else ''} for WebRTC")


def check_udp_ports(ports: PortRange | None) -> Finding:
    """How many of the range can be bound here; a running server holds some of them."""
    if ports is None:
        detail = "media takes any free UDP port"
        return Finding("udp ports", "ok", f"{detail}; --udp-ports keeps it to a range, which a firewall can open")
    free = [port for port in range(ports.first, ports.last + 1) if _can_bind(port)]
    if not free:
        return Finding("udp ports", "fail", f"none of {ports} can be bound", "choose other --udp-ports")
    detail = f"{len(free)} of {len(ports)} ports of {ports} are free, one for each session"
    if len(free) < len(ports) // 2:
        return Finding("udp ports", "warn", detail, "a server may run already; if not, choose other --udp-ports")
    if len(ports) < FEW_PORTS:
        return Finding("udp ports", "warn", detail, "who calls again needs a second one for a moment: take more")
    return Finding("udp ports", "ok", detail)


def check_public_address(network: NetworkConfig) -> Finding:
    """Whether the world is told another address than this machine's own."""
    if network.public_address is None:
        return Finding("public", "ok", "no --public-address: fine without a NAT in front of this machine")
    ports = f"UDP {network.udp_ports}" if network.udp_ports else "all UDP ports"
    detail = f"clients are told {network.public_address}"
    return Finding("public", "ok", f"{detail}: the NAT there must forward {ports} to this machine, numbers unchanged")


def check_ice_servers(network: NetworkConfig) -> Iterator[Finding]:
    """One finding for each STUN or TURN server, which is really used."""
    if not network.ice_servers:
        yield Finding(
            "relay",
            "warn",
            "no STUN or TURN server is given: callers behind strict firewalls will not get through",
            "set up coturn (docs/networks.md), pass --ice-server and --turn-secret; a network of your own needs none",
        )
        return
    for probe in asyncio.run(probe_all(network)):
        yield _tell(probe)


def _tell(probe: Probe) -> Finding:
    name = "stun" if probe.url.startswith("stun:") else "turn"
    return Finding(name, "ok" if probe.ok else "fail", f"{probe.url}: {probe.detail}", probe.remedy)


def _can_bind(port: int) -> bool:
    with socket.socket(type=socket.SOCK_DGRAM) as trial:
        try:
            trial.bind(("", port))
        except OSError:
            return False
    return True


def check_all(host: str, port: int, network: NetworkConfig) -> Iterator[Finding]:
    """Everything here, in order."""
    yield from guarded("port", partial(check_port, host, port))
    yield from guarded("udp", check_udp)
    yield from guarded("network", check_network)
    yield from guarded("udp ports", partial(check_udp_ports, network.udp_ports))
    yield from guarded("public", partial(check_public_address, network))
    yield from check_ice_servers(network)
