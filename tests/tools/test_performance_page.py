"""The page of figures: what it says of made-up reports, and once for real on the fake engine."""

from dataclasses import replace
from typing import Any

import pytest

from tools import performance_page, performance_runs
from tools.performance_runs import Plan, Results, ToolRun, run_tool
from tools.performance_text import write_page

MACHINE = {"cpu": "A Processor", "cores": 4, "usable_cores": 2, "system": "Linux", "memory_gb": 7.8}
P = {"p50": 1.0, "p95": 2.0, "p99": 3.0}


def latency(**changes: Any) -> dict[str, Any]:
    made = {
        "mouth_to_pixel_ms": {"p50": 170.0, "p95": 240.0, "p99": 300.0},
        "picture_age_ms": P,
        "sound_age_ms": P,
        "av_skew_ms": {"p50": 4.0, "p95": 31.0, "signed_p50": 1.0},
        "fps": 25.0,
        "frames": 1000,
        "repeated": 2,
        "spared": 1,
        "dropped": 0,
        "gaps": 0,
        "seconds": 40.0,
        "bursts": 30,
        "bursts_found": 29,
        "server_cpu_share": 0.5,
        "stage_budget_ms": {"rise": -3.0, "lookahead": 120.0},
        "stage_budget_sum_ms": 117.0,
        "stage_budget_bursts": 29,
        "uncertainty_ms": {},
    }
    return made | changes


def load(asked: int, opened: int, fps: float) -> ToolRun:
    report = {
        "asked": asked,
        "opened": opened,
        "refused": asked - opened,
        "failed": 0,
        "fps": {"min": fps, "mean": fps},
        "lost_share": 0.001,
        "server_cpu_share": 1.0,
        "peers_cpu_share": 0.2,
        "server_resident_mb": {"before": 1.0, "highest": 2.0, "after": 1.0},
    }
    command = f"python -m tools.load --sessions {asked} --seconds 30 --json F"
    return ToolRun(command=command, report=report)


@pytest.fixture
def results() -> Results:
    bench = {
        "fps": 60.0,
        "streams": 1,
        "threads": 1,
        "backend": "openvino",
        "fingerprint": "abc",
        "resident_mb": 400.0,
        "step_ms": P,
        "stages_ms": {"render": P},
        "speedup": 3.5,
        "speedup_rounds": [3.4, 3.6],
        "speedup_identity_kept": 2.5,
    }
    bench["reference"] = {
        "fps": 17.0,
        "what": "the same without short cuts",
        "step_ms": P,
        "stages_ms": {"identity": P},
    }
    startup: dict[str, Any] = {"start_first_s": 9.0, "start_second_s": 4.0, "enrolled_ms": 600.0}
    startup |= {"first_picture_ms": 900.0, "first_drawn_ms": None}
    churn = {
        "opened": 90,
        "session_s": 20.0,
        "asked": 2,
        "seconds": 1800.0,
        "failed": 0,
        "server_resident_mb": {"before": 500.0, "highest": 610.0, "after": 600.0},
        "memory_trend": {"mb_per_hour": 3.0, "error_mb_per_hour": 2.0, "from_s": 600.0, "samples": 400},
    }
    return Results(
        bench=[ToolRun(command="python -m tools.bench_engine --seconds 20 --compare --json F", report=bench)],
        latency=ToolRun(command="python -m tools.profile_latency --seconds 600 --json F", report=latency()),
        browser=None,
        load=[load(1, 1, 25.0), load(2, 2, 25.0), load(3, 2, 25.0)],
        churn=ToolRun(command="python -m tools.load --churn 20 --json F", report=churn),
        startup=ToolRun(command="python -m tools.startup --json F", report=startup),
    )


def page_of(results: Results) -> str:
    return write_page(MACHINE, {"Python": "3.11.9", "torch": "2.13.0"}, "2026-01-02", results)


def row(page: str, name: str) -> list[str]:
    return next(
        [c.strip() for c in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith(f"| {name}")
    )


def test_the_machine_and_every_command_are_named(results):
    page = page_of(results)
    assert all(text in page for text in ("A Processor", "2 of 4", "3.11.9", "2.13.0", "2026-01-02"))
    for run in (*results.bench, results.latency, results.churn, results.startup):
        assert f"`{run.command}`" in page
    assert "`python -m tools.load --sessions N --seconds 30 --json F`" in page


def test_figures_stand_beside_what_must_be_reached(results):
    page = page_of(results)
    assert row(page, "engine, one stream")[1:] == ["60.0", ">= 50", "100", "yes"]
    assert row(page, "mouth to pixel, p50")[1:] == ["170.0", "<= 230", "180", "aim"]
    assert row(page, "sound against picture")[1:] == ["31.0", "<= 20", "10", "no"]
    assert row(page, "live: frames")[1:] == ["0.30", "<= 0.5", "0", "yes"]
    assert row(page, "live sessions")[1:] == ["2", ">= 2", "3", "yes"]
    assert row(page, "memory's trend")[1] == "1.5"
    assert row(page, "the same on all cores")[1:] == ["not measured", ">= 50", "100", "-"]


def test_sessions_that_did_not_get_their_frames_do_not_count(results):
    slow = replace(results, load=[load(1, 1, 25.0), load(2, 2, 19.0)])
    assert row(page_of(slow), "live sessions")[1] == "1"


def test_the_comparison_says_what_it_is_with(results):
    page = page_of(results)
    assert "the same without short cuts" in page and "**3.50 times**" in page and "3.40 to 3.60" in page


def test_what_was_left_out_has_no_section_and_what_failed_says_so(results):
    broken = ToolRun(command="python -m tools.startup --json F", report=None, trouble="exit status 2: no such portrait")
    page = page_of(replace(results, startup=broken, churn=None, load=[], bench=[]))
    assert "This could not be measured: exit status 2: no such portrait" in page
    assert "come and go" not in page and "Several sessions" not in page and "The engine alone" not in page
    assert row(page, "second start")[1] == "not measured"


def test_a_tool_that_fails_is_kept_in_words(tmp_path):
    run = run_tool("bench_engine", ["--seconds", "1", "--engine", "fake", "--portrait", "absent.png"], tmp_path)
    assert run.report is None and "cannot read the portrait 'absent.png'" in run.trouble


def test_a_page_is_measured_and_written(tmp_path, monkeypatch, capsys):
    """Without the runs that take longest; that their reports fit the page is seen in these tools' own tests."""
    short = performance_page.make_plan
    monkeypatch.setattr(performance_page, "make_plan", lambda args: replace(short(args), live_s=0, load_s=0, churn_s=0))
    out = tmp_path / "new" / "page.md"
    arguments = ["--out", str(out), "--seconds", "0.2", "--engine", "fake", "--no-browser"]
    assert performance_page.main(arguments) == 0, capsys.readouterr().err
    page = out.read_text()
    for title in ("The machine", "In short", "The engine alone", "Start, and"):
        assert f"## {title}" in page
    assert "could not be measured" not in page and "Mouth to pixel\n" not in page
    assert "python -m tools.bench_engine --seconds 0.2 --engine fake" in capsys.readouterr().out


def test_durations_are_full_unless_said_otherwise():
    def plan(*arguments: str) -> Plan:
        return performance_page.make_plan(
            performance_page.build_parser().parse_args(["--out", "f.md", "--no-browser", *arguments])
        )

    full, short = plan(), plan("--seconds", "3", "--churn-seconds", "60")
    assert (full.bench_s, full.live_s, full.churn_s) == (20, 600, 1800) and not full.browser
    assert (short.bench_s, short.load_s, short.live_s, short.churn_s) == (3, 3, 3, 60)


def test_sessions_are_added_until_one_is_refused(tmp_path, monkeypatch):
    given = {1: load(1, 1, 25.0), 2: load(2, 2, 25.0), 3: load(3, 2, 25.0)}

    def run(tool: str, arguments: list[str], _folder: object) -> ToolRun:
        return given[int(arguments[1])] if tool == "load" else ToolRun(command=tool, report={})

    monkeypatch.setattr(performance_runs, "run_tool", run)
    plan = Plan(engine="fake", bench_s=0, live_s=0, load_s=1, churn_s=0, browser=False, cores=2, has_gpu=False)
    assert performance_runs.run_all(plan, tmp_path, print).load == list(given.values())


def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, capsys):
    assert performance_page.main(["--out", str(tmp_path), "--seconds", "1", "--engine", "fake"]) == 2
    assert "it is a folder" in capsys.readouterr().err
