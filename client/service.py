"""A server's HTTP interface as its clients use it (docs/api.md). Every call here blocks; ``ask`` does not."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import secrets
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from client.errors import OrderInvalid, Refused, ServerTrouble


def check_url(url: str) -> str:
    """``url`` without its path, e.g. ``http://127.0.0.1:8000``.

    Raises:
        OrderInvalid: it is no http or https URL with a host.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise OrderInvalid(f"the server {url!r} is no URL ({error}): give one such as http://127.0.0.1:8000") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise OrderInvalid(f"the server {url!r} is no URL: give one such as http://127.0.0.1:8000")
    return f"{parts.scheme}://{parts.netloc}"


def is_loopback(url: str) -> bool:
    """Whether ``url`` names this machine; then no proxy lies between."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def bearer(key: str | None) -> dict[str, str]:
    """The header that carries an API key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def request_json(
    method: str, url: str, body: dict[str, Any] | None = None, *, key: str | None = None, timeout_s: float = 30
) -> Any:
    """One HTTP request; blocks.

    Returns:
        the JSON of the answer, None where it is empty.

    Raises:
        Refused: status 503.
        ServerTrouble: any other failure; says what the server answered.
    """
    data = None if body is None else json.dumps(body).encode()
    return _read_json(request_text(method, url, data, key=key, timeout_s=timeout_s), url)


async def ask(method: str, url: str, body: dict[str, Any] | None = None, *, key: str | None = None) -> Any:
    """``request_json`` off the event loop."""
    return await asyncio.to_thread(request_json, method, url, body, key=key)


def send_portrait(
    url: str, image: bytes, *, key: str | None = None, keep_s: int = 3600, timeout_s: float = 60
) -> dict[str, Any]:
    """``POST /v1/avatars`` of a portrait whose person has agreed; blocks. Returns the avatar's JSON.

    Raises:
        ServerTrouble: the portrait was refused, or anything else; says what the server answered.
    """
    edge = f"visavis-{secrets.token_hex(8)}"
    fields = "".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("consent", "true"), ("keep_s", str(keep_s)))
    )
    file = f'--{edge}\r\nContent-Disposition: form-data; name="portrait"; filename="portrait"\r\n\r\n'
    data = (fields + file).encode() + image + f"\r\n--{edge}--\r\n".encode()
    kind = f"multipart/form-data; boundary={edge}"
    text = request_text("POST", f"{url}/v1/avatars", data, key=key, timeout_s=timeout_s, kind=kind)
    return _read_json(text, url)


def request_text(
    method: str,
    url: str,
    data: bytes | None = None,
    *,
    key: str | None = None,
    timeout_s: float = 30,
    kind: str = "application/json",
) -> str:
    """One HTTP request; blocks. Returns the answer's body.

    Raises:
        Refused, ServerTrouble: as ``request_json``.
    """
    request = urllib.request.Request(url, data, {"Content-Type": kind, **bearer(key)}, method=method)
    proxies = urllib.request.ProxyHandler({} if is_loopback(url) else None)
    try:
        with urllib.request.build_opener(proxies).open(request, timeout=timeout_s) as answer:
            return answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        text = error.read(10_000).decode(errors="replace")
        code, said = _read_error(text)
        message = f"{method} {url} was answered {error.code}: {said}"
        if error.code == 503:
            raise Refused(message, error.headers.get("Retry-After"), said=code) from error
        raise ServerTrouble(message, status=error.code, said=code) from error
    except (OSError, urllib.error.URLError) as error:
        raise ServerTrouble(f"{method} {url} failed: {_reason(error)}") from error


def _read_json(text: str, url: str) -> Any:
    try:
        return json.loads(text) if text else None
    except ValueError as error:
        raise ServerTrouble(f"what answers at {url} is no Visavis server: {text[:80]!r}", status=404) from error


def _read_error(text: str) -> tuple[str, str]:
    """``code`` and ``message`` of a body as docs/api.md has it, else the body itself."""
    try:
        error = json.loads(text)["error"]
        return str(error["code"]), str(error["message"])[:500]
    except (ValueError, KeyError, TypeError):
        return "", text[:500]


def _reason(error: Exception) -> str:
    """``Connection refused`` rather than ``<urlopen error [Errno 111] Connection refused>``."""
    inner = getattr(error, "reason", error)
    return re.sub(r"^\[Errno -?\d+\] ", "", str(inner)) or type(error).__name__
