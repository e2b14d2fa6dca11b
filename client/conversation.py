"""Sessions one after the other, for as long as the user wants: each on the same server, with the same speech."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import av
import numpy as np

from client.errors import Refused, ServerTrouble
from client.peer import Peer
from client.pictures import Picture, PicturePacer
from client.player import Player
from client.recorder import Recorder
from client.service import ask, send_portrait
from client.skew import SkewGauge
from client.speech import MuteSwitch, RecordedSpeech, Speech, SpeechTrack
from client.timeline import Timeline

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 5.0
KEEP_PORTRAIT_S = 86_400  # by the server, should this program not be able to take it back
AFTER_END_S = 0.5  # what the last sound needs beyond the server's delay and ours
MAX_DELAY_S = 0.4  # of a server that has not told it yet


@dataclass(frozen=True, kw_only=True)
class CallOrder:
    """What is asked of which server."""

    url: str
    key: str | None = None
    avatar_id: str = "default"
    portrait: bytes | None = None  # sent in place of an avatar that is there; its person has agreed
    options: dict[str, Any] = field(default_factory=dict)


class Outlets:
    """Where what comes goes to. ``recorder`` may be None."""

    def __init__(self, player: Player, pictures: PicturePacer, recorder: Recorder | None, gauge: SkewGauge) -> None:
        self.player, self.pictures, self.recorder, self.gauge = player, pictures, recorder, gauge

    def start(self, timeline: Timeline | None) -> None:
        """A session begins, or None: it has ended."""
        self.player.start(timeline)
        self.pictures.start(timeline)
        if timeline is not None and self.recorder is not None:
            self.recorder.start_session()


class Call(Peer):
    """One session, whose pictures and sound go to the outlets by one timeline."""

    def __init__(
        self, order: CallOrder, track: SpeechTrack, outlets: Outlets, ice_servers: list[dict[str, Any]]
    ) -> None:
        super().__init__(order.url, track, key=order.key, ice_servers=ice_servers)
        self._outlets = outlets
        self.timeline = Timeline()
        self.stats: dict[str, Any] = {}  # of the server, the newest
        outlets.start(self.timeline)

    def on_report(self, kind: str, ticks: int, sent_s: float) -> None:
        self.timeline.report(kind, ticks, sent_s)

    def on_picture(self, frame: av.VideoFrame, came_s: float) -> bool:
        """One that came before any sound has no place in time: it is not shown."""
        assert frame.pts is not None
        self.timeline.observe("video", frame.pts, came_s)
        media_s = self.timeline.media_s("video", frame.pts)
        if media_s is None:
            return False
        picture = Picture(frame)
        self._outlets.pictures.put(media_s, picture)
        if self._outlets.recorder is not None:
            self._outlets.recorder.add_picture(media_s, picture)
        return True

    def on_sound(self, frame: av.AudioFrame, came_s: float) -> None:
        assert frame.pts is not None
        self.timeline.observe("audio", frame.pts, came_s)
        samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels)).mean(1, dtype=np.float32) / 32_768
        self._outlets.player.put(frame.pts, samples)
        if self._outlets.recorder is not None:
            media_s = self.timeline.media_s("audio", frame.pts)
            assert media_s is not None
            self._outlets.recorder.add_sound(media_s, samples)

    def on_message(self, message: dict[str, Any]) -> None:
        if message.get("type") == "stats":
            self.stats = message


class Conversation:
    """Keeps a session open until cancelled, or until prepared speech has been spoken.

    Args:
        order: what is asked.
        speech: what is said, across sessions.
        switch: whether it is muted.
        outlets: where what comes goes to.
        say: told in words what goes on.
    """

    def __init__(
        self, order: CallOrder, speech: Speech, switch: MuteSwitch, outlets: Outlets, say: Callable[[str], None]
    ) -> None:
        self._order, self._speech, self._switch, self._outlets, self._say = order, speech, switch, outlets, say
        self._uploaded: str | None = None
        self._wait_s = FIRST_WAIT_S
        self._was_live = False
        self.call: Call | None = None  # the one that goes on

    async def run(self) -> None:
        """Raises what waiting would not mend.

        Raises:
            ServerTrouble: no server of ours, a wrong key, an avatar that is not there, a portrait it refuses.
        """
        try:
            while not await self._try_session():
                await asyncio.sleep(self._wait_s)
                self._wait_s = min(2 * self._wait_s, LONGEST_WAIT_S)
        finally:
            if self._uploaded is not None:
                await self._take_back(self._uploaded)

    async def mute(self, muted: bool) -> None:
        self._switch.muted = muted
        self._say("muted" if muted else "heard again")
        if self.call is not None:
            await self.call.tell({"type": "mute", "muted": muted})

    async def _try_session(self) -> bool:
        """Hold one session; whether all is said."""
        try:
            reason = await self._hold_session()
        except ServerTrouble as error:
            if error.said == "avatar_not_found" and self._uploaded is not None:
                self._uploaded = None  # a server that was started anew has forgotten it
                return False
            if not error.may_pass:
                raise
            what = "the server has no place for us" if isinstance(error, Refused) else "no session"
            self._say(f"{what} ({error}); trying again in {self._wait_s:g} s")
            if isinstance(error, Refused) and (error.retry_after_s or "").isdecimal():
                self._wait_s = max(self._wait_s, min(float(error.retry_after_s or 0), LONGEST_WAIT_S))
            return False
        if reason is None:
            return True
        self._say(f"the session ended: {reason}; connecting again")
        return False

    async def _hold_session(self) -> str | None:
        """Why it ended; None when all prepared speech has been spoken and has come back."""
        order = self._order
        info = await ask("GET", f"{order.url}/v1/info", key=order.key)
        avatar_id = order.avatar_id if order.portrait is None else await self._upload(order.portrait)
        call = Call(order, SpeechTrack(self._speech, self._switch), self._outlets, info.get("ice_servers") or [])
        self.call = call
        try:
            await call.open(order.options, avatar_id)
            self._greet(info)
            if self._switch.muted:
                await call.tell({"type": "mute", "muted": True})
            return await self._until_over(call)
        finally:
            self.call = None
            self._outlets.start(None)
            await call.close()

    def _greet(self, info: dict[str, Any]) -> None:
        self._wait_s = FIRST_WAIT_S
        self._say(f"{'live again' if self._was_live else 'live'} on {self._order.url}")
        if not self._was_live and not info.get("mark", True):
            self._say("this server draws no visible mark: tell your viewers that what they see is synthetic")
        self._was_live = True

    async def _until_over(self, call: Call) -> str | None:
        ended = asyncio.ensure_future(call.ended())
        spoken = asyncio.ensure_future(self._spoken(call))
        try:
            await asyncio.wait([ended, spoken], return_when=asyncio.FIRST_COMPLETED)
            return None if spoken.done() else ended.result()
        finally:
            for task in (ended, spoken):
                task.cancel()
            await asyncio.gather(ended, spoken, return_exceptions=True)

    async def _spoken(self, call: Call) -> None:
        """Wait until prepared speech has come back whole; for ever where speech has no end."""
        if not isinstance(self._speech, RecordedSpeech):
            await asyncio.Event().wait()
            return
        await self._speech.ended.wait()
        delay_s = call.stats.get("delay_ms", 1000 * MAX_DELAY_S) / 1000
        await asyncio.sleep(delay_s + call.timeline.buffer_s + AFTER_END_S)

    async def _upload(self, portrait: bytes) -> str:
        if self._uploaded is None:
            order = self._order
            avatar = await asyncio.to_thread(send_portrait, order.url, portrait, key=order.key, keep_s=KEEP_PORTRAIT_S)
            self._uploaded = avatar["id"]
        return self._uploaded

    async def _take_back(self, avatar_id: str) -> None:
        try:
            await ask("DELETE", f"{self._order.url}/v1/avatars/{avatar_id}", key=self._order.key)
        except ServerTrouble as error:
            if error.said != "avatar_not_found":
                self._say(f"your portrait could not be removed from the server, which does so within a day ({error})")
