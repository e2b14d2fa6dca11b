"""Who may speak to the server: the API key, and no page of another site.

Checked in one place, an ASGI middleware around everything, so that no route or socket can be
forgotten. Without a key the server is for this machine only: then the host name of a request must be a
loopback one, which stops a hostile page that has its own name point to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.errors import VisavisError
from server.config import is_loopback
from server.cross_origin import may_cross
from server.errors import ForeignOrigin, Unauthorized, error_body, http_headers, http_status

COOKIE = "visavis_key"

_KEY_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Visavis</title>
<body style="font:1rem system-ui;max-width:30rem;margin:4rem auto;padding:0 1rem">
<h1>This server needs a key</h1>
<p>Open the page with the link you were given (it ends in <code>/?key=…</code>), or type the key here.</p>
<form method="get"><label>Key <input name="key" type="password" autocomplete="current-password" required>
</label> <button>Open</button></form></body></html>"""


class Gate:
    """Lets a request or a socket through when it carries the key and comes from our own page.

    Args:
        app: what is guarded.
        api_key: None lets everybody on this machine in.
        cross_origins: whose pages may publish and play (``cross_origin.py``).
    """

    def __init__(self, app: ASGIApp, api_key: str | None, cross_origins: tuple[str, ...] = ()) -> None:
        self._app = app
        self._api_key = api_key
        self._cross_origins = cross_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        try:
            self._check_origin(scope, headers)
            key = given_key(scope, headers)
            if self._api_key is not None:
                self._check_key(key)
        except VisavisError as error:
            return await self._refuse(error, scope, receive, send)
        if self._api_key is not None and _opens_page_with_key(scope):
            return await self._welcome(scope)(scope, receive, send)
        await self._app(scope, receive, send)

    def _check_key(self, key: str | None) -> None:
        assert self._api_key is not None
        if key is None:
            raise Unauthorized(
                "no API key was given: send 'Authorization: Bearer KEY', or open the page with /?key=KEY"
            )
        if not hmac.compare_digest(key.encode(), self._api_key.encode()):
            raise Unauthorized("the API key is wrong: ask whoever runs this server for the right one")

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self._api_key is None and not is_loopback(_name_of(host)):
            raise ForeignOrigin(
                f"host name {host[:80]!r} is not this machine's: open http://127.0.0.1, or start the server with a key"
            )
        origin = headers.get("origin")
        if origin is None or may_cross(scope, origin, self._cross_origins):
            return
        if _host_of(origin) != host.lower():
            raise ForeignOrigin(f"requests from {origin[:80]!r} are not served: use this server's own page")

    def _welcome(self, scope: Scope) -> Response:
        """Put the key into a cookie and take it out of the address bar."""
        rest = urlencode({name: values for name, values in _query(scope).items() if name != "key"}, doseq=True)
        response = RedirectResponse(quote(scope["path"]) + (f"?{rest}" if rest else ""), status_code=303)
        assert self._api_key is not None
        response.set_cookie(COOKIE, self._api_key, max_age=30 * 86_400, httponly=True, samesite="strict")
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    async def _refuse(self, error: VisavisError, scope: Scope, receive: Receive, send: Send) -> None:
        status, extra = http_status(error), http_headers(error)
        response: Response = JSONResponse(error_body(error.code, str(error)), status, extra)
        if scope["type"] == "http" and _is_page(scope) and isinstance(error, Unauthorized):
            response = HTMLResponse(_KEY_PAGE, status, extra)
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 4401, "reason": error.code})
            return
        await response(scope, receive, send)


def given_key(scope: Scope, headers: Headers) -> str | None:
    """The key that a request carries: header, then query, then cookie.

    In the query only where a header cannot be set by a browser: the page itself and sockets. Elsewhere
    it would end up in logs and bookmarks.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token:
        return token.strip()
    if scope["type"] == "websocket" or _is_page(scope):
        given = [key for key in _query(scope).get("key", []) if key]
        if given:
            return given[0]
    # Starlette's parser, not http.cookies: that one drops all cookies where one is odd, and other servers
    # of this machine share ours.
    return cookie_parser(headers.get("cookie", "")).get(COOKIE)


def _is_page(scope: Scope) -> bool:
    """What people open by its address, and OBS, which cannot be asked for a key."""
    return scope["path"] in ("/", "/check") or scope["path"].startswith(("/call/", "/obs/"))


def _opens_page_with_key(scope: Scope) -> bool:
    return scope["type"] == "http" and _is_page(scope) and "key" in _query(scope)


def _query(scope: Scope) -> dict[str, list[str]]:
    return parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def _host_of(origin: str) -> str:
    """``host:port`` of an origin, "" where it cannot be read."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name_of(host: str) -> str:
    """``name`` of ``name:port`` or ``[v6]:port``."""
    return host.rsplit("]", 1)[0].lstrip("[") if host.startswith("[") else host.rsplit(":", 1)[0]
