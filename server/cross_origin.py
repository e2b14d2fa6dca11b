"""Pages of other sites that publish and play: CORS for ``/whip/`` and ``/whep/``, for listed origins only.

Nothing else is ever open to other sites. The key is asked of them as of everybody: a browser sends our cookie to
none of them (SameSite=Strict), so their pages must bring it as a bearer token.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATHS = ("/whip/", "/whep/")
MAX_AGE_S = 600  # for which a browser may remember a preflight's answer
_READABLE = "Accept-Patch, ETag, Link, Location, Retry-After, X-Synthetic-Media"


def may_cross(scope: Scope, origin: str, origins: tuple[str, ...]) -> bool:
    """Whether a page of ``origin`` may ask for this path."""
    return scope["type"] == "http" and scope["path"].startswith(PATHS) and origin in origins


class CrossOrigin:
    """Answers preflights (Fetch standard, CORS protocol) and lets listed pages read the answers, refusals included.

    Args:
        app: what is behind it; the gate, so that a preflight, which carries no key, passes before it.
        origins: as ``https://example.org``.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        origin = headers.get("origin")
        if origin is None or not may_cross(scope, origin, self._origins):
            return await self._app(scope, receive, send)

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out["Access-Control-Allow-Origin"] = origin
                out["Access-Control-Expose-Headers"] = _READABLE
                out.add_vary_header("Origin")
            await send(message)

        if scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            return await _preflight()(scope, receive, send_readable)
        await self._app(scope, receive, send_readable)


def _preflight() -> Response:
    return Response(
        headers={
            "Accept-Post": "application/sdp",
            "Access-Control-Allow-Methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, ETag, If-Match",
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }
    )
