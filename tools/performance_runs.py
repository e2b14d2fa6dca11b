"""The measuring tools run one after the other, each in a process of its own, their reports collected."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
MOST_SESSIONS = 16  # of the load runs
GPU_STREAMS = (1, 8, 32, 64)
CHURN_SESSIONS, CHURN_S = 2, 20.0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured, and how long.

    Args:
        engine: name of the engine.
        bench_s, live_s, load_s, churn_s: seconds of each kind of run; 0 leaves it out.
        browser: measure with Chromium too.
        cores: processors to use, for a run on all of them.
        has_gpu: draw several streams a step as well.
    """

    engine: str
    bench_s: float
    live_s: float
    load_s: float
    churn_s: float
    browser: bool
    cores: int
    has_gpu: bool


@dataclass(frozen=True, kw_only=True)
class ToolRun:
    """One call of a tool: its report, or why there is none."""

    command: str  # as a reader would type it
    report: dict[str, Any] | None
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Results:
    """All runs of a page; those that were left out are empty or None."""

    bench: Sequence[ToolRun]
    latency: ToolRun | None
    browser: ToolRun | None
    load: Sequence[ToolRun]  # of 1, 2, ... sessions; in the last one somebody was refused
    churn: ToolRun | None
    startup: ToolRun

    @property
    def all(self) -> list[ToolRun]:
        several = [self.latency, self.browser, self.churn, self.startup]
        return [*self.bench, *self.load, *(run for run in several if run is not None)]


def run_tool(tool: str, arguments: Sequence[str], folder: Path) -> ToolRun:
    """Run ``python -m tools.TOOL`` and read its JSON; a failure is kept in words."""
    path = folder / f"{tool}-{len(list(folder.iterdir()))}.json"
    shown = [f"python -m tools.{tool}", *arguments, "--json", "F"]
    done = subprocess.run(
        [sys.executable, "-m", f"tools.{tool}", *arguments, "--json", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    command = " ".join(shown)
    try:
        return ToolRun(command=command, report=json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        return ToolRun(command=command, report=None, trouble=f"exit status {done.returncode}: {lines[-1]}")


def run_all(plan: Plan, folder: Path, say: Callable[[str], None]) -> Results:
    """Every measurement of ``plan``; each is announced with ``say``.

    Args:
        folder: empty; the tools' JSON files are put there.
    """

    def run(tool: str, *arguments: str) -> ToolRun:
        given = [*arguments] if plan.engine == "s3dnerf" else [*arguments, "--engine", plan.engine]
        say(f"python -m tools.{tool} {' '.join(given)}")
        return run_tool(tool, given, folder)

    def live(seconds: float, *more: str) -> ToolRun | None:
        return run("profile_latency", "--seconds", f"{seconds:g}", *more) if seconds else None

    return Results(
        bench=[run("bench_engine", *arguments) for arguments in _bench_arguments(plan)],
        startup=run("startup"),
        latency=live(plan.live_s),
        browser=live(min(plan.live_s, 60.0), "--browser") if plan.browser else None,
        load=_load_until_refused(lambda n: run("load", "--sessions", str(n), "--seconds", f"{plan.load_s:g}"))
        if plan.load_s
        else [],
        churn=run(
            "load", "--sessions", str(CHURN_SESSIONS), "--seconds", f"{plan.churn_s:g}", "--churn", f"{CHURN_S:g}"
        )
        if plan.churn_s
        else None,
    )


def _bench_arguments(plan: Plan) -> list[list[str]]:
    """As in the server beside the unbaked path, on all processors, and where there is a GPU of several streams."""
    if not plan.bench_s:
        return []
    seconds = ["--seconds", f"{plan.bench_s:g}"]
    first = [*seconds, "--compare"] if plan.engine == "s3dnerf" else seconds
    several = [[*seconds, "--streams", str(n)] for n in GPU_STREAMS[1:]] if plan.has_gpu else []
    return [first, [*seconds, "--threads", str(plan.cores)], *several]


def _load_until_refused(run: Callable[[int], ToolRun]) -> list[ToolRun]:
    runs: list[ToolRun] = []
    for count in range(1, MOST_SESSIONS + 1):
        runs.append(run(count))
        report = runs[-1].report
        if report is None or report["refused"] or report["failed"]:
            break
    return runs
