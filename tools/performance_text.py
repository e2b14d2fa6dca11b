"""docs/performance.md from the tools' reports. Pure: reports in, Markdown out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tools.performance_runs import Results, ToolRun
from tools.report import format_table

HEAD = """\
# Performance

Written by `make bench` (`python -m tools.performance_page`), whole each time: edits are lost. Every figure stands with
the command that measures it; `--help` of each says what a figure means and what is in it.
"""
FULL_FPS = 24.5  # received in a short window counts as 25
DRIFT = (
    "Drift of sound, frames and microphone over a simulated 24 hours is 0 samples: "
    "`pytest tests/server/test_media_clock.py`."
)


class Target(NamedTuple):
    """A figure that must be reached."""

    name: str
    must: str
    aim: str
    read: Callable[[Results], float | None]
    holds: Callable[[float], bool]
    aimed: Callable[[float], bool]
    shown: str = "{:.1f}"


def write_page(machine: Mapping[str, Any], versions: Mapping[str, str], day: str, results: Results) -> str:
    """The whole page.

    Args:
        machine: as ``report.describe_machine``, with "memory_gb".
        versions: name -> version of what computes.
        day: when it was measured, ISO.
    """
    sections = [
        HEAD,
        _machine_section(machine, versions, day),
        _targets_section(results),
        bench_section(results.bench),
        startup_section(results.startup),
        latency_section(results.latency, "Mouth to pixel", "A real WebRTC peer (aiortc) over loopback."),
        latency_section(
            results.browser, "The same in a browser", "Headless Chromium on the server's page; its buffers are in it."
        ),
        load_section(results.load),
        churn_section(results.churn),
    ]
    return "\n".join(section for section in sections if section)


def _machine_section(machine: Mapping[str, Any], versions: Mapping[str, str], day: str) -> str:
    cores = f"{machine['usable_cores']} of {machine['cores']}"
    rows = [
        ["processor", machine["cpu"]],
        ["cores used", cores],
        ["memory", f"{machine['memory_gb']:.0f} GB"],
        ["system", machine["system"]],
        *([name, version] for name, version in versions.items()),
        ["measured on", day],
    ]
    return f"## The machine\n\n{format_table(['', ''], rows)}\n"


def _targets_section(results: Results) -> str:
    rows = []
    for target in TARGETS:
        value = target.read(results)
        if value is None:
            rows.append([target.name, "not measured", target.must, target.aim, "-"])
            continue
        verdict = "aim" if target.aimed(value) else "yes" if target.holds(value) else "no"
        rows.append([target.name, target.shown.format(value), target.must, target.aim, verdict])
    table = format_table(["figure", "measured", "must reach", "aim", "reached"], rows)
    return f"## In short\n\n{table}\n\n{DRIFT}\n"


def bench_section(runs: Sequence[ToolRun]) -> str:
    parts = []
    for run in runs:
        parts.append(_command(run))
        if (report := run.report) is None:
            continue
        parts.append(
            f"{report['fps']:.1f} frames/s: {report['streams']} stream(s), {report['threads']} thread(s), backend "
            f"{report['backend']}, checkpoint {report['fingerprint']}, {report['resident_mb']:.0f} MB resident.\n"
        )
        parts.append(_stages_table(report) + "\n")
        if reference := report.get("reference"):
            low, high = min(report["speedup_rounds"]), max(report["speedup_rounds"])
            parts.append(
                f"Beside it in the same run, {reference['what']}: {reference['fps']:.1f} frames/s. The engine is "
                f"**{report['speedup']:.2f} times** as fast (rounds: {low:.2f} to {high:.2f}; "
                f"{report['speedup_identity_kept']:.2f} had the reference kept all that is the avatar's own).\n"
            )
            parts.append(_stages_table(reference) + "\n")
    return _section("The engine alone", parts)


def _stages_table(report: Mapping[str, Any]) -> str:
    stages = {"whole step": report["step_ms"], **report["stages_ms"]}
    return format_table(["ms", "p50", "p95", "p99"], [[name, *p.values()] for name, p in stages.items()])


def startup_section(run: ToolRun) -> str:
    parts = [_command(run)]
    if report := run.report:
        rows = [
            ["server start to ready, nothing compiled yet", report["start_first_s"] * 1000],
            ["server start to ready, second start", report["start_second_s"] * 1000],
            ["portrait sent to avatar enrolled", report["enrolled_ms"]],
            ["portrait sent to first picture in the peer's hand", report["first_picture_ms"]],
            ["portrait sent to first frame that moves, as sent", report["first_drawn_ms"]],
        ]
        parts.append(format_table(["", "ms"], rows) + "\n")
    return _section("Start, and a portrait's first frame", parts)


def latency_section(run: ToolRun | None, title: str, what: str) -> str:
    if run is None:
        return ""
    parts = [what + "\n", _command(run)]
    if report := run.report:
        parts.append(
            f"{report['bursts_found']} of {report['bursts']} bursts found; {report['fps']} frames/s over "
            f"{report['seconds']:g} s; of {report['frames']} frames {report['repeated']} repeated, {report['spared']} "
            f"left out to keep up, {report['dropped']} dropped; {report['gaps']} gaps; the server took "
            f"{report['server_cpu_share']:.2f} cores.\n"
        )
        names = ("mouth_to_pixel_ms", "picture_age_ms", "sound_age_ms", "av_skew_ms")
        rows = [
            [name.removesuffix("_ms").replace("_", " "), *(report[name].get(p) for p in ("p50", "p95", "p99"))]
            for name in names
        ]
        parts.append(format_table(["ms", "p50", "p95", "p99"], rows) + "\n")
        if stages := report["stage_budget_ms"]:
            parts.append(f"Where it goes, mean of {report['stage_budget_bursts']} frames followed stage by stage:\n")
            parts.append(
                format_table(["stage", "ms"], [*stages.items(), ("sum", report["stage_budget_sum_ms"])]) + "\n"
            )
        if report["uncertainty_ms"]:
            causes = ", ".join(f"{name.replace('_', ' ')} {ms:g} ms" for name, ms in report["uncertainty_ms"].items())
            parts.append(f"How exactly the page's times are known: {causes}.\n")
    return _section(title, parts)


def load_section(runs: Sequence[ToolRun]) -> str:
    if not runs:
        return ""
    known = [(run, run.report) for run in runs if run.report is not None]
    first = runs[0].command.replace("--sessions 1 ", "--sessions N ")
    parts = [f"`{first}` for N from 1 until the server refuses. Peers and server share the machine.\n"]
    parts += [f"{run.command}: {run.trouble}\n" for run in runs if run.report is None]
    rows = []
    for _, report in known:
        share = report["lost_share"]
        rows.append(
            [
                report["asked"],
                report["opened"],
                report["refused"],
                report["fps"]["min"],
                None if share is None else f"{share:.2%}",
                report["server_cpu_share"],
                report["peers_cpu_share"],
                report["server_resident_mb"]["highest"],
            ]
        )
    header = ["asked", "opened", "refused", "least fps", "frames lost", "server cores", "peers' cores", "server MB"]
    return _section("Several sessions at once", [*parts, format_table(header, rows) + "\n"])


def churn_section(run: ToolRun | None) -> str:
    if run is None:
        return ""
    parts = [_command(run)]
    if report := run.report:
        memory, trend = report["server_resident_mb"], report["memory_trend"]
        slope = "The run was too short to tell a trend."
        if trend["mb_per_hour"] is not None:
            slope = (
                f"Trend after the first third: **{trend['mb_per_hour']:+.1f} ± {trend['error_mb_per_hour']:.1f} MB an "
                "hour** (standard error)."
            )
        parts.append(
            f"{report['opened']} sessions of about {report['session_s']:g} s, {report['asked']} at a time, over "
            f"{report['seconds'] / 60:g} minutes; {report['failed']} failed. Resident memory of the server: "
            f"{memory['before']:.0f} MB before, {memory['highest']:.0f} at most, {memory['after']:.0f} after. {slope}\n"
        )
    return _section("Sessions that come and go", parts)


def _command(run: ToolRun) -> str:
    text = f"`{run.command}`\n"
    return text if run.report is not None else f"{text}\nThis could not be measured: {run.trouble}\n"


def _section(title: str, parts: Sequence[str]) -> str:
    return f"## {title}\n\n" + "\n".join(parts) if parts else ""


def _figure(run: ToolRun | None, *path: str) -> float | None:
    value: Any = None if run is None else run.report
    for key in path:
        value = None if value is None else value.get(key)
    return value


def _lost_percent(results: Results) -> float | None:
    frames = _figure(results.latency, "frames")
    if not frames:
        return None
    lost = sum(_figure(results.latency, key) or 0 for key in ("repeated", "spared", "dropped"))
    return lost / frames * 100


def _sessions(results: Results) -> float | None:
    """Most sessions at once that all got their frames."""
    reports = [run.report for run in results.load if run.report is not None]
    if not reports:
        return None
    return max((r["opened"] for r in reports if (r["fps"]["min"] or 0) >= FULL_FPS), default=0)


def _trend_in_errors(results: Results) -> float | None:
    slope = _figure(results.churn, "memory_trend", "mb_per_hour")
    error = _figure(results.churn, "memory_trend", "error_mb_per_hour")
    return None if slope is None or not error else slope / error


def _bench_fps(index: int) -> Callable[[Results], float | None]:
    return lambda results: _figure(results.bench[index], "fps") if len(results.bench) > index else None


def _least(
    name: str, must: float, aim: float, read: Callable[[Results], float | None], shown: str = "{:.1f}"
) -> Target:
    return Target(name, f">= {must:g}", f"{aim:g}", read, lambda x: x >= must, lambda x: x >= aim, shown)


def _most(name: str, must: float, aim: float, read: Callable[[Results], float | None], shown: str = "{:.1f}") -> Target:
    return Target(name, f"<= {must:g}", f"{aim:g}", read, lambda x: x <= must, lambda x: x <= aim, shown)


TARGETS = (
    _least("engine, one stream, everything per frame, as in the server: frames/s", 50, 100, _bench_fps(0)),
    _least("the same on all cores: frames/s", 50, 100, _bench_fps(1)),
    _least(
        "the engine against our own eager, unbaked path: times as fast",
        3,
        6,
        lambda r: _figure(r.bench[0], "speedup") if r.bench else None,
        "{:.2f}",
    ),
    _most("live: frames repeated, left out or dropped, percent", 0.5, 0, _lost_percent, "{:.2f}"),
    _least("live sessions at 25 frames/s before the server refuses", 2, 3, _sessions, "{:.0f}"),
    _most("mouth to pixel, p50, ms", 230, 180, lambda r: _figure(r.latency, "mouth_to_pixel_ms", "p50")),
    _most("mouth to pixel, p95, ms", 280, 220, lambda r: _figure(r.latency, "mouth_to_pixel_ms", "p95")),
    _most("sound against picture, p95, ms", 20, 10, lambda r: _figure(r.latency, "av_skew_ms", "p95")),
    _most("memory's trend with sessions coming and going, in its own standard errors", 2, 1, _trend_in_errors),
    _most("portrait sent to first picture, ms", 1500, 700, lambda r: _figure(r.startup, "first_picture_ms"), "{:.0f}"),
    _most("second start to ready, s", 6, 3, lambda r: _figure(r.startup, "start_second_s")),
)
