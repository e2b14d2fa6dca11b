"""Published WHIP and WHEP clients, unmodified, on a page of another origin: one publishes, the other plays."""

from __future__ import annotations

import functools
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.conftest import GRANT_FAKE_MICROPHONE, StartBrowser, StartServer

KEY = "a-key-for-the-tests"
PACKAGES = ("@eyevinn/whip-web-client@1.1.7", "@eyevinn/webrtc-player@0.13.0", "esbuild@0.28")
SLOW_MS = 40_000  # patience, not a measure

# esbuild only puts the packages and their CommonJS dependencies into one file for the browser.
ENTRY = """
import { WHIPClient } from "@eyevinn/whip-web-client";
import { WebRTCPlayer } from "@eyevinn/webrtc-player";
Object.assign(window, { WHIPClient, WebRTCPlayer });
"""

PUBLISH = """async ([endpoint, authkey]) => {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true, video: true });
  window.whip = new WHIPClient({ endpoint, opts: { authkey, iceServers: [] } });
  await window.whip.ingest(stream);
}"""
PLAY = """async ([endpoint, authkey]) => {
  const video = document.querySelector("video");
  window.player = new WebRTCPlayer({ video, type: "whep", iceServers: [] });
  await window.player.load(new URL(endpoint), `Bearer ${authkey}`);
}"""

OFFER = """async () => {
  const peer = new RTCPeerConnection();
  peer.addTransceiver("audio", { direction: "recvonly" });
  return (await peer.createOffer()).sdp;
}"""
POST = """async ([url, key, body]) => {
  const headers = { Authorization: `Bearer ${key}`, "Content-Type": "application/sdp" };
  return (await fetch(url, { method: "POST", headers, body })).status;
}"""


@pytest.fixture(scope="module")
def clients_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a page with both clients, on an origin of its own."""
    folder = tmp_path_factory.mktemp("npm")
    (folder / "entry.js").write_text(ENTRY)
    (folder / "package.json").write_text('{"private": true}')
    _run_or_skip(folder, "npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *PACKAGES)
    _run_or_skip(folder, "npx", "--no-install", "esbuild", "entry.js", "--bundle", "--outfile=clients.js")
    (folder / "index.html").write_text(
        '<!doctype html><script src="clients.js"></script><video autoplay muted playsinline></video>'
    )
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def _run_or_skip(folder: Path, program: str, *arguments: str) -> None:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed: the published clients cannot be fetched")
    done = subprocess.run([path, *arguments], cwd=folder, capture_output=True, text=True, timeout=100)
    if done.returncode:
        pytest.skip(f"{program} {arguments[0]} failed, is the npm registry in reach? {done.stderr.strip()[-300:]}")


def test_published_clients_publish_and_play(
    clients_page: str, start_server: StartServer, start_browser: StartBrowser
) -> None:
    server = start_server("--engine", "fake", "--api-key", KEY, "--cross-origin", clients_page)
    with start_browser(GRANT_FAKE_MICROPHONE).new_context() as context:
        publisher, player = context.new_page(), context.new_page()
        for page in (publisher, player):
            page.goto(clients_page)
        publisher.evaluate(PUBLISH, [f"{server.url}/whip/stage", KEY])
        publisher.wait_for_function("whip.getICEConnectionState() === 'connected'", timeout=SLOW_MS)
        player.evaluate(PLAY, [f"{server.url}/whep/stage", KEY])
        player.wait_for_function("document.querySelector('video').videoWidth === 256", timeout=SLOW_MS)
        player.wait_for_function("document.querySelector('video').currentTime > 1", timeout=SLOW_MS)
        tracks = player.evaluate("document.querySelector('video').srcObject.getTracks().map((t) => t.kind).sort()")
        assert set(tracks) == {"audio", "video"}
        player.evaluate("player.unload()")
        publisher.evaluate("whip.destroy()")  # its DELETE ends the session
        assert publisher.evaluate(POST, [f"{server.url}/whep/stage", KEY, page.evaluate(OFFER)]) == 409
