"""How much a client may send: bytes per request, uploads per minute. Both are checked before a body is read."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import RateLimited, ServerError, UploadTooLarge, error_body, http_headers, http_status

DRAIN_BYTES = 32 << 20  # read and thrown away after a refusal: who is still sending hears no answer
DRAIN_S = 10.0


class _Overflow(Exception):
    """The body went over its limit while it was read."""


class BodyLimit:
    """Refuses bodies over a limit with 413, also when no length or a false one was announced.

    It counts while the body streams in, so at most one chunk more than the limit is ever held.

    Args:
        app: what is guarded.
        limit_of: path -> most bytes of its body.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[str], int]) -> None:
        self._app = app
        self._limit_of = limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        limit = self._limit_of(scope["path"])
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            await _drain(receive)
            return await _too_large(limit)(scope, receive, send)
        taken, over, answered = 0, False, False

        async def receive_counted() -> Message:
            nonlocal taken, over
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                over = True
                raise _Overflow
            return message

        async def send_unless_over(message: Message) -> None:
            # The framework may have turned _Overflow into an answer of its own; ours says why.
            nonlocal answered
            if not over:
                answered = answered or message["type"] == "http.response.start"
                await send(message)

        try:
            await self._app(scope, receive_counted, send_unless_over)
        except _Overflow:
            pass
        if over and not answered:
            await _drain(receive)
            await _too_large(limit)(scope, receive, send)


class UploadLimit:
    """Refuses uploads over their rate with 429, before anything of them is kept or parsed.

    Args:
        app: what is guarded.
        path: POST to it is an upload.
        rate: of each client address.
    """

    def __init__(self, app: ASGIApp, path: str, rate: RateLimit) -> None:
        self._app = app
        self._path = path
        self._rate = rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("POST", self._path):
            client = scope.get("client")
            try:
                self._rate.take(client[0] if client else "")
            except RateLimited as error:
                await _drain(receive)
                return await _refusal(error)(scope, receive, send)
        await self._app(scope, receive, send)


async def _drain(receive: Receive) -> None:
    """Read on until the client has sent all, within bounds; keeps nothing."""
    drained = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while drained < DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _too_large(limit: int) -> JSONResponse:
    size = f"{limit / (1 << 20):.3g} MB" if limit >= 1 << 20 else f"{limit / 1024:.3g} kB"
    return _refusal(UploadTooLarge(f"the request is larger than {size}: send less, a smaller picture for example"))


def _refusal(error: ServerError) -> JSONResponse:
    headers = {**http_headers(error), "Connection": "close"}
    return JSONResponse(error_body(error.code, str(error)), http_status(error), headers)


class RateLimit:
    """At most ``per_minute`` in any burst, refilled evenly (a token bucket per key).

    Remembers the newest ``keep`` keys only; a forgotten one starts full again.
    """

    def __init__(self, per_minute: int, *, keep: int = 1024, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._keep = keep
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # key -> tokens, at

    def take(self, key: str) -> None:
        """Count one more for ``key``.

        Raises:
            RateLimited: too many; says when the next one will pass.
        """
        now = self._clock()
        tokens, at = self._buckets.pop(key, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - at) * self._per_minute / 60)
        passes = tokens >= 1
        self._buckets[key] = (tokens - passes, now)
        while len(self._buckets) > self._keep:
            self._buckets.popitem(last=False)
        if not passes:
            wait_s = math.ceil((1 - tokens) * 60 / self._per_minute)
            raise RateLimited(
                f"more than {self._per_minute} uploads in a minute: try again in {wait_s} s", retry_after_s=wait_s
            )
