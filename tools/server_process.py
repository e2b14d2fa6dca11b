"""A real server in a process of its own, on this machine's loopback address, and its HTTP interface."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from engine.errors import VisavisError

START_TIMEOUT_S = 180.0  # a first start may compile the engine
STOP_TIMEOUT_S = 15.0
_ROOT = Path(__file__).parents[1]
_METRIC = re.compile(r'visavis_stage_milliseconds\{stage="([^"]+)",quantile="0\.5"\} ([0-9.]+)')


class ServerTrouble(VisavisError):
    """The server under test did not start, or answered with an error."""

    code = "server_trouble"


class Refused(ServerTrouble):
    """The server answered 503: it is full."""

    code = "server_full"

    def __init__(self, message: str, retry_after_s: str | None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerProcess:
    """``python -m server.main`` on a free port of 127.0.0.1; a context manager that stops it.

    Args:
        engine: name of the engine.
        max_sessions: most sessions it takes; None leaves it to the server.
        trace: where it writes every stage's times; whole once it has stopped.
        environment: variables that it has beside ours.

    Raises:
        ServerTrouble: it ended or did not get ready within START_TIMEOUT_S; says what it wrote last.
    """

    def __init__(
        self,
        engine: str,
        *,
        max_sessions: int | None = None,
        trace: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # not a pipe: nobody would read it
        command = [sys.executable, "-m", "server.main", "--host", "127.0.0.1", "--port", "0", "--engine", engine]
        if max_sessions is not None:
            command += ["--max-sessions", str(max_sessions)]
        if trace is not None:
            command += ["--trace", str(trace)]
        inherited = {k: v for k, v in os.environ.items() if k != "VISAVIS_API_KEY"}
        begun_s = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self.url = self._wait_for_url(begun_s + START_TIMEOUT_S)
            self._wait_until_ready(begun_s + START_TIMEOUT_S)
        except BaseException:
            self.stop()
            raise
        self.start_s = time.monotonic() - begun_s

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def resident_mb(self) -> float:
        """Memory of the server and its children."""
        process = psutil.Process(self._process.pid)
        total = 0
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                total += each.memory_info().rss
        return round(total / 2**20, 1)

    @property
    def cpu_s(self) -> float:
        """Processor time used so far, all threads."""
        used = psutil.Process(self._process.pid).cpu_times()
        return used.user + used.system

    def stop(self) -> None:
        """Stop it, politely first. May be repeated."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()

    def _wait_for_url(self, until_s: float) -> str:
        while True:
            found = re.search(r"serves on (http://127\.0\.0\.1:\d+)", self._read_log())
            if found:
                return found[1]
            self._check_alive(until_s)
            time.sleep(0.1)

    def _wait_until_ready(self, until_s: float) -> None:
        while True:
            try:
                request_json("GET", f"{self.url}/readyz")
                return
            except ServerTrouble:  # 503 while it loads
                self._check_alive(until_s)
                time.sleep(0.1)

    def _check_alive(self, until_s: float) -> None:
        status = self._process.poll()
        if status is None and time.monotonic() < until_s:
            return
        what = f"was not ready within {START_TIMEOUT_S:.0f} s" if status is None else f"ended with status {status}"
        raise ServerTrouble(f"the server {what}; it wrote:\n{self._read_log()[-2000:].strip() or '(nothing)'}")

    def _read_log(self) -> str:
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")
        self._log.seek(0, os.SEEK_END)
        return text


def request_json(method: str, url: str, body: dict[str, Any] | None = None, *, timeout_s: float = 30) -> Any:
    """One HTTP request; blocks.

    Returns:
        the JSON of the answer, None where it is empty.

    Raises:
        Refused: status 503.
        ServerTrouble: any other failure; says what the server answered.
    """
    data = None if body is None else json.dumps(body).encode()
    text = _request(method, url, data, timeout_s)
    return json.loads(text) if text else None


async def ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """``request_json`` off the event loop."""
    return await asyncio.to_thread(request_json, method, url, body)


def send_portrait(url: str, image: bytes, *, timeout_s: float = 60) -> Any:
    """``POST /v1/avatars``, kept for an hour; blocks. Returns the avatar's JSON.

    Raises:
        ServerTrouble: the portrait was refused, or anything else; says what the server answered.
    """
    edge = f"visavis-{secrets.token_hex(8)}"
    fields = "".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("consent", "true"), ("keep_s", "3600"))
    )
    file = f'--{edge}\r\nContent-Disposition: form-data; name="portrait"; filename="portrait"\r\n\r\n'
    data = (fields + file).encode() + image + f"\r\n--{edge}--\r\n".encode()
    text = _request("POST", f"{url}/v1/avatars", data, timeout_s, f"multipart/form-data; boundary={edge}")
    return json.loads(text)


def read_stages_ms(url: str) -> dict[str, float]:
    """Median milliseconds per stage of the engine's thread, from ``GET /metrics``; empty where there are none."""
    return {stage: float(ms) for stage, ms in _METRIC.findall(_request("GET", f"{url}/metrics", None, 10))}


def _request(method: str, url: str, data: bytes | None, timeout_s: float, kind: str = "application/json") -> str:
    request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback needs no proxy
    try:
        with opener.open(request, timeout=timeout_s) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        said = error.read().decode(errors="replace")
        message = f"{method} {url} was answered {error.code}: {said[:500]}"
        if error.code == 503:
            raise Refused(message, error.headers.get("Retry-After")) from error
        raise ServerTrouble(message) from error
    except (OSError, urllib.error.URLError) as error:
        raise ServerTrouble(f"{method} {url} failed: {error}") from error
