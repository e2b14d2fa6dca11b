"""A real server with the fake engine, in a process and, where agents have an environment of their own, a Python of its
own: ``VISAVIS_SERVER_PYTHON``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
START_S = 60.0
RATE_HZ = 24_000


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    python = os.environ.get("VISAVIS_SERVER_PYTHON", sys.executable)
    with tempfile.TemporaryFile() as log:
        command = [python, "-m", "server.main", "--port", "0", "--engine", "fake", "--max-sessions", "4"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            yield _wait_until_ready(process, log)
        finally:
            process.terminate()
            process.wait(10)


def _wait_until_ready(process: subprocess.Popen[bytes], log: object) -> str:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        log.seek(0)  # type: ignore[attr-defined]
        found = re.search(rb"serves on (http://127\.0\.0\.1:\d+)", log.read())  # type: ignore[attr-defined]
        if found:
            try:
                urllib.request.urlopen(f"{found[1].decode()}/readyz", timeout=5).close()
                return found[1].decode()
            except OSError:
                pass
        time.sleep(0.1)
    log.seek(0)  # type: ignore[attr-defined]
    raise AssertionError(f"the server did not start: {log.read()[-2000:]!r}")  # type: ignore[attr-defined]


def tone(seconds: float) -> bytes:
    """16-bit mono at RATE_HZ."""
    return (np.sin(np.arange(int(seconds * RATE_HZ)) * 2 * np.pi * 440 / RATE_HZ) * 12_000).astype("<i2").tobytes()


def mouth_of(rgb: np.ndarray) -> float:
    """Brightness of the fake engine's mouth, of uint8 [256, 256, 3] or [256, 256, 4]."""
    return float(rgb[164:204, 92:164, :3].mean())
