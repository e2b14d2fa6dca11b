"""What the measuring tools share: percentiles, the machine's name, text tables, the JSON file."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tools.files import replacing


def percentiles(values: Iterable[float], percents: Sequence[int] = (50, 95, 99)) -> dict[str, float | None]:
    """``{"p50": ..., ...}`` by linear interpolation; ``None`` throughout where there are no values."""
    known = [v for v in values if math.isfinite(v)]
    return {f"p{p}": round(float(np.percentile(known, p)), 3) if known else None for p in percents}


def describe_machine() -> dict[str, Any]:
    """Processor, cores and system, for figures that mean nothing without them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "system": platform.platform(terse=True),
    }


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report whole or not at all; its folder is made.

    Raises:
        FileError: it cannot be written there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "report") as temporary:
        temporary.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def format_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table that also reads well in a terminal; ``None`` shows as ``-``."""
    cells = [list(header)] + [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in cells]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive whole number")
    return value


def positive_seconds(text: str) -> float:
    """An argparse type."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of seconds")
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
