"""Sessions that come and go for a long time, and what they leave in the server's memory."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from client.errors import Refused, ServerTrouble
from client.speech import Microphone
from tools.memory_trend import fit_trend
from tools.peer import Peer
from tools.report import percentiles
from tools.server_process import ServerProcess

SAMPLES = 600  # of memory, over the whole run; at most one a second
SPREAD = 0.5  # sessions last from half the given length to one and a half of it
REFUSED_WAIT_S = 1.0
KEPT_REASONS = 20
AFTER_S = 3.0  # the last sessions' remains are gone by then


@dataclass
class Passers:
    """What became of all the sessions."""

    opened: int = 0
    refused: int = 0
    failed: int = 0
    reasons: list[str] = field(default_factory=list)  # the first few failures'
    fps: list[float] = field(default_factory=list)  # received, of each session


async def churn(
    server: ServerProcess, count: int, seconds: float, session_s: float, speech: np.ndarray
) -> dict[str, Any]:
    """Keep ``count`` sessions live at a time for ``seconds``, each for about ``session_s``, then another.

    Args:
        speech: float32 [n] at 48 kHz, which all of them speak.

    Returns:
        the keys of ``load --help`` that --churn has.
    """
    passers, before_mb = Passers(), server.resident_mb
    until_s = time.monotonic() + seconds
    samples = asyncio.create_task(_sample_memory(server, seconds))
    lanes = [_keep_passing(server.url, lane, until_s, session_s, speech, passers) for lane in range(count)]
    try:
        await asyncio.gather(*lanes)
    finally:
        samples.cancel()
        times_s, resident_mb = await samples
    await asyncio.sleep(AFTER_S)
    return {
        "opened": passers.opened,
        "refused": passers.refused,
        "failed": passers.failed,
        "reasons": passers.reasons,
        "session_fps": percentiles(passers.fps, (5, 50)),
        "server_resident_mb": {
            "before": before_mb,
            "highest": max(resident_mb, default=before_mb),
            "after": server.resident_mb,
        },
        "memory_mb": [[round(at_s, 1), mb] for at_s, mb in zip(times_s, resident_mb, strict=True)],
        "memory_trend": fit_trend(np.array(times_s), np.array(resident_mb)).as_json(),
    }


async def _sample_memory(server: ServerProcess, seconds: float) -> tuple[list[float], list[float]]:
    """Until cancelled: seconds since now, and resident memory in MB."""
    begun_s, every_s = time.monotonic(), max(1.0, seconds / SAMPLES)
    times_s: list[float] = []
    resident_mb: list[float] = []
    try:
        while True:
            resident_mb.append(server.resident_mb)
            times_s.append(time.monotonic() - begun_s)
            await asyncio.sleep(every_s)
    except asyncio.CancelledError:
        return times_s, resident_mb


async def _keep_passing(
    url: str, lane: int, until_s: float, session_s: float, speech: np.ndarray, passers: Passers
) -> None:
    chance = random.Random(lane)
    while (left_s := until_s - time.monotonic()) > 0:
        lasts_s = min(left_s, session_s * chance.uniform(1 - SPREAD, 1 + SPREAD))
        peer = Peer(url, Microphone(np.roll(speech, -chance.randrange(len(speech))), repeat=True), keep_mouths=False)
        try:
            await peer.open({"seed": chance.randrange(1000)})
            passers.opened += 1
            await asyncio.sleep(lasts_s)
            if len(peer.shown_s) > 1:
                passers.fps.append((len(peer.shown_s) - 1) / max(1e-3, peer.shown_s[-1] - peer.shown_s[0]))
        except Refused:
            passers.refused += 1
            await asyncio.sleep(REFUSED_WAIT_S)
        except ServerTrouble as error:
            passers.failed += 1
            passers.reasons = [*passers.reasons, str(error)][:KEPT_REASONS]
            await asyncio.sleep(REFUSED_WAIT_S)
        finally:
            await peer.close()
