import httpx
import pytest
import websockets

KEY = "a key nobody guesses"


@pytest.fixture
async def locked(serve):
    return await serve(api_key=KEY)


def every_route(app) -> list[tuple[str, str]]:
    paths = app.openapi()["paths"]
    described = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    return [*described, ("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/static/main.js")]


async def test_every_route_asks_for_the_key(locked) -> None:
    async with httpx.AsyncClient(base_url=locked.url, trust_env=False) as stranger:
        routes = every_route(locked.app)
        assert len(routes) > 12
        for method, path in routes:
            for headers in ({}, {"Authorization": "Bearer wrong key"}, {"Cookie": "visavis_key=wrong"}):
                answer = await stranger.request(method, path.replace("{", "").replace("}", ""), headers=headers)
                assert answer.status_code == 401, (method, path)


async def test_the_page_explains_the_missing_key(locked) -> None:
    async with httpx.AsyncClient(base_url=locked.url, trust_env=False) as stranger:
        answer = await stranger.get("/")
        assert answer.status_code == 401 and "needs a key" in answer.text
        assert (await stranger.get("/v1/info")).json()["error"]["code"] == "unauthorized"


async def test_header_and_cookie_open_and_the_address_keeps_no_key(locked) -> None:
    assert (await locked.http.get("/v1/info")).status_code == 200
    async with httpx.AsyncClient(base_url=locked.url, trust_env=False) as visitor:
        welcome = await visitor.get("/", params={"key": KEY})
        assert (welcome.status_code, welcome.headers["location"]) == (303, "/")
        cookie = welcome.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert (await visitor.get("/v1/info")).status_code == 200
        assert (await visitor.get("/")).status_code == 200


async def test_the_cookie_counts_beside_odd_ones_of_other_servers(locked) -> None:
    async with httpx.AsyncClient(base_url=locked.url, trust_env=False) as visitor:
        cookie = (await visitor.get("/", params={"key": KEY})).headers["set-cookie"].split(";")[0]
        visitor.cookies.clear()
        answer = await visitor.get("/v1/info", headers={"Cookie": f'odd[one]={{"a": 1}}; {cookie}'})
        assert answer.status_code == 200


async def test_the_key_in_a_query_counts_for_the_page_and_sockets_only(locked) -> None:
    async with httpx.AsyncClient(base_url=locked.url, trust_env=False) as stranger:
        assert (await stranger.get("/v1/info", params={"key": KEY})).status_code == 401


async def test_sockets_ask_for_the_key(locked) -> None:
    address = locked.url.replace("http", "ws") + "/v1/sessions/nosuch/ws"
    for query in ("", "?key=wrong"):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(address + query, proxy=None)
        assert refused.value.response.status_code == 401
    async with websockets.connect(address + "?key=" + KEY.replace(" ", "%20"), proxy=None) as socket:
        assert "session_not_found" in await socket.recv()


async def test_pages_of_other_sites_are_refused(server) -> None:
    for headers in (
        {"Origin": "https://evil.example"},
        {"Host": "evil.example"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
    ):
        answer = await server.http.get("/v1/info", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
    own = {"Origin": server.url}
    assert (await server.http.get("/v1/info", headers=own)).status_code == 200
    assert "access-control-allow-origin" not in (await server.http.get("/v1/info", headers=own)).headers
