"""Measure everything that docs/performance.md says, and write it anew.

    python -m tools.performance_page --out F.md [--seconds S] [--live-seconds S] [--churn-seconds S] [--no-browser]

Takes about an hour as it stands; nothing else should run meanwhile. --seconds makes all runs short, for a try.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, engine_names
from tools.files import check_writable, replacing
from tools.performance_runs import Plan, run_all
from tools.performance_text import write_page
from tools.report import describe_machine, positive_seconds

BENCH_S, LOAD_S, LIVE_S, CHURN_S = 20.0, 30.0, 600.0, 1800.0
PACKAGES = ("visavis", "torch", "openvino", "aiortc", "av", "numpy")
EPILOG = """\
The page names the processor, its cores, memory, operating system and the versions of what computes; no names of
machines or people. A tool that fails leaves a sentence saying so in its place.

exit status: 0; 1 when a tool failed (the page is written all the same); 2 when no page could be written.
"""


def make_plan(args: argparse.Namespace) -> Plan:
    """How long what runs; --seconds stands for all durations that are not given."""

    def seconds(given: float | None, full: float) -> float:
        return next(s for s in (given, args.seconds, full) if s is not None)

    return Plan(
        engine=args.engine,
        bench_s=seconds(None, BENCH_S),
        live_s=seconds(args.live_seconds, LIVE_S),
        load_s=seconds(None, LOAD_S),
        churn_s=seconds(args.churn_seconds, CHURN_S),
        browser=args.browser and _has_browser(),
        cores=describe_machine()["usable_cores"],
        has_gpu=_has_gpu(),
    )


def describe_versions() -> dict[str, str]:
    """What computes: Python and the packages, and the GPU where there is one."""
    versions = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    if _has_gpu():
        import torch

        versions["GPU"] = torch.cuda.get_device_name()
    return versions


def _describe_machine() -> dict[str, Any]:
    import psutil

    return describe_machine() | {"memory_gb": psutil.virtual_memory().total / 2**30}


def _has_browser() -> bool:
    found = any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
    return found and importlib.util.find_spec("playwright") is not None


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.performance_page",
        description="Measure everything that docs/performance.md says, and write it anew.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, metavar="F.md", help="the page")
    parser.add_argument("--seconds", type=positive_seconds, metavar="S", help="of every run, for a short try")
    parser.add_argument(
        "--live-seconds", type=positive_seconds, metavar="S", help=f"of the latency run (default: {LIVE_S:g})"
    )
    parser.add_argument(
        "--churn-seconds", type=positive_seconds, metavar="S", help=f"of sessions coming and going ({CHURN_S:g})"
    )
    parser.add_argument("--no-browser", dest="browser", action="store_false", help="leave Chromium out")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default: %(default)s")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        check_writable(args.out, "page")
        with tempfile.TemporaryDirectory() as folder:
            results = run_all(make_plan(args), Path(folder), say=lambda text: print(text, flush=True))
        day = datetime.date.today().isoformat()
        with replacing(args.out, "page") as temporary:
            page = write_page(_describe_machine(), describe_versions(), day, results)
            temporary.write_text(page, encoding="utf-8")
    except VisavisError as error:
        print(f"performance_page: {error}", file=sys.stderr)
        return 2
    failed = [run for run in results.all if run.report is None]
    for run in failed:
        print(f"failed: {run.command}: {run.trouble}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
