"""The page /check, and a call through nothing but a relay, with a real coturn."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from server.relay_watch import FRESH_S
from tests.browser.conftest import DENY_MICROPHONE, GRANT_FAKE_MICROPHONE, Server, StartBrowser, StartServer
from tests.coturn import Coturn, running_coturn

SLOW_MS = 60_000  # patience, not a measure
RELAY_ONLY = (
    "window.RTCPeerConnection = class extends RTCPeerConnection {"
    " constructor(given) { super({ ...given, iceTransportPolicy: 'relay' }); } };"
)


@pytest.fixture(scope="module")
def coturn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coturn]:
    with running_coturn(tmp_path_factory.mktemp("coturn")) as started:
        yield started


@pytest.fixture(scope="module")
def server(start_server: StartServer, coturn: Coturn) -> Server:
    stun = coturn.url.replace("turn:", "stun:")
    urls = (stun, coturn.url, f"{coturn.url}?transport=tcp")
    options = [word for url in urls for word in ("--ice-server", url)]
    return start_server("--engine", "fake", *options, "--turn-secret", coturn.secret)


@pytest.fixture
def browser(start_browser: StartBrowser) -> Browser:
    return start_browser(GRANT_FAKE_MICROPHONE)


def check(page: Page, url: str) -> dict[str, str]:
    """Run the check; verdict by row."""
    page.goto(f"{url}/check")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("button", name="Check again")).to_be_enabled(timeout=SLOW_MS)
    return page.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#rows li')].map("
        "(row) => [row.id.replace('check-', ''), row.dataset.verdict]))"
    )


def test_a_call_through_nothing_but_a_relay(browser: Browser, server: Server) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.add_init_script(RELAY_ONLY)
        page.goto(server.url)
        page.get_by_role("radio").first.wait_for(state="attached")
        page.get_by_role("button", name="Start talking").click()
        page.wait_for_selector("#frame[data-state=live]", timeout=SLOW_MS)
        expect(page.locator("#reading-video")).to_contain_text("256 × 256", timeout=SLOW_MS)
        page.get_by_role("button", name="Stop").click()


def test_what_works_is_said(browser: Browser, server: Server) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        found = check(page, server.url)
        assert found == {
            **dict.fromkeys(("microphone", "codecs", "server", "udp", "stun", "turn-udp", "turn-tcp"), "ok"),
            "turn-tls": "skip",
            "servers-view": "ok",
        }
        expect(page.get_by_role("status")).to_have_text("You can call from here.")
        expect(page.locator("#check-turn-udp")).to_contain_text("carries data to the server and back")


def test_a_relay_that_is_down_is_said(browser: Browser, server: Server, coturn: Coturn) -> None:
    coturn.stop()  # the last test with it
    time.sleep(FRESH_S)  # so long the server gives the answer that it got before
    with browser.new_context() as context:
        page = context.new_page()
        found = check(page, server.url)
        assert found["udp"] == "ok" and found["stun"] == "warn"
        assert [found[row] for row in ("turn-udp", "turn-tcp", "servers-view")] == ["fail"] * 3
        expect(page.locator("#check-turn-tcp .advice")).to_contain_text("The TURN server is down, or a firewall")
        expect(page.locator("#check-servers-view")).to_contain_text("nothing listens at")
        expect(page.locator("#check-servers-view .advice")).to_contain_text("start the TURN server")
        expect(page.get_by_role("status")).to_contain_text("You can call from here. Others may not")


def test_without_a_relay_and_a_microphone_it_says_so(start_browser: StartBrowser, start_server: StartServer) -> None:
    bare = start_server("--engine", "fake")
    page = start_browser(DENY_MICROPHONE).new_page()
    found = check(page, bare.url)
    assert found["microphone"] == "fail" and found["turn-udp"] == "skip" and found["servers-view"] == "warn"
    expect(page.locator("#check-microphone")).to_contain_text("The microphone is blocked")
    expect(page.get_by_role("status")).to_contain_text("your microphone is not")
    page.close()
