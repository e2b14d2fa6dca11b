"""Counters and timings in Prometheus' text format, for ``GET /metrics``. ``docs/api.md`` says what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from engine.trace import Trace
from server.capacity import Capacity
from server.engine_worker import EngineWorker, Pace
from server.loop_lag import LoopLag
from server.sessions import Sessions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render_metrics(
    sessions: Sessions, worker: EngineWorker, loop_lag: LoopLag, *, viewers: int = 0, rooms: int = 0
) -> str:
    """All metrics as text."""
    lines = [*_of_sessions(sessions, worker.fit_now()), *_of_company(viewers, rooms), *_of_pace(worker.pace())]
    if worker.capacity is not None:
        lines += _of_capacity(worker.capacity)
    return "\n".join([*lines, *_of_loop(loop_lag), *_of_stages(worker.trace)]) + "\n"


def _of_sessions(sessions: Sessions, fit_now: int) -> Iterator[str]:
    shelves = [s.shelf for s in sessions]
    yield from _metric("visavis_sessions", "gauge", "Sessions open now.", [("", len(sessions))])
    yield from _metric("visavis_sessions_limit", "gauge", "Most sessions at a time.", [("", sessions.limit)])
    yield from _metric(
        "visavis_sessions_fit",
        "gauge",
        "Sessions that fit at the machine's present speed; 0 while anything is saved for those inside.",
        [("", fit_now)],
    )
    yield from _metric("visavis_sessions_total", "counter", "Sessions opened since the start.", [("", sessions.total)])
    yield from _metric(
        "visavis_sessions_refused_total",
        "counter",
        "Sessions answered 503, by what was missing: a place, or the machine's pace.",
        [(f'{{missing="{missing}"}}', count) for missing, count in sessions.refused.items()],
    )
    yield from _metric(
        "visavis_open_session_frames",
        "gauge",
        "Frames of the sessions open now: sent, of these repeated for being late, of these spared on purpose, and "
        "drawn but never shown.",
        [
            ('{kind="sent"}', sum(s.taken for s in shelves)),
            ('{kind="repeated"}', sum(s.repeated for s in shelves)),
            ('{kind="spared"}', sum(s.spared for s in shelves)),
            ('{kind="dropped"}', sum(s.dropped for s in shelves)),
        ],
    )


def _of_company(viewers: int, rooms: int) -> Iterator[str]:
    yield from _metric("visavis_viewers", "gauge", "Connections that watch and do not speak.", [("", viewers)])
    yield from _metric("visavis_rooms", "gauge", "Rooms with somebody in them.", [("", rooms)])


def _of_pace(pace: Pace) -> Iterator[str]:
    yield from _metric(
        "visavis_thrift_level",
        "gauge",
        f"What is saved now: {', '.join(f'{n} {name}' for n, name in enumerate(pace.levels))}.",
        [("", pace.level)],
    )
    for what, values in (("seconds", pace.seconds), ("frames", pace.drawn)):
        yield from _metric(
            f"visavis_thrift_{what}_total",
            "counter",
            {"seconds": "Seconds spent at each level.", "frames": "Frames drawn at each level."}[what],
            [(f'{{level="{name}"}}', round(value, 3)) for name, value in zip(pace.levels, values, strict=True)],
        )
    yield from _metric(
        "visavis_slowness", "gauge", "Time of a full step now, in that of the start.", [("", round(pace.slowness, 3))]
    )


def _of_capacity(capacity: Capacity) -> Iterator[str]:
    yield from _metric(
        "visavis_capacity_sessions",
        "gauge",
        "Sessions that fit, counted at the start, and what runs out first.",
        [(f'{{bound_by="{capacity.bound_by}"}}', capacity.sessions)],
    )
    yield from _metric(
        "visavis_capacity_row_milliseconds",
        "gauge",
        "Time for a frame in steps of so many, measured at the start.",
        [(f'{{rows="{rows}"}}', round(seconds * 1000, 3)) for rows, seconds in capacity.row_s.items()],
    )
    yield from _metric(
        "visavis_capacity_row_cpu_milliseconds",
        "gauge",
        "Processor time for a frame in steps of so many, all threads together, measured at the start.",
        [(f'{{rows="{rows}"}}', round(seconds * 1000, 3)) for rows, seconds in capacity.row_cpu_s.items()],
    )
    yield from _metric(
        "visavis_capacity_cores",
        "gauge",
        "Cores that were counted with: there are, sending takes per session.",
        [('{kind="usable"}', capacity.cores), ('{kind="session"}', capacity.media_cores)],
    )


def _of_loop(loop_lag: LoopLag) -> Iterator[str]:
    yield from _metric(
        "visavis_loop_lag_milliseconds",
        "gauge",
        "How late the event loop did what was due, in the last minute.",
        [(f'{{quantile="{q / 100:g}"}}', round(loop_lag.percentile_ms(q), 3)) for q in (50, 99)],
    )


def _of_stages(trace: Trace) -> Iterator[str]:
    yield from _metric(
        "visavis_stage_milliseconds",
        "gauge",
        "Latest durations of each stage.",
        [
            (f'{{stage="{stage}",quantile="{quantile}"}}', round(ms, 3))
            for stage, figures in trace.summary_ms().items()
            for quantile, ms in (("0.5", figures["p50"]), ("0.95", figures["p95"]))
        ],
    )


def _metric(name: str, kind: str, help_text: str, values: Iterable[tuple[str, float]]) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {v}" for labels, v in values)]
