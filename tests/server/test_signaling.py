import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from server.errors import CandidateInvalid, CodecUnsupported, OfferInvalid
from server.ingest import make_sound_ring
from server.network import NetworkConfig
from server.playout import AudioOut, FrameShelf, VideoOut
from server.signaling import Peer, read_offer


async def make_offer(*kinds: str, audio: str = "sendrecv", video: str = "recvonly") -> str:
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    for kind in kinds:
        peer.addTransceiver(kind, audio if kind == "audio" else video)
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    await peer.close()
    return sdp


def read(sdp: str):
    return read_offer(sdp, max_chars=65_536, max_candidates=64)


def make_peer(max_candidates: int = 4) -> Peer:
    return Peer(
        AudioOut(make_sound_ring()),
        VideoOut(FrameShelf(None)),  # type: ignore[arg-type]
        network=NetworkConfig(),
        changed=lambda state: None,
        max_candidates=max_candidates,
    )


@pytest.mark.parametrize(
    "sdp",
    [
        "",
        " \r\n ",
        "hello",
        "v=0",
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF\r\n",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\nm=audio x y z\r\n",
        "m=" * 5_000,
        "\x00\xff" * 100,
        "v=0\r\n" + "a=candidate:1 1 udp\r\n" * 20,
        "x" * 70_000,
    ],
)
def test_hostile_offers_are_refused_with_words(sdp: str) -> None:
    with pytest.raises(OfferInvalid, match="offer"):
        read(sdp)


@pytest.mark.parametrize("kinds", [("audio",), ("video",), ("audio", "audio", "video"), ("audio", "video", "video")])
async def test_one_sound_and_one_picture_are_required(kinds: tuple[str, ...]) -> None:
    with pytest.raises(OfferInvalid, match="sections"):
        read(await make_offer(*kinds))


async def test_directions_must_fit() -> None:
    with pytest.raises(OfferInvalid, match="audio is 'recvonly'"):
        read(await make_offer("audio", "video", audio="recvonly"))
    with pytest.raises(OfferInvalid, match="video is 'sendonly'"):
        read(await make_offer("audio", "video", video="sendonly"))


async def test_too_many_candidates_are_refused() -> None:
    sdp = await make_offer("audio", "video")
    line = "a=candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host\r\n"
    with pytest.raises(OfferInvalid, match="64 candidates"):
        read(sdp + line * 65)


@pytest.mark.parametrize("spoil", ["a=ice-ufrag", "a=ice-pwd", "a=fingerprint", "a=rtcp-mux"])
async def test_an_offer_with_a_hole_is_refused_or_harmless(spoil: str) -> None:
    sdp = await make_offer("audio", "video")
    holed = "\r\n".join(line for line in sdp.splitlines() if not line.startswith(spoil)) + "\r\n"
    peer = make_peer()
    try:
        await peer.answer(read(holed), None)
    except OfferInvalid as error:
        assert str(error)
    finally:
        await peer.close()


async def test_sound_and_picture_share_stream_and_name() -> None:
    """Browsers play two tracks in sync when both carry one msid and one CNAME (RFC 8843 and 3550)."""
    peer = make_peer()
    answer = await peer.answer(read(await make_offer("audio", "video")), None)
    await peer.close()
    msids = {line.split()[0] for line in answer.splitlines() if line.startswith("a=msid:")}
    names = {line.split("cname:")[1] for line in answer.splitlines() if "cname:" in line}
    assert answer.count("a=msid:") == 2 and len(msids) == 1
    assert len(names) == 1


@pytest.mark.parametrize(("codec", "first"), [(None, "VP8"), ("VP8", "VP8"), ("H264", "H264")])
async def test_the_codec_asked_for_comes_first(codec: str | None, first: str) -> None:
    peer = make_peer()
    answer = await peer.answer(read(await make_offer("audio", "video")), codec)
    await peer.close()
    video = answer[answer.index("m=video") :]
    payload = video.split()[3]
    assert f"a=rtpmap:{payload} {first}/90000" in video


async def test_a_codec_that_is_not_offered_is_refused() -> None:
    lines = (await make_offer("audio", "video")).splitlines()
    only_vp8 = "\r\n".join(line.replace("H264", "H265") for line in lines) + "\r\n"
    peer = make_peer()
    with pytest.raises(CodecUnsupported, match="H264"):
        await peer.answer(read(only_vp8), "H264")
    await peer.close()


async def test_names_in_an_offer_hold_nothing_up() -> None:
    sdp = await make_offer("audio", "video")
    line = "a=candidate:1 1 udp 2130706431 12345678-aaaa-bbbb-cccc-123456789abc.local 5000 typ host\r\n"
    offer = read(sdp.replace("a=end-of-candidates\r\n", "") + line + "a=end-of-candidates\r\n")
    assert len(offer.names) == 1
    assert ".local" not in offer.sdp and "end-of-candidates" not in offer.sdp


async def test_candidates_are_read_counted_and_limited() -> None:
    peer = make_peer(max_candidates=2)
    await peer.answer(read(await make_offer("audio", "video")), None)
    good = {"candidate": "candidate:1 1 udp 2130706431 192.0.2.7 5000 typ host", "sdpMid": "0", "sdpMLineIndex": 0}
    peer.add_candidate(good)
    for bad in ({"candidate": "nonsense", "sdpMid": "0"}, {**good, "sdpMid": None, "sdpMLineIndex": None}):
        with pytest.raises(CandidateInvalid):
            peer.add_candidate(bad)
    with pytest.raises(CandidateInvalid, match="too many"):
        peer.add_candidate(good)
    peer.add_candidate(None)
    await peer.close()
