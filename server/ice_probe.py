"""Do the configured STUN and TURN servers work from here? Asked for real, answered in words.

A STUN server is asked for our address. At a TURN server a relay is allocated, and then a packet goes there and back
between two ends of ours, of which one has nothing but that relay: the way of a caller behind a strict firewall.
``serve`` asks at its start, ``GET /v1/network`` for the page /check, ``visavis doctor`` for the shell.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any

import aioice
from aioice import stun, turn

from server.ice_servers import Credentials, IceUrl
from server.network import NetworkConfig

ANSWER_S = 4.0  # patience with one server
RELAYED_S = 6.0  # patience with two ends that look for each other through it
RESEND_S = 0.5  # a lost request is sent again; RFC 8489, section 6.2.1
PINGS = 3

_SECRET = (
    "see that --turn-secret is the TURN server's static-auth-secret, that use-auth-secret is on there, "
    "and that both clocks are right"
)
_REFUSALS = {  # STUN error codes (RFC 8656, section 19)
    401: ("it refuses our credentials", _SECRET),
    403: ("it forbids us a relay", "allow this machine's address in the TURN server's configuration"),
    486: ("too many relays are open for one user", "raise user-quota in the TURN server's configuration"),
    508: ("it has no relay port left", "widen min-port and max-port in the TURN server's configuration"),
}


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What came of asking one server."""

    url: str
    ok: bool
    detail: str
    remedy: str = ""  # what to do; empty where all is well
    round_trip_ms: float | None = None

    def to_json(self) -> dict[str, Any]:
        ms = None if self.round_trip_ms is None else round(self.round_trip_ms, 1)
        status = "ok" if self.ok else "fail"
        return {"url": self.url, "status": status, "detail": self.detail, "remedy": self.remedy, "round_trip_ms": ms}


async def probe_all(network: NetworkConfig) -> list[Probe]:
    """Ask every configured server, all at the same time; in their order. Takes up to 10 s."""
    credentials, _ = network.credentials()
    return list(await asyncio.gather(*(probe(url, credentials) for url in network.urls)))


async def probe(url: IceUrl, credentials: Credentials | None) -> Probe:
    """Ask one server; whatever it does is an answer."""
    try:
        if not url.relays:
            return await _probe_stun(url)
        assert credentials is not None
        return await _probe_turn(url, credentials)
    except Exception as error:  # a stranger's server may do anything
        detail, remedy = _explain(error, url)
        return Probe(url=str(url), ok=False, detail=detail, remedy=remedy)


async def _probe_stun(url: IceUrl) -> Probe:
    began_s = time.monotonic()
    async with asyncio.timeout(ANSWER_S):
        address = await _ask_address(url)
    took_ms = (time.monotonic() - began_s) * 1000
    return Probe(url=str(url), ok=True, detail=f"it sees us as {address}", round_trip_ms=took_ms)


class _Answers(asyncio.DatagramProtocol):
    """The first answer to one request, or the network's refusal."""

    def __init__(self, request: stun.Message) -> None:
        self._id = request.transaction_id
        self.answer: asyncio.Future[stun.Message] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            message = stun.parse_message(data)
        except ValueError:
            return
        if message.transaction_id == self._id and not self.answer.done():
            self.answer.set_result(message)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_address(url: IceUrl) -> str:
    """Our address as a STUN server sees it (RFC 8489, binding request)."""
    request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
    loop = asyncio.get_running_loop()
    transport, answers = await loop.create_datagram_endpoint(
        lambda: _Answers(request),
        remote_addr=(url.host, url.port),
        family=socket.AF_INET,  # as aioice does
    )
    try:
        while True:
            transport.sendto(bytes(request))
            done, _ = await asyncio.wait([answers.answer], timeout=RESEND_S)
            if done:
                return answers.answer.result().attributes["XOR-MAPPED-ADDRESS"][0]
    finally:
        answers.answer.cancel()
        transport.close()


async def _probe_turn(url: IceUrl, credentials: Credentials) -> Probe:
    async with asyncio.timeout(ANSWER_S):
        transport, _ = await turn.create_turn_endpoint(
            asyncio.DatagramProtocol,
            server_addr=(url.host, url.port),
            username=credentials.username,
            password=credentials.password,
            ssl=url.scheme == "turns",
            transport=url.transport,
        )
    relay = transport.get_extra_info("sockname")
    transport.close()
    try:
        round_trip_ms = await _cross_relay(url, credentials)
    except (ConnectionError, TimeoutError):
        return Probe(
            url=str(url),
            ok=False,
            detail=f"it gives a relay over {url.by} at {relay[0]}, but nothing comes through it",
            remedy=f"open the TURN server's relay ports (min-port to max-port, UDP) at {relay[0]} in its firewall; "
            "behind a NAT set its external-ip; see that denied-peer-ip does not name this machine",
        )
    took = f"in {round_trip_ms:.0f} ms" if round_trip_ms >= 1 else "in less than 1 ms"
    detail = f"it relays over {url.by}, there and back {took}"
    return Probe(url=str(url), ok=True, detail=detail, round_trip_ms=round_trip_ms)


async def _cross_relay(url: IceUrl, credentials: Credentials) -> float:
    """Milliseconds there and back between an end that has only the relay and one like a session's.

    Raises:
        ConnectionError, TimeoutError: they do not find each other.
    """
    server: dict[str, Any] = {
        "turn_server": (url.host, url.port),
        "turn_username": credentials.username,
        "turn_password": credentials.password,
        "turn_ssl": url.scheme == "turns",
        "turn_transport": url.transport,
    }
    caller = aioice.Connection(ice_controlling=True, transport_policy=aioice.TransportPolicy.RELAY, **server)
    ours = aioice.Connection(ice_controlling=False, **server)
    try:
        async with asyncio.timeout(RELAYED_S):
            await _introduce(caller, ours)
            await asyncio.gather(caller.connect(), ours.connect())
            return min([await _ping(caller, ours) for _ in range(PINGS)])
    finally:
        await asyncio.gather(caller.close(), ours.close(), return_exceptions=True)


async def _introduce(one: aioice.Connection, other: aioice.Connection) -> None:
    await asyncio.gather(one.gather_candidates(), other.gather_candidates())
    for near, far in ((one, other), (other, one)):
        near.remote_username, near.remote_password = far.local_username, far.local_password
        for candidate in far.local_candidates:
            await near.add_remote_candidate(candidate)
        await near.add_remote_candidate(None)


async def _ping(caller: aioice.Connection, ours: aioice.Connection) -> float:
    began_s = time.monotonic()
    await caller.send(b"there")
    await ours.recv()
    await ours.send(b"back")
    await caller.recv()
    return (time.monotonic() - began_s) * 1000


def _explain(error: Exception, url: IceUrl) -> tuple[str, str]:
    """What went wrong, and what to do about it."""
    place = f"{url.host}:{url.port}"
    kind = "TURN" if url.relays else "STUN"
    if isinstance(error, socket.gaierror):
        return f"no machine is called {url.host!r} ({error.strerror})", "correct --ice-server, or mend the DNS"
    if isinstance(error, ConnectionRefusedError):
        return (
            f"nothing listens at {place} over {url.by}",
            f"start the {kind} server (systemctl start coturn), or correct the port in --ice-server",
        )
    if isinstance(error, TimeoutError | stun.TransactionTimeout):
        return (
            f"no answer from {place} over {url.by} within {ANSWER_S:g} s",
            f"see that the {kind} server runs, and that all firewalls between let {url.by} to port {url.port} through",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"the certificate at {place} is not to be trusted: {error.verify_message}",
            f"give the TURN server a certificate for {url.host} of an authority that browsers know (cert and pkey)",
        )
    if isinstance(error, ssl.SSLError):
        return f"{place} does not speak TLS ({error.reason})", "set cert and pkey there, or use turn: instead"
    if isinstance(error, stun.TransactionFailed):
        code, reason = error.response.attributes.get("ERROR-CODE", (0, "no reason given"))
        said, remedy = _REFUSALS.get(code, ("it refuses", "look into the TURN server's log"))
        return f"{said} ({code} {reason})", remedy
    return f"{place}: {type(error).__name__}: {error}", f"see that a {kind} server runs there, and look into its log"
