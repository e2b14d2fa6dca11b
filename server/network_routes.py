"""Routes about the network: ICE servers for clients, the page /check and what it asks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse
from pydantic import BaseModel

from server.answers import failures
from server.config import ServerConfig
from server.errors import OfferInvalid, RequestInvalid, ServerFull
from server.house import House


class CheckOffer(BaseModel):
    type: Literal["offer"]
    sdp: str


class CheckBody(BaseModel):
    offer: CheckOffer


def add_network(app: FastAPI, config: ServerConfig, *, page: Path, page_headers: dict[str, str]) -> None:
    """Add the routes.

    Args:
        app: gets them.
        config: of the server.
        page: the file of /check.
        page_headers: as every page has them.
    """
    network, limits = config.network, config.limits

    @app.get("/check", include_in_schema=False)
    async def check_page() -> FileResponse:
        return FileResponse(page, headers=page_headers)

    @app.get("/v1/ice-servers")
    async def ice_servers(response: Response) -> dict[str, Any]:
        """STUN and TURN servers for RTCPeerConnection, with credentials of this client's own. Ask before each call."""
        response.headers["Cache-Control"] = "no-store"
        return network.hand_out()

    @app.get("/v1/network")
    async def describe_network(request: Request) -> dict[str, Any]:
        """Whether the configured STUN and TURN servers work, seen from the server. May take 10 seconds."""
        probes = await _house(request).relay_watch.look()
        return {
            "udp_ports": None if network.udp_ports is None else str(network.udp_ports),
            "public_address": network.public_address,
            "ice_servers": [probe.to_json() for probe in probes],
        }

    @app.post("/v1/check", status_code=201, responses=failures(RequestInvalid, OfferInvalid, ServerFull))
    async def check(request: Request, body: CheckBody) -> dict[str, Any]:
        """Answer the offer of one data channel, which then sends back what it is sent, for 20 seconds."""
        if len(body.offer.sdp) > limits.sdp_chars:
            raise OfferInvalid(f"the offer has {len(body.offer.sdp)} characters: at most {limits.sdp_chars} are read")
        sdp = await _house(request).check_peers.answer(body.offer.sdp, max_candidates=limits.candidates)
        return {"answer": {"type": "answer", "sdp": sdp}}


def _house(request: Request) -> House:
    return request.app.state.house
