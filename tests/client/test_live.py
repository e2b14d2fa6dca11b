"""``visavis live`` as a user runs it, against real servers with the fake engine: colour is loudness."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from client import live
from client.errors import DisplayUnavailable, OrderInvalid
from client.service import request_json
from engine.errors import AudioUnreadable, FileError
from engine.fake import MOUTH
from tools.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
RATE_HZ = 48_000
SOON_S = 60.0  # on a machine that does ten other things


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ServerProcess("fake", max_sessions=3) as process:
        yield process.url


def write_beeps(path: Path, seconds: float) -> Path:
    """Half a second of silence, a quarter of tone, over and over."""
    t = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    samples = np.sin(2 * np.pi * 440 * t) * ((t % 0.75) >= 0.5) * 0.5
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((samples * 32_767).astype("<i2").tobytes())
    return path


class Client:
    """``visavis live`` in a process of its own, and what it says."""

    def __init__(self, *words: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-u", "-m", "tools.cli", "live", "--no-window", *map(str, words)],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if k != "VISAVIS_API_KEY"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def said(self) -> str:
        return "".join(self._lines)

    def _read(self) -> None:
        assert self.process.stdout is not None
        self._lines += iter(self.process.stdout.readline, "")

    def wait_for(self, words: str, times: int = 1) -> None:
        until_s = time.monotonic() + SOON_S
        while len(re.findall(words, self.said)) < times:
            assert self.process.poll() is None, f"it ended: {self.said}"
            assert time.monotonic() < until_s, f"it did not say {words!r}: {self.said}"
            time.sleep(0.05)

    def end(self) -> int:
        status = self.process.wait(SOON_S)
        self._reader.join()
        assert "Traceback" not in self.said, self.said
        return status


@contextlib.contextmanager
def running(*words: str | Path) -> Iterator[Client]:
    client = Client(*words)
    try:
        yield client
    finally:
        client.process.kill()
        client.end()


def read_film(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The mouth's shade in each frame, and the loudness of each frame's 40 ms of sound; both 0 to 1."""
    with av.open(str(path)) as film:
        frames = [frame.to_ndarray(format="gray")[MOUTH].mean() for frame in film.decode(video=0)]
    with av.open(str(path)) as film:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in film.decode(audio=0)])
    shades = (np.array(frames) - 16) / 239
    hops = sound[: len(sound) // 1920 * 1920].reshape(-1, 1920)
    power = np.sqrt((hops**2).mean(1))
    return shades, np.clip(1 + 20 * np.log10(np.maximum(power, 1e-6)) / 60, 0, 1)


def test_a_file_is_spoken_once_and_comes_back_with_picture_and_sound_together(server, tmp_path):
    wav, film = write_beeps(tmp_path / "a.wav", 5), tmp_path / "o.mp4"
    with running("--server", server, "--wav", wav, "--out", film) as client:
        assert client.end() == 0, client.said
    assert re.search(r"\d+ pictures shown; after their sound by [+-]\d+ ms at the median", client.said), client.said
    shades, loudness = read_film(film)
    count = min(len(shades), len(loudness))
    assert count > 60 and loudness.max() > 0.7 and shades.max() > 0.5
    shades, loudness = shades[:count] - shades[:count].mean(), loudness[:count] - loudness[:count].mean()
    lags = range(-8, 9)
    fits = [np.corrcoef(np.roll(shades, lag)[10:-10], loudness[10:-10])[0, 1] for lag in lags]
    best = lags[int(np.argmax(fits))]
    assert max(fits) > 0.6, fits
    assert abs(best) <= 2, f"pictures are {40 * -best} ms late"
    assert request_json("GET", f"{server}/v1/info")["sessions"] == 0
    assert b"trainedAlgorithmicMedia" in film.read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_and_the_session_with_it(server, tmp_path, number):
    wav, film = write_beeps(tmp_path / "a.wav", 2), tmp_path / "o.mp4"
    with running("--server", server, "--wav", wav, "--loop", "--out", film) as client:
        client.wait_for("live on")
        assert request_json("GET", f"{server}/v1/info")["sessions"] == 1
        client.process.send_signal(number)
        assert client.end() == 0, client.said
    assert request_json("GET", f"{server}/v1/info")["sessions"] == 0
    assert f"wrote {film}" in client.said and film.exists()


def test_a_portrait_is_sent_and_taken_back(server, tmp_path):
    wav, film = write_beeps(tmp_path / "a.wav", 1), tmp_path / "o.mp4"
    Image.new("RGB", (300, 280), (200, 30, 30)).save(tmp_path / "p.png")
    words = ("--server", server, "--wav", wav, "--loop", "--out", film, "--portrait", tmp_path / "p.png", "--consent")
    with running(*words) as client:
        client.wait_for("live on")
        assert len(request_json("GET", f"{server}/v1/avatars")["avatars"]) == 2
        time.sleep(1)
        client.process.send_signal(signal.SIGINT)
        assert client.end() == 0, client.said
    assert len(request_json("GET", f"{server}/v1/avatars")["avatars"]) == 1
    with av.open(str(film)) as seen:
        pixel = next(seen.decode(video=0)).to_ndarray(format="rgb24")[8, 8]
    assert pixel[0] > 120 > pixel[1], "the badge has the portrait's colour"


def test_it_says_that_the_server_is_gone_and_goes_on_when_it_is_back(tmp_path):
    wav = write_beeps(tmp_path / "a.wav", 2)
    with ServerProcess("fake", max_sessions=2) as process:
        url = process.url
        client = Client("--server", url, "--wav", wav, "--loop", "--out", tmp_path / "o.mp4")
        client.wait_for("live on")
        process.kill()
    try:
        client.wait_for("the session ended: ")
        client.wait_for("no session .*Connection refused.*trying again in")
        port = url.rpartition(":")[2]
        command = [sys.executable, "-m", "server.main", "--port", port, "--engine", "fake"]
        again = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client.wait_for("live again on")
            client.process.send_signal(signal.SIGINT)
            assert client.end() == 0, client.said
            assert request_json("GET", f"{url}/v1/info")["sessions"] == 0
        finally:
            again.terminate()
            again.wait()
    finally:
        client.process.kill()
    assert (tmp_path / "o.mp4").exists()


def test_what_waiting_would_not_mend_is_told_in_one_line(server, tmp_path):
    wav = write_beeps(tmp_path / "a.wav", 1)
    with running("--server", server, "--wav", wav, "--avatar", "nobody", "--out", tmp_path / "o.mp4") as client:
        assert client.end() == 2
    assert "nobody" in client.said.splitlines()[-1] and "404" in client.said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--portrait p.png", "--consent"),
        ("--portrait p.png --consent --avatar x", "choose one"),
        ("--wav a.wav --input 1", "choose one"),
        ("--loop", "--wav"),
        ("--motion 2", "is 2"),
        ("--seconds -1", "is -1"),
        ("--wav a.wav --no-window", "nothing would be seen"),
        ("--key schlüssel", "the key"),
    ],
)
def test_wishes_that_contradict_each_other_are_refused(words, told):
    with pytest.raises(OrderInvalid, match=told):
        live.main(words.split())


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://", "http://x:port"])
def test_a_server_that_is_no_url_is_refused(url):
    with pytest.raises(OrderInvalid, match="is no URL"):
        live.find_server(url, None)


def test_a_server_is_looked_for_here_and_otherwise_to_be_started(server):
    assert live.find_server(None, None, local=server) == server
    assert live.find_server(None, None, local="http://127.0.0.1:9") is None
    assert live.find_server("http://elsewhere:80/page", None) == "http://elsewhere:80"


def test_sound_that_is_no_sound_or_too_long_is_refused(tmp_path):
    with pytest.raises(FileError, match="none.wav"):
        live.read_speech(tmp_path / "none.wav")
    with pytest.raises(AudioUnreadable, match="at most 0 are spoken live"):
        live.read_speech(write_beeps(tmp_path / "a.wav", 2), most_s=1)


@pytest.mark.skipif(sys.platform != "linux", reason="a display always is there")
def test_where_no_display_is_there_it_says_what_to_do_without(monkeypatch):
    from client.window import Window

    monkeypatch.delenv("DISPLAY", raising=False)
    with pytest.raises(DisplayUnavailable, match="--no-window, --virtual-camera, --out"):
        Window(lambda: None)
