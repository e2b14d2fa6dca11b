"""The machine and what is installed on it: Python, packages, libraries, letters, codecs, torch, GPU, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tools.checkup.finding import REINSTALL, Finding

LEAST_FREE_MB = 500


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


def check_fonts() -> Finding:
    """Draw the mark for real: Pillow brings the letters, FreeType draws them."""
    import numpy as np
    from PIL import features

    from engine.mark import TEXT, stamp

    if not features.check("freetype2"):
        return Finding("fonts", "fail", "Pillow cannot draw letters: it is built without FreeType", REINSTALL)
    drawn = stamp(np.full((256, 256, 3), 128, np.uint8))
    lit = int((drawn > 200).all(axis=2).sum())
    if lit < len(TEXT):
        return Finding("fonts", "fail", f"the mark has no letters ({lit} bright pixels)", REINSTALL)
    return Finding("fonts", "ok", f"the mark is drawn, FreeType {features.version('freetype2')}")


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


def _declared_requirements() -> Sequence[str]:
    try:
        declared = metadata.requires("visavis")
        if declared:
            return declared
    except metadata.PackageNotFoundError:
        pass  # run from a checkout that is not installed
    project = Path(__file__).parents[2] / "pyproject.toml"
    return tomllib.loads(project.read_text())["project"]["dependencies"] if project.exists() else []


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        # The full OpenCV does what the headless one does, where libGL is there; importing it will tell.
        return _installed_version(name.removesuffix("-headless")) if name.endswith("-headless") else None
