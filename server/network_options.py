"""The command-line options about networks, which ``serve`` and ``doctor`` share."""

from __future__ import annotations

import argparse
import os

from server.network import NetworkConfig, parse_port_range


def add_network_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ice-server",
        action="append",
        default=[],
        metavar="URL",
        help="STUN or TURN server for both ends: stun:HOST, turn:HOST, turn:HOST?transport=tcp, turns:HOST; repeatable",
    )
    parser.add_argument(
        "--turn-secret",
        metavar="S",
        help="the TURN servers' shared secret (coturn: static-auth-secret); better: environment VISAVIS_TURN_SECRET",
    )
    parser.add_argument("--udp-ports", metavar="A-B", help="UDP ports for media, like 40000-40100; default: any")
    parser.add_argument(
        "--public-address", metavar="IP", help="address by which the world reaches these ports through a 1:1 NAT"
    )


def read_network(args: argparse.Namespace) -> NetworkConfig:
    """What the options say.

    Raises:
        ConfigError: something that cannot work.
    """
    secret = args.turn_secret
    if secret is None and any(url.strip().startswith("turn") for url in args.ice_server):
        secret = os.environ.get("VISAVIS_TURN_SECRET") or None
    return NetworkConfig(
        ice_servers=tuple(args.ice_server),
        turn_secret=secret,
        udp_ports=None if args.udp_ports is None else parse_port_range(args.udp_ports),
        public_address=args.public_address,
    )
