"""A publisher and a player of another make, GStreamer's webrtcbin, over plain HTTP: neither a browser nor aiortc."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from client.service import request_json
from tests.client.test_live import ROOT, SOON_S, read_film, write_beeps
from tools.server_process import ServerProcess

PYTHON = "/usr/bin/python3"  # the system's, which has GStreamer's bindings
SCRIPT = ROOT / "client" / "examples" / "gstreamer_peer.py"
WANTED = """
import gi
gi.require_version("GstWebRTC", "1.0")
from gi.repository import Gst, GstWebRTC
Gst.init(None)
wanted = ("webrtcbin", "nicesrc", "opusenc", "rtpvp8depay", "matroskamux")
missing = [name for name in wanted if not Gst.ElementFactory.find(name)]
raise SystemExit(f"no {missing}" if missing else 0)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if not Path(PYTHON).exists():
        pytest.skip(f"there is no {PYTHON}")
    found = subprocess.run([PYTHON, "-c", WANTED], capture_output=True, text=True, timeout=SOON_S)
    if found.returncode:
        pytest.skip(f"GStreamer with webrtcbin is not installed: {found.stderr.strip()[-100:]}")
    with ServerProcess("fake", max_sessions=1) as process:
        yield process.url


def start(*words: str | Path) -> subprocess.Popen[str]:
    command = [PYTHON, str(SCRIPT), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str]) -> str:
    """What it wrote; it must have ended well."""
    try:
        said, failed = process.communicate(timeout=SOON_S)
    finally:
        process.kill()
    assert process.returncode == 0, failed
    return said


def test_a_published_file_is_spoken_and_recorded_by_a_player_that_does_not_decode(server: str, tmp_path: Path) -> None:
    publisher = start("publish", f"{server}/whip/stage", write_beeps(tmp_path / "a.wav", 60))
    assert publisher.stdout is not None
    while "connected" not in (line := publisher.stdout.readline()):
        assert line, "the publisher ended"
    film = tmp_path / "o.mkv"
    assert "connected" in end(start("record", f"{server}/whep/stage", film, "--seconds", "5"))
    publisher.send_signal(signal.SIGINT)
    end(publisher)
    assert request_json("GET", f"{server}/v1/info")["sessions"] == 0, "its DELETE ended the session"
    shades, loudness = read_film(film)
    count = min(len(shades), len(loudness))
    assert count > 60 and shades.max() > 0.4 and shades.min() < 0.1, "the lips moved"
    shades, loudness = shades[:count] - shades[:count].mean(), loudness[:count] - loudness[:count].mean()
    fits = [np.corrcoef(np.roll(shades, lag)[15:-15], loudness[15:-15])[0, 1] for lag in range(-12, 13)]
    assert max(fits) > 0.6, fits


def test_a_player_is_told_that_nobody_publishes(server: str, tmp_path: Path) -> None:
    player = start("record", f"{server}/whep/nobody", tmp_path / "o.mkv")
    _, failed = player.communicate(timeout=SOON_S)
    assert player.returncode == 1 and "409" in failed and "nothing_live" in failed
