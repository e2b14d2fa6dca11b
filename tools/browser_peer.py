"""The same measurement with a real browser: Chromium, headless, on the server's own page.

Chromium's fake microphone plays the bursts from a file. When it does is not known beforehand: the page notes
when the device hands over each 10 ms of it, and the bursts are found again there. All times of the page are
laid on ``time.monotonic()`` by asking for the page's clock many times and keeping the tightest bounds.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import tempfile
import time
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import VisavisError
from tools import bursts
from tools.bursts import MOUTH, SOUND_RATE_HZ, BurstSound, Trace
from tools.latency import Recording

LEAD_S = 6.0  # of silence before the sound: the browser's buffers find their length
PATIENCE_MS = 60_000
TAKE_EVERY_S = 1.0
CLOCK_READINGS = 40
COARSE_S = 0.0001  # performance.now() is rounded to this
ALIGN_S = 0.1  # single bursts are looked for within so much of where the first one says
LEAST_LOUD = 0.3  # of the loudest: there a burst has begun
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    # Pages that are not in front are throttled otherwise, which no user has who looks at them.
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
_SCRIPT = Path(__file__).with_suffix(".js")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


class BrowserTrouble(VisavisError):
    """The browser is missing, or does not do what the measurement needs."""

    code = "browser_trouble"


@dataclass(frozen=True, kw_only=True)
class PageClock:
    """``performance.now()`` of a page against ``time.monotonic()``; both count the same clock, from other origins."""

    offset_s: float
    error_s: float  # at most so much off

    def monotonic_s(self, page_ms: np.ndarray) -> np.ndarray:
        return page_ms / 1000 + self.offset_s


@dataclass(frozen=True, kw_only=True)
class Capture:
    """When the fake microphone played the sound."""

    started_s: float  # the sound's first sample
    spread_s: float  # middle nine tenths of single bursts, against each other


async def record_in_browser(url: str, sound: BurstSound) -> Recording:
    """Speak the bursts into the server's page and keep what the page shows and plays.

    Raises:
        BrowserTrouble: Chromium or Playwright is missing, the call does not begin, or the bursts are not heard.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "microphone.wav"
        _write_wav(path, np.concatenate([np.zeros(round(LEAD_S * SOUND_RATE_HZ), np.float32), sound.samples]))
        async with _open_page(path) as page:
            order, stats = await _start_call(page, url)
            clock = await read_clock(page)
            taken = await _take_all(page, LEAD_S + len(sound.samples) / SOUND_RATE_HZ + bursts.LONGEST_DELAY_S)
    capture = find_capture(_loudness(taken["microphone"], clock), sound)
    frames = taken["frames"]
    if len(frames) < 2:
        raise BrowserTrouble(f"the page showed {len(frames)} frames: see whether the session ended early")
    ticks = np.array([frame["ticks"] for frame in frames], np.int64)
    shown_s = clock.monotonic_s(np.array([frame["shownMs"] for frame in frames]))
    sound_trace = _loudness(taken["sound"], clock)
    return Recording(
        sound=sound,
        started_s=capture.started_s,
        mouth=Trace(shown_s, bursts.measure_motion(np.stack([_decode_mouth(frame["mouth"]) for frame in frames]))),
        arrived_s=clock.monotonic_s(np.array([frame["arrivedMs"] for frame in frames])),
        shown_s=shown_s,
        frame_ticks=(ticks - ticks[0]) & 0xFFFFFFFF,
        loudness=Trace(sound_trace.times_s + taken["outputLatencyMs"] / 1000, sound_trace.values),
        stats=stats,
        lookahead_ms=order["lookahead_ms"],
        peer="chromium",
        counts_samples=False,
        uncertainty_ms={
            "page_clock": round(clock.error_s * 1000, 2),
            "capture_spread": round(capture.spread_s * 1000, 2),
            "capture_block": 10.0,
        },
    )


def find_capture(heard: Trace, sound: BurstSound) -> Capture:
    """Where the sound lies in what the microphone gave.

    Raises:
        BrowserTrouble: it is not there.
    """
    if not len(heard.values) or heard.values.max() < bursts.PEAK / 20:
        raise BrowserTrouble("the browser's microphone stayed silent: its fake device did not play the file")
    first_s = float(heard.times_s[np.argmax(heard.values > LEAST_LOUD * heard.values.max())])
    coarse_s = first_s - float(sound.onsets_s[0])
    sent = bursts.measure_loudness(sound.samples)
    late_s = []
    for onset_s in sound.onsets_s:
        around = bursts.select(heard, coarse_s + onset_s - ALIGN_S, coarse_s + onset_s + bursts.BURST_S + ALIGN_S)
        fit = bursts.fit_delay(Trace(around.times_s - coarse_s + ALIGN_S, around.values), sent, longest_s=2 * ALIGN_S)
        if fit is not None:
            late_s.append(fit.delay_s - ALIGN_S)
    if len(late_s) < len(sound.onsets_s) / 2:
        raise BrowserTrouble(
            f"only {len(late_s)} of {len(sound.onsets_s)} bursts are in the microphone's sound: the machine is too busy"
        )
    low_s, high_s = np.percentile(late_s, (5, 95))
    return Capture(started_s=coarse_s + float(np.median(late_s)), spread_s=float(high_s - low_s))


async def read_clock(page: Any) -> PageClock:
    """Lay the page's clock on ours: it was read after we asked and before the answer came."""
    least_s, most_s = -np.inf, np.inf
    for _ in range(CLOCK_READINGS):
        before_s = time.monotonic()
        page_s = await page.evaluate("performance.now()") / 1000
        after_s = time.monotonic()
        least_s = max(least_s, before_s - page_s - COARSE_S)
        most_s = min(most_s, after_s - page_s + COARSE_S)
    return PageClock(offset_s=float(least_s + most_s) / 2, error_s=float(most_s - least_s) / 2)


@contextlib.asynccontextmanager
async def open_browser(*flags: str) -> AsyncIterator[Any]:
    """A headless Chromium with a fake microphone, as Playwright gives it.

    Raises:
        BrowserTrouble: Chromium or Playwright is missing, or it failed.
    """
    try:
        from playwright.async_api import Error, async_playwright
    except ImportError as error:
        raise BrowserTrouble("this needs Playwright: pip install '.[dev]'") from error
    chromium = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if chromium is None:
        raise BrowserTrouble(f"this needs Chromium; none of {', '.join(_BROWSERS)} is installed")
    try:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium, args=[*FLAGS, *flags])
            try:
                yield browser
            finally:
                await browser.close()
    except Error as error:
        raise BrowserTrouble(f"the browser failed: {error.message.splitlines()[0]}") from error


@contextlib.asynccontextmanager
async def _open_page(microphone: Path) -> AsyncIterator[Any]:
    async with open_browser(f"--use-file-for-fake-audio-capture={microphone}%noloop") as browser:
        yield await browser.new_page()


async def _start_call(page: Any, url: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Press the page's button with the pose locked; the session as answered, and its figures as they will come."""
    stats: list[dict[str, Any]] = []

    def hear(text: str | bytes) -> None:
        message = json.loads(text)
        if message["type"] == "stats":
            stats.append(message | {"at_s": time.monotonic()})

    page.on("websocket", lambda socket: socket.on("framereceived", hear))
    await page.add_init_script(path=_SCRIPT)
    await page.goto(url)
    await page.get_by_role("radio").first.wait_for(state="attached", timeout=PATIENCE_MS)
    await page.get_by_label("Head movement").fill("0")
    answered = page.expect_response(lambda r: r.url.endswith("/v1/sessions") and r.request.method == "POST")
    async with answered as answer:
        await page.get_by_role("button", name="Start talking").click()
    order = await (await answer.value).json()
    await page.wait_for_function("document.getElementById('video').videoWidth > 0", timeout=PATIENCE_MS)
    rows, columns = MOUTH
    mouth = {"left": columns.start, "top": rows.start}
    mouth |= {"width": columns.stop - columns.start, "height": rows.stop - rows.start}
    await page.evaluate("(mouth) => visavisMeasure.start(document.getElementById('video'), mouth)", mouth)
    return order, stats


async def _take_all(page: Any, seconds: float) -> dict[str, Any]:
    """What the page notes for ``seconds``."""
    taken: dict[str, Any] = {"microphone": [], "sound": [], "frames": []}
    until_s = time.monotonic() + seconds
    while (left_s := until_s - time.monotonic()) > 0:
        await asyncio.sleep(min(left_s, TAKE_EVERY_S))
        part = await page.evaluate("visavisMeasure.take()")
        for name in ("microphone", "sound", "frames"):
            taken[name] += part[name]
        taken["outputLatencyMs"] = part["outputLatencyMs"]
    return taken


def _loudness(pieces: list[dict[str, Any]], clock: PageClock) -> Trace:
    times = [p["firstMs"] + (np.arange(len(p["rms"])) + 0.5) * p["blockMs"] for p in pieces] or [np.zeros(0)]
    values = [np.array(p["rms"], np.float64) for p in pieces] or [np.zeros(0)]
    return Trace(clock.monotonic_s(np.concatenate(times)), np.concatenate(values))


def _decode_mouth(text: str) -> np.ndarray:
    rows, columns = MOUTH
    pixels = np.frombuffer(base64.b64decode(text), np.uint8)
    return pixels.reshape(rows.stop - rows.start, columns.stop - columns.start)


def _write_wav(path: Path, samples: np.ndarray) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SOUND_RATE_HZ)
        file.writeframes((np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
