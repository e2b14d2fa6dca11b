"""Through a real coturn: a caller that has nothing but a relay."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from aiortc import RTCConfiguration, RTCIceServer
from aiortc.rtcconfiguration import RTCIceTransportPolicy

from server import ice_probe
from server.ice_probe import probe, probe_all
from server.ice_servers import make_credentials, parse_ice_url
from server.network import NetworkConfig
from tests.coturn import Coturn, running_coturn
from tests.server.conftest import Serve


@pytest.fixture
def coturn(tmp_path: Path) -> Iterator[Coturn]:
    with running_coturn(tmp_path) as started:
        yield started


def use(coturn: Coturn, *suffixes: str) -> NetworkConfig:
    return NetworkConfig(ice_servers=tuple(coturn.url + s for s in suffixes), turn_secret=coturn.secret)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_caller_with_nothing_but_a_relay_sees_and_hears(serve: Serve, coturn: Coturn, transport: str) -> None:
    server = await serve(network=use(coturn, f"?transport={transport}"))
    given = (await server.http.get("/v1/ice-servers")).json()["ice_servers"]
    ice = RTCConfiguration([RTCIceServer(**s) for s in given], iceTransportPolicy=RTCIceTransportPolicy.RELAY)
    caller = await server.call(ice=ice)
    offered = [line for line in caller.peer.localDescription.sdp.splitlines() if line.startswith("a=candidate:")]
    assert offered and all(" typ relay " in line for line in offered)
    await caller.wait_for(frames=30)
    assert max(np.abs(samples).max() for _, samples in caller.sound) > 1_000  # its own beeps came back
    assert (await server.http.get(f"/v1/sessions/{caller.id}")).json()["state"] == "live"
    await caller.hang_up()
    async with asyncio.timeout(10):
        while coturn.relayed_bytes() < 10_000:  # written when the allocation has ended
            await asyncio.sleep(0.1)


async def test_a_relay_that_works_is_told_with_its_round_trip(coturn: Coturn) -> None:
    found = await probe_all(use(coturn, "", "?transport=tcp"))
    assert [(p.ok, p.round_trip_ms is not None) for p in found] == [(True, True)] * 2
    assert "relays over UDP" in found[0].detail and "relays over TCP" in found[1].detail


async def test_a_wrong_secret_is_told_from_a_server_that_is_down(coturn: Coturn, monkeypatch) -> None:
    [refused] = await probe_all(NetworkConfig(ice_servers=(coturn.url,), turn_secret="not the secret"))
    assert not refused.ok and "401" in refused.detail and "static-auth-secret" in refused.remedy
    coturn.stop()
    monkeypatch.setattr(ice_probe, "ANSWER_S", 1.0)
    [down, silent] = await probe_all(use(coturn, "?transport=tcp", ""))
    assert "nothing listens" in down.detail and "coturn" in down.remedy
    assert "no answer" in silent.detail and "firewall" in silent.remedy


async def test_expired_credentials_are_refused(coturn: Coturn) -> None:
    expired = make_credentials(coturn.secret, expires_at=int(time.time()) - 60, name="late")
    refused = await probe(parse_ice_url(coturn.url), expired)
    assert not refused.ok and "401" in refused.detail and "clocks" in refused.remedy


async def test_a_name_nobody_has_is_told() -> None:
    [lost] = await probe_all(NetworkConfig(ice_servers=("stun:nosuch.invalid",)))
    assert not lost.ok and "no machine is called 'nosuch.invalid'" in lost.detail and "--ice-server" in lost.remedy


async def test_a_relay_over_tls_wants_a_certificate_that_is_trusted(tmp_path: Path, monkeypatch) -> None:
    with running_coturn(tmp_path, tls=True) as coturn:
        network = NetworkConfig(ice_servers=(f"turns:{coturn.host}:{coturn.port}",), turn_secret=coturn.secret)
        [strange] = await probe_all(network)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        [trusted] = await probe_all(network)
    assert not strange.ok and "not to be trusted" in strange.detail and "certificate" in strange.remedy
    assert trusted.ok and "relays over TLS" in trusted.detail
