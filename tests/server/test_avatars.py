import asyncio
import io
import struct
import zlib

import httpx
import numpy as np
import pytest
from PIL import Image

from engine.fake import FakeEngine
from server.config import LimitConfig

SMALL = LimitConfig(upload_bytes=200_000, uploads_per_minute=1_000)


async def code_of(response: httpx.Response) -> tuple[int, str]:
    error = response.json()["error"]
    assert set(error) == {"code", "message"} and error["message"]
    return response.status_code, error["code"]


async def test_an_avatar_is_made_listed_shown_and_deleted(server, picture: bytes) -> None:
    made = await server.upload(picture, keep_s=60)
    assert made.status_code == 201
    avatar = made.json()
    assert set(avatar) == {"id", "engine", "created_at", "expires_at", "thumbnail"}
    assert avatar["expires_at"] - avatar["created_at"] == pytest.approx(60, abs=2)
    listed = (await server.http.get("/v1/avatars")).json()["avatars"]
    assert [a["id"] for a in listed] == ["default", avatar["id"]]
    assert (await server.http.get(f"/v1/avatars/{avatar['id']}")).json() == avatar
    shown = await server.http.get(avatar["thumbnail"])
    assert shown.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(shown.content)).size == (256, 256)
    assert (await server.http.delete(f"/v1/avatars/{avatar['id']}")).status_code == 204
    for method in ("GET", "DELETE"):
        gone = await server.http.request(method, f"/v1/avatars/{avatar['id']}")
        assert await code_of(gone) == (404, "avatar_not_found")


async def test_the_default_avatar_stays(server) -> None:
    assert (await code_of(await server.http.delete("/v1/avatars/default")))[0] == 409


async def test_consent_is_required(server, picture: bytes) -> None:
    for consent in ("false", "", "yes"):
        assert await code_of(await server.upload(picture, consent=consent)) == (403, "consent_required")
    missing = await server.http.post("/v1/avatars", files={"portrait": ("p.png", picture)})
    assert await code_of(missing) == (403, "consent_required")
    assert len((await server.http.get("/v1/avatars")).json()["avatars"]) == 1


@pytest.mark.parametrize("keep_s", ["-1", "99999999999", "soon"])
async def test_keep_s_must_make_sense(server, picture: bytes, keep_s: str) -> None:
    assert await code_of(await server.upload(picture, keep_s=keep_s)) == (400, "request_invalid")


async def test_zero_keeps_until_deleted(server, picture: bytes) -> None:
    assert (await server.upload(picture, keep_s=0)).json()["expires_at"] is None


def bomb() -> bytes:
    """A PNG of 20,000 x 10,000 pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 10_000, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 2_501 * 100))
        + chunk(b"IEND", b"")
    )


async def test_bad_pictures_are_refused_and_the_server_goes_on(server, picture: bytes) -> None:
    assert await code_of(await server.upload(b"")) == (415, "image_unreadable")
    assert await code_of(await server.upload(b"I am not a picture")) == (415, "image_unreadable")
    assert await code_of(await server.upload(picture[: len(picture) // 2])) == (415, "image_unreadable")
    assert await code_of(await server.upload(bomb())) == (413, "image_too_large")
    assert await code_of(await server.http.post("/v1/avatars", data={"consent": "true"})) == (400, "request_invalid")
    assert (await server.upload(picture)).status_code == 201


async def test_an_upload_over_the_limit_is_refused_announced_or_not(
    serve, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.limits.DRAIN_BYTES", 1_000_000)
    server = await serve(limits=SMALL)
    noise = np.random.default_rng(0).bytes(300_000)
    assert await code_of(await server.upload(noise)) == (413, "upload_too_large")

    sent = 0

    async def endless():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="portrait"; filename="p"\r\n\r\n'
        while sent < 50_000_000:
            sent += 10_000
            yield noise[:10_000]
            await asyncio.sleep(0)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        response = await server.http.post("/v1/avatars", content=endless(), headers=headers)
        assert await code_of(response) == (413, "upload_too_large")
    except httpx.TransportError:
        pass  # the server hung up on us while we were still sending, which is as good
    assert sent < 20_000_000, "it was stopped on the way"
    assert (await server.upload(picture)).status_code == 201


async def test_uploads_are_limited_in_number(serve, picture: bytes) -> None:
    server = await serve(limits=LimitConfig(uploads_per_minute=2))
    for _ in range(2):
        assert (await server.upload(picture)).status_code == 201
    refused = await server.upload(picture)
    assert await code_of(refused) == (429, "rate_limited")
    assert 1 <= int(refused.headers["retry-after"]) <= 60


async def test_an_upload_too_many_is_refused_before_it_is_read(serve, picture: bytes) -> None:
    server = await serve(limits=LimitConfig(uploads_per_minute=1))
    assert (await server.upload(picture)).status_code == 201
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    refused = await server.http.post("/v1/avatars", content=b"no multipart", headers=headers)
    assert await code_of(refused) == (429, "rate_limited"), "whoever reads it answers 400"
    assert (await server.http.get("/v1/avatars")).status_code == 200, "only uploads are counted"


async def test_expired_avatars_are_removed(serve, picture: bytes, tmp_path) -> None:
    server = await serve(data_folder=tmp_path, sweep_every_s=0.1)
    assert (await server.upload(picture, keep_s=1)).status_code == 201
    assert len(list(tmp_path.iterdir())) == 1
    async with asyncio.timeout(10):
        while list(tmp_path.iterdir()):
            await asyncio.sleep(0.05)
    assert len((await server.http.get("/v1/avatars")).json()["avatars"]) == 1


async def test_an_engine_that_breaks_while_enrolling_is_our_fault_and_survived(serve, picture: bytes) -> None:
    class Fragile(FakeEngine):
        def enrol(self, image: bytes):
            if image == picture:
                raise RuntimeError("secret detail")
            return super().enrol(image)

    server = await serve(make_engine=Fragile)
    broken = await server.upload(picture)
    assert await code_of(broken) == (500, "engine_failed")
    assert "secret" not in broken.text
    out = io.BytesIO()
    Image.new("RGB", (64, 64)).save(out, "PNG")
    assert (await server.upload(out.getvalue())).status_code == 201
