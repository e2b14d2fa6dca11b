"""SDP in, SDP out: the only creator of peer connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiortc import RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack
from aiortc.rtcicetransport import RTCIceCandidate
from aiortc.rtcrtptransceiver import RTCRtpTransceiver
from aiortc.sdp import SessionDescription, candidate_from_sdp

from server.broadcast import ViewerTrack
from server.errors import CandidateInvalid, CodecUnsupported, OfferInvalid, OfferUnfit, ServerFull
from server.ice_gathering import make_connection, shape_candidates
from server.jitter import pass_straight_through
from server.network import NetworkConfig

log = logging.getLogger(__name__)

CODECS = ("VP8", "H264")
_HEARS = ("sendrecv", "recvonly")  # the offerer's directions that take our stream
_SPEAKS = ("sendrecv", "sendonly")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Which sections an offer must have, and which way they must flow.

    Args:
        kinds: all lists of sections that fit, sorted.
        directions: of the offerer, by kind.
        says: the same in words.
        refusal: of an offer that is SDP but does not fit.
    """

    kinds: tuple[list[str], ...]
    directions: dict[str, tuple[str, ...]]
    says: str
    refusal: type[OfferInvalid] = OfferInvalid


CALL = Shape(
    kinds=(["audio", "video"],),
    directions={"audio": _SPEAKS, "video": _HEARS},
    says="it must have one of audio and one of video",
)
LOOK_ON = Shape(  # at a session that a program speaks through
    kinds=(["audio", "video"],),
    directions={"audio": _HEARS, "video": _HEARS},
    says="it must have one of audio and one of video",
)
PUBLISH = Shape(
    kinds=(["audio"], ["audio", "video"]),
    directions={"audio": _SPEAKS, "video": _SPEAKS},
    says="it must have one of audio, and may have one of video",
    refusal=OfferUnfit,
)
WATCH = Shape(
    kinds=(["audio"], ["video"], ["audio", "video"]),
    directions={"audio": _HEARS, "video": _HEARS},
    says="it must have one of audio, one of video, or one of each",
    refusal=OfferUnfit,
)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A checked offer."""

    sdp: str
    names: tuple[str, ...]  # its candidates with .local names, left out of sdp: resolving them takes time
    kinds: tuple[str, ...] = ("audio", "video")
    ice_ufrag: str | None = None  # of its ICE session


def read_offer(sdp: str, *, max_chars: int, max_candidates: int, shape: Shape = CALL) -> Offer:
    """Check an offer before anything is built on it.

    Raises:
        OfferInvalid: what is wrong with it.
    """
    if not sdp.strip():
        raise OfferInvalid("the offer is empty: send the SDP of RTCPeerConnection.createOffer()")
    if len(sdp) > max_chars:
        raise OfferInvalid(f"the offer has {len(sdp)} characters: at most {max_chars} are read")
    lines = sdp.splitlines()
    names = tuple(line for line in lines if line.startswith("a=candidate:") and ".local " in line)
    left_out = {*names, "a=end-of-candidates"} if names else set()
    kept = "\r\n".join(line for line in lines if line not in left_out) + "\r\n"
    try:
        media = SessionDescription.parse(kept).media
    except Exception as error:  # aiortc's parser raises whatever its slices and dictionaries raise
        raise OfferInvalid(f"the offer is not SDP that can be read ({error!r})") from error
    kinds = sorted(m.kind for m in media)
    if kinds not in shape.kinds:
        refusal = shape.refusal if kinds else OfferInvalid  # without any it is hardly an offer
        raise refusal(f"the offer has sections {kinds}: {shape.says}")
    if sum(len(m.ice_candidates) for m in media) + len(names) > max_candidates:
        raise OfferInvalid(f"the offer has more than {max_candidates} candidates")
    for section in media:
        wanted = shape.directions[section.kind]
        if section.direction not in wanted:
            fault = f"the offer's {section.kind} is {section.direction!r}: it must be {' or '.join(wanted)}"
            raise shape.refusal(fault)
    ice = media[0].ice
    return Offer(sdp=kept, names=names, kinds=tuple(kinds), ice_ufrag=ice.usernameFragment if ice else None)


def serve_viewer(transceiver: RTCRtpTransceiver, track: ViewerTrack) -> None:
    """Let a shared track be sent by ``transceiver``: its codec is the negotiated one, and keyframes are asked of the
    encoder that all share. To be called between the two descriptions.

    Raises:
        RuntimeError: this aiortc hears of lost pictures elsewhere; viewers would wait for keyframes for ever.
    """
    sender = transceiver.sender
    if not hasattr(sender, "_send_keyframe"):
        raise RuntimeError("this version of aiortc has no _send_keyframe where it is expected: install aiortc 1.x")
    sender._send_keyframe = track.ask_keyframe  # type: ignore[method-assign]
    sender.replaceTrack(track)
    if track.kind == "video":
        track.codec = transceiver._codecs[0].name.upper()


class Connection:
    """One peer connection, from offer to close; what is sent and received is up to its kind.

    Args:
        network: STUN and TURN servers, and our own ports.
        changed: called with the connection's new state: ``connecting``, ``connected``, ``failed``, ``closed``.
        max_candidates: most that may be added.
    """

    def __init__(self, *, network: NetworkConfig, changed: Callable[[str], None], max_candidates: int) -> None:
        self._network = network
        self._connection = make_connection(network)
        self._candidates_left = max_candidates
        self._tasks: set[asyncio.Task[None]] = set()
        self._connection.on("connectionstatechange", lambda: changed(self._connection.connectionState))

    async def answer(self, offer: Offer, codec: str | None = None) -> str:
        """Take the offer.

        Args:
            offer: as ``read_offer`` made it.
            codec: of video, one of CODECS and no other; None prefers the first.

        Returns:
            SDP of the answer, with all of our candidates.

        Raises:
            OfferInvalid: it cannot be answered; the peer must be closed.
            ServerFull: no UDP port is left for it.
        """
        try:
            await self._connection.setRemoteDescription(RTCSessionDescription(sdp=offer.sdp, type="offer"))
            self._negotiated()
            shape_candidates(self._connection, self._network)
            await self._connection.setLocalDescription(await self._connection.createAnswer())
        except ServerFull:  # no port is left
            raise
        except Exception as error:  # see read_offer
            if "Failed to set remote video" in str(error):
                raise CodecUnsupported(
                    f"the offer does not hold {codec or ' or '.join(CODECS)}: choose another codec, or null for any"
                ) from error
            if "Failed to set remote audio" in str(error):
                raise CodecUnsupported("the offer holds no sound codec that we know: offer Opus") from error
            raise OfferInvalid(f"the offer cannot be answered: {error or repr(error)}") from error
        if offer.names:
            named = [_parse(line.removeprefix("a=")) for line in offer.names]
            for candidate in named:
                candidate.sdpMLineIndex = 0  # the first section carries the bundle
            self._add_later(*named)
        return self._connection.localDescription.sdp

    def _negotiated(self) -> None:
        """Between the two descriptions: codecs are known, nothing is sent yet."""

    def add_candidate(self, message: dict[str, Any] | None) -> None:
        """Add a trickled candidate, ``RTCIceCandidate.toJSON()`` of a browser; None ends them.

        Raises:
            CandidateInvalid: it cannot be read, or there were too many.
        """
        if message is None or not message.get("candidate"):
            self._add_later(None)
            return
        if self._candidates_left <= 0:
            raise CandidateInvalid("too many candidates were sent in this session")
        self._candidates_left -= 1
        candidate = _parse(str(message["candidate"]))
        candidate.sdpMid = _maybe(message.get("sdpMid"), str)
        candidate.sdpMLineIndex = _maybe(message.get("sdpMLineIndex"), int)
        if candidate.sdpMid is None and candidate.sdpMLineIndex is None:
            raise CandidateInvalid("the candidate names no media section: send sdpMid or sdpMLineIndex with it")
        self._add_later(candidate)

    async def count_received(self) -> int:
        """Packets of any kind that came from the peer: sound, reports."""
        report = await self._connection.getStats()
        return sum(s.packetsReceived for s in report.values() if s.type == "transport")

    async def close(self) -> None:
        """Close the connection. May be repeated."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    def _add_later(self, *candidates: RTCIceCandidate | None) -> None:
        """Add without waiting: a .local name may take a second to resolve."""
        task = asyncio.create_task(self._add(*candidates))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _add(self, *candidates: RTCIceCandidate | None) -> None:
        for candidate in candidates:
            try:
                await self._connection.addIceCandidate(candidate)
            except Exception as error:  # an unusable candidate is not worth a session
                log.info("a candidate was not used: %r", error)


class Peer(Connection):
    """A peer that speaks, and sees and hears what is made of it, with encoders of its own.

    Args:
        audio, video: what is sent.
        network, changed, max_candidates: as of every ``Connection``.
    """

    def __init__(
        self,
        audio: MediaStreamTrack,
        video: MediaStreamTrack,
        *,
        network: NetworkConfig,
        changed: Callable[[str], None],
        max_candidates: int,
    ) -> None:
        super().__init__(network=network, changed=changed, max_candidates=max_candidates)
        self._sound = self._connection.addTransceiver(audio, "sendrecv")
        self._picture = self._connection.addTransceiver(video, "sendonly")
        pass_straight_through(self._sound.receiver)
        unite(self._sound, self._picture)

    @property
    def microphone(self) -> MediaStreamTrack:
        """The sound that the peer sends; there once ``answer`` has returned."""
        return self._sound.receiver.track

    async def answer(self, offer: Offer, codec: str | None = None) -> str:
        prefer(self._picture, codec)
        return await super().answer(offer, codec)


def unite(sound: RTCRtpTransceiver, picture: RTCRtpTransceiver) -> None:
    """Give both one stream id, so that the receiver plays them in sync."""
    # aiortc sets it per connection since 1.10; said again here because so much hangs on it.
    picture.sender._stream_id = sound.sender._stream_id


def prefer(picture: RTCRtpTransceiver, codec: str | None) -> None:
    """Send ``codec`` and no other; None: any of CODECS, the first one first."""
    capabilities = RTCRtpSender.getCapabilities("video").codecs
    wanted = [c for name in ((codec,) if codec else CODECS) for c in capabilities if c.name.upper() == name]
    picture.setCodecPreferences([*wanted, *(c for c in capabilities if c.name == "rtx")])


def _parse(line: str) -> RTCIceCandidate:
    try:
        return candidate_from_sdp(line.removeprefix("candidate:"))
    except Exception as error:
        raise CandidateInvalid(f"the candidate {line[:120]!r} cannot be read") from error


def _maybe(value: Any, kind: type) -> Any:
    try:
        return None if value is None else kind(value)
    except (TypeError, ValueError) as error:
        raise CandidateInvalid(f"{value!r} is not {kind.__name__}") from error
