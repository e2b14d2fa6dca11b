"""A picture of a latency run: stages on a time line, a histogram, and the first bursts as they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")  # no display is needed
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402

from tools.bursts import BURST_S  # noqa: E402
from tools.files import replacing  # noqa: E402
from tools.latency import Recording  # noqa: E402

SHOWN_BURSTS = 4


def draw_report(path: Path, report: dict[str, Any], recording: Recording) -> None:
    """Write the picture as PNG.

    Raises:
        FileError: it cannot be written there.
    """
    figure, (line, histogram, run) = plt.subplots(
        3, 1, figsize=(10, 11), height_ratios=[1, 1.4, 1.4], dpi=110, layout="constrained"
    )
    _draw_budget(line, report)
    _draw_histogram(histogram, report)
    _draw_run(run, recording)
    figure.suptitle(f"Mouth to pixel, {report['engine']} engine, {report['machine']['cpu']}", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "picture") as temporary:
        figure.savefig(temporary, format="png")
    plt.close(figure)


def _draw_budget(axes: Axes, report: dict[str, Any]) -> None:
    """The way of the frames that were followed, else what the median splits into."""
    followed = report["stage_budget_ms"]
    budget: dict[str, float] = followed or report["budget_ms"] or {}
    at = 0.0
    colours = plt.get_cmap("tab20")
    for index, (stage, ms) in enumerate(budget.items()):
        axes.barh(0, ms, left=at, color=colours(index % 20), label=f"{stage} {ms:.1f}", alpha=0.9 if ms >= 0 else 0.4)
        at += ms
    axes.set_title(
        f"mean way of {report['stage_budget_bursts']} frames" if followed else "where the median goes", fontsize=9
    )
    axes.set_yticks([])
    axes.set_xlabel("ms")
    if budget:
        axes.legend(ncols=4, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.4), frameon=False)


def _draw_histogram(axes: Axes, report: dict[str, Any]) -> None:
    values = [b["mouth_to_pixel_ms"] for b in report["each_burst"] if b["mouth_to_pixel_ms"] is not None]
    bins = np.arange(min(values, default=0) // 10 * 10 - 20, max(values, default=0) + 30, 10)
    axes.hist(values, bins=bins.tolist())
    for name, ms in report["mouth_to_pixel_ms"].items():
        if ms is not None:
            axes.axvline(ms, color="k", linewidth=0.8)
            axes.text(ms, axes.get_ylim()[1], f" {name}", fontsize=8, va="top")
    axes.set_title(f"mouth to pixel of {len(values)} bursts", fontsize=9)
    axes.set_xlabel("ms")


def _draw_run(axes: Axes, recording: Recording) -> None:
    sound, start_s = recording.sound, recording.started_s
    shown = sound.onsets_s[:SHOWN_BURSTS]
    low, high = shown[0] - 0.3, shown[-1] + 1.1
    for onset_s in shown:
        axes.axvspan(
            onset_s, onset_s + BURST_S, color="C1", alpha=0.25, label="spoken" if onset_s == shown[0] else None
        )
    for (times_s, values), colour, name in (
        ((recording.shown_s, recording.mouth.values), "C0", "mouth, by frame in hand"),
        (recording.loudness, "C2", "sound, on arrival"),
    ):
        inside = (times_s - start_s > low) & (times_s - start_s < high)
        if inside.any():
            scaled = values[inside] / max(float(values[inside].max()), 1e-9)
            axes.step(times_s[inside] - start_s, scaled, where="post", color=colour, linewidth=1, label=name)
    axes.set_title("the first bursts", fontsize=9)
    axes.set_xlabel("s since the microphone began")
    axes.legend(fontsize=8, loc="upper right")
