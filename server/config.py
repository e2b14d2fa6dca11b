"""What can be set, with its defaults and units; nothing else in the server is a setting."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path

from engine.registry import DEFAULT_ENGINE, engine_names
from server.errors import ConfigError
from server.network import NetworkConfig


@dataclass(frozen=True, kw_only=True)
class TimingConfig:
    """Delays and patience; ``playout.py`` tells how they work together."""

    margin_ms: int = 40  # playout delay beyond the engine's lookahead: jitter and compute must fit in
    max_margin_ms: int = 200  # it grows up to here while frames come late
    patience_ms: int = 100  # how late sound may be before the engine hears silence in its place
    connect_timeout_s: float = 20.0  # a session that has not connected by then is ended
    vanish_timeout_s: float = 5.0  # a peer from which no packet of any kind came for so long is gone
    orphan_timeout_s: float = 2.0  # the same, once its WebSocket has closed


@dataclass(frozen=True, kw_only=True)
class LimitConfig:
    """What one client may take."""

    upload_bytes: int = 20 << 20
    json_bytes: int = 256 << 10
    sdp_chars: int = 64 << 10
    candidates: int = 64  # per session
    viewers: int = 256  # peers that watch a live avatar without speaking through it, on the whole server
    rooms: int = 16
    room_people: int = 8
    uploads_per_minute: int = 10  # per address
    speech_ms: int = 30_000  # of an agent's sound that waits, per session
    max_keep_s: int = 366 * 86_400


@dataclass(frozen=True, kw_only=True)
class ServerConfig:
    """Everything about one server.

    Raises:
        ConfigError: a combination that must not start.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    engine: str = DEFAULT_ENGINE
    backend: str | None = None  # what computes (docs/backends.md); None: the best there is
    data_folder: Path | None = None  # of uploads; None: they live in memory only
    enrolled_folder: Path | None = None  # of avatars enrolled on the command line, shown beside the uploads
    max_sessions: int | None = None  # None: as many as this machine draws in time, measured at the start
    api_key: str | None = None
    marked: bool = True  # stamp the visible mark on every frame
    cross_origins: tuple[str, ...] = ()  # whose pages may publish and play (/whip/, /whep/), as https://example.org
    trace_file: Path | None = None  # where the times of every stage are written (engine/trace.py)
    sweep_every_s: float = 60.0  # how often expired avatars are removed
    timing: TimingConfig = TimingConfig()
    limits: LimitConfig = LimitConfig()
    network: NetworkConfig = NetworkConfig()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port {self.port} does not exist: choose one from 1 to 65535, or 0 for any free one")
        if self.engine not in engine_names():
            raise ConfigError(f"no engine is called {self.engine!r}: choose one of {', '.join(engine_names())}")
        if self.max_sessions is not None and self.max_sessions < 1:
            raise ConfigError(f"max sessions is {self.max_sessions}: it must be at least 1")
        if self.api_key is not None and len(self.api_key) < 8:
            raise ConfigError("the API key is shorter than 8 characters: choose one that cannot be guessed")
        if self.api_key is not None and not _fits_in_header(self.api_key):
            raise ConfigError(
                "the API key holds characters that a header cannot carry: use ASCII letters, digits and signs, "
                "without spaces at its ends"
            )
        for origin in self.cross_origins:
            if not re.fullmatch(r"https?://[^/\s*?#@]+", origin):
                raise ConfigError(f"cross origin {origin!r} is none: give scheme and host, as https://example.org")
        if self.api_key is None and not is_loopback(self.host):
            raise ConfigError(
                f"host {self.host} can be reached from other machines, so an API key is required: "
                "give one with --api-key or in the environment variable VISAVIS_API_KEY, or keep to 127.0.0.1"
            )


def _fits_in_header(key: str) -> bool:
    return key.isascii() and key.isprintable() and key == key.strip()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
