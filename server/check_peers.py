"""Peers of the page /check: a data channel that sends back what comes, and nothing else; no engine, no session.

It takes the way that a session's media takes (ICE, DTLS, our UDP ports), so what gets through here gets through
there.
"""

from __future__ import annotations

import asyncio
import logging

from aiortc import RTCDataChannel, RTCPeerConnection, RTCSessionDescription
from aiortc.sdp import SessionDescription

from server.errors import OfferInvalid, ServerFull
from server.ice_gathering import make_connection, shape_candidates
from server.network import NetworkConfig

log = logging.getLogger(__name__)

MOST = 4  # at a time
LIFE_S = 20.0  # then it is closed, whatever it does
ECHOES = 100  # messages that one peer gets back
ECHO_BYTES = 256  # of each, at most


class CheckPeers:
    """Answers offers of data channels.

    Args:
        network: STUN and TURN servers, and our own ports.
    """

    def __init__(self, network: NetworkConfig) -> None:
        self._network = network
        self._lives: set[asyncio.Task[None]] = set()

    async def answer(self, sdp: str, *, max_candidates: int) -> str:
        """The answer to an offer, with all of our candidates.

        Raises:
            OfferInvalid: it is not an offer of one data channel, or cannot be answered.
            ServerFull: others are checking; or no UDP port is left.
        """
        if len(self._lives) >= MOST:
            raise ServerFull(f"{MOST} others are checking their network just now: try again later", retry_after_s=5)
        offer = _read_offer(sdp, max_candidates)
        connection = make_connection(self._network)
        # Its life begins before anything is awaited: a peer that is only half made counts, and is closed, too.
        life = asyncio.get_running_loop().create_task(_live(connection), name="check-peer")
        self._lives.add(life)
        life.add_done_callback(self._lives.discard)
        await asyncio.sleep(0)  # it has begun: cancelled before that, it would close nothing
        try:
            await connection.setRemoteDescription(RTCSessionDescription(sdp=offer, type="offer"))
            shape_candidates(connection, self._network)
            await connection.setLocalDescription(await connection.createAnswer())
        except ServerFull:
            life.cancel()
            raise
        except Exception as error:  # aiortc raises whatever its parts raise
            life.cancel()
            raise OfferInvalid(f"the offer cannot be answered: {error or repr(error)}") from error
        return connection.localDescription.sdp

    async def close(self) -> None:
        """End all of them."""
        for life in list(self._lives):
            life.cancel()
        await asyncio.gather(*self._lives, return_exceptions=True)


async def _live(connection: RTCPeerConnection) -> None:
    """Echo until the peer leaves or its time is over."""
    gone = asyncio.Event()

    def follow() -> None:
        if connection.connectionState in ("failed", "closed"):
            gone.set()

    connection.on("connectionstatechange", follow)
    connection.on("datachannel", lambda channel: _echo(channel, gone))
    try:
        async with asyncio.timeout(LIFE_S):
            await gone.wait()
    except TimeoutError:
        pass
    finally:
        try:
            await connection.close()
        except Exception:
            log.exception("a check's connection did not close cleanly")


def _echo(channel: RTCDataChannel, gone: asyncio.Event) -> None:
    left = ECHOES

    def send_back(message: str | bytes) -> None:
        nonlocal left
        left -= 1
        if left < 0 or len(message) > ECHO_BYTES:
            gone.set()
        else:
            channel.send(message)

    channel.on("message", send_back)
    channel.on("close", gone.set)


def _read_offer(sdp: str, max_candidates: int) -> str:
    """The offer without candidates under .local names: to resolve them takes time, and the peer's own checks tell
    us its address anyhow.

    Raises:
        OfferInvalid: what is wrong with it.
    """
    lines = [line for line in sdp.splitlines() if not (line.startswith("a=candidate:") and ".local " in line)]
    kept = "\r\n".join(lines) + "\r\n"
    try:
        media = SessionDescription.parse(kept).media
    except Exception as error:  # aiortc's parser raises whatever its slices and dictionaries raise
        raise OfferInvalid(f"the offer is not SDP that can be read ({error!r})") from error
    if [section.kind for section in media] != ["application"]:
        raise OfferInvalid(
            f"the offer has sections {[s.kind for s in media]}: a check wants one data channel and nothing else"
        )
    if len(media[0].ice_candidates) > max_candidates:
        raise OfferInvalid(f"the offer has more than {max_candidates} candidates")
    return kept
