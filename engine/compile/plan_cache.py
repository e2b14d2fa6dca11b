"""Plans on disk: what TensorRT made of a stage, under a key of all that it was made for and from.

A file holds its key and a checksum beside the plan, so that a plan for something else, or half a plan, never
reaches TensorRT, whose answer to nonsense can be a crash.

::

    VISAVIS PLAN 1\\n  {"key": {...}, "sha256": "..."}\\n  the plan's bytes
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from engine.compile.cache import cache_folder, drop_stale, mark_used

MAGIC = b"VISAVIS PLAN 1\n"
ANY = "any"  # GPU and driver of a plan that was built ahead of time


@dataclass(frozen=True, kw_only=True)
class PlanKey:
    """A plan fits where all of this is the same."""

    stage: str
    library: str  # tensorrt or tensorrt_rtx
    library_version: str
    capability: str  # sm_89
    gpu: str = ANY
    driver: str = ANY
    checkpoint: str  # of the weights
    code: str  # digest of our source
    torch: str  # wrote the ONNX
    inputs: str  # names and shapes for one row of the batch

    def ahead(self) -> PlanKey:
        """The key of the same plan built where the GPU is not, known by its capability alone."""
        return dataclasses.replace(self, gpu=ANY, driver=ANY)

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def family(self) -> str:
        """The first part of the names of the files that serve the same stage on the same kind of GPU."""
        return f"{self.stage}-{self.library}-{self.capability}"

    @property
    def file_name(self) -> str:
        return f"{self.family}-{self.library_version}-{self.digest}.plan"


def plan_folder() -> Path:
    """Where plans are kept, and looked for."""
    return cache_folder() / "plans"


def read_plan(key: PlanKey, folder: Path) -> bytes | None:
    """The kept plan, or None where there is none, it is damaged, or it was made for something else."""
    path = folder / key.file_name
    try:
        data = path.read_bytes()
    except OSError:
        return None
    head, _, plan = data.removeprefix(MAGIC).partition(b"\n")
    try:
        told = json.loads(head)
        fits = told["key"] == dataclasses.asdict(key) and told["sha256"] == hashlib.sha256(plan).hexdigest()
    except (ValueError, KeyError, TypeError):
        return None
    if not (data.startswith(MAGIC) and fits):
        return None
    mark_used(path)
    return plan


def write_plan(key: PlanKey, plan: bytes, folder: Path) -> Path:
    """Keep a plan.

    Returns:
        its file.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head = json.dumps({"key": dataclasses.asdict(key), "sha256": hashlib.sha256(plan).hexdigest()})
    with tempfile.NamedTemporaryFile(dir=folder, delete=False) as file:
        try:
            file.write(MAGIC + head.encode() + b"\n" + plan)
            file.close()
            Path(file.name).chmod(0o644)  # temporary files are the owner's alone; a cache may be shared
            return Path(file.name).replace(folder / key.file_name)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def keep_plan(key: PlanKey, plan: bytes) -> None:
    """Keep a plan in the cache and drop those it replaces; a cache that cannot be written to only costs time."""
    with contextlib.suppress(OSError):
        drop_stale(write_plan(key, plan, plan_folder()), key.family)
