"""The bench on the fake engine: that its figures are those of the run."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from PIL import Image

from engine.api import StepRow, StreamState
from engine.fake import FakeEngine
from tools import bench_engine


class StagedEngine(FakeEngine):
    """Says that step n spent n ms in its one stage, and remembers what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[list[np.ndarray]] = []

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        self.heard.append([row.samples for row in rows])
        return super().step(rows, state)

    @property
    def stage_ms(self) -> Mapping[str, float]:
        return {"render": float(len(self.heard))}


@pytest.fixture
def portrait(tmp_path):
    path = tmp_path / "portrait.png"
    Image.new("RGB", (64, 64), (120, 90, 80)).save(path)
    return path


def test_steps_are_counted_after_the_warm_up_with_the_engines_own_stages(portrait):
    engine = StagedEngine()
    avatar = engine.enrol(portrait.read_bytes())
    speech = np.arange(10 * 640, dtype=np.float32) / 1e5
    figures = bench_engine.run_steps(engine, avatar, speech, streams=2, seconds=0.2)
    steps = len(engine.heard) - bench_engine.WARM_STEPS
    assert steps > 0 and figures["frames"] == 2 * steps
    assert figures["fps"] == pytest.approx(figures["frames"] / figures["seconds"], rel=0.01)
    assert figures["stages_ms"]["render"]["p50"] == pytest.approx(bench_engine.WARM_STEPS + (steps + 1) / 2)
    assert figures["step_ms"]["p50"] <= figures["step_ms"]["p99"]
    first, second = engine.heard[0]
    assert first[0] == 0 and second[0] == speech[5 * 640]  # each stream at its own place
    np.testing.assert_array_equal(engine.heard[7][1], speech[2 * 640 : 3 * 640])


def test_the_report_holds_the_promised_keys(tmp_path, portrait, capsys):
    out = tmp_path / "f.json"
    arguments = ["--seconds", "0.1", "--json", str(out), "--engine", "fake", "--portrait", str(portrait)]
    assert bench_engine.main(arguments) == 0
    report = json.loads(out.read_text())
    assert report["fps"] > 25 and report["engine"] == "fake" and report["backend"] == "python"
    assert set(report["step_ms"]) == {"p50", "p95", "p99"}
    assert report["machine"]["cpu"] and report["threads"] >= 1 and report["resident_mb"] > 10
    assert "whole step" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--streams", "999"], "at most 16"), (["--portrait", "absent.png"], "cannot read the portrait 'absent.png'")],
)
def test_what_cannot_be_benched_is_said(tmp_path, portrait, capsys, arguments, says):
    out = tmp_path / "f.json"
    base = ["--seconds", "0.1", "--json", str(out), "--engine", "fake", "--portrait", str(portrait)]
    assert bench_engine.main([*base, *arguments]) == 2
    assert says in capsys.readouterr().err and not out.exists()
