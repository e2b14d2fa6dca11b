"""A session of an agent: opened by one request, spoken through by one socket, seen by one WebRTC peer."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from .errors import Refused, Unreachable
from .pcm_socket import PcmSocket, open_socket
from .viewer import Viewer

REQUEST_S = 60.0  # the first use of an avatar may make it anew


class AgentAvatar:
    """An avatar that says what an agent sends. Made by ``open_avatar``.

    Attributes:
        id: of the session.
        speech: takes the sound, gives the events.
        viewer: gives pictures and sound.
        reply: what the server answered: ``id``, ``pcm``, ``ws``, ``synthetic``...
    """

    def __init__(self, server: str, api_key: str | None, reply: dict[str, Any], speech: PcmSocket, viewer: Viewer):
        self.id: str = reply["id"]
        self.reply = reply
        self.speech = speech
        self.viewer = viewer
        self._server = server
        self._api_key = api_key

    async def close(self) -> None:
        """End the session and leave. May be repeated."""
        await self.speech.close()
        await self.viewer.close()
        try:
            await request(self._server, "DELETE", f"/v1/sessions/{self.id}", api_key=self._api_key)
        except (Refused, Unreachable):
            pass  # it has ended already, or went with its server


async def open_avatar(
    server: str,
    *,
    rate_hz: int,
    avatar_id: str = "default",
    api_key: str | None = None,
    options: dict[str, Any] | None = None,
) -> AgentAvatar:
    """Open a session, its socket and its view.

    Args:
        server: ``http://127.0.0.1:8000``.
        rate_hz: of the sound that will be sent, 8,000 to 48,000.
        avatar_id: whose face.
        api_key: of the server, where it has one.
        options: as in ``POST /v1/sessions``.

    Raises:
        Refused: the server said no; its code says why.
        Unreachable: there is no server.
    """
    viewer = Viewer()
    speech = None
    try:
        offer = {"type": "offer", "sdp": await viewer.offer()}
        body = {"avatar_id": avatar_id, "source": "pcm", "offer": offer, "options": options or {}}
        reply = await request(server, "POST", "/v1/sessions", body, api_key=api_key)
        speech = await open_socket(server, reply["pcm"], rate_hz=rate_hz, api_key=api_key)
        await viewer.accept(reply["answer"]["sdp"])
    except BaseException:
        if speech is not None:
            await speech.close()
        await viewer.close()
        raise
    return AgentAvatar(server, api_key, reply, speech, viewer)


@asynccontextmanager
async def an_avatar(server: str, **given: Any) -> AsyncIterator[AgentAvatar]:
    """``open_avatar`` for a ``with`` block."""
    avatar = await open_avatar(server, **given)
    try:
        yield avatar
    finally:
        await avatar.close()


async def request(
    server: str, method: str, path: str, body: dict[str, Any] | None = None, *, api_key: str | None = None
) -> Any:
    """One request with JSON either way; None for an empty answer.

    Raises:
        Refused: with the server's code.
        Unreachable: there is no server.
    """
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {api_key}"} if api_key else {})
    data = None if body is None else json.dumps(body).encode()
    order = urllib.request.Request(server.rstrip("/") + path, data, headers, method=method)
    try:
        text = await asyncio.to_thread(_send, order)
    except urllib.error.HTTPError as error:
        raise _refusal(error) from error
    except OSError as error:
        raise Unreachable(f"there is no server at {server} ({error}): start one with visavis serve") from error
    return json.loads(text) if text else None


def _send(order: urllib.request.Request) -> bytes:
    with urllib.request.urlopen(order, timeout=REQUEST_S) as answer:
        return answer.read()


def _refusal(error: urllib.error.HTTPError) -> Refused:
    try:
        told = json.loads(error.read())["error"]
        return Refused(told["code"], told["message"])
    except (ValueError, KeyError, TypeError):
        return Refused("http", f"the server answered {error.code}")
