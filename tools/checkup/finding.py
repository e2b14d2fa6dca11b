"""The outcome of a check, and how a check that breaks becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

REINSTALL = "run `make setup` again, or pip install -e . and pip install --no-deps mediapipe==0.10.21"


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""  # what to do; empty where all is well


def guarded(name: str, check: Callable[[], Finding], *, remedy: str = REINSTALL) -> Iterator[Finding]:
    """Run a check; whatever it raises is its finding."""
    try:
        yield check()
    except Exception as error:  # the doctor's business is to report whatever is broken
        yield Finding(name, "fail", f"{type(error).__name__}: {' '.join(str(error).split())}", remedy)
