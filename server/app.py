"""The HTTP and WebSocket routes.

They are thin: they check, call, and shape the answer. What they call lives in the ``House``.
"""

from __future__ import annotations

import io
import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, File, Form, Request, Response, UploadFile, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from PIL import Image
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from engine.api import Engine, StreamOptions
from engine.cache import DEFAULT_AVATAR_ID, AvatarRecord
from engine.errors import (
    AvatarDamaged,
    AvatarError,
    AvatarNotFound,
    AvatarStale,
    AvatarStorage,
    FaceCropped,
    FaceTooSmall,
    FaceTurned,
    ImageTooLarge,
    ImageUnreadable,
    NoFace,
    SeveralFaces,
    VisavisError,
)
from engine.registry import create_engine
from engine.turn import PITCH_LIMIT_DEG, ROLL_LIMIT_DEG, YAW_LIMIT_DEG
from server import metrics
from server.agent_seat import open_live
from server.answers import any_failure, failures
from server.auth import Gate
from server.config import ServerConfig
from server.control import serve_socket
from server.cross_origin import CrossOrigin
from server.docs_page import render_docs
from server.errors import (
    CodecUnsupported,
    ConsentRequired,
    EngineFailed,
    NameTaken,
    NotReady,
    OfferInvalid,
    RateLimited,
    RequestInvalid,
    ServerFull,
    SessionNotFound,
    UploadTooLarge,
    error_body,
    http_headers,
    http_status,
)
from server.house import House
from server.limits import BodyLimit, RateLimit, UploadLimit
from server.live_avatar import SessionOrder
from server.network_routes import add_network
from server.obs import add_obs_page
from server.pcm_socket import add_pcm_socket
from server.room_socket import add_rooms
from server.signaling import CALL, LOOK_ON, read_offer
from server.whip import NAME, add_whip

log = logging.getLogger(__name__)

WEB_FOLDER = Path(__file__).parent.parent / "client" / "web"
THUMBNAIL_QUALITY = 88

_DESCRIPTION = """Real-time talking avatars: one portrait and a live microphone in, lip-synced video out over WebRTC.

Every failure is JSON: {"error": {"code", "message"}}. Where an API key is set, send it as
'Authorization: Bearer KEY'.

A session's WebSocket, /v1/sessions/{id}/ws, takes candidate, mute, avatar, options and ping messages, and
sends status, stats (every second), pong and error. /v1/sessions/{id}/pcm takes a program's speech (docs/agents.md)."""


_FACE_FAILURES = (NoFace, SeveralFaces, FaceTooSmall, FaceCropped, FaceTurned)
_UPLOAD_FAILURES = (
    *(RequestInvalid, ConsentRequired, UploadTooLarge, ImageTooLarge, ImageUnreadable),
    *(*_FACE_FAILURES, RateLimited, EngineFailed, NotReady, AvatarStorage),
)
_AVATAR_FAILURES = (AvatarNotFound, AvatarStale, AvatarDamaged, EngineFailed, NotReady)
_CALL_FAILURES = (
    RequestInvalid,
    OfferInvalid,
    CodecUnsupported,
    UploadTooLarge,
    *_AVATAR_FAILURES,
    NameTaken,
    ServerFull,
)


class OfferBody(BaseModel):
    type: Literal["offer"]
    sdp: str


class OptionsBody(BaseModel):
    seed: int | None = Field(default=None, ge=0, lt=2**31, description="of the idle motion; null: any")
    motion: float = Field(default=1.0, ge=0, le=1, description="amount of idle motion")
    codec: Literal["VP8", "H264"] | None = Field(default=None, description="null: whichever fits, VP8 first")


class SessionBody(BaseModel):
    avatar_id: str = DEFAULT_AVATAR_ID
    offer: OfferBody | None = Field(default=None, description="may be left out where a program speaks")
    source: Literal["microphone", "pcm"] = Field(default="microphone", description="pcm: a program speaks")
    options: OptionsBody = OptionsBody()
    name: str | None = Field(
        default=None, pattern=f"^{NAME.pattern}$", description="by which it can be found beside its id, as in /obs/NAME"
    )


def create_app(config: ServerConfig, make_engine: Callable[[], Engine] | None = None) -> FastAPI:
    """The application for uvicorn.

    Args:
        config: checked already.
        make_engine: instead of the engine that ``config`` names; for tests of failures.
    """
    if not config.marked:
        log.warning("frames carry no visible mark (--unmarked): say yourself that the picture is synthetic")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.house = house = House(config, make_engine or (lambda: create_engine(config.engine)))
        house.open()
        try:
            yield
        finally:
            await house.close()

    app = FastAPI(
        title="Visavis",
        version=version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=any_failure(),
    )
    _add_errors(app)
    _add_pages(app, config)
    add_obs_page(app)
    _add_avatars(app, config)
    _add_sessions(app, config)
    add_pcm_socket(app)
    add_whip(app, config)
    add_rooms(app, config)
    limits = config.limits
    app.add_middleware(BodyLimit, limit_of=lambda p: limits.upload_bytes if p == "/v1/avatars" else limits.json_bytes)
    app.add_middleware(UploadLimit, path="/v1/avatars", rate=RateLimit(limits.uploads_per_minute))
    app.add_middleware(Gate, api_key=config.api_key, cross_origins=config.cross_origins)
    app.add_middleware(CrossOrigin, origins=config.cross_origins)
    return app


def version() -> str:
    try:
        return metadata.version("visavis")
    except metadata.PackageNotFoundError:  # run from the tree, not installed
        return "0"


def _house(request: Request | WebSocket) -> House:
    return request.app.state.house


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(VisavisError)
    async def refuse(request: Request, error: VisavisError) -> JSONResponse:
        return JSONResponse(error_body(error.code, str(error)), http_status(error), http_headers(error))

    @app.exception_handler(RequestValidationError)
    async def refuse_fields(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = "; ".join(f"{'.'.join(str(p) for p in e['loc'][1:]) or 'body'}: {e['msg']}" for e in error.errors())
        return JSONResponse(error_body(RequestInvalid.code, faults), http_status(RequestInvalid()))

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> JSONResponse:
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, RequestInvalid.code)
        message = f"{request.method} {request.url.path[:200]}: {error.detail}"
        return JSONResponse(error_body(code, message), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def confess(request: Request, error: Exception) -> JSONResponse:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return JSONResponse(error_body("internal", "the server made a mistake; its log says which"), 500)


def _add_pages(app: FastAPI, config: ServerConfig) -> None:
    app.mount("/static", StaticFiles(directory=WEB_FOLDER), name="static")

    headers = {"Cache-Control": "no-cache", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
    headers["Content-Security-Policy"] = "frame-ancestors 'self'"  # no other site's page may frame its buttons
    add_network(app, config, page=WEB_FOLDER / "check.html", page_headers=headers)

    @app.get("/", include_in_schema=False)
    @app.get("/call/{name}", include_in_schema=False)
    async def page(name: str | None = None) -> FileResponse:
        return FileResponse(WEB_FOLDER / ("index.html" if name is None else "call.html"), headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(render_docs(app.openapi()))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses=failures(NotReady))
    async def readyz(request: Request) -> dict[str, str]:
        """Sessions can be opened."""
        _house(request).require_ready()
        return {"status": "ready"}

    @app.get("/v1/info")
    async def info(request: Request) -> dict[str, Any]:
        """What runs here. Before the engine is loaded its figures are null."""
        house = _house(request)
        engine = None
        with suppress(NotReady):
            engine = house.worker.engine
        return {
            "name": "visavis",
            "version": app.version,
            "engine": config.engine,
            "backend": engine.backend if engine else None,
            "fps": engine.spec.fps if engine else None,
            "frame_size": engine.spec.frame_size if engine else None,
            "lookahead_ms": engine.spec.lookahead_ms if engine else None,
            "max_sessions": house.sessions.limit,
            "sessions": len(house.sessions),
            "capacity": house.worker.capacity.to_json() if house.worker.capacity else None,
            "mark": config.marked,
            "turn_limit_deg": {"yaw": YAW_LIMIT_DEG, "pitch": PITCH_LIMIT_DEG, "roll": ROLL_LIMIT_DEG},
            "ice_servers": config.network.hand_out()["ice_servers"],
        }

    @app.get("/metrics")
    async def prometheus(request: Request) -> Response:
        """Counters and timings in Prometheus' text format."""
        house = _house(request)
        company = {"viewers": len(house.viewers), "rooms": len(house.rooms)}
        text = metrics.render_metrics(house.sessions, house.worker, house.loop_lag, **company)
        return Response(text, media_type=metrics.CONTENT_TYPE)


def _add_avatars(app: FastAPI, config: ServerConfig) -> None:
    limits = config.limits

    @app.post("/v1/avatars", status_code=201, responses=failures(*_UPLOAD_FAILURES))
    async def enrol_avatar(
        request: Request,
        portrait: Annotated[UploadFile, File(description="JPEG, PNG or WebP with one face")],
        consent: Annotated[str, Form(description="must be 'true': the person shown agrees")] = "false",
        keep_s: Annotated[int, Form(description="seconds to keep it; 0: until deleted")] = 86_400,
    ) -> dict[str, Any]:
        """Make an avatar of a portrait."""
        house = _house(request)
        if consent.strip().lower() != "true":
            raise ConsentRequired(
                f"consent is {consent[:20]!r}: send consent=true once the person shown agrees to be animated"
            )
        if not 0 <= keep_s <= limits.max_keep_s:
            raise RequestInvalid(f"keep_s is {keep_s}: it must lie between 0 and {limits.max_keep_s}")
        house.require_ready()
        image = await portrait.read()
        avatar = await house.enrol(image)
        expires_at = time.time() + keep_s if keep_s else None

        def keep() -> AvatarRecord:
            return house.store.describe(house.store.put(avatar, expires_at=expires_at, source=image))

        return _avatar_json(await house.blocking(keep), config)

    @app.get("/v1/avatars")
    async def list_avatars(request: Request) -> dict[str, Any]:
        """All avatars, the default one first."""
        records = await _house(request).blocking(_house(request).store.list)
        return {"avatars": [_avatar_json(r, config) for r in records]}

    @app.get("/v1/avatars/{avatar_id}", responses=failures(AvatarNotFound, AvatarDamaged))
    async def describe_avatar(request: Request, avatar_id: str) -> dict[str, Any]:
        """One avatar."""
        house = _house(request)
        return _avatar_json(await house.blocking(lambda: house.store.describe(avatar_id)), config)

    @app.get(
        "/v1/avatars/{avatar_id}/thumbnail",
        response_class=Response,
        responses={200: {"content": {"image/jpeg": {}}}, **failures(*_AVATAR_FAILURES)},
    )
    async def thumbnail(request: Request, avatar_id: str) -> Response:
        """Its picture, as the engine sees it."""
        house = _house(request)
        crop = await house.blocking(lambda: house.store.find_crop(avatar_id))
        if crop is None:
            crop = (await house.get_avatar(avatar_id)).crop
        jpeg = await house.blocking(lambda: _jpeg(crop))
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})

    @app.delete("/v1/avatars/{avatar_id}", status_code=204, responses=failures(AvatarNotFound, AvatarError))
    async def delete_avatar(request: Request, avatar_id: str) -> None:
        """Remove an avatar and its picture; sessions that show it go on until they end."""
        house = _house(request)
        await house.blocking(lambda: house.store.delete(avatar_id))


def _add_sessions(app: FastAPI, config: ServerConfig) -> None:
    limits = config.limits

    @app.post("/v1/sessions", status_code=201, responses=failures(*_CALL_FAILURES))
    async def open_session(request: Request, body: SessionBody) -> dict[str, Any]:
        """Answer an SDP offer with an avatar that speaks what the peer says, or what a program sends."""
        house = _house(request)
        house.require_ready()
        by_program = body.source == "pcm"
        if body.offer is None and not by_program:
            raise RequestInvalid(
                'offer is missing: send one, or "source": "pcm" for a session that a program speaks in'
            )
        shape = LOOK_ON if by_program else CALL
        offer = None
        if body.offer is not None:
            offer = read_offer(
                body.offer.sdp, max_chars=limits.sdp_chars, max_candidates=limits.candidates, shape=shape
            )
        seed = secrets.randbelow(2**31) if body.options.seed is None else body.options.seed

        options = StreamOptions(seed=seed, motion=body.options.motion)

        async def make_order() -> SessionOrder:
            return await house.make_order(body.avatar_id, options, body.options.codec)

        session, answer = await open_live(house.sessions, make_order, offer, by_program=by_program, name=body.name)
        return {
            "id": session.id,
            "answer": answer and {"type": "answer", "sdp": answer},
            "ws": f"/v1/sessions/{session.id}/ws",
            "pcm": f"/v1/sessions/{session.id}/pcm" if by_program else None,
            "synthetic": True,
            "lookahead_ms": house.worker.engine.spec.lookahead_ms,
        }

    @app.get("/v1/sessions/{session_id}", responses=failures(SessionNotFound))
    async def describe_session(request: Request, session_id: str) -> dict[str, Any]:
        """State of a session, and why it ended."""
        return _house(request).sessions.describe(session_id)

    @app.delete("/v1/sessions/{session_id}", status_code=204, responses=failures(SessionNotFound))
    async def end_session(request: Request, session_id: str) -> None:
        """End a session; its place is free when this answers."""
        _house(request).sessions.get(session_id).end("ended on request")

    @app.websocket("/v1/sessions/{session_id}/ws")
    async def socket(websocket: WebSocket, session_id: str) -> None:
        house = _house(websocket)
        await serve_socket(websocket, session_id, sessions=house.sessions, get_avatar=house.get_avatar)


def _avatar_json(record: AvatarRecord, config: ServerConfig) -> dict[str, Any]:
    return {
        "id": record.id,
        "engine": record.engine or config.engine,
        "created_at": math.floor(record.created_at),
        "expires_at": None if record.expires_at is None else math.ceil(record.expires_at),
        "thumbnail": f"/v1/avatars/{record.id}/thumbnail",
    }


def _jpeg(crop: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(crop).save(out, "JPEG", quality=THUMBNAIL_QUALITY)
    return out.getvalue()
