"""How media finds its way: STUN and TURN servers, our own UDP ports and public address."""

from __future__ import annotations

import ipaddress
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from server.errors import ConfigError
from server.ice_servers import Credentials, IceUrl, list_ice_servers, make_credentials, parse_ice_url

LEAST_SECRET_CHARS = 8


@dataclass(frozen=True, kw_only=True)
class PortRange:
    """UDP ports from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1024 <= self.first <= self.last <= 65_535:
            raise ConfigError(f"UDP ports {self}: give the lower one first, both from 1024 to 65535, like 40000-40100")

    def __len__(self) -> int:
        return self.last - self.first + 1

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


def parse_port_range(text: str) -> PortRange:
    """Read ``40000-40100``, or a single port.

    Raises:
        ConfigError: it is no such range.
    """
    match = re.fullmatch(r"\s*(\d{1,5})\s*(?:-\s*(\d{1,5})\s*)?", text)
    if match is None:
        raise ConfigError(f"UDP ports {text!r} cannot be read: write two numbers, like 40000-40100")
    return PortRange(first=int(match[1]), last=int(match[2] or match[1]))


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """STUN and TURN servers, and the addresses and ports of our own side.

    Raises:
        ConfigError: something that cannot work.
    """

    ice_servers: tuple[str, ...] = ()  # stun:, turn: and turns: addresses that both ends use
    turn_secret: str | None = field(default=None, repr=False)  # the TURN servers' static-auth-secret
    turn_lifetime_s: int = 86_400  # of credentials; the draft recommends a day
    udp_ports: PortRange | None = None  # of our own media; None: any free one
    public_address: str | None = None  # under which the world reaches them, where a NAT keeps port numbers (1:1)

    def __post_init__(self) -> None:
        relays = [url for url in self.urls if url.relays]
        if relays and not self.turn_secret:
            raise ConfigError(
                f"{relays[0]} needs a secret: give the TURN server's static-auth-secret with --turn-secret or in the "
                "environment variable VISAVIS_TURN_SECRET"
            )
        if self.turn_secret and not relays:
            raise ConfigError("there is a TURN secret but no TURN server: name it with --ice-server turn:HOST:3478")
        if self.turn_secret and len(self.turn_secret) < LEAST_SECRET_CHARS:
            raise ConfigError(f"the TURN secret is shorter than {LEAST_SECRET_CHARS} characters: choose a longer one")
        if self.turn_lifetime_s < 60:
            raise ConfigError(f"TURN credentials would live for {self.turn_lifetime_s} s: give them at least 60")
        if self.public_address is not None:
            _check_public_address(self.public_address)

    @property
    def urls(self) -> tuple[IceUrl, ...]:
        return tuple(parse_ice_url(text) for text in self.ice_servers)

    def credentials(self) -> tuple[Credentials | None, int | None]:
        """Fresh ones, and when they expire (seconds since 1970); None without a TURN server."""
        if self.turn_secret is None:
            return None, None
        expires_at = int(time.time()) + self.turn_lifetime_s
        return make_credentials(self.turn_secret, expires_at=expires_at, name=secrets.token_hex(6)), expires_at

    def hand_out(self) -> dict[str, Any]:
        """What a client needs, with credentials of its own: ``ice_servers`` as browsers take them, ``expires_at``."""
        credentials, expires_at = self.credentials()
        return {"ice_servers": list_ice_servers(self.urls, credentials), "expires_at": expires_at}


def _check_public_address(text: str) -> None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError as error:
        raise ConfigError(
            f"public address {text!r} is no IP address: give the one that the world reaches, like 203.0.113.7"
        ) from error
    if address.is_loopback or address.is_unspecified or address.is_multicast or address.is_link_local:
        raise ConfigError(f"public address {text} cannot be reached by others: give the one that the world reaches")
