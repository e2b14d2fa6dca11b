"""SDP fragments that trickle ICE candidates: ``application/trickle-ice-sdpfrag`` (RFC 8840, section 9)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from server.errors import RequestInvalid

MAX_LINES = 1_000


@dataclass(frozen=True, kw_only=True)
class IceFragment:
    """What a fragment says.

    Args:
        ice_ufrag: of the ICE session that it means; None where it does not say.
        candidates: as ``RTCIceCandidate.toJSON()`` of a browser.
        complete: there are no more (``a=end-of-candidates``).
    """

    ice_ufrag: str | None
    candidates: tuple[dict[str, Any], ...]
    complete: bool


def read_fragment(text: str) -> IceFragment:
    """
    Raises:
        RequestInvalid: it is no such fragment.
    """
    lines = text.split("\n")
    if len(lines) > MAX_LINES:
        raise RequestInvalid(f"the fragment has {len(lines)} lines: at most {MAX_LINES} are read")
    ufrag, section, mid, complete = None, -1, None, False
    candidates: dict[str, dict[str, Any]] = {}  # by line: clients that know no bundle repeat them for each section
    for line in filter(None, (line.strip() for line in lines)):
        if len(line) < 2 or line[1] != "=":
            raise RequestInvalid(f"{line[:80]!r} is no line of an SDP fragment")
        if line.startswith("m="):
            section, mid = section + 1, None
        elif line.startswith("a=mid:"):
            mid = line.removeprefix("a=mid:")
        elif line.startswith("a=ice-ufrag:"):
            ufrag = line.removeprefix("a=ice-ufrag:")
        elif line == "a=end-of-candidates":
            complete = True
        elif line.startswith("a=candidate:"):
            if section < 0:
                raise RequestInvalid("a candidate stands before the first m= line: say which section it is for")
            # Without a=mid the first section is meant: it carries the bundle.
            where = {"sdpMid": mid} if mid is not None else {"sdpMLineIndex": 0}
            candidates.setdefault(line, {"candidate": line.removeprefix("a="), **where})
    if ufrag is None and not candidates and not complete:
        raise RequestInvalid("the fragment holds neither candidates nor ICE credentials")
    return IceFragment(ice_ufrag=ufrag, candidates=tuple(candidates.values()), complete=complete)
