"""STUN and TURN servers: their addresses checked, and given out with credentials that expire.

The credentials follow the shared-secret convention that coturn calls ``use-auth-secret``
(draft-uberti-behave-turn-rest-00, section 2.2): the user name is the time of expiry and a name, the password its
HMAC-SHA1 under a secret that only we and the TURN server know. So nobody keeps a list of users, and what leaks
is worthless after a day.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import Any, Literal

from server.errors import ConfigError

DEFAULT_PORT = {"stun": 3478, "turn": 3478, "turns": 5349}  # RFC 7064 and 7065
_URL = re.compile(r"(?P<scheme>[a-z]+):(?P<host>[^:?/@\[\]\s]+)(:(?P<port>\d{1,5}))?(\?transport=(?P<transport>\w+))?")
_EXAMPLES = "stun:HOST:3478, turn:HOST:3478, turn:HOST:3478?transport=tcp or turns:HOST:5349"


@dataclass(frozen=True, kw_only=True)
class IceUrl:
    """One address of a STUN or TURN server (RFC 7064, RFC 7065)."""

    scheme: Literal["stun", "turn", "turns"]
    host: str
    port: int
    transport: Literal["udp", "tcp"]  # between us and that server; behind a relay it is always UDP

    @property
    def relays(self) -> bool:
        return self.scheme != "stun"

    @property
    def by(self) -> str:
        """The transport in people's words."""
        return "TLS" if self.scheme == "turns" else self.transport.upper()

    def __str__(self) -> str:
        transport = f"?transport={self.transport}" if self.relays else ""
        return f"{self.scheme}:{self.host}:{self.port}{transport}"


def parse_ice_url(text: str) -> IceUrl:
    """Read one address.

    Raises:
        ConfigError: it is none, or one that browsers or our own side cannot use.
    """
    match = _URL.fullmatch(text.strip())
    if match is None:
        hint = " (write an IPv6 address as a name)" if "[" in text else ""
        raise ConfigError(f"ICE server {text!r} cannot be read{hint}: write it like {_EXAMPLES}")
    scheme, host, transport = match["scheme"], match["host"], match["transport"]
    if scheme == "stuns":
        raise ConfigError(f"ICE server {text!r}: browsers do not speak stuns:, use stun:")
    if scheme not in DEFAULT_PORT:
        raise ConfigError(f"ICE server {text!r} begins with {scheme!r}: write it like {_EXAMPLES}")
    if scheme == "stun" and transport is not None:
        raise ConfigError(f"ICE server {text!r}: a stun: address has no transport, leave out ?transport=")
    if transport not in (None, "udp", "tcp"):
        raise ConfigError(f"ICE server {text!r}: transport {transport!r} does not exist, use udp or tcp")
    if scheme == "turns" and transport == "udp":
        raise ConfigError(f"ICE server {text!r}: turns: runs over TCP, use ?transport=tcp or leave it out")
    port = int(match["port"]) if match["port"] else DEFAULT_PORT[scheme]
    if not 1 <= port <= 65_535:
        raise ConfigError(f"ICE server {text!r}: port {port} does not exist, choose one from 1 to 65535")
    default: Literal["udp", "tcp"] = "tcp" if scheme == "turns" else "udp"
    return IceUrl(scheme=scheme, host=host, port=port, transport=transport or default)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What a TURN server asks for."""

    username: str
    password: str


def make_credentials(secret: str, *, expires_at: int, name: str) -> Credentials:
    """Time-limited credentials (draft-uberti-behave-turn-rest-00, section 2.2).

    Args:
        secret: the TURN server's ``static-auth-secret``.
        expires_at: seconds since 1970; nothing new is granted with them afterwards.
        name: whom they are for; the TURN server counts its quotas by it.
    """
    username = f"{expires_at}:{name}"
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return Credentials(username=username, password=base64.b64encode(digest).decode())


def list_ice_servers(urls: tuple[IceUrl, ...], credentials: Credentials | None) -> list[dict[str, Any]]:
    """The addresses as browsers take them (``RTCConfiguration.iceServers``).

    Args:
        urls: all of them.
        credentials: of the TURN servers; None where there are none.
    """
    servers: list[dict[str, Any]] = []
    if stun := [str(url) for url in urls if not url.relays]:
        servers.append({"urls": stun})
    if turn := [str(url) for url in urls if url.relays]:
        assert credentials is not None
        servers.append({"urls": turn, "username": credentials.username, "credential": credentials.password})
    return servers
