"""A real server in a process of its own, on this machine's loopback address."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from client.errors import ServerTrouble
from client.service import request_json, request_text

START_TIMEOUT_S = 180.0  # a first start may compile the engine
STOP_TIMEOUT_S = 15.0
_ROOT = Path(__file__).parents[1]
_STAGE = re.compile(r'visavis_stage_milliseconds\{stage="([^"]+)",quantile="0\.5"\} ([0-9.]+)')
_LOOP_LAG = re.compile(r'visavis_loop_lag_milliseconds\{quantile="0\.([0-9]+)"\} ([0-9.]+)')


class ServerProcess:
    """``python -m server.main`` on a free port of 127.0.0.1; a context manager that stops it.

    A SIGTERM ends the program in order from then on, if it has made no arrangement of its own: no server outlives it.

    Args:
        engine: name of the engine.
        max_sessions: most sessions it takes; None leaves it to the server.
        trace: where it writes every stage's times; whole once it has stopped.
        environment: variables that it has beside ours.
        own_group: Ctrl-C on the terminal does not reach it; whoever started it stops it.

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
        own_group: bool = False,
    ) -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # not a pipe: nobody would read it
        command = [sys.executable, "-m", "server.main", "--host", "127.0.0.1", "--port", "0", "--engine", engine]
        if max_sessions is not None:
            command += ["--max-sessions", str(max_sessions)]
        if trace is not None:
            command += ["--trace", str(trace)]
        inherited = {k: v for k, v in os.environ.items() if k != "VISAVIS_API_KEY"}
        _end_in_order_on_sigterm()
        begun_s = time.monotonic()
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**inherited, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=own_group,
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

    def kill(self) -> None:
        """End it without a word, as a machine that loses power does."""
        self._process.kill()
        self._process.wait()

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


@dataclass(frozen=True, kw_only=True)
class ServerTimes:
    """What the server says of its threads in ``GET /metrics``; empty where it says nothing."""

    stages_ms: dict[str, float]  # median of each part of a step, on the engine's threads
    loop_lag_ms: dict[str, float]  # "p50", "p99": how late the event loop did what was due, in the last minute


def read_times(url: str) -> ServerTimes:
    """
    Raises:
        ServerTrouble: the server cannot be reached.
    """
    text = request_text("GET", f"{url}/metrics", timeout_s=10)
    return ServerTimes(
        stages_ms={stage: float(ms) for stage, ms in _STAGE.findall(text)},
        loop_lag_ms={f"p{digits:0<2}": float(ms) for digits, ms in _LOOP_LAG.findall(text)},
    )


def _end_in_order_on_sigterm() -> None:
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
