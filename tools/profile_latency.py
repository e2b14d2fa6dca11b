"""Measure mouth-to-pixel delay and the offset of sound and picture, through a real server.

    python -m tools.profile_latency --seconds S --json F [--plot F.png] [--trace F.json] [--engine NAME] [--browser]

The server runs in a process of its own on this machine's loopback address; a real WebRTC peer in this one
speaks bursts of speech into it and finds them again in the mouth and in the sound that come back.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.errors import ServerTrouble
from client.speech import Microphone
from engine.cache import DEFAULT_PORTRAIT
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, create_engine, engine_names
from engine.trace import read_trace
from tools import bursts
from tools.bench_engine import SAMPLE_SPEECH
from tools.browser_peer import record_in_browser
from tools.bursts import BurstSound, Trace
from tools.expected_mouth import draw_expected
from tools.files import read_bytes
from tools.latency import BurstFigures, Recording, make_report, measure_bursts
from tools.peer import Peer
from tools.perfetto import write_perfetto
from tools.report import describe_machine, format_table, positive_seconds, write_json
from tools.server_process import ServerProcess, read_times
from tools.sound_file import read_mono
from tools.stage_budget import read_server_times

EPILOG = """\
What is measured, and how. One clock: time.monotonic() of this process. Sound: about one burst every 1.2 s, 0.4 s
of loud speech with silence around, at irregular places between two frames. Sample i of the microphone is heard
at its start + i / 48000 s; a packet is sent when its 20 ms are full, as a browser does. Pose locked.
The server writes its spans by time.monotonic() too, which is one clock for all processes of a machine; its frames
and samples are matched with the peer's by count, as no packet can arrive before it was sent.
--trace F.json writes server and peer on one time line; open it in ui.perfetto.dev or chrome://tracing.
The mouth is the middle of the frame's lower half; its motion is its mean grey difference to rest.

keys of the JSON file:
  mouth_to_pixel_ms  {p50, p95, p99} over the bursts found: from a burst's first sample being heard until the first
                     decoded frame is in hand that stands for this instant or a later one, by the mouth's motion (see
                     picture_age_ms). It holds everything: packet, network, lookahead, engine, playout, encoding,
                     decoding, the wait for the next frame (0 to 40 ms). Not in it: sound card and display; nor that
                     the mouth opens a little before the sound, as mouths do (engine_onset_ms), for which it is less
  picture_age_ms     {p50, p95, p99}: from an instant at the microphone until the picture of that very instant is
                     in hand: the delay at which the received mouth is most like what the engine draws of the same
                     burst without a network (matched in steps of 1 ms), plus decoding
  engine_onset_ms    per burst cut: when, without a network, the mouth is a quarter of the way; negative: before
                     the onset, since an engine hears ahead
  sound_age_ms       {p50, p95, p99}: the same for the received sound, matched by its loudness
  av_skew_ms         {p50, p95} of the amount, and signed_p50; positive: the picture is late. Difference of the two
                     ages on arrival of their packets, before any player's buffer
  fps                frames received per second
  frames, repeated, spared, dropped   the server's counts, from the first burst on: sent; of these the one before
                     once more, because the frame was late, or because it was left out to keep up; drawn but never sent
  gaps               frame times for which nothing arrived here
  budget_ms          stages that add up to mouth_to_pixel_ms.p50:
                       lookahead      sound that the engine waits for
                       engine         from a complete 40 ms hop until its frame (server's figure)
                       margin_wait    rest of the server's playout delay: packets and hops filling, time to spare
                       transport      Opus there, network, VP8 encoding, network back (what is left of the age)
                       decode         from the last packet to the decoded frame in hand
                       wait_and_rise  from the picture's age to mouth_to_pixel: the event falls between frames
  stage_budget_ms    the frames that were the first to show a burst, followed one by one through the server's own trace;
                     means over them, which add up to stage_budget_sum_ms, the mean of their mouth-to-pixel:
                       rise           from the burst's onset to the instant that this frame stands for, as the onset
                                      falls between frames
                       lookahead      sound after that instant which the engine waits for (the rest of its window is
                                      past already and costs no time)
                       packet_filling until the packet with the last of it is full
                       way_up         Opus, network and jitter, decoding, until the engine's hop is complete
                       queue          until the engine takes it
                       features, deformation, render, super_resolution   the engine's own stages, where it has them
                       engine_rest    rest of the step, the visible mark, handing the frame over
                       wait_for_tick  the frame lies ready until the media clock says that it is due
                       encode         VP8 encoding and handing the packets to the socket
                       way_down       network, until the last packet has come
                       decode         until the decoded frame is in hand
  stage_budget_bursts   how many could be followed; the others' frames were late or their trace is not whole
  engine_stages_ms   median of each part of a step, from the server's /metrics
  each_burst         a list of {at_s, mouth_to_pixel_ms, picture_age_ms, sound_age_ms, skew_ms}; ages on arrival
  peer               aiortc, or chromium with --browser
  bursts, bursts_found, seconds, engine, start_s (server start to ready), server_cpu_share (of one core), machine

With --browser, Chromium speaks and watches on the server's own page (its lip-sync correction included; its echo
cancellation, noise suppression and gain control are off and not in the figures). The same keys, with these differences:
  mouth_to_pixel_ms, picture_age_ms   until the frame is on the screen, as the browser expects it: its jitter buffer,
                     the compositor and the wait for the next refresh are in it (headless: a made-up 60 Hz)
  sound_age_ms       until the sound is pulled to be played; av_skew_ms: the picture on the screen against that
  decode             from the last packet to the screen, all of the browser's buffers with it
  rise_and_way_up    rise, packet_filling and way_up in one: how the browser cuts and sends its sound cannot be seen
  uncertainty_ms     page_clock: how exactly the page's clock is laid on ours; capture_spread: how evenly the fake
                     microphone played; capture_block: it hands over 10 ms at once. The last of these samples counts
                     as heard at that moment, as from a sound card; were the first, all ages would be 10 ms less

exit status: 0; 1 when not a single burst was found; 2 when it could not be measured.
"""


async def record(url: str, sound: BurstSound) -> Recording:
    """Speak the bursts into a session of the default avatar and keep what comes back.

    Raises:
        ServerTrouble: no session could be had, or nothing came back of it.
    """
    microphone = Microphone(sound.samples)
    peer = Peer(url, microphone)
    await peer.open({"seed": 0, "motion": 0.0})
    try:
        assert microphone.started_s is not None  # else no frame had come
        end_s = microphone.started_s + len(sound.samples) / bursts.SOUND_RATE_HZ + bursts.LONGEST_DELAY_S
        await asyncio.sleep(max(0.0, end_s - time.monotonic()))
    finally:
        await peer.close()
    count = len(peer.mouths)
    if count < 2:
        raise ServerTrouble(f"only {count} frames came back; see whether the server's session ended early")
    arrived_s = np.array(peer.arrived_s[:count])
    return Recording(
        sound=sound,
        started_s=microphone.started_s,
        mouth=Trace(arrived_s, bursts.measure_motion(np.stack(peer.mouths))),
        arrived_s=arrived_s,
        shown_s=np.array(peer.shown_s[:count]),
        frame_ticks=np.array(peer.frame_ticks[:count]),
        loudness=peer.loudness,
        stats=peer.stats,
        lookahead_ms=peer.lookahead_ms,
        packets_sent=microphone.packets,
        sound_arrived_s=np.array(list(peer.taps["audio"].arrived_s.values())),
    )


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measurement: its figures and what they were made of."""

    report: dict[str, Any]
    recording: Recording
    figures: list[BurstFigures]
    spans: list[dict[str, Any]]  # of the server


def profile(engine_name: str, seconds: float, *, browser: bool = False) -> Run:
    """The whole measurement.

    Args:
        browser: Chromium is the peer, not aiortc.

    Raises:
        VisavisError: engine, server or session cannot be had.
    """
    cuts = bursts.cut_bursts(read_mono(SAMPLE_SPEECH))
    engine = create_engine(engine_name)
    expected = draw_expected(engine, engine.enrol(read_bytes(DEFAULT_PORTRAIT, "default portrait")), cuts)
    engine.close()  # before the server loads its own
    sound = bursts.place_bursts(cuts, seconds)
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "server.jsonl"
        with ServerProcess(engine_name, max_sessions=1, trace=trace) as server:
            used_s, begun_s = server.cpu_s, time.monotonic()
            recording = asyncio.run(record_in_browser(server.url, sound) if browser else record(server.url, sound))
            share = (server.cpu_s - used_s) / (time.monotonic() - begun_s)
            about = {
                "engine": engine_name,
                "engine_stages_ms": read_times(server.url).stages_ms,
                "start_s": round(server.start_s, 2),
                "server_cpu_share": round(share, 3),
                "machine": describe_machine(),
            }
        spans = read_trace(trace)
    figures = measure_bursts(recording, expected)
    report = make_report(recording, figures, expected, read_server_times(spans)) | about
    return Run(report=report, recording=recording, figures=figures, spans=spans)


def format_report(report: dict[str, Any]) -> str:
    """Figures and budget as text tables."""
    names = ("mouth_to_pixel_ms", "picture_age_ms", "sound_age_ms", "av_skew_ms")
    rows = [[name, *(report[name].get(p) for p in ("p50", "p95", "p99"))] for name in names]
    text = (
        f"{report['engine']} engine, {report['bursts_found']} of {report['bursts']} bursts found, "
        f"{report['fps']} frames/s over {report['seconds']} s, repeated {report['repeated']}, "
        f"dropped {report['dropped']}, gaps {report['gaps']}; {report['machine']['cpu']}\n\n"
    )
    text += format_table(["", "p50", "p95", "p99"], rows)
    if report["budget_ms"]:
        budget = report["budget_ms"]
        total = ("mouth to pixel, p50", round(sum(budget.values()), 2))
        text += "\n\n" + format_table(["stage", "ms"], [*budget.items(), total])
    if report["stage_budget_ms"]:
        stages = [*report["stage_budget_ms"].items(), ("sum", report["stage_budget_sum_ms"])]
        text += "\n\n" + format_table([f"followed, mean of {report['stage_budget_bursts']}", "ms"], stages)
    if report["engine_stages_ms"]:
        text += "\n\n" + format_table(["in the server, p50", "ms"], report["engine_stages_ms"].items())
    return text


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tools.profile_latency",
        description="Measure mouth-to-pixel delay through a real server and a real WebRTC peer on this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=positive_seconds, required=True, metavar="S", help="about how long to speak")
    parser.add_argument("--json", type=Path, required=True, metavar="F", help="where the figures are written")
    parser.add_argument("--plot", type=Path, metavar="F.png", help="draw stages, histogram and the run")
    parser.add_argument("--trace", type=Path, metavar="F.json", help="write server and peer for ui.perfetto.dev")
    parser.add_argument("--engine", default=DEFAULT_ENGINE, choices=engine_names(), help="default: %(default)s")
    parser.add_argument("--browser", action="store_true", help="measure with headless Chromium on the server's page")
    return parser


def main(argv: list[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        run = profile(args.engine, args.seconds, browser=args.browser)
        write_json(args.json, run.report)
        if args.trace:
            write_perfetto(args.trace, run.spans, run.recording, run.figures)
        if args.plot:
            from tools.latency_plot import draw_report  # matplotlib only where it is wanted

            draw_report(args.plot, run.report, run.recording)
    except (VisavisError, ValueError) as error:
        print(f"profile_latency: {error}", file=sys.stderr)
        return 2
    print(format_report(run.report))
    return 0 if run.report["bursts_found"] else 1


if __name__ == "__main__":
    sys.exit(main())
