"""WHIP in and WHEP out over HTTP (RFC 9725 and draft-ietf-wish-whep-03).

===========  ==============================  =============================================
             ``/whip/{name}``                ``/whep/{name}``
===========  ==============================  =============================================
POST         a publisher's offer; makes the  a player's offer; watches that session
             session
GET, HEAD    204: nothing to see (4.1)       the same
OPTIONS      200 with Accept-Post            the same
===========  ==============================  =============================================

At ``.../{name}/{resource}``, which POST returned as Location: PATCH trickles candidates, DELETE ends. aiortc cannot
restart ICE, so a PATCH with other ICE credentials is answered 422 (4.3.1) and changes nothing.

``name`` is the publisher's choice; WHEP also takes the id of any live session.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from engine.api import StreamOptions
from engine.cache import DEFAULT_AVATAR_ID
from server.broadcast import COLOUR, RENDITIONS
from server.config import ServerConfig
from server.errors import (
    CodecUnsupported,
    NothingLive,
    OfferUnfit,
    PreconditionFailed,
    PreconditionRequired,
    RequestInvalid,
    RestartUnsupported,
    SessionNotFound,
    TypeUnsupported,
)
from server.house import House
from server.ice_fragment import IceFragment, read_fragment
from server.live_avatar import SessionOrder
from server.publication import Publication
from server.signaling import PUBLISH, WATCH, Connection, Offer, Shape, read_offer
from server.viewer import Viewer

SDP, FRAGMENT = "application/sdp", "application/trickle-ice-sdpfrag"
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
RETRY_S = 2  # after which a player may ask again for a session that nobody publishes

T = TypeVar("T")

_ENDPOINT_METHODS = "GET, HEAD, OPTIONS, POST"
_RESOURCE_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH"
# Some players decide by this header, on any OPTIONS, whether they may trickle.
_ANY_METHOD = "DELETE, GET, HEAD, OPTIONS, PATCH, POST"


def add_whip(app: FastAPI, config: ServerConfig) -> None:
    """Add the routes of both."""

    @app.post("/whip/{name}", status_code=201, include_in_schema=False)
    async def publish(request: Request, name: str, avatar: str = DEFAULT_AVATAR_ID) -> Response:
        house = _house(request)
        house.require_ready()
        check_name(name)
        offer = await _read_offer(request, config, PUBLISH)
        options = StreamOptions(seed=secrets.randbelow(2**31), motion=1.0)

        async def make_order() -> SessionOrder:
            return await house.make_order(avatar, options)

        live = await house.sessions.admit(make_order, Publication, name=name)
        answer = await _fitting(live.publish(offer))
        return _created(answer, f"/whip/{name}/{live.id}", live.id, config)

    @app.post("/whep/{name}", status_code=201, include_in_schema=False)
    async def watch(request: Request, name: str, rendition: str = COLOUR.name) -> Response:
        house = _house(request)
        house.require_ready()
        shown = RENDITIONS.get(rendition)
        if shown is None:
            raise RequestInvalid(f"rendition is {rendition[:40]!r}: it must be one of {', '.join(RENDITIONS)}")
        offer = await _read_offer(request, config, WATCH)
        try:
            live = house.sessions.find(name)
        except SessionNotFound as error:
            raise NothingLive(f"{error}; a player may ask again later", retry_after_s=RETRY_S) from error
        viewer, answer = await _fitting(house.viewers.open(live, offer, shown))
        return _created(answer, f"/whep/{name}/{viewer.id}", viewer.id, config)

    @app.patch("/whip/{name}/{resource}", include_in_schema=False)
    async def trickle_in(request: Request, name: str, resource: str) -> Response:
        live = _publication(_house(request), name, resource)
        assert live.publisher is not None and live.offer is not None
        return await _trickle(request, live.id, live.offer, live.publisher)

    @app.patch("/whep/{name}/{resource}", include_in_schema=False)
    async def trickle_out(request: Request, name: str, resource: str) -> Response:
        viewer = _viewer(_house(request), name, resource)
        return await _trickle(request, viewer.id, viewer.offer, viewer)

    @app.delete("/whip/{name}/{resource}", include_in_schema=False)
    async def unpublish(request: Request, name: str, resource: str) -> Response:
        _publication(_house(request), name, resource).end("the publisher ended it")
        return Response()

    @app.delete("/whep/{name}/{resource}", include_in_schema=False)
    async def leave(request: Request, name: str, resource: str) -> Response:
        _viewer(_house(request), name, resource).end("the player ended it")
        return Response()

    for way in ("whip", "whep"):
        _add_rest(app, f"/{way}/{{name}}", _ENDPOINT_METHODS, config, {"Accept-Post": SDP})
        _add_rest(app, f"/{way}/{{name}}/{{resource}}", _RESOURCE_METHODS, config, {"Accept-Patch": FRAGMENT})


def check_name(name: str) -> str:
    """
    Raises:
        RequestInvalid: not a name.
    """
    if not NAME.fullmatch(name):
        raise RequestInvalid(f"{name[:80]!r} is no name: use 1 to 64 letters, digits, '-' and '_'")
    return name


def ice_links(config: ServerConfig) -> list[str]:
    """The ICE servers as values of Link headers, with credentials of this client's own (RFC 9725, section 4.6)."""
    links = []
    for server in config.network.hand_out()["ice_servers"]:
        login = ""
        if "username" in server:
            name, password = server["username"], server["credential"]
            login = f'; username="{name}"; credential="{password}"; credential-type="password"'
        links += [f'<{url}>; rel="ice-server"{login}' for url in server["urls"]]
    return links


def _house(request: Request) -> House:
    return request.app.state.house


def _add_rest(app: FastAPI, path: str, methods: str, config: ServerConfig, accepts: dict[str, str]) -> None:
    """What is neither POST, PATCH nor DELETE where those are due."""
    allowed = {"Allow": methods, **accepts}

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def nothing_to_see(request: Request) -> Response:
        return Response(status_code=204)

    @app.api_route(path, methods=["OPTIONS"], include_in_schema=False)
    async def options(request: Request) -> Response:
        response = Response(headers={**allowed, "Access-Control-Allow-Methods": _ANY_METHOD})
        _add_links(response, config)
        return response

    @app.api_route(path, methods=["PUT", "POST", "PATCH", "DELETE"], include_in_schema=False)
    async def refuse(request: Request) -> Response:
        raise HTTPException(405, f"it takes {methods}", headers=allowed)


async def _fitting(answering: Awaitable[T]) -> T:
    """Answer an offer; one without a codec of ours is well-formed and does not fit (RFC 9725, section 4.4.3)."""
    try:
        return await answering
    except CodecUnsupported as error:
        raise OfferUnfit(f"{error}; of video only VP8 and H264 are known here, of sound only Opus and G.711") from error


async def _read_offer(request: Request, config: ServerConfig, shape: Shape) -> Offer:
    sdp = await _read_body(request, SDP)
    return read_offer(sdp, max_chars=config.limits.sdp_chars, max_candidates=config.limits.candidates, shape=shape)


async def _read_body(request: Request, wanted: str) -> str:
    """
    Raises:
        TypeUnsupported: the body is announced as something else.
        RequestInvalid: it is no text.
    """
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise TypeUnsupported(f"the body's type is {given[:80]!r}: send it as {wanted}")
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError as error:
        raise RequestInvalid("the body is not UTF-8 text") from error


def _created(answer: str, location: str, tag: str, config: ServerConfig) -> Response:
    headers = {"Location": location, "ETag": f'"{tag}"', "Accept-Patch": FRAGMENT, "X-Synthetic-Media": "true"}
    response = Response(answer, 201, headers, media_type=SDP)
    _add_links(response, config)
    return response


def _add_links(response: Response, config: ServerConfig) -> None:
    for link in ice_links(config):
        response.headers.append("Link", link)


def _publication(house: House, name: str, resource: str) -> Publication:
    live = house.sessions.get(resource)
    if not isinstance(live, Publication) or live.name != name or live.publisher is None:
        raise SessionNotFound(f"nobody publishes {name[:64]!r} as {resource[:40]!r}")
    return live


def _viewer(house: House, name: str, resource: str) -> Viewer:
    viewer = house.viewers.get(resource)
    if name not in (viewer.live.name, viewer.live.id):
        raise SessionNotFound(f"nobody watches {name[:64]!r} as {resource[:40]!r}")
    return viewer


async def _trickle(request: Request, tag: str, offer: Offer, connection: Connection) -> Response:
    """Take the candidates of a PATCH (RFC 9725, section 4.3.2)."""
    body = await _read_body(request, FRAGMENT)
    matches = _given_tags(request)
    fragment = read_fragment(body)
    _refuse_restart(fragment, offer)
    if not matches & {"*", f'"{tag}"'}:
        raise PreconditionFailed('If-Match names another ICE session: send the ETag of the "201 Created"')
    for candidate in fragment.candidates:
        connection.add_candidate(candidate)
    if fragment.complete:
        connection.add_candidate(None)
    return Response(status_code=204)


def _given_tags(request: Request) -> set[str]:
    # @eyevinn/whip-web-client sends the tag in a header named ETag; what it means is plain.
    given = request.headers.get("if-match") or request.headers.get("etag")
    if not given:
        raise PreconditionRequired('send If-Match with the ETag of the "201 Created"')
    return {tag.strip() for tag in given.split(",")}


def _refuse_restart(fragment: IceFragment, offer: Offer) -> None:
    if fragment.ice_ufrag is not None and fragment.ice_ufrag != offer.ice_ufrag:
        raise RestartUnsupported("ICE cannot be restarted here: the session goes on as it is; else begin a new one")
