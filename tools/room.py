"""A room full of real browsers: does everybody see and hear everybody else, and what if one is killed?"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import signal
import sys
import tempfile
import time
import wave
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from client.service import ask
from engine.errors import VisavisError
from engine.registry import DEFAULT_ENGINE, engine_names
from tools.bench_engine import SAMPLE_SPEECH
from tools.browser_peer import PATIENCE_MS, open_browser
from tools.report import describe_machine, positive_int, positive_seconds, write_json
from tools.server_process import ServerProcess
from tools.sound_file import read_mono

ROOM = "measured"
RATE_HZ = 48_000
TURN_S, SETTLE_S = 3.0, 2.0  # while one speaks; before it is listened to
LEAST_SHARE = 0.1  # of the loudest: what counts as heard
GONE_WITHIN_S = 30.0
EPILOG = """\
keys of the JSON file:
  fps           {who looks: {who is seen: frames per second over --seconds}}
  turns         {who alone is not muted: {who listens: {whose tile: energy of its sound in 3 s}}}
  deaf, echo    pairs [who speaks, who listens] that heard nothing, or anything that was not the speaker's tile
  tile_gone_s   from kill -9 of the last one's browser until nobody's page shows it
  place_free_s  until the server counts a session less
  fps_after     as fps, of those who are left, over 5 s
  people, seconds, engine, capacity, machine

exit status: 0, 1 when somebody was not seen or heard, or was heard by themself, 2 when the run could not be made
"""
KEEP_PEERS = """
const Plain = window.RTCPeerConnection;
window.peers = [];
window.RTCPeerConnection = class extends Plain {
  constructor(...given) { super(...given); window.peers.push(this); }
};
"""
# {name: [pictures shown, energy of the sound received]} of each tile; one's own has no sound.
LOOK = """async () => {
  const energy = {};
  for (const peer of window.peers.filter((p) => p.connectionState === "connected"))
    for (const stat of (await peer.getStats()).values())
      if (stat.type === "inbound-rtp" && stat.kind === "audio") energy[stat.trackIdentifier] = stat.totalAudioEnergy;
  return Object.fromEntries([...document.querySelectorAll(".tile")].map((tile) => {
    const video = tile.querySelector("video");
    const sound = video.muted ? undefined : video.srcObject?.getAudioTracks()[0];
    return [tile.querySelector(".who").textContent.replace(" (you)", ""),
            [video.getVideoPlaybackQuality().totalVideoFrames, energy[sound?.id] ?? 0]];
  }));
}"""

Look = dict[str, list[float]]


class Person:
    """One in a browser of their own."""

    def __init__(self, name: str, page: Any, browser: psutil.Process) -> None:
        self.name, self.page, self._browser = name, page, browser

    async def look(self) -> Look:
        return await self.page.evaluate(LOOK)

    async def mute(self, muted: bool) -> None:
        button = self.page.get_by_role("button", name="Mute" if muted else "Unmute", exact=True)
        if await button.count():
            await button.click()

    def kill(self) -> None:
        """kill -9 of the browser and all below it."""
        for process in [self._browser, *self._browser.children(recursive=True)]:
            try:
                os.kill(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass


async def measure(url: str, people: int, seconds: float) -> dict[str, Any]:
    """Let ``people`` meet, look for ``seconds``, speak by turns, and kill the last one.

    Raises:
        BrowserTrouble: somebody cannot enter, or is not seen.
    """
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            room = [await _enter(stack, url, f"P{n}", _write_part(Path(folder), n, people)) for n in range(people)]
            for person in room:
                await person.page.wait_for_function(
                    f"document.querySelectorAll('.tile[data-picture=true]').length === {people}", timeout=PATIENCE_MS
                )
            report: dict[str, Any] = {"fps": await _watch(room, seconds), "turns": await _take_turns(room)}
            report |= await _lose(url, room)
            report["fps_after"] = await _watch(room[:-1], 5.0)
    return report | judge(report["turns"])


def judge(turns: dict[str, dict[str, dict[str, float]]]) -> dict[str, list[list[str]]]:
    """``deaf`` and ``echo``: pairs (who spoke, who listened) with too little of the speaker, or with anything else."""
    loudest = max((heard for look in turns.values() for tiles in look.values() for heard in tiles.values()), default=0)
    deaf, echo = [], []
    for speaker, listeners in turns.items():
        for listener, tiles in listeners.items():
            if listener != speaker and tiles.get(speaker, 0) <= LEAST_SHARE * loudest / 10:
                deaf.append([speaker, listener])
            if any(heard > LEAST_SHARE * loudest for name, heard in tiles.items() if name != speaker):
                echo.append([speaker, listener])
            if listener == speaker and tiles.get(speaker, 0) > 0:
                echo.append([speaker, listener])
    return {"deaf": deaf, "echo": echo}


async def _enter(stack: AsyncExitStack, url: str, name: str, wav: Path) -> Person:
    before = set(_chromiums())
    browser = await stack.enter_async_context(open_browser(f"--use-file-for-fake-audio-capture={wav}"))
    own = next(process for process in _chromiums() if process not in before)
    page = await browser.new_page()
    await page.add_init_script(KEEP_PEERS)
    await page.goto(f"{url}/call/{ROOM}")
    await page.get_by_role("radio").first.wait_for(state="attached", timeout=PATIENCE_MS)
    await page.get_by_label("Name").fill(name)
    await page.get_by_role("button", name="Join the room").click()
    await page.wait_for_selector("#room:not([hidden])", timeout=PATIENCE_MS)
    return Person(name, page, own)


def _chromiums() -> list[psutil.Process]:
    """Browsers' main processes below this one, the oldest first."""
    below = psutil.Process().children(recursive=True)
    return [p for p in below if "chrom" in p.name() and not any(word.startswith("--type=") for word in p.cmdline())]


def _write_part(folder: Path, number: int, people: int) -> Path:
    """The sample speech, begun elsewhere for each."""
    speech = read_mono(SAMPLE_SPEECH, RATE_HZ)
    path = folder / f"{number}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((np.roll(speech, -len(speech) * number // people) * 32_767).astype("<i2").tobytes())
    return path


async def _watch(room: list[Person], seconds: float) -> dict[str, dict[str, float]]:
    first, begun_s = [await person.look() for person in room], time.monotonic()
    await asyncio.sleep(seconds)
    last, took_s = [await person.look() for person in room], time.monotonic() - begun_s
    return {
        person.name: {who: round((after[who][0] - before[who][0]) / took_s, 2) for who in before if who in after}
        for person, before, after in zip(room, first, last, strict=True)
    }


async def _take_turns(room: list[Person]) -> dict[str, dict[str, dict[str, float]]]:
    turns = {}
    for speaker in room:
        for person in room:
            await person.mute(person is not speaker)
        await asyncio.sleep(SETTLE_S)
        first = [await person.look() for person in room]
        await asyncio.sleep(TURN_S)
        last = [await person.look() for person in room]
        turns[speaker.name] = {
            person.name: {who: round(after[who][1] - before[who][1], 6) for who in before}
            for person, before, after in zip(room, first, last, strict=True)
        }
    for person in room:
        await person.mute(False)
    return turns


async def _lose(url: str, room: list[Person]) -> dict[str, float | None]:
    sessions = (await ask("GET", f"{url}/v1/info"))["sessions"]
    *left, lost = room
    lost.kill()
    killed_s = time.monotonic()

    async def tiles_gone() -> bool:
        return all(lost.name not in tiles for tiles in [await person.look() for person in left])

    async def place_free() -> bool:
        return (await ask("GET", f"{url}/v1/info"))["sessions"] < sessions

    gone_s, free_s = await asyncio.gather(_since(killed_s, tiles_gone), _since(killed_s, place_free))
    return {"tile_gone_s": gone_s, "place_free_s": free_s}


async def _since(begun_s: float, happened: Callable[[], Any]) -> float | None:
    """Seconds until it ``happened``; None where it did not."""
    while not await happened():
        if time.monotonic() - begun_s > GONE_WITHIN_S:
            return None
        await asyncio.sleep(0.1)
    return round(time.monotonic() - begun_s, 2)


def format_report(report: dict[str, Any]) -> str:
    rates = list(itertools.chain(*(tiles.values() for tiles in report["fps"].values())))
    after = list(itertools.chain(*(tiles.values() for tiles in report["fps_after"].values())))
    return "\n".join(
        [
            f"{report['people']} people, {report['engine']} engine, {report['seconds']:g} s",
            f"frames/s of {len(rates)} tiles: {min(rates)} to {max(rates)}; without one {min(after)} to {max(after)}",
            f"not heard: {report['deaf'] or 'nobody'}; heard where they should not be: {report['echo'] or 'nobody'}",
            f"killed: tile gone after {report['tile_gone_s']} s, place free after {report['place_free_s']} s",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.room",
        description="Let real browsers meet in a room, and look at what each of them sees and hears.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--people", type=positive_int, default=2, help="default: %(default)s")
    parser.add_argument("--seconds", type=positive_seconds, default=120.0, help="default: %(default)s")
    parser.add_argument("--engine", choices=engine_names(), default=DEFAULT_ENGINE, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="F", help="where the report goes")
    args = parser.parse_args(argv)
    try:
        with ServerProcess(args.engine, max_sessions=args.people) as server:
            report = asyncio.run(measure(server.url, args.people, args.seconds))
        shown = {"people": args.people, "seconds": args.seconds, "engine": args.engine, "machine": describe_machine()}
        report |= shown
        if args.json is not None:
            write_json(args.json, report)
    except (VisavisError, OSError) as error:
        print(f"room: {error}", file=sys.stderr)
        return 2
    print(format_report(report))
    seen = all(rate > 0 for tiles in report["fps"].values() for rate in tiles.values())
    return 0 if seen and not report["deaf"] and not report["echo"] and report["tile_gone_s"] is not None else 1


if __name__ == "__main__":
    sys.exit(main())
