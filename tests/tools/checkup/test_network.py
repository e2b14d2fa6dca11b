import socket

from server.network import NetworkConfig, PortRange
from tests.coturn import running_coturn
from tools.checkup import network


def test_a_taken_port_is_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        taken = network.check_port("127.0.0.1", port)
    assert taken.status == "warn" and str(port) in taken.detail and "--port" in taken.remedy
    assert network.check_port("127.0.0.1", 0).status == "ok"


def test_udp_reaches_this_machine():
    assert network.check_udp().status == "ok"


def test_a_range_of_ports_is_tried():
    with socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]
        finding = network.check_udp_ports(PortRange(first=port, last=port))
    assert finding.status == "fail" and str(port) in finding.detail and "--udp-ports" in finding.remedy
    assert network.check_udp_ports(None).status == "ok"
    assert network.check_udp_ports(PortRange(first=port, last=port)).status == "warn"  # one is few


def test_a_public_address_says_what_must_be_forwarded():
    finding = network.check_public_address(
        NetworkConfig(public_address="203.0.113.7", udp_ports=PortRange(first=40_000, last=40_100))
    )
    assert "203.0.113.7" in finding.detail and "UDP 40000-40100" in finding.detail


def test_without_a_relay_there_is_a_warning():
    [finding] = network.check_ice_servers(NetworkConfig())
    assert finding.status == "warn" and "firewalls" in finding.detail and "coturn" in finding.remedy


def test_a_relay_is_really_used_and_missed_when_it_is_down(tmp_path):
    with running_coturn(tmp_path) as coturn:
        stun = coturn.url.replace("turn:", "stun:")
        config = NetworkConfig(ice_servers=(stun, f"{coturn.url}?transport=tcp"), turn_secret=coturn.secret)
        works = list(network.check_ice_servers(config))
        coturn.stop()
        fails = list(network.check_ice_servers(config))
    assert [(f.name, f.status) for f in works] == [("stun", "ok"), ("turn", "ok")]
    assert "there and back" in works[1].detail
    assert [(f.name, f.status) for f in fails] == [("stun", "fail"), ("turn", "fail")]
    assert all("nothing listens" in f.detail and "coturn" in f.remedy for f in fails)
