"""Spans: kept, summed up, written down, and on the clock that every process of a machine shares."""

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from engine.trace import WAITING_LINES, Trace, TraceError, TraceFile, read_trace


def test_percentiles_are_of_the_last_spans_only():
    trace = Trace(keep=10)
    for ms in range(100):
        trace.add("step", ms)
    assert trace.percentile_ms("step", 0) == 90 and trace.percentile_ms("step", 95) == 99
    assert trace.percentile_ms("unknown", 50) == 0


def test_a_span_is_recorded_also_when_it_raises():
    times = iter([1.0, 1.25])
    trace = Trace(clock=lambda: next(times))
    with pytest.raises(KeyError), trace.span("step"):
        raise KeyError
    assert trace.summary_ms() == {"step": {"p50": 250.0, "p95": 250.0}}


def test_an_event_has_no_duration_and_is_told_to_the_sink_alone():
    told: list[dict[str, Any]] = []
    trace = Trace(sink=told.append)
    trace.event("packet", 2.0, end=960)
    assert trace.stages == () and told == [{"stage": "packet", "start_s": 2.0, "end": 960}]


def test_a_file_gives_back_what_was_traced_in_order(tmp_path):
    file = TraceFile(tmp_path / "t.jsonl")
    trace = Trace(sink=file)
    trace.add("late", 1.23456, start_s=5.0, frame=3)
    trace.event("early", 4.0)
    trace.add("nowhen", 1.0)
    file.close()
    file.close()
    trace.event("after the end", 6.0)
    assert read_trace(tmp_path / "t.jsonl") == [
        {"stage": "early", "start_s": 4.0},
        {"stage": "late", "start_s": 5.0, "ms": 1.2346, "frame": 3},
    ]


def test_a_line_torn_by_a_killed_server_is_left_out(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"trace": 1, "clock": "monotonic"}\n{"stage": "a", "start_s": 1.0}\n{"stage": "b", "sta')
    assert [line["stage"] for line in read_trace(path)] == ["a"]


@pytest.mark.parametrize("text", ["", "hello\n", "[]\n", '{"trace": 9, "clock": "monotonic"}\n', '{"stage": "a"}\n'])
def test_what_is_no_trace_is_refused_in_words(tmp_path, text):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(TraceError, match=r"t\.jsonl"):
        read_trace(tmp_path / "t.jsonl")


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    with pytest.raises(TraceError, match="cannot be written"):
        TraceFile(tmp_path / "absent" / "t.jsonl")


def test_what_a_hanging_disk_cannot_take_is_dropped_and_counted(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDWR)  # nothing is read from it for now: the writer hangs when it is full
    file = TraceFile(path)
    for index in range(WAITING_LINES + 5000):
        file({"stage": "x", "start_s": float(index)})
    assert file._dropped > 0
    closing = threading.Thread(target=file.close)
    closing.start()
    text = b""
    while not text.endswith(b'"dropped": %d}\n' % file._dropped):
        text += os.read(reader, 1 << 16)
    closing.join()
    os.close(reader)
    assert text.count(b"\n") == WAITING_LINES + 5000 - file._dropped + 2


def test_processes_of_one_machine_share_the_clock(tmp_path):
    """A child's span lies between two readings of its parent's clock; that is what laying them together rests on."""
    code = "from engine.trace import Trace\nwith Trace(sink=lambda line: print(line['start_s'])).span('x'): pass"
    before_s = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert before_s < float(run.stdout) < time.monotonic()
    assert time.monotonic() - before_s < 600  # else anything would lie between them
