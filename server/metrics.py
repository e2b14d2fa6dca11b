"""Counters and timings in Prometheus' text format, for ``GET /metrics``."""

from __future__ import annotations

from collections.abc import Iterable

from server.engine_worker import EngineWorker
from server.sessions import Sessions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render_metrics(sessions: Sessions, worker: EngineWorker) -> str:
    """All metrics as text."""
    shelves = [s.shelf for s in sessions]
    lines = [
        *_metric("visavis_sessions", "gauge", "Sessions open now.", [("", len(sessions))]),
        *_metric("visavis_sessions_limit", "gauge", "Most sessions at a time.", [("", sessions.limit)]),
        *_metric("visavis_sessions_total", "counter", "Sessions opened since the start.", [("", sessions.total)]),
        *_metric(
            "visavis_open_session_frames",
            "gauge",
            "Frames of the sessions open now: sent, of these repeated, and drawn but never shown.",
            [
                ('{kind="sent"}', sum(s.taken for s in shelves)),
                ('{kind="repeated"}', sum(s.repeated for s in shelves)),
                ('{kind="dropped"}', sum(s.dropped for s in shelves)),
            ],
        ),
        *_metric(
            "visavis_stage_milliseconds",
            "gauge",
            "Latest durations of each stage.",
            [
                (f'{{stage="{stage}",quantile="{quantile}"}}', round(ms, 3))
                for stage, figures in worker.trace.summary_ms().items()
                for quantile, ms in (("0.5", figures["p50"]), ("0.95", figures["p95"]))
            ],
        ),
    ]
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, help_text: str, values: Iterable[tuple[str, float]]) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}", *(f"{name}{labels} {v}" for labels, v in values)]
