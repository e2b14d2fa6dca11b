"""Every picture that cannot become an avatar is refused over HTTP with its own reason; the server goes on.

All of it goes through the real engine. What the fake one shows as well is in ``test_avatars.py``.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import httpx
import numpy as np
import pytest
import pytest_asyncio
from PIL import Image

from engine.cache import DEFAULT_PORTRAIT
from engine.registry import create_engine
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT
from server.config import LimitConfig, ServerConfig
from tests.server.caller import Server, running

SHARED = Path(__file__).parents[3] / "shared" / "data" / "enrol"
UPLOAD_BYTES = 2 << 20

CHECKPOINT = Path(os.environ.get("VISAVIS_CHECKPOINT", DEFAULT_CHECKPOINT))

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not CHECKPOINT.is_file(), reason="the engine's checkpoint is not here"),
]
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not beside the project")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """One server for all: what one picture breaks, the next one's test finds."""
    limits = LimitConfig(upload_bytes=UPLOAD_BYTES, uploads_per_minute=10_000)
    config = ServerConfig(port=0, max_sessions=1, limits=limits)
    async with running(config, lambda: create_engine("s3dnerf"), True) as seen:
        yield seen


@cache
def face() -> Image.Image:
    return Image.open(DEFAULT_PORTRAIT).convert("RGB")


def encode(image: Image.Image, format: str = "JPEG") -> bytes:
    out = io.BytesIO()
    image.save(out, format)
    return out.getvalue()


def landscape() -> bytes:
    """Sky, meadow and a round sun."""
    y, x = np.mgrid[:400, :600]
    picture = np.where((y < 240)[..., None], (140, 180, 230), (90, 140, 60)).astype(np.uint8)
    picture[(x - 450) ** 2 + (y - 90) ** 2 < 50**2] = (250, 230, 120)
    return encode(Image.fromarray(picture))


def collage() -> bytes:
    both = Image.new("RGB", (2 * face().width, face().height))
    both.paste(face(), (0, 0))
    both.paste(face(), (face().width, 0))
    return encode(both)


def half_a_face() -> bytes:
    """The default portrait faces the camera from the middle of its picture."""
    return encode(face().crop((face().width // 2, 0, face().width, face().height)))


def huge_png() -> bytes:
    """A true PNG of 20,000 x 10,000 black pixels; its 200 million pixels pack into 25 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    width, height = 20_000, 10_000
    packer = zlib.compressobj(9)
    row = bytes(1 + width // 8)  # filter byte, then one bit a pixel
    pixels = b"".join(packer.compress(row * 1_000) for _ in range(height // 1_000)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


BAD = {
    "no face": (landscape, 422, "no_face", ("no face was found", "choose a picture with one face")),
    "truncated": (lambda: encode(face())[:9_000], 415, "image_unreadable", ("JPEG", "truncated", "export or download")),
    "text": (lambda: b"dear diary, this is no picture\n", 415, "image_unreadable", ("b'dear dia'", "save it as JPEG")),
    "bomb": (huge_png, 413, "image_too_large", ("200 megapixels, at most 40", "save it smaller")),
    "two faces": (collage, 422, "several_faces", ("2 faces", "cut the picture down to one person")),
    "empty": (lambda: b"", 415, "image_unreadable", ("0 bytes", "choose a JPEG, PNG or WebP")),
    "small": (lambda: encode(face().resize((80, 80))), 422, "face_too_small", ("60 are needed", "larger picture")),
    "cut off": (half_a_face, 422, "face_cropped", ("left edge", "shows the whole face")),
    "on its side": (
        lambda: encode(face().rotate(90)),
        422,
        "face_turned",
        ("leaning sideways by 90", "turn the picture upright"),
    ),
    "GIF": (lambda: encode(face(), "GIF"), 415, "image_unreadable", ("is a GIF", "save it as JPEG")),
    "too many bytes": (lambda: bytes(UPLOAD_BYTES + 1), 413, "upload_too_large", ("2 MB", "smaller picture")),
}


@pytest.mark.parametrize("what", BAD)
async def test_a_bad_picture_gets_its_own_reason_and_leaves_no_trace(server: Server, what: str) -> None:
    make, status, code, words = BAD[what]
    before = (await server.http.get("/v1/avatars")).json()
    refused = await server.upload(make())
    assert_refused(refused, status, code, *words)
    await assert_serves_on(server, before)


async def test_a_good_picture_is_taken_after_all_these(server: Server) -> None:
    for make, *_ in BAD.values():
        assert (await server.upload(make())).is_client_error
    made = await server.upload(encode(face().resize((400, 400)), "PNG"))
    assert made.status_code == 201, made.text
    avatar = made.json()
    assert (await server.http.get(avatar["thumbnail"])).headers["content-type"] == "image/jpeg"
    assert (await server.http.delete(f"/v1/avatars/{avatar['id']}")).status_code == 204


@needs_shared
async def test_cats_and_cups_have_no_face(server: Server) -> None:
    pictures = sorted((SHARED / "refuse").iterdir())
    assert pictures
    before = (await server.http.get("/v1/avatars")).json()
    for path in pictures:
        assert_refused(await server.upload(path.read_bytes()), 422, "no_face", "choose a picture")
    await assert_serves_on(server, before)


@needs_shared
async def test_good_portraits_are_all_taken(server: Server) -> None:
    pictures = sorted((SHARED / "good").iterdir())
    assert pictures
    for path in pictures:
        made = await server.upload(path.read_bytes())
        assert made.status_code == 201, f"{path.name}: {made.text}"
        assert (await server.http.delete(f"/v1/avatars/{made.json()['id']}")).status_code == 204


def assert_refused(response: httpx.Response, status: int, code: str, *words: str) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), error
    for word in words:
        assert word in error["message"]


async def assert_serves_on(server: Server, avatars: dict) -> None:
    assert (await server.http.get("/healthz")).json() == {"status": "ok"}
    assert (await server.http.get("/v1/avatars")).json() == avatars
    shown = await server.http.get("/v1/avatars/default/thumbnail")
    assert Image.open(io.BytesIO(shown.content)).size == (256, 256)
