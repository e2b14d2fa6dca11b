"""What fifty sessions leave behind: nothing."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

from server.session import Session
from server.sessions import Sessions
from tests.server.caller import Caller, Server

SESSIONS = 50
WARM = 25  # the first ones fill pools, caches and the allocator's arenas; flat from then on, measured up to 120


async def test_fifty_sessions_in_turn_leave_nothing(server: Server, picture: bytes) -> None:
    avatar_id = (await server.upload(picture)).json()["id"]
    earlier = calls_and_sessions()  # of other tests, and held from here on
    before_bytes = before_tasks = before_threads = before_files = 0
    for n in range(SESSIONS):
        if n == WARM:
            await settled(server)
            before_bytes, before_tasks = resident_bytes(), len(asyncio.all_tasks())
            before_threads, before_files = own_threads(), open_files()
        caller = await server.call(avatar_id=avatar_id)
        await caller.wait_for(2)
        if n % 2:
            await server.http.delete(f"/v1/sessions/{caller.id}")
        await caller.hang_up()
        server.callers.remove(caller)
    del caller
    await settled(server)
    assert len(asyncio.all_tasks()) <= before_tasks, [t.get_name() for t in asyncio.all_tasks()]
    assert own_threads() <= before_threads, [t.name for t in threading.enumerate()]
    assert open_files() <= before_files
    left = [type(o).__name__ for o in calls_and_sessions() if not any(o is one for one in earlier)]
    assert not left
    grown = resident_bytes() - before_bytes
    assert grown < 16 << 20, f"{grown / (SESSIONS - WARM) / 1024:.0f} kB per session"


async def settled(server: Server) -> None:
    """Wait until every session has been torn down, and collect garbage."""
    sessions: Sessions = server.house.sessions
    async with asyncio.timeout(15):
        while len(sessions) or sessions._closing:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    gc.collect()


def calls_and_sessions() -> list[Session | Caller]:
    return [o for o in gc.get_objects() if isinstance(o, Session | Caller)]


def own_threads() -> int:
    """Threads but for those of the two pools, which grow to their size as they please."""
    return sum(not t.name.startswith(("visavis-io", "visavis-encode")) for t in threading.enumerate())


def resident_bytes() -> int:
    try:
        with open("/proc/self/statm") as figures:
            return int(figures.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        return 0  # not Linux; the counts of objects still hold


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
