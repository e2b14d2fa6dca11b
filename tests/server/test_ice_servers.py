import base64
import hashlib
import hmac

import pytest

from server.errors import ConfigError
from server.ice_servers import IceUrl, make_credentials, parse_ice_url
from server.network import NetworkConfig

SECRET = "a shared secret"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("stun:example.org", IceUrl(scheme="stun", host="example.org", port=3478, transport="udp")),
        ("stun:192.0.2.1:19302", IceUrl(scheme="stun", host="192.0.2.1", port=19302, transport="udp")),
        ("turn:example.org", IceUrl(scheme="turn", host="example.org", port=3478, transport="udp")),
        ("turn:example.org:80?transport=tcp", IceUrl(scheme="turn", host="example.org", port=80, transport="tcp")),
        ("turns:example.org", IceUrl(scheme="turns", host="example.org", port=5349, transport="tcp")),
        ("turns:example.org:443?transport=tcp", IceUrl(scheme="turns", host="example.org", port=443, transport="tcp")),
    ],
)
def test_addresses_are_read_as_the_rfcs_write_them(text: str, url: IceUrl) -> None:
    assert parse_ice_url(text) == url
    assert parse_ice_url(str(url)) == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot be read"),
        ("example.org", "cannot be read"),
        ("http:example.org", "'http'"),
        ("turn://example.org", "cannot be read"),
        ("turn:user@example.org", "cannot be read"),
        ("turn:[::1]:3478", "IPv6"),
        ("stuns:example.org", "use stun:"),
        ("stun:example.org?transport=udp", "leave out"),
        ("turn:example.org?transport=tls", "'tls'"),
        ("turns:example.org?transport=udp", "TCP"),
        ("turn:example.org:70000", "70000"),
        ("turn:example.org:0", "port 0"),
    ],
)
def test_what_no_browser_could_use_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        NetworkConfig(ice_servers=(text,), turn_secret=SECRET)


def test_credentials_follow_the_shared_secret_convention() -> None:
    made = make_credentials(SECRET, expires_at=1_800_000_000, name="anna")
    assert made.username == "1800000000:anna"
    expected = hmac.new(SECRET.encode(), b"1800000000:anna", hashlib.sha1).digest()
    assert base64.b64decode(made.password) == expected


def test_each_client_gets_credentials_of_its_own() -> None:
    network = NetworkConfig(ice_servers=("stun:a.example", "turn:b.example", "turns:b.example"), turn_secret=SECRET)
    first, second = network.hand_out(), network.hand_out()
    stun, turn = first["ice_servers"]
    assert stun == {"urls": ["stun:a.example:3478"]}
    assert turn["urls"] == ["turn:b.example:3478?transport=udp", "turns:b.example:5349?transport=tcp"]
    assert turn["username"].startswith(f"{first['expires_at']}:")
    assert turn["username"] != second["ice_servers"][1]["username"]


def test_without_servers_nothing_is_handed_out() -> None:
    assert NetworkConfig().hand_out() == {"ice_servers": [], "expires_at": None}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"ice_servers": ("turn:a.example",)}, "VISAVIS_TURN_SECRET"),
        ({"ice_servers": ("stun:a.example",), "turn_secret": SECRET}, "no TURN server"),
        ({"ice_servers": ("turn:a.example",), "turn_secret": "short"}, "shorter than"),
        ({"ice_servers": ("turn:a.example",), "turn_secret": SECRET, "turn_lifetime_s": 5}, "at least 60"),
        ({"public_address": "example.org"}, "no IP address"),
        ({"public_address": "127.0.0.1"}, "cannot be reached"),
    ],
)
def test_combinations_that_cannot_work_are_refused(fields: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        NetworkConfig(**fields)


def test_the_secret_is_not_printed() -> None:
    assert SECRET not in repr(NetworkConfig(ice_servers=("turn:a.example",), turn_secret=SECRET))
