"""The bench on the fake engine: that its figures are those of the run."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.api import Avatar, StepRow, StreamState
from engine.avatar_file import AvatarRecord, KeptAvatar, written
from engine.fake import FakeEngine
from tools import bench_engine, step_timing


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
    steps = len(engine.heard) - step_timing.WARM_STEPS
    assert steps > 0 and figures["frames"] == 2 * steps
    assert figures["fps"] == pytest.approx(figures["frames"] / figures["seconds"], rel=0.01)
    assert figures["stages_ms"]["render"]["p50"] == pytest.approx(step_timing.WARM_STEPS + (steps + 1) / 2)
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


def test_rounds_alternate_and_add_up(portrait):
    order: list[str] = []

    class Named(FakeEngine):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
            order.append(self.name)
            return super().step(rows, state)

    engines = [Named("a"), Named("b")]
    speech = np.zeros(6400, np.float32)
    timings = [step_timing.StepTiming(e, e.enrol(portrait.read_bytes()), speech, streams=1) for e in engines]
    rates = step_timing.take_turns(timings, 0.2)
    turns = [name for name, before in zip(order, ["", *order[:-1]], strict=True) if name != before]
    assert turns == ["a", "b"] * 3  # the warm-up, then two rounds
    assert len(rates) == 2 and all(rate > 0 for pair in rates for rate in pair)
    counted = sum(timing.figures()["frames"] for timing in timings)
    assert counted == len(order) - 2 * step_timing.WARM_STEPS - 2 * 2  # nor the first of a round


def test_the_comparison_is_with_the_unbaked_path_in_the_same_run(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VISAVIS_BACKEND", "")  # given back at the end: --backend sets it
    out = tmp_path / "f.json"
    arguments = ["--seconds", "1", "--json", str(out), "--compare", "--backend", "eager"]
    assert bench_engine.main(arguments) == 0, capsys.readouterr().err
    report = json.loads(out.read_text())
    assert report["backend"] == report["reference"]["backend"] == "eager"
    assert report["speedup"] == pytest.approx(report["fps"] / report["reference"]["fps"], rel=0.01)
    assert len(report["speedup_rounds"]) >= 2
    assert "identity" in report["reference"]["stages_ms"] and "identity" not in report["stages_ms"]
    assert 0 < report["speedup_identity_kept"]
    assert "slot attention" in report["reference"]["what"]
    assert "times as fast" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--streams", "999"], "at most 16"),
        (["--portrait", "absent.png"], "cannot read the portrait 'absent.png'"),
        (["--compare"], "the fake engine has no unbaked path"),
    ],
)
def test_what_cannot_be_benched_is_said(tmp_path, portrait, capsys, arguments, says):
    out = tmp_path / "f.json"
    base = ["--seconds", "0.1", "--json", str(out), "--engine", "fake", "--portrait", str(portrait)]
    assert bench_engine.main([*base, *arguments]) == 2
    assert says in capsys.readouterr().err and not out.exists()


def test_a_backend_that_does_not_exist_is_told(capsys):
    with pytest.raises(SystemExit):
        bench_engine.main(["--seconds", "1", "--json", "f.json", "--backend", "no_such"])
    assert "no backend is called 'no_such'; choose one of" in capsys.readouterr().err


def test_streams_take_turns_among_avatars(portrait):
    engine = StagedEngine()
    seen: list[list[int]] = []
    step = engine.step
    engine.step = lambda rows, state: seen.append([id(row.avatar) for row in rows]) or step(rows, state)  # type: ignore
    avatars = [engine.enrol(portrait.read_bytes()) for _ in range(2)]
    bench_engine.run_steps(engine, avatars, np.zeros(6400, np.float32), streams=3, seconds=0.05)
    assert seen[0] == [id(avatars[0]), id(avatars[1]), id(avatars[0])]


def keep(folder: Path, avatar: Avatar, fingerprint: str) -> Path:
    file = folder / "a.safetensors"
    record = AvatarRecord(id="a", created_at=0.0, expires_at=None, engine=avatar.engine, fingerprint=fingerprint)
    with written(file, KeptAvatar(record, avatar, None)) as temporary:
        return temporary.rename(file)


def test_an_avatar_enrolled_before_is_taken_from_its_file(tmp_path, portrait):
    avatar = FakeEngine().enrol(portrait.read_bytes())
    out, file = tmp_path / "f.json", keep(tmp_path, avatar, avatar.fingerprint)
    arguments = ["--seconds", "0.1", "--json", str(out), "--engine", "fake", "--avatar", str(file)]
    assert bench_engine.main([*arguments, "--avatars", "2", "--streams", "2"]) == 0
    report = json.loads(out.read_text())
    assert report["enrol_ms"] is None and report["avatars"] == 2


def test_an_avatar_of_another_checkpoint_is_refused(tmp_path, portrait, capsys):
    avatar = FakeEngine().enrol(portrait.read_bytes())
    file = keep(tmp_path, avatar, "older")
    arguments = ["--seconds", "0.1", "--json", str(tmp_path / "f.json"), "--engine", "fake", "--avatar", str(file)]
    assert bench_engine.main(arguments) == 2
    assert "enrol it again" in capsys.readouterr().err
