"""A real server process and a real Chromium, for tests that do what a user does."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.browser.recording import RATE_HZ

ROOT = Path(__file__).parents[2]
SPEECH = ROOT / "engine" / "assets" / "sample_speech.wav"
SPEECH_S, PAUSE_S = 5.0, 2.0
READY_S = 120  # the real engine loads its model and draws once; two busy cores may take long

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",  # of the recorder's AudioContext, not of the page
    # Pages that are not in front are throttled otherwise, which no user has who looks at them.
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]
GRANT_FAKE_MICROPHONE = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
DENY_MICROPHONE = ["--use-fake-device-for-media-stream", "--deny-permission-prompts"]


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@dataclass
class Server:
    """A server process and where it listens."""

    process: subprocess.Popen[bytes]
    url: str

    def kill(self) -> None:
        """As a crash would: without a word to anybody."""
        self.process.kill()
        self.process.wait()


StartServer = Callable[..., Server]


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """start_server(*arguments, port=any) -> a server that is ready; all are stopped at the module's end."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, port: int | None = None) -> Server:
            port = port or _free_port()
            log_path = tmp_path_factory.mktemp("server") / "log.txt"
            log = stack.enter_context(log_path.open("wb"))
            command = [sys.executable, "-m", "server.main", "--port", str(port), *arguments]
            environment = {**os.environ, "XDG_DATA_HOME": str(log_path.parent)}  # shows no avatars of whoever runs this
            process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            stack.callback(_stop, process)
            server = Server(process, f"http://127.0.0.1:{port}")
            _wait_until_ready(server, log_path)
            return server

        yield start


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_ready(server: Server, log_path: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and server.process.poll() is None:
        try:
            urllib.request.urlopen(server.url + "/readyz", timeout=5)
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:  # up, and asking for its key
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the server did not become ready; its log ends:\n{log_path.read_text()[-3000:]}")


StartBrowser = Callable[[list[str]], Browser]


@pytest.fixture(scope="module")
def start_browser() -> Iterator[StartBrowser]:
    """start_browser(flags) -> a Chromium; started once per set of flags."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium is installed (looked for chromium, chromium-browser and google-chrome)")
    with sync_playwright() as playwright:
        started: dict[tuple[str, ...], Browser] = {}

        def start(flags: list[str]) -> Browser:
            if tuple(flags) not in started:
                args = [*FLAGS, *flags]
                started[tuple(flags)] = playwright.chromium.launch(executable_path=path, args=args)
            return started[tuple(flags)]

        yield start
        for browser in started.values():
            browser.close()


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """float32 [7 s] at RATE_HZ: five seconds of the sample speech, then a pause."""
    with wave.open(str(SPEECH)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE_HZ, 1, 2)
        spoken = np.frombuffer(file.readframes(int(SPEECH_S * RATE_HZ)), np.int16)
    return np.concatenate([spoken.astype(np.float32) / 32768, np.zeros(int(PAUSE_S * RATE_HZ), np.float32)])


@pytest.fixture(scope="module")
def microphone_wav(speech: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the fake microphone plays, over and over, as a file."""
    path = tmp_path_factory.mktemp("sound") / "microphone.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((speech * 32767).astype("<i2").tobytes())
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that the fake engine takes (it wants no face)."""
    path = tmp_path_factory.mktemp("picture") / "orange.png"
    Image.new("RGB", (320, 320), (230, 140, 40)).save(path)
    return path


def send_portrait(page: Page, picture: Path) -> None:
    """Upload a portrait as a user does."""
    page.get_by_text("Add a portrait").click()
    page.get_by_label("Picture of one face").set_input_files(picture)
    page.get_by_label("The person shown").check()
    page.get_by_role("button", name="Add portrait").click()


def add_portrait(page: Page, picture: Path) -> None:
    """Upload a portrait, and wait until it is chosen."""
    send_portrait(page, picture)
    page.get_by_text("The portrait is added and chosen.").wait_for()
