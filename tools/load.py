"""Load a real server with several live sessions at once and see what they get.

    python -m tools.load --sessions N --seconds S --json F [--engine NAME] [--churn S]

The server runs in a process of its own on this machine's loopback address; N real WebRTC peers in this one
speak at it, receive and decode. The peers share the machine with the server: what they cost is reported, and
a server alone has that much more.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from client.errors import Refused, ServerTrouble
from client.speech import Microphone
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, engine_names
from tools.bench_engine import SAMPLE_SPEECH
from tools.bursts import SOUND_RATE_HZ
from tools.churn import churn
from tools.latency import COUNTS, count_between, count_gaps
from tools.peer import Peer
from tools.report import describe_machine, format_table, positive_int, positive_seconds, write_json
from tools.server_process import ServerProcess, ServerTimes, read_times
from tools.sound_file import read_mono

OPEN_EVERY_S = 0.2  # between two sessions' starts
SETTLE_S = 2.0  # of each session that is not judged: the first frames, the first adjustments of its delay
MOST_SESSIONS = 256  # of one run; more peers than this measure the peers
SAMPLE_EVERY_S = 1.0  # of memory
EPILOG = """\
keys of the JSON file:
  sessions     a list, one entry per session that was opened: fps (frames received per second), frames, repeated,
               spared, dropped (the server's counts while it was judged: sent; of these the one before once more as
               the frame was late, or as it was left out to keep up; drawn but never sent), gaps (frame times for
               which nothing arrived), delay_ms (the server's playout delay at the end), hop_to_frame_ms (median),
               ended_early
  asked, opened, refused (answered 503), failed (any other reason), reasons
  fps          {min, mean} over the sessions
  frames, repeated, spared, dropped   sums; lost_share = (repeated + dropped) / frames
  server_resident_mb   {before, highest, after}: before the first session, while they were live, 2 s after the last
  server_cpu_share, peers_cpu_share   processor time per second of wall time, in cores
  engine_stages_ms   median of each part of a step
  loop_lag_ms        {p50, p99}: how late the server's event loop did what was due, in the last minute
  seconds, engine, start_s, machine

keys with --churn S, beside opened, refused, failed, reasons, server_resident_mb, seconds, engine, start_s, machine:
  session_s    how long a session lasts; each from half to one and a half of it, then the next takes its place
  session_fps  {p5, p50} over the sessions: frames received per second
  memory_mb    a list of [seconds, MB]: resident memory of the server, at most one a second
  memory_trend {mb_per_hour, error_mb_per_hour, from_s, samples}: slope of a straight line by least squares after the
               first third of the run, and its standard error, which counts only independent samples. No trend:
               the slope is less than two errors from 0. null: the run was too short to say

Without --churn figures are of the time from 2 s after the last session's start on.

exit status: 0 when every session was opened or refused in order, 1 when one failed, 2 when the run could not be made.
"""


async def open_sessions(url: str, count: int, speech: np.ndarray) -> tuple[list[Peer], int, list[str]]:
    """Open ``count`` sessions one after the other, each at its own place in the speech.

    Returns:
        the peers that are live, how many were refused, and why others failed.
    """
    peers: list[Peer] = []
    refused, reasons = 0, []
    for index in range(count):
        samples = np.roll(speech, -index * len(speech) // count)
        peer = Peer(url, Microphone(samples, repeat=True), keep_mouths=False)
        try:
            await peer.open({"seed": index})
            peers.append(peer)
        except Refused:
            refused += 1
            await peer.close()
        except ServerTrouble as error:
            reasons.append(str(error))
        await asyncio.sleep(OPEN_EVERY_S)
    return peers, refused, reasons


def judge_session(peer: Peer, from_s: float, to_s: float) -> dict[str, Any]:
    """What one session got within [from_s, to_s)."""
    inside = [(at, ticks) for at, ticks in zip(peer.shown_s, peer.frame_ticks, strict=False) if from_s <= at < to_s]
    stats = [s for s in peer.stats if from_s <= s["at_s"] < to_s]
    counts = count_between(stats)
    latencies = [s["hop_to_frame_ms"] for s in stats if s["hop_to_frame_ms"] is not None]
    return {
        "fps": round(len(inside) / (to_s - from_s), 2),
        **counts,
        "gaps": count_gaps(np.array([ticks for _, ticks in inside])),
        "delay_ms": stats[-1]["delay_ms"] if stats else None,
        "hop_to_frame_ms": float(np.median(latencies)) if latencies else None,
        "ended_early": not inside or inside[-1][0] < to_s - 1,
    }


def sum_up(sessions: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures over all sessions."""
    rates = [s["fps"] for s in sessions]
    sums = {key: sum(s[key] or 0 for s in sessions) for key in COUNTS}
    lost = sums["repeated"] + sums["dropped"]
    return {
        "fps": {"min": min(rates, default=None), "mean": round(float(np.mean(rates)), 2) if rates else None},
        **sums,
        "lost_share": round(lost / sums["frames"], 5) if sums["frames"] else None,
    }


async def load(server: ServerProcess, count: int, seconds: float, speech: np.ndarray) -> dict[str, Any]:
    """Open, hold, judge and close; the report but for what is known of the engine."""
    before_mb = highest_mb = server.resident_mb
    peers, refused, reasons = await open_sessions(server.url, count, speech)
    sessions: list[dict[str, Any]] = []
    shares = (0.0, 0.0)
    times = ServerTimes(stages_ms={}, loop_lag_ms={})
    try:
        if peers:
            await asyncio.sleep(SETTLE_S)
            from_s = time.monotonic()
            used = (server.cpu_s, _own_cpu_s())
            while (now_s := time.monotonic()) < from_s + seconds:
                highest_mb = max(highest_mb, server.resident_mb)
                await asyncio.sleep(min(SAMPLE_EVERY_S, from_s + seconds - now_s))
            to_s = time.monotonic()
            shares = (server.cpu_s - used[0]) / (to_s - from_s), (_own_cpu_s() - used[1]) / (to_s - from_s)
            times = await asyncio.to_thread(read_times, server.url)
            sessions = [judge_session(peer, from_s, to_s) for peer in peers]
    finally:
        await asyncio.gather(*(peer.close() for peer in peers))
    await asyncio.sleep(2)
    return {
        "sessions": sessions,
        "asked": count,
        "opened": len(peers),
        "refused": refused,
        "failed": len(reasons),
        "reasons": reasons,
        **sum_up(sessions),
        "server_resident_mb": {"before": before_mb, "highest": highest_mb, "after": server.resident_mb},
        "server_cpu_share": round(shares[0], 3),
        "peers_cpu_share": round(shares[1], 3),
        "engine_stages_ms": times.stages_ms,
        "loop_lag_ms": times.loop_lag_ms,
        "seconds": seconds,
    }


def run(args: argparse.Namespace) -> dict[str, Any]:
    """The whole measurement.

    Raises:
        VisavisError: the server does not start, or the sample speech is missing.
    """
    fine = read_mono(SAMPLE_SPEECH, SOUND_RATE_HZ)
    with ServerProcess(args.engine, max_sessions=args.max_sessions) as server:
        if args.churn:
            report = asyncio.run(churn(server, args.sessions, args.seconds, args.churn, fine))
            report |= {"asked": args.sessions, "session_s": args.churn, "seconds": args.seconds}
        else:
            report = asyncio.run(load(server, args.sessions, args.seconds, fine))
        return report | {"engine": args.engine, "start_s": round(server.start_s, 2), "machine": describe_machine()}


def format_churn(report: dict[str, Any]) -> str:
    memory, trend, rate = report["server_resident_mb"], report["memory_trend"], report["session_fps"]
    slope = "too short a run to tell a trend"
    if trend["mb_per_hour"] is not None:
        slope = f"trend {trend['mb_per_hour']:+.1f} ± {trend['error_mb_per_hour']:.1f} MB an hour"
    return (
        f"{report['engine']} engine: {report['opened']} sessions of about {report['session_s']:g} s in "
        f"{report['seconds']:g} s, {report['asked']} at a time, {report['refused']} refused, "
        f"{report['failed']} failed; {report['machine']['cpu']}\n"
        f"frames/s of a session: median {rate['p50']}, worst twentieth {rate['p5']}\n"
        f"server: {memory['before']} MB before, {memory['highest']} at most, {memory['after']} after; {slope}"
    )


def format_report(report: dict[str, Any]) -> str:
    if "session_s" in report:
        return format_churn(report)
    columns = ["fps", *COUNTS, "gaps", "delay_ms", "hop_to_frame_ms"]
    rows = [[index, *(s[c] for c in columns)] for index, s in enumerate(report["sessions"])]
    memory, lag_ms = report["server_resident_mb"], report["loop_lag_ms"]
    lag = f"; its event loop is late by {lag_ms['p50']} ms, p99 {lag_ms['p99']} ms" if lag_ms else ""
    return (
        f"{report['engine']} engine: {report['opened']} of {report['asked']} sessions opened, "
        f"{report['refused']} refused, {report['failed']} failed; {report['machine']['cpu']}\n"
        f"server: {report['server_cpu_share']:.2f} cores, {memory['before']} MB before, {memory['highest']} at most, "
        f"{memory['after']} after{lag}\npeers: {report['peers_cpu_share']:.2f} cores\n\n"
    ) + format_table(["session", *columns], rows)


def _own_cpu_s() -> float:
    used = psutil.Process().cpu_times()
    return used.user + used.system


def _session_count(text: str) -> int:
    value = positive_int(text)
    if value > MOST_SESSIONS:
        raise argparse.ArgumentTypeError(
            f"{value} sessions are more than one process can play; at most {MOST_SESSIONS}"
        )
    return value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.load",
        description="Load a real server with several live sessions at once.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sessions", type=_session_count, required=True, metavar="N", help="how many to open")
    parser.add_argument("--seconds", type=positive_seconds, required=True, metavar="S", help="how long to hold them")
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures are written")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default: %(default)s")
    parser.add_argument(
        "--churn", type=positive_seconds, metavar="S", help="sessions come and go, each for about S seconds"
    )
    parser.add_argument("--max-sessions", type=positive_int, metavar="N", help="the server's limit (default: its own)")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        report = run(args)
        write_json(args.json, report)
    except VisavisError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    print(format_report(report))
    for reason in report["reasons"]:
        print(f"failed: {reason}", file=sys.stderr)
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
