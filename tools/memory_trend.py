"""Does memory grow? A straight line through it, with an error that knows how little new each sample says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SETTLING = 1 / 3  # of the run that is not judged: pools and caches fill up first
LEAST_SAMPLES = 6


@dataclass(frozen=True, kw_only=True)
class MemoryTrend:
    """Slope of a straight line by least squares; None where there were too few samples to tell."""

    mb_per_hour: float | None
    error_mb_per_hour: float | None  # standard error
    from_s: float  # the samples before are not in it
    samples: int

    def as_json(self) -> dict[str, Any]:
        return {
            "mb_per_hour": None if self.mb_per_hour is None else round(self.mb_per_hour, 2),
            "error_mb_per_hour": None if self.error_mb_per_hour is None else round(self.error_mb_per_hour, 2),
            "from_s": round(self.from_s, 1),
            "samples": self.samples,
        }


def fit_trend(times_s: np.ndarray, resident_mb: np.ndarray) -> MemoryTrend:
    """The trend after the first third.

    Memory moves in steps that last, so that one sample is much like the one before: the error counts as many
    samples as would be independent, ``n (1 - r) / (1 + r)`` with ``r`` the residuals' correlation from one to the next.

    Args:
        times_s: [N], rising.
        resident_mb: [N].
    """
    from_s = float(times_s[-1] * SETTLING) if len(times_s) else 0.0
    late = times_s >= from_s
    hours, mb = times_s[late] / 3600, resident_mb[late]
    if len(hours) < LEAST_SAMPLES:
        return MemoryTrend(mb_per_hour=None, error_mb_per_hour=None, from_s=from_s, samples=len(hours))
    hours = hours - hours.mean()
    slope = float((hours * mb).sum() / (hours * hours).sum())
    rest = mb - mb.mean() - slope * hours
    power = float((rest * rest).sum())
    alike = float((rest[1:] * rest[:-1]).sum()) / power if power > 1e-12 else 0.0
    alike = min(max(alike, 0.0), 0.99)
    independent = max(3.0, len(rest) * (1 - alike) / (1 + alike))
    variance = power / len(rest) * independent / (independent - 2)
    error = float(np.sqrt(variance / ((hours * hours).mean() * independent)))
    return MemoryTrend(mb_per_hour=slope, error_mb_per_hour=error, from_s=from_s, samples=len(rest))
