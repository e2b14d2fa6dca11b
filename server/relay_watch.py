"""What the server knows of its STUN and TURN servers: asked at the start, and again when somebody wants to know."""

from __future__ import annotations

import asyncio
import logging
import time

from server.ice_probe import Probe, probe_all
from server.network import NetworkConfig

log = logging.getLogger(__name__)

FRESH_S = 10.0  # an answer this young is given again: who asks often must not make us flood a TURN server


class RelayWatch:
    """Asks the configured servers, one round at a time.

    Args:
        network: which servers, and their secret.
    """

    def __init__(self, network: NetworkConfig) -> None:
        self._network = network
        self._round: asyncio.Task[list[Probe]] | None = None
        self._ended_s = -FRESH_S

    def start(self) -> None:
        """Ask once, and write into the log what does not work."""
        if self._network.ice_servers:
            self._begin().add_done_callback(_tell)

    async def look(self) -> list[Probe]:
        """What each server answers; up to ``FRESH_S`` old. A round that is under way serves all who ask."""
        running = self._round
        if running is None or (running.done() and time.monotonic() - self._ended_s > FRESH_S):
            running = self._begin()
        return await asyncio.shield(running)

    async def close(self) -> None:
        if self._round is not None:
            self._round.cancel()
            await asyncio.gather(self._round, return_exceptions=True)

    def _begin(self) -> asyncio.Task[list[Probe]]:
        self._round = asyncio.get_running_loop().create_task(self._ask(), name="relay-watch")
        return self._round

    async def _ask(self) -> list[Probe]:
        try:
            return await probe_all(self._network)
        finally:
            self._ended_s = time.monotonic()


def _tell(asked: asyncio.Task[list[Probe]]) -> None:
    if asked.cancelled():
        return
    for probe in asked.result():
        if probe.ok:
            log.info("%s works: %s", probe.url, probe.detail)
        else:
            log.warning("%s does not work: %s. What to do: %s", probe.url, probe.detail, probe.remedy)
