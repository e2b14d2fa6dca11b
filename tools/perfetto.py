"""A run as a trace file that ui.perfetto.dev (or chrome://tracing) opens: one track per stage.

The format is Chrome's trace events in JSON. Spans of one track may nest but not overlap there; what does overlap
(frames that wait side by side) is written as asynchronous spans, each with an id of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.bursts import BURST_S
from tools.files import replacing
from tools.latency import BurstFigures, Recording

PEER, SERVER = 1, 2  # process ids of the file; real ones would say nothing
PACKET_S = 0.02
PEER_TRACKS = ("bursts spoken", "microphone packets", "sound packets arrive")
SERVER_TRACKS = ("packets arrive", "engine steps", "encode and send", "other")
_TRACK_OF = {"packet": "packets arrive", "step": "engine steps", "mark": "engine steps", "encode": "encode and send"}
_OVERLAPPING = ("hop_to_frame", "wait_for_tick")
Event = dict[str, Any]


def write_perfetto(
    path: Path, spans: Sequence[Mapping[str, Any]], recording: Recording, figures: Sequence[BurstFigures]
) -> None:
    """Write the trace of one run.

    Args:
        spans: of the server, as ``engine.trace.read_trace`` gives them.
        recording, figures: of the peer, on the same clock.

    Raises:
        FileError: it cannot be written there.
    """
    events = [*_peer_events(recording, figures), *_server_events(spans)]
    origin_s = min(event["ts"] for event in events) if events else 0.0
    for event in events:
        event["ts"] = round((event["ts"] - origin_s) * 1e6, 1)
    text = json.dumps({"displayTimeUnit": "ms", "traceEvents": [*_names(), *events]})
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "trace") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _names() -> Iterator[Event]:
    for process, name, tracks in ((PEER, "peer", PEER_TRACKS), (SERVER, "server", SERVER_TRACKS)):
        yield {"ph": "M", "pid": process, "name": "process_name", "args": {"name": name}}
        for index, track in enumerate(tracks, start=1):
            yield {"ph": "M", "pid": process, "tid": index, "name": "thread_name", "args": {"name": track}}


def _span(process: int, track: str, name: str, start_s: float, end_s: float, **notes: Any) -> Event:
    tracks = PEER_TRACKS if process == PEER else SERVER_TRACKS
    event = {"ph": "X", "pid": process, "tid": tracks.index(track) + 1, "name": name, "ts": start_s}
    return event | {"dur": round(max(0.0, end_s - start_s) * 1e6, 1), "args": notes}


def _instant(process: int, track: str, name: str, at_s: float, **notes: Any) -> Event:
    tracks = PEER_TRACKS if process == PEER else SERVER_TRACKS
    return {
        "ph": "i",
        "s": "t",
        "pid": process,
        "tid": tracks.index(track) + 1,
        "name": name,
        "ts": at_s,
        "args": notes,
    }


def _overlapping(process: int, name: str, key: str, start_s: float, end_s: float, **notes: Any) -> Iterator[Event]:
    common = {"pid": process, "cat": name, "name": name, "id": f"{name} {key}"}
    yield {"ph": "b", "ts": start_s, "args": notes, **common}
    yield {"ph": "e", "ts": end_s, "args": {}, **common}


def _peer_events(recording: Recording, figures: Sequence[BurstFigures]) -> Iterator[Event]:
    started_s = recording.started_s
    for index, figure in enumerate(figures):
        at_s = started_s + figure.at_s
        yield _span(PEER, "bursts spoken", f"burst {index}", at_s, at_s + BURST_S)
        if figure.mouth_to_pixel_ms is not None:
            shown_s = at_s + figure.mouth_to_pixel_ms / 1000
            yield from _overlapping(PEER, "mouth to pixel", str(index), at_s, shown_s, **figure.as_json())
    for index in range(recording.packets_sent):
        heard_s = started_s + index * PACKET_S
        yield _span(PEER, "microphone packets", f"packet {index}", heard_s, heard_s + PACKET_S)
    frames = zip(recording.frame_ticks, recording.arrived_s, recording.shown_s, strict=True)
    for index, (ticks, arrived_s, shown_s) in enumerate(frames):
        yield from _overlapping(
            PEER, "frame arrived to in hand", str(index), float(arrived_s), float(shown_s), rtp_ticks=int(ticks)
        )
    for at_s in recording.sound_arrived_s:
        yield _instant(PEER, "sound packets arrive", "sound", float(at_s))


def _server_events(spans: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
    for number, span in enumerate(spans):
        stage, start_s = span["stage"], span["start_s"]
        notes = {key: value for key, value in span.items() if key not in ("stage", "start_s", "ms")}
        track = _TRACK_OF.get(stage.partition(".")[0], "other")
        if "ms" not in span:
            yield _instant(SERVER, track, stage, start_s, **notes)
        elif stage in _OVERLAPPING or track == "other":
            yield from _overlapping(SERVER, stage, str(number), start_s, start_s + span["ms"] / 1000, **notes)
        else:
            yield _span(SERVER, track, stage, start_s, start_s + span["ms"] / 1000, **notes)
