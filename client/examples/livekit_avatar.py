"""A LiveKit Agents avatar without any key: espeak-ng is the agent's voice.

    visavis serve                                                   # in one environment
    pip install './client/agents[livekit]'                          # in another
    livekit-server --dev                                            # LiveKit's own server; its key is devkey, secret
    python -m client.examples.livekit_avatar --livekit ws://127.0.0.1:7880 --room demo [--text "..."] [--wav F]

Join the room with any LiveKit client, for example https://meet.livekit.io, and you see and hear the avatar. Here agent
and avatar are one process, joined by ``QueueAudioOutput``. Where they are two, give the agent's session a
``DataStreamAudioOutput`` as its audio output, and the runner here a ``DataStreamAudioReceiver``.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from livekit import api, rtc
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

from client.agents.livekit_avatar import VisavisAvatar
from client.examples.spoken import speech_of

TEXT = "Hello. I am a portrait, and I say whatever your agent sends me."
FRAME_S = 0.1


def frames_of(pcm: bytes, rate_hz: int) -> list[rtc.AudioFrame]:
    """Speech as an agent's TTS gives it, in pieces."""
    step = int(rate_hz * FRAME_S) * 2
    pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    return [rtc.AudioFrame(piece, rate_hz, 1, len(piece) // 2) for piece in pieces]


async def run(server: str, livekit: str, token: str, pcm: bytes, rate_hz: int) -> None:
    """Join the room and say ``pcm`` every few seconds, until stopped."""
    room = rtc.Room()
    avatar = VisavisAvatar(server=server, sample_rate_hz=rate_hz)
    await avatar.open()
    speech = QueueAudioOutput(sample_rate=rate_hz, wait_playback_start=True)
    runner = AvatarRunner(room, audio_recv=speech, video_gen=avatar, options=avatar.runner_options)
    try:
        await room.connect(livekit, token)
        await runner.start()
        while True:
            for frame in frames_of(pcm, rate_hz):
                await speech.capture_frame(frame)
            speech.flush()
            played = await speech.wait_for_playout()
            print(f"said {played.playback_position:.1f} s")
            await asyncio.sleep(3)
    finally:
        await runner.aclose()
        await avatar.aclose()
        await room.disconnect()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="http://127.0.0.1:8000")
    parser.add_argument("--livekit", default="ws://127.0.0.1:7880")
    parser.add_argument("--room", default="demo")
    parser.add_argument("--key", default="devkey", help="of the LiveKit server")
    parser.add_argument("--secret", default="secret")
    parser.add_argument("--text", default=TEXT)
    parser.add_argument("--wav", type=Path, help="instead of espeak-ng")
    given = parser.parse_args()
    grants = api.VideoGrants(room_join=True, room=given.room)
    token = api.AccessToken(given.key, given.secret).with_identity("avatar").with_grants(grants).to_jwt()
    asyncio.run(run(given.server, given.livekit, token, *speech_of(given.text, given.wav)))


if __name__ == "__main__":
    main()
