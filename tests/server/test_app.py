import asyncio
import re
import threading

import pytest

from engine.api import Avatar
from engine.cache import DEFAULT_PORTRAIT
from engine.errors import CheckpointError, NoFace
from engine.fake import FakeEngine
from server.config import LimitConfig


async def test_info_says_what_runs(server) -> None:
    info = (await server.http.get("/v1/info")).json()
    assert info["engine"] == "fake" and info["fps"] == 25 and info["frame_size"] == 256
    assert info["lookahead_ms"] == 120 and 1 <= info["max_sessions"] <= 16 and info["sessions"] == 0
    assert info["mark"] is True and info["ice_servers"] == []


async def test_it_is_healthy_before_it_is_ready(serve) -> None:
    gate = threading.Event()

    def slow() -> FakeEngine:
        gate.wait(20)
        return FakeEngine()

    server = await serve(make_engine=slow, wait=False)
    assert (await server.http.get("/healthz")).json() == {"status": "ok"}
    for path in ("/readyz", "/v1/avatars/default/thumbnail"):
        early = await server.http.get(path)
        assert early.status_code == 503 and early.json()["error"]["code"] == "not_ready"
        assert int(early.headers["retry-after"]) >= 1
    assert (await server.http.get("/v1/info")).json()["fps"] is None
    gate.set()
    async with asyncio.timeout(10):
        while (await server.http.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.02)


async def test_an_engine_that_cannot_load_is_named(serve) -> None:
    def broken() -> FakeEngine:
        raise CheckpointError("the checkpoint is damaged: fetch it again")

    server = await serve(make_engine=broken, wait=False)
    async with asyncio.timeout(10):
        while "damaged" not in (answer := await server.http.get("/readyz")).text:
            await asyncio.sleep(0.02)
    assert answer.status_code == 503


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nosuch", 404), ("PUT", "/v1/avatars", 405)])
async def test_unknown_routes_answer_in_json(server, method: str, path: str, status: int) -> None:
    answer = await server.http.request(method, path)
    assert answer.status_code == status and path in answer.json()["error"]["message"]


async def test_the_page_and_its_modules_are_served(server) -> None:
    page = await server.http.get("/")
    assert page.headers["content-type"].startswith("text/html") and "Visavis" in page.text
    assert "frame-ancestors" in page.headers["content-security-policy"]
    assert "javascript" in (await server.http.get("/static/main.js")).headers["content-type"]


async def test_the_api_is_described_without_the_network(server) -> None:
    docs = (await server.http.get("/docs")).text
    paths = (await server.http.get("/openapi.json")).json()["paths"]
    assert "/v1/sessions" in paths and all(path in docs for path in paths)
    assert "https://" not in docs


async def test_metrics_can_be_scraped(server) -> None:
    text = (await server.http.get("/metrics")).text
    assert "visavis_sessions 0" in text and "# TYPE visavis_sessions_total counter" in text
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    names = {line.split("{")[0].split(" ")[0] for line in lines}
    assert names >= {"visavis_thrift_level", "visavis_capacity_sessions", "visavis_loop_lag_milliseconds"}
    for line in lines:
        assert re.fullmatch(r'[a-z_]+({[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*})? -?[0-9.e+-]+', line), line
    assert {'visavis_thrift_frames_total{level="full"} 0', 'visavis_thrift_frames_total{level="half_rate"} 0'} <= set(
        lines
    )


async def test_info_says_what_the_limit_was_worked_out_from(server) -> None:
    info = (await server.http.get("/v1/info")).json()
    capacity = info["capacity"]
    assert capacity["sessions"] == info["max_sessions"] and capacity["cores"] > 0
    assert capacity["row_ms"]["1"] > 0 and capacity["row_cpu_ms"]["1"] > 0


class NoPortrait(FakeEngine):
    """Refuses the default portrait, as if its file were damaged."""

    def enrol(self, image: bytes) -> Avatar:
        if image == DEFAULT_PORTRAIT.read_bytes():
            raise NoFace("no face was found")
        return super().enrol(image)


async def test_without_its_default_portrait_it_measures_with_the_first_upload(serve, picture: bytes) -> None:
    server = await serve(make_engine=NoPortrait)
    before = (await server.http.get("/v1/info")).json()
    assert (before["capacity"], before["max_sessions"]) == (None, 1)
    assert (await server.upload(picture)).status_code == 201
    after = (await server.http.get("/v1/info")).json()
    assert after["capacity"]["sessions"] == after["max_sessions"] >= 1


async def test_without_its_default_portrait_it_measures_with_one_that_was_kept(serve, picture: bytes, tmp_path) -> None:
    first = await serve(data_folder=tmp_path)
    assert (await first.upload(picture)).status_code == 201
    second = await serve(make_engine=NoPortrait, data_folder=tmp_path)
    assert (await second.http.get("/v1/info")).json()["capacity"] is not None


@pytest.mark.parametrize("body", ["", "{", "[]", '{"offer": 1}', '{"offer": {"type": "answer", "sdp": "v=0"}}'])
async def test_a_body_that_is_not_an_order_is_refused(server, body: str) -> None:
    answer = await server.http.post("/v1/sessions", content=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request_invalid")


async def test_a_huge_json_body_is_refused(server) -> None:
    answer = await server.http.post("/v1/sessions", json={"offer": {"type": "offer", "sdp": "v" * 400_000}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "upload_too_large")


@pytest.mark.parametrize("marked", [True, False])
async def test_leaving_the_mark_out_is_told_to_the_operator_and_to_clients(
    serve, caplog: pytest.LogCaptureFixture, marked: bool
) -> None:
    server = await serve(marked=marked)
    assert (await server.http.get("/v1/info")).json()["mark"] is marked
    assert any("no visible mark" in r.message and r.levelname == "WARNING" for r in caplog.records) is not marked


async def test_the_description_tells_which_failures_come(serve, picture: bytes) -> None:
    server = await serve(limits=LimitConfig(upload_bytes=50_000))
    described = (await server.http.get("/openapi.json")).json()
    http = server.http
    failed = {
        ("/v1/avatars", "post"): [
            await http.post("/v1/avatars", data={"consent": "true"}),
            await server.upload(picture, keep_s="soon"),
            await server.upload(picture, consent="no"),
            await server.upload(b"no picture"),
            await server.upload(bytes(60_000)),
            await http.post("/v1/avatars", headers={"Origin": "http://elsewhere"}),
        ],
        ("/v1/avatars/{avatar_id}", "get"): [await http.get("/v1/avatars/nosuch")],
        ("/v1/avatars/{avatar_id}", "delete"): [
            await http.delete("/v1/avatars/nosuch"),
            await http.delete("/v1/avatars/default"),
        ],
        ("/v1/avatars/{avatar_id}/thumbnail", "get"): [await http.get("/v1/avatars/nosuch/thumbnail")],
        ("/v1/sessions", "post"): [
            await http.post("/v1/sessions", json={"offer": 1}),
            await http.post("/v1/sessions", json={"offer": {"type": "offer", "sdp": ""}}),
        ],
        ("/v1/sessions/{session_id}", "get"): [await http.get("/v1/sessions/nosuch")],
        ("/v1/sessions/{session_id}", "delete"): [await http.delete("/v1/sessions/nosuch")],
    }
    for (path, method), answers in failed.items():
        promised = described["paths"][path][method]["responses"]
        for answer in answers:
            assert answer.is_error
            said = promised[str(answer.status_code)]
            assert answer.json()["error"]["code"] in said["description"].split(", ")
            assert said["content"]["application/json"]["schema"]["$ref"].endswith("/FailureBody")


async def test_bad_fields_are_not_described_as_422(server) -> None:
    described = (await server.http.get("/openapi.json")).json()
    told = {
        (path, method): operation["responses"]["422"]["description"]
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
        if "422" in operation["responses"]
    }
    assert list(told) == [("/v1/avatars", "post")]
    assert told["/v1/avatars", "post"] == "no_face, several_faces, face_too_small, face_cropped, face_turned"
    assert "HTTPValidationError" not in described["components"]["schemas"]
