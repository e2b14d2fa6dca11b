"""``visavis doctor``: one line for each thing that Visavis needs of a machine, and what to do where it fails."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from engine.data_folder import default_data_folder
from engine.registry import DEFAULT_ENGINE, engine_names
from server.network import NetworkConfig
from server.network_options import add_network_options, read_network
from tools.checkup import machine, model
from tools.checkup import network as networks
from tools.checkup.finding import Finding, guarded


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run on this machine."""

    engine: str
    host: str
    port: int
    data: Path
    network: NetworkConfig = NetworkConfig()


def examine(plan: Plan) -> Iterator[Finding]:
    """Run all checks, one after the other; a check that breaks is a finding, not a crash."""
    yield from guarded("python", machine.check_python)
    yield from guarded("packages", machine.check_packages)
    yield from guarded("cv2", machine.check_opencv)
    yield from guarded("mediapipe", machine.check_mediapipe)
    yield from guarded("fonts", machine.check_fonts)
    yield from guarded("codecs", machine.check_codecs)
    yield from guarded("torch", machine.check_torch)
    yield from guarded("nvidia", machine.check_nvidia)
    yield from guarded("backend", model.check_backend)
    yield from guarded("checkpoint", model.check_checkpoint)
    yield from model.check_engine(plan.engine)
    yield from networks.check_all(plan.host, plan.port, plan.network)
    yield from guarded("data", partial(machine.check_data_folder, plan.data))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="visavis doctor",
        description="Check this machine, and say what to do about what fails.",
        epilog="The exit status is 1 where something fails; warnings do not count.",
    )
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default %(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on; default %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="default %(default)s")
    parser.add_argument("--data", type=Path, default=default_data_folder(), metavar="DIR", help="default %(default)s")
    add_network_options(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    network = read_network(args)
    plan = Plan(engine=args.engine, host=args.host, port=args.port, data=args.data, network=network)
    findings = []
    for finding in examine(plan):
        findings.append(finding)
        if not args.json:
            print(f"{finding.status:<4}  {finding.name:<10} {finding.detail}", flush=True)
            if finding.remedy:
                print(f"{'':<16} -> {finding.remedy}", flush=True)
    failed = [f.name for f in findings if f.status == "fail"]
    if args.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nNothing failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    from tools.cli import run

    sys.exit(run(main, sys.argv[1:]))
