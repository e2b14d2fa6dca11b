"""``client.conversation`` against a real server with the fake engine."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
import pytest

from client.conversation import Call, CallOrder, Outlets
from client.pictures import PicturePacer
from client.player import Player
from client.skew import SkewGauge
from client.speech import MuteSwitch, RecordedSpeech, SpeechTrack
from tools.server_process import ServerProcess

HELD_BACK = 10  # pictures


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ServerProcess("fake", max_sessions=1) as process:
        yield process.url


class SoundComesLate(Call):
    """Hears nothing before HELD_BACK pictures came."""

    pictures = 0

    def on_sound(self, frame: av.AudioFrame, came_s: float) -> None:
        if self.pictures >= HELD_BACK:
            super().on_sound(frame, came_s)

    def on_picture(self, frame: av.VideoFrame, came_s: float) -> bool:
        self.pictures += 1
        return super().on_picture(frame, came_s)

    def on_report(self, kind: str, ticks: int, sent_s: float) -> None:
        """Their arrival must do."""


async def test_a_call_is_live_from_the_first_picture_that_has_a_place_in_time(server):
    gauge = SkewGauge()
    outlets = Outlets(Player(gauge), PicturePacer([], gauge), None, gauge)
    speech = RecordedSpeech(np.zeros(48_000, np.float32), repeat=True)
    call = SoundComesLate(CallOrder(url=server), SpeechTrack(speech, MuteSwitch()), outlets, [])
    await call.open({})
    try:
        assert call.pictures > HELD_BACK
    finally:
        await call.close()
