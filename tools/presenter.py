"""Present for a long time: a server, somebody who talks, and the OBS page in Chromium; does anything grow?

    python -m tools.presenter --seconds S [--engine NAME] [--portrait FILE] [--json F] [--shot F.png]

The OBS page stands over chequers, as OBS lays it over a scene. Presenter and OBS page run in one headless Chromium
on this machine, which draws without a GPU.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from client.service import send_portrait
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, engine_names
from tools.bench_engine import SAMPLE_SPEECH
from tools.browser_peer import PATIENCE_MS, BrowserTrouble, open_browser
from tools.memory_trend import MemoryTrend, fit_trend
from tools.report import describe_machine, positive_seconds, write_json
from tools.server_process import ServerProcess

NAME = "presenter"
SAMPLES = 400  # of memory, over the whole run; at most one in 2 s
SIDE_PX = 720
GIVE_UP_S = 30.0  # without a new picture; shorter stalls are counted
CHEQUERS = """(address) => {
  document.body.style.cssText = "margin:0;height:100vh;background:" +
    "repeating-conic-gradient(#eb3cc8 0 25%, #3cdc5a 0 50%) 0 0/40px 40px";
  const scene = document.createElement("iframe");
  scene.src = address;
  scene.style.cssText = "border:0;position:fixed;inset:0;width:100%;height:100%";
  document.body.replaceChildren(scene);
}"""
TOLD = """() => `${document.getElementById("frame").dataset.state}, ${document.getElementById("status").innerText}, `
  + document.getElementById("problem").innerText"""
EPILOG = """\
keys of the JSON file:
  fps           frames per second that the OBS page showed
  stalls        samples between which it showed nothing new
  memory_mb     a list of [seconds, server, browser, page]: memory of the server, of all of Chromium, and what the OBS
                page's scripts hold after a garbage collection
  server, browser, page   the trend of each: {mb_per_hour, error_mb_per_hour, from_s, samples}, see tools.load
  grows         which of them grow: their slope is more than GROWTH_MB_PER_HOUR and more than two errors from 0
  seconds, engine, machine

exit status: 0, 1 when something grows, 2 when the run could not be made
"""
GROWTH_MB_PER_HOUR = {"server": 30.0, "browser": 60.0, "page": 3.0}  # less is not told from noise in minutes


async def present(server: ServerProcess, seconds: float, avatar_id: str | None, shot: Path | None) -> dict[str, Any]:
    """Talk and look on for ``seconds``.

    Raises:
        BrowserTrouble: there is no browser, or no picture comes.
    """
    flags = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
    async with open_browser(f"--use-file-for-fake-audio-capture={SAMPLE_SPEECH}", *flags) as browser:
        talking = await browser.new_page()
        await start_talking(talking, server.url, avatar_id)
        looking = await browser.new_page(viewport={"width": SIDE_PX, "height": SIDE_PX})
        await looking.goto(f"{server.url}/healthz")
        await looking.evaluate(CHEQUERS, f"{server.url}/obs/{NAME}")
        scene = await (await looking.wait_for_selector("iframe")).content_frame()
        await scene.wait_for_selector("body[data-state=live]", timeout=PATIENCE_MS)
        report = await watch(server, talking, looking, scene, seconds)
        if shot is not None:
            await looking.screenshot(path=shot)
    return report


async def start_talking(page: Any, url: str, avatar_id: str | None) -> None:
    await page.goto(url)
    await page.get_by_role("radio").first.wait_for(state="attached", timeout=PATIENCE_MS)
    if avatar_id is not None:
        await page.locator(f"input[type=radio][value='{avatar_id}']").check(force=True)
    await page.get_by_label("Presenter name").fill(NAME)
    await page.get_by_role("button", name="Start talking").click()
    await page.wait_for_selector("#frame[data-state=live]", timeout=PATIENCE_MS)


async def watch(server: ServerProcess, talking: Any, page: Any, scene: Any, seconds: float) -> dict[str, Any]:
    """Sample memory until the time is over; the page must show pictures all the while."""
    devtools = await page.context.new_cdp_session(page)
    await devtools.send("Performance.enable")
    begun_s, every_s = time.monotonic(), max(2.0, seconds / SAMPLES)
    first = shown = await count_frames(scene)
    samples: list[tuple[float, float, float, float]] = []
    stalls, moved_s = 0, begun_s
    while (at_s := time.monotonic() - begun_s) < seconds:
        samples.append((at_s, server.resident_mb, browser_mb(), await page_mb(devtools)))
        await asyncio.sleep(every_s)
        before, shown = shown, await count_frames(scene)
        if shown > before:
            moved_s = time.monotonic()
            continue
        stalls += 1
        if (quiet_s := time.monotonic() - moved_s) > GIVE_UP_S:
            state, told = await asyncio.gather(scene.evaluate("document.body.dataset.state"), talking.evaluate(TOLD))
            raise BrowserTrouble(
                f"the OBS page, {state}, showed nothing new for {quiet_s:.0f} s, {at_s:.0f} s after the start; the "
                f"presenter's page says: {told}; trends until then: {_trends(samples)}"
            )
    trends = _trends(samples)
    return {
        "fps": round((shown - first) / (time.monotonic() - begun_s), 2),
        "stalls": stalls,
        "memory_mb": [[round(value, 1) for value in sample] for sample in samples],
        **{name: trend.as_json() for name, trend in trends.items()},
        "grows": find_growth(trends),
        "seconds": seconds,
    }


def _trends(samples: list[tuple[float, float, float, float]]) -> dict[str, MemoryTrend]:
    table = np.array(samples)
    return {name: fit_trend(table[:, 0], table[:, n + 1]) for n, name in enumerate(GROWTH_MB_PER_HOUR)}


def find_growth(trends: Mapping[str, MemoryTrend]) -> list[str]:
    """Whose slope is worth a name, and can be told from none."""
    return [
        name
        for name, trend in trends.items()
        if trend.mb_per_hour is not None
        and trend.error_mb_per_hour is not None
        and trend.mb_per_hour > max(GROWTH_MB_PER_HOUR[name], 2 * trend.error_mb_per_hour)
    ]


async def count_frames(scene: Any) -> int:
    return await scene.evaluate("document.getElementById('video').getVideoPlaybackQuality().totalVideoFrames")


async def page_mb(devtools: Any) -> float:
    """What scripts hold, once the garbage is collected."""
    await devtools.send("HeapProfiler.collectGarbage")
    metrics = (await devtools.send("Performance.getMetrics"))["metrics"]
    return next(m["value"] for m in metrics if m["name"] == "JSHeapUsedSize") / 2**20


def browser_mb() -> float:
    """Memory of all of Chromium's processes below this one; what they share is counted once, where the system can."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            if "chrom" in process.name():
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            pass
    return total / 2**20


def format_report(report: dict[str, Any]) -> str:
    lines = [f"{report['engine']} engine, {report['seconds']:g} s: the OBS page showed {report['fps']} frames/s"]
    for name in GROWTH_MB_PER_HOUR:
        trend = report[name]
        if trend["mb_per_hour"] is None:
            lines.append(f"{name}: too short a run to tell a trend")
        else:
            told = f"trend {trend['mb_per_hour']:+.1f} ± {trend['error_mb_per_hour']:.1f} MB an hour"
            lines.append(f"{name}: {told}{', it grows' if name in report['grows'] else ''}")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.presenter",
        description="Present through the OBS page for a long time, and see whether anything grows.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=positive_seconds, default=1200.0, help="default: %(default)s")
    parser.add_argument("--engine", choices=engine_names(), default=DEFAULT_ENGINE, help="default: %(default)s")
    parser.add_argument("--portrait", type=Path, metavar="FILE", help="default: the portrait that ships")
    parser.add_argument("--json", type=Path, metavar="F", help="where the report goes")
    parser.add_argument("--shot", type=Path, metavar="F.png", help="a picture of the OBS page at the end")
    args = parser.parse_args(argv)
    try:
        with ServerProcess(args.engine, max_sessions=1) as server:
            avatar_id = None
            if args.portrait is not None:
                avatar_id = send_portrait(server.url, args.portrait.read_bytes())["id"]
            report = asyncio.run(present(server, args.seconds, avatar_id, args.shot))
        report |= {"engine": args.engine, "machine": describe_machine()}
        if args.json is not None:
            write_json(args.json, report)
    except (VisavisError, OSError) as error:
        print(f"presenter: {error}", file=sys.stderr)
        return 2
    print(format_report(report))
    return 1 if report["grows"] else 0


if __name__ == "__main__":
    sys.exit(main())
