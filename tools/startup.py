"""Measure how long a server takes to be ready, and a portrait to speak.

    python -m tools.startup --json F [--engine NAME] [--portraits N]

A server is started twice: first with an empty cache of compiled models, as after an installation, then once more
with what the first start kept. To the second one portraits are sent, as the page sends them, and called at once.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from client.service import send_portrait
from client.speech import Microphone
from engine.cache import DEFAULT_PORTRAIT
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, engine_names
from engine.trace import read_trace
from tools.files import read_bytes
from tools.peer import Peer
from tools.report import describe_machine, format_table, positive_int, write_json
from tools.server_process import ServerProcess

DRAWN_WAIT_S = 1.0  # beyond the first picture: the first drawn frame has left by then
EPILOG = """\
keys of the JSON file:
  start_first_s, start_second_s   from the command until /readyz says 200, without and with what an earlier start
                      compiled; to 0.1 s. The operating system has the files in memory both times
  enrolled_ms         from sending a portrait until the server has answered with its avatar (median, as are the next)
  first_picture_ms    from sending it until the first picture of a call with it is decoded in the peer's hand: the
                      connection is made in between. This first one is the portrait at rest
  first_drawn_ms      from sending it until the first frame that the engine drew for this call has left the server: the
                      playout delay is in it. null: none left within a second of the first picture
  each                a list of the three, per portrait
  portraits, engine, machine
"""


async def call_portrait(url: str, image: bytes) -> tuple[float, dict[str, float]]:
    """Send a portrait and call it; when it was sent, and what came when, in milliseconds."""
    sent_s = time.monotonic()
    avatar = await asyncio.to_thread(send_portrait, url, image)
    enrolled_s = time.monotonic()
    peer = Peer(url, Microphone(np.zeros(0, np.float32)), keep_mouths=False)
    try:
        await peer.open({"seed": 0}, avatar["id"])
        await asyncio.sleep(DRAWN_WAIT_S)
    finally:
        await peer.close()
    return sent_s, {
        "enrolled_ms": round((enrolled_s - sent_s) * 1000, 1),
        "first_picture_ms": round((peer.shown_s[0] - sent_s) * 1000, 1),
    }


def add_first_drawn(
    calls: Sequence[tuple[float, dict[str, float]]], spans: Sequence[dict[str, Any]]
) -> list[dict[str, float | None]]:
    """Each call with ``first_drawn_ms`` from the server's trace: the first frame that is none at rest, when sent."""
    left_s = [span["start_s"] + span["ms"] / 1000 for span in spans if span["stage"] == "encode" and span["frame"] >= 0]
    ends_s = [*(sent_s for sent_s, _ in calls[1:]), float("inf")]
    whole: list[dict[str, float | None]] = []
    for (sent_s, figures), end_s in zip(calls, ends_s, strict=True):
        first_s = next((at_s for at_s in left_s if sent_s < at_s < end_s), None)
        whole.append({**figures, "first_drawn_ms": None if first_s is None else round((first_s - sent_s) * 1000, 1)})
    return whole


def measure(engine: str, portraits: int) -> dict[str, Any]:
    """The whole report.

    Raises:
        VisavisError: the server does not start, refuses the portrait, or sends nothing.
    """
    image = read_bytes(DEFAULT_PORTRAIT, "default portrait")
    with tempfile.TemporaryDirectory() as folder:
        cache, trace = {"VISAVIS_CACHE": str(Path(folder) / "cache")}, Path(folder) / "server.jsonl"
        with ServerProcess(engine, environment=cache) as server:
            first_s = server.start_s
        with ServerProcess(engine, environment=cache, trace=trace) as server:
            second_s = server.start_s
            calls = [asyncio.run(call_portrait(server.url, image)) for _ in range(portraits)]
        each = add_first_drawn(calls, read_trace(trace))
    medians: dict[str, float | None] = {}
    for name in ("enrolled_ms", "first_picture_ms", "first_drawn_ms"):
        known = [ms for one in each if (ms := one[name]) is not None]
        medians[name] = round(statistics.median(known), 1) if known else None
    return {
        "start_first_s": round(first_s, 1),
        "start_second_s": round(second_s, 1),
        **medians,
        "each": each,
        "portraits": portraits,
        "engine": engine,
        "machine": describe_machine(),
    }


def format_report(report: dict[str, Any]) -> str:
    rows = [[f"{name.replace('_', ' ')}", report[f"{name}_s"] * 1000] for name in ("start_first", "start_second")]
    names = ("enrolled_ms", "first_picture_ms", "first_drawn_ms")
    rows += [[name.removesuffix("_ms").replace("_", " "), report[name]] for name in names]
    return f"{report['engine']} engine, {report['machine']['cpu']}\n" + format_table(["", "ms"], rows)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.startup",
        description="Measure how long a server takes to be ready, and a portrait to speak.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures are written")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default: %(default)s")
    parser.add_argument("--portraits", type=positive_int, default=3, metavar="N", help="how many (default: 3)")
    args = parser.parse_args(argv)
    try:
        report = measure(args.engine, args.portraits)
        write_json(args.json, report)
    except VisavisError as error:
        print(f"startup: {error}", file=sys.stderr)
        return 2
    print(format_report(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
