"""``visavis doctor``: one line for each thing that Visavis needs of a machine, and what to do where it fails."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal

from engine.api import Engine
from engine.data_folder import default_data_folder
from engine.registry import DEFAULT_ENGINE, engine_names

REINSTALL = "run `make setup` again, or pip install -e . and pip install --no-deps mediapipe==0.10.21"
FETCH_AGAIN = "a file of the project is missing or damaged: get the project again"
LEAST_FREE_MB = 500


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""  # what to do; empty where all is well


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be run on this machine."""

    engine: str
    host: str
    port: int
    data: Path


def examine(plan: Plan) -> Iterator[Finding]:
    """Run all checks, one after the other; a check that breaks is a finding, not a crash."""
    yield from _guarded("python", check_python)
    yield from _guarded("packages", check_packages)
    yield from _guarded("cv2", check_opencv)
    yield from _guarded("mediapipe", check_mediapipe)
    yield from _guarded("codecs", check_codecs)
    yield from _guarded("torch", check_torch)
    yield from _guarded("nvidia", check_nvidia)
    yield from check_engine(plan.engine)
    yield from _guarded("port", partial(check_port, plan.host, plan.port))
    yield from _guarded("udp", check_udp)
    yield from _guarded("network", check_network)
    yield from _guarded("data", partial(check_data_folder, plan.data))


def check_python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if (3, 11) <= sys.version_info[:2] <= (3, 12):
        return Finding("python", "ok", version)
    return Finding("python", "fail", f"{version} is not supported", "use Python 3.11 or 3.12")


def check_packages() -> Finding:
    """Every requirement that the project declares, by its declared range."""
    from packaging.requirements import Requirement

    wrong, found = [], []
    for line in [*_declared_requirements(), "mediapipe==0.10.21"]:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _installed_version(requirement.name)
        if version is None:
            wrong.append(f"{requirement.name} is missing")
        elif not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, needed is {requirement.specifier}")
        else:
            found.append(f"{requirement.name} {version}")
    if wrong:
        return Finding("packages", "fail", "; ".join(wrong), REINSTALL)
    return Finding("packages", "ok", ", ".join(found))


def check_opencv() -> Finding:
    """Import it for real: it fails where a system library is missing."""
    try:
        import cv2
    except ImportError as error:
        remedy = REINSTALL
        if "libGL" in str(error):
            remedy = (
                "pip uninstall opencv-python opencv-contrib-python, "
                "then pip install --force-reinstall opencv-contrib-python-headless"
            )
        return Finding("cv2", "fail", f"cannot be imported: {error}", remedy)
    return Finding("cv2", "ok", f"{cv2.__version__} imports")


def check_mediapipe() -> Finding:
    """Look for a face where there is none. With a wrong protobuf it still imports, and only then fails."""
    import numpy as np

    from engine.landmarks import FaceMesh

    mesh = FaceMesh()
    try:
        faces = mesh.find(np.zeros((64, 64, 3), np.uint8))
    finally:
        mesh.close()
    if faces:
        return Finding("mediapipe", "fail", f"finds {len(faces)} faces in a black picture", REINSTALL)
    return Finding("mediapipe", "ok", "runs")


def check_codecs() -> Finding:
    """Encoders of the live stream and of rendered files."""
    import av

    needed = {"libx264": "H.264", "aac": "AAC", "libvpx": "VP8", "libopus": "Opus"}
    missing = [name for codec, name in needed.items() if codec not in av.codecs_available]
    if missing:
        return Finding("codecs", "fail", f"PyAV {av.__version__} cannot encode {', '.join(missing)}", "pip install av")
    return Finding("codecs", "ok", f"{', '.join(needed.values())} by PyAV {av.__version__}")


def check_torch() -> Finding:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    detail = f"{torch.__version__}, {threads} threads on {cores} cores"
    if threads > cores:
        return Finding("torch", "warn", detail, f"more threads than cores slow it down: set OMP_NUM_THREADS={cores}")
    if cores < 2:
        return Finding("torch", "warn", detail, "live video needs about two cores: expect repeated frames")
    return Finding("torch", "ok", detail)


def check_nvidia() -> Finding:
    """A GPU is never needed; one that lies idle for want of a package is worth saying."""
    tool = shutil.which("nvidia-smi")
    listed = ""
    if tool:
        asked = [tool, "--query-gpu=name,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(asked, capture_output=True, text=True, timeout=20)
        listed = "; ".join(answer.stdout.split("\n")).strip("; ") if answer.returncode == 0 else ""
    if not listed:
        return Finding("nvidia", "ok", "no GPU found; the CPU is used")
    import torch

    if torch.cuda.is_available():
        from engine.compile.choice import candidates

        return Finding("nvidia", "ok", f"{listed}; backend auto tries {', '.join(candidates('auto'))}")
    why = "is built without CUDA" if torch.version.cuda is None else "cannot use it"
    return Finding("nvidia", "warn", f"{listed}, but torch {why}", "install a CUDA build of torch from pytorch.org")


def check_engine(name: str) -> Iterator[Finding]:
    """Load the engine, and with it enrol the default portrait."""
    engine: Engine | None = None

    def load() -> Finding:
        nonlocal engine
        from engine.registry import create_engine

        began_s = time.perf_counter()
        engine = create_engine(name)
        return Finding("engine", "ok", f"{name} on {engine.backend}, loaded in {time.perf_counter() - began_s:.1f} s")

    def enrol_default() -> Finding:
        from engine.cache import DEFAULT_AVATAR_ID, AvatarStore

        assert engine is not None
        began_s = time.perf_counter()
        AvatarStore(None).get(DEFAULT_AVATAR_ID, engine)
        return Finding("avatar", "ok", f"the default portrait enrols in {time.perf_counter() - began_s:.1f} s")

    yield from _guarded("engine", load, remedy=FETCH_AGAIN)
    if engine is None:
        yield Finding("avatar", "fail", "not tried, there is no engine", "mend the engine first")
        return
    yield from _guarded("avatar", enrol_default, remedy=FETCH_AGAIN)
    engine.close()


def check_port(host: str, port: int) -> Finding:
    try:
        with socket.create_server((host, port)):
            pass
    except OSError as error:
        detail = f"{host}:{port} cannot be listened on: {error.strerror or error}"
        return Finding("port", "warn", detail, "a server may run there already; if not, choose another --port")
    return Finding("port", "ok", f"{host}:{port} is free")


def check_udp() -> Finding:
    """A packet from this machine to itself, as WebRTC media goes in a local call."""
    with socket.socket(type=socket.SOCK_DGRAM) as receiver, socket.socket(type=socket.SOCK_DGRAM) as sender:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(2.0)
        sender.sendto(b"visavis", receiver.getsockname())
        try:
            receiver.recvfrom(64)
        except TimeoutError:
            return Finding("udp", "fail", "a packet to 127.0.0.1 did not arrive", "allow local UDP in the firewall")
    return Finding("udp", "ok", "packets arrive on the loopback")


def check_network() -> Finding:
    """WebRTC never offers the loopback as a candidate: without another address no call connects."""
    import ifaddr

    ips = [ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips if isinstance(ip.ip, str)]
    outside = [ip for ip in ips if not ip.startswith("127.")]
    if not outside:
        return Finding("network", "fail", "this machine has no address but 127.0.0.1", "connect it to a network")
    return Finding("network", "ok", f"{len(outside)} address{'es' if len(outside) > 1 else ''} for WebRTC")


def check_data_folder(folder: Path) -> Finding:
    """Whether avatars can be kept there; a folder that does not exist yet is not made."""
    existing = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
    try:
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"visavis")
    except OSError as error:
        detail = f"{folder} cannot be written: {error.strerror or error}"
        return Finding("data", "fail", detail, "choose another folder with --data, or change its owner")
    free_mb = shutil.disk_usage(existing).free >> 20
    if free_mb < LEAST_FREE_MB:
        return Finding("data", "warn", f"{folder} has {free_mb} MB left", "free some space: avatars take a few MB each")
    return Finding(
        "data", "ok", f"{folder} can be written" + ("" if existing == folder else ", and is made when needed")
    )


def _guarded(name: str, check: Callable[[], Finding], *, remedy: str = REINSTALL) -> Iterator[Finding]:
    try:
        yield check()
    except Exception as error:  # the doctor's business is to report whatever is broken
        yield Finding(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())}", remedy)


def _declared_requirements() -> Sequence[str]:
    try:
        declared = metadata.requires("visavis")
        if declared:
            return declared
    except metadata.PackageNotFoundError:
        pass  # run from a checkout that is not installed
    project = Path(__file__).parents[1] / "pyproject.toml"
    return tomllib.loads(project.read_text())["project"]["dependencies"] if project.exists() else []


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # The full OpenCV does what the headless one does, where libGL is there; importing it will tell.
        return _installed_version(name.removesuffix("-headless")) if name.endswith("-headless") else None


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
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return parser


def main(argv: list[str]) -> int:
    args = build_parser().parse_args(argv)
    plan = Plan(engine=args.engine, host=args.host, port=args.port, data=args.data)
    findings = []
    for finding in examine(plan):
        findings.append(finding)
        if not args.json:
            print(f"{finding.status:<4}  {finding.name:<9} {finding.detail}", flush=True)
            if finding.remedy:
                print(f"{'':<15} -> {finding.remedy}", flush=True)
    failed = [f.name for f in findings if f.status == "fail"]
    if args.json:
        print(json.dumps({"ok": not failed, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nNothing failed.")
    return 1 if failed else 0


if __name__ == "__main__":
    from tools.cli import run

    sys.exit(run(main, sys.argv[1:]))
