"""``visavis serve``: read the command line, check it, run uvicorn."""

from __future__ import annotations

import argparse
import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from engine.cache import AvatarStore
from engine.data_folder import default_data_folder
from engine.errors import AvatarError
from engine.registry import DEFAULT_ENGINE, engine_names
from engine.trace import TraceError, TraceFile
from server.app import create_app
from server.config import ServerConfig
from server.errors import ConfigError
from server.network_options import add_network_options, read_network

GRACE_S = 3  # for open requests and sockets when the server is stopped
MAX_WS_BYTES = 1 << 20  # of one message; an agent's sound is the largest


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="visavis serve", description="Serve talking avatars: a page, an API and WebRTC, in one process."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; one that others reach needs a key")
    parser.add_argument("--port", type=int, default=8000, help="0 takes any free port")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names())
    parser.add_argument("--backend", metavar="NAME", help="what computes, see docs/backends.md; default: auto")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep uploads here, and show what is enrolled here; "
        "otherwise uploads stay in memory, and what 'visavis enrol' keeps in its default folder is shown",
    )
    parser.add_argument("--max-sessions", type=int, metavar="N", help="most sessions at a time; default: measured")
    parser.add_argument("--api-key", metavar="KEY", help="required of everyone; better: environment VISAVIS_API_KEY")
    parser.add_argument("--unmarked", action="store_true", help="leave out the visible 'synthetic' mark")
    parser.add_argument(
        "--cross-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="whose pages may publish and play over WHIP and WHEP, as https://example.org; repeatable",
    )
    add_network_options(parser)
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write every stage's times here, as JSON lines")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    return parser


def read_config(argv: Sequence[str]) -> ServerConfig:
    """The configuration that a command line asks for.

    Raises:
        ConfigError: it must not start like this.
    """
    args = build_parser().parse_args(argv)
    return ServerConfig(
        host=args.host,
        port=args.port,
        engine=args.engine,
        backend=args.backend or os.environ.get("VISAVIS_BACKEND") or None,
        data_folder=args.data,
        enrolled_folder=_enrolled_folder() if args.data is None else None,
        max_sessions=args.max_sessions,
        api_key=args.api_key or os.environ.get("VISAVIS_API_KEY") or None,
        marked=not args.unmarked,
        cross_origins=tuple(args.cross_origin),
        network=read_network(args),
        trace_file=args.trace,
    )


def _enrolled_folder() -> Path | None:
    try:
        return default_data_folder()
    except RuntimeError:
        return None  # a user without a home has enrolled nothing there


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until stopped.

    Returns:
        0 after an orderly stop, 1 when the engine could not be loaded, 2 when the command line is wrong.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        config = read_config(arguments)
        check_address(config.host, config.port)
        AvatarStore(config.data_folder)  # makes the folder, or says why not
        if config.trace_file is not None:
            TraceFile(config.trace_file).close()  # the same
    except (ConfigError, AvatarError, TraceError) as error:
        print(f"visavis serve: {error}", file=sys.stderr)
        return 2
    level = build_parser().parse_args(arguments).log_level
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("aioice", "aiortc", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if config.backend is not None:
        os.environ["VISAVIS_BACKEND"] = config.backend  # the engine of the enrolment lane takes it from there too
    try:
        return asyncio.run(_serve(config, level))
    except KeyboardInterrupt:  # before the server took the signals over
        return 0


def check_address(host: str, port: int) -> None:
    """See that the server could listen there, before an engine is loaded for it.

    Raises:
        ConfigError: the port is taken or not allowed, or the host is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigError(f"host {host!r} is not known here ({error.strerror}): choose another --host") from error
    failures = []
    for family, kind, protocol, _, address in found:
        try:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(address)
        except OSError as error:
            failures.append(error)
    # "localhost" may name an IPv6 address that this machine lacks; the other one does.
    if len(failures) == len(found) or any(error.errno == errno.EADDRINUSE for error in failures):
        raise ConfigError(
            f"cannot listen on {host} port {port} ({failures[0].strerror}): choose another --port or --host"
        )


class _Server(uvicorn.Server):
    """Ends in order on SIGINT and SIGTERM. uvicorn's own raises them once more at the end, for those who embed it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def make_server(config: ServerConfig, app: object, *, log_level: str = "info") -> uvicorn.Server:
    """A uvicorn server as we want it."""
    return _Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            host=config.host,
            port=config.port,
            ws="websockets-sansio",
            ws_max_size=MAX_WS_BYTES,
            log_level="error" if log_level == "error" else "warning",  # below that it logs addresses of sockets ...
            access_log=False,  # ... and requests, which may hold the key
            timeout_graceful_shutdown=GRACE_S,
            server_header=False,
        )
    )


async def _serve(config: ServerConfig, level: str) -> int:
    app = create_app(config)
    server = make_server(config, app, log_level=level)
    serving = asyncio.create_task(server.serve())
    failed = announced = False
    while not serving.done():
        await asyncio.wait([serving], timeout=0.2)
        if server.started and not announced:
            announced = True
            _announce(config, server)
        house = getattr(app.state, "house", None)
        if house is not None and house.failure is not None and not failed:
            failed = server.should_exit = True
            print(f"visavis serve: the engine could not be loaded: {house.failure}", file=sys.stderr)
    await serving
    return 1 if failed or not announced else 0


def _announce(config: ServerConfig, server: uvicorn.Server) -> None:
    port = server.servers[0].sockets[0].getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    host = f"[{host}]" if ":" in host else host
    key = "/?key=YOUR_KEY" if config.api_key else ""
    print(f"Visavis serves on http://{host}:{port}{key}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
