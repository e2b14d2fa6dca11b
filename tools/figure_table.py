"""The figures of an evaluation as Markdown: the clips with their anchors, the portraits, the sounds."""

from __future__ import annotations

from typing import Any

from tools.report import format_table

CLIP_COLUMNS = [
    "mouth_corr",
    "lag_frames",
    "m_lmd",
    "f_lmd",
    "ssim",
    "psnr",
    "lpips",
    "cpbd",
    "mouth_detail",
    "sync",
] + ["sync_offset", "opening_std_ratio", "flicker", "upper_psnr", "no_face_frames", "frames"]
REAL_BY_ITSELF = dict(mouth_corr=1.0, lag_frames=0, m_lmd=0.0, f_lmd=0.0, ssim=1.0, lpips=0.0, opening_std_ratio=1.0)
PORTRAIT_COLUMNS = [
    "portraits",
    "voices",
    "faces_share",
    "moves_share",
    "opening_std",
    "opening_std_silence",
    "upper_psnr",
] + ["upper_psnr_worst", "cpbd", "cpbd_source", "cpbd_ratio"]
SOUND_COLUMNS = ["sound", "portraits", "opening_std", "opening_std_speech", "share", "share_worst"]


def format_clips(clips: list[dict[str, Any]], mean: dict[str, Any]) -> str:
    """The clips, their mean and the two anchors."""
    still = {c: mean.get(f"{c}_still") for c in CLIP_COLUMNS} | {"opening_std_ratio": 0.0, "no_face_frames": 0.0}
    real = {c: mean.get(f"{c}_real") for c in CLIP_COLUMNS} | REAL_BY_ITSELF
    if mean.get("lpips") is None:
        real["lpips"] = None
    rows = [(c["clip"], c) for c in clips]
    rows += [(f"mean of {len(clips)}", mean), ("anchor: still first frame", still), ("anchor: real frames", real)]
    return format_table(["clip", *CLIP_COLUMNS], [[name, *(row.get(c) for c in CLIP_COLUMNS)] for name, row in rows])


def format_report(report: dict[str, Any]) -> str:
    """All tables of a report, in the layout of the JSON file, with a heading each."""
    parts = []
    if report["clips"]:
        parts += ["### Clips", format_clips(report["clips"], report["mean"])]
    if report.get("portraits", {}).get("entries"):
        mean = report["portraits"]["mean"]
        table = format_table(["figure", "over all portraits and voices"], [[c, mean[c]] for c in PORTRAIT_COLUMNS])
        parts += ["### Portraits", table]
    if report.get("sounds", {}).get("entries"):
        rows = [[row[c] for c in SOUND_COLUMNS] for row in report["sounds"]["by_sound"]]
        parts += ["### Sounds without speech", format_table(SOUND_COLUMNS, rows)]
    parts += list(report["notes"].values())
    return "\n\n".join(parts)
