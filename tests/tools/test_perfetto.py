"""The trace file keeps the rules of Chrome's trace events, and says what the run was."""

import json
from itertools import groupby

import pytest

from tests.tools.made_up_run import EXPECTED, STAGES_MS, make_run
from tools.latency import measure_bursts
from tools.perfetto import PEER, SERVER, write_perfetto


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    recording, spans = make_run()
    path = tmp_path_factory.mktemp("new") / "folder" / "run.trace.json"
    write_perfetto(path, spans, recording, measure_bursts(recording, [EXPECTED]))
    return json.loads(path.read_text())["traceEvents"]


def track_names(events) -> dict[tuple[int, int], str]:
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}


def test_every_event_has_what_its_kind_must_have(events):
    needed = {"X": {"ts", "dur", "tid"}, "i": {"ts", "s", "tid"}, "b": {"ts", "id", "cat"}, "e": {"ts", "id", "cat"}}
    for event in events:
        assert {"ph", "pid", "name"} | needed.get(event["ph"], set()) <= set(event), event
        assert event["ph"] in {*needed, "M"} and event["pid"] in (PEER, SERVER)
        assert event.get("ts", 0) >= 0 and event.get("dur", 0) >= 0


def test_every_track_is_named(events):
    names = track_names(events)
    used = {(e["pid"], e["tid"]) for e in events if e["ph"] in "Xi"}
    assert used <= set(names)
    assert {names[track] for track in used} >= {"microphone packets", "engine steps", "encode and send"}


def test_spans_of_a_track_nest_and_never_overlap(events):
    """ui.perfetto.dev drops those that do."""
    spans = sorted((e for e in events if e["ph"] == "X"), key=lambda e: (e["pid"], e["tid"], e["ts"], -e["dur"]))
    for _, track in groupby(spans, key=lambda e: (e["pid"], e["tid"])):
        open_until: list[float] = []
        for event in track:
            while open_until and open_until[-1] <= event["ts"] + 0.2:  # times are rounded to 0.1 us
                open_until.pop()
            end = event["ts"] + event["dur"]
            assert not open_until or end <= open_until[-1] + 0.2, event
            open_until.append(end)


def test_asynchronous_spans_begin_once_and_end_once(events):
    begun = [e["id"] for e in events if e["ph"] == "b"]
    ended = [e["id"] for e in events if e["ph"] == "e"]
    assert len(set(begun)) == len(begun) and sorted(begun) == sorted(ended)
    assert {e["name"] for e in events if e["ph"] == "b"} == {
        "hop_to_frame",
        "wait_for_tick",
        "mouth to pixel",
        "frame arrived to in hand",
    }


def test_server_and_peer_are_on_one_time_line(events):
    encoded = {e["args"]["tick"]: e["ts"] + e["dur"] for e in events if e["name"] == "encode"}
    arrived = sorted(e["ts"] for e in events if e["ph"] == "b" and e["name"] == "frame arrived to in hand")
    first = arrived[0] - encoded[3]  # the first frame that the peer received
    assert first == pytest.approx(STAGES_MS["way_down"] * 1000, abs=1)


def test_a_steps_stages_lie_within_it(events):
    step = next(e for e in events if e["name"] == "step")
    within = [e["name"] for e in events if e["ph"] == "X" and step["ts"] <= e["ts"] < step["ts"] + step["dur"]]
    assert {"step.features", "step.render", "step.superres"} <= set(within)
