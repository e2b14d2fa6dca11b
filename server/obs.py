"""The presenter's page for OBS: nothing but the avatar, without background."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

PAGE = Path(__file__).parent.parent / "client" / "web" / "obs.html"

# The page's address may come from anywhere, so it may load nothing from elsewhere and be framed by nobody.
_HEADERS = {
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; media-src 'self' blob: mediastream:; frame-ancestors 'self'",
}


def add_obs_page(app: FastAPI) -> None:
    @app.get("/obs/{session}", include_in_schema=False)
    async def obs_page(session: str) -> FileResponse:
        """The same for every session; it looks for the one in its own address, and waits until it is there."""
        return FileResponse(PAGE, headers=_HEADERS)
