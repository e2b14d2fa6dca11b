"""The page around the call: keyboard, small screens, and what it says when something fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import (
    DENY_MICROPHONE,
    GRANT_FAKE_MICROPHONE,
    Server,
    StartBrowser,
    StartServer,
    add_portrait,
    send_portrait,
)

LIVE = "#frame[data-state=live]"
KEY = "a-key-for-the-tests"
SLOW_MS = 20_000  # patience, not a measure

expect.set_options(timeout=SLOW_MS)


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server("--engine", "fake", "--max-sessions", "1")


@pytest.fixture(scope="module")
def keyed_server(start_server: StartServer) -> Server:
    return start_server("--engine", "fake", "--api-key", KEY)


@pytest.fixture
def browser(start_browser: StartBrowser) -> Browser:
    return start_browser(GRANT_FAKE_MICROPHONE)


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    with browser.new_context() as context:
        yield open_page(context.new_page(), server.url)


def open_page(page: Page, url: str) -> Page:
    page.goto(url)
    page.get_by_role("radio").first.wait_for(state="attached")
    return page


def start_call(page: Page) -> None:
    page.get_by_role("button", name="Start talking").click()
    page.wait_for_selector(LIVE, timeout=SLOW_MS)


def problem(page: Page) -> Locator:
    return page.locator("#problem")


def focused(page: Page) -> str:
    return page.evaluate("document.activeElement.id")


# ---- by keyboard -----------------------------------------------------------------------------


def test_a_call_needs_no_mouse(page: Page) -> None:
    page.keyboard.press("Tab")  # the skip link
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    if focused(page) != "talk":  # after a jump to it, the next stop is the button or what follows it
        page.keyboard.press("Shift+Tab")
    assert focused(page) == "talk"
    page.keyboard.press("Enter")
    page.wait_for_selector(LIVE, timeout=SLOW_MS)
    expect(page.get_by_role("status")).to_contain_text("Live")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert focused(page) == "mute"
    expect(page.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("status")).to_contain_text("Muted")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("Stopped")


def test_the_meter_and_the_figures_move(page: Page) -> None:
    start_call(page)
    page.wait_for_function("document.getElementById('level').value > 0.2")  # the fake microphone beeps
    expect(page.locator("#reading-total")).to_contain_text("ms")
    expect(page.locator("#reading-ping")).to_contain_text("ms")
    expect(page.locator("#reading-video")).to_contain_text("256 × 256")


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_the_chosen_codec_is_used(page: Page, codec: str) -> None:
    option = page.locator(f"#codec option[value={codec}]")
    if option.is_disabled():
        pytest.skip(f"this Chromium cannot show {codec}")
    page.get_by_label("Video codec").select_option(codec)
    start_call(page)
    expect(page.locator("#reading-video")).to_contain_text(codec)


def test_portraits_are_chosen_with_the_arrow_keys(page: Page, picture: Path) -> None:
    add_portrait(page, picture)
    chosen = page.locator("#portraits input:checked")
    first = chosen.input_value()
    assert first != "default" and focused(page) == ""  # the new one is chosen and holds the focus
    page.keyboard.press("ArrowLeft")
    assert chosen.input_value() != first


def test_every_control_has_a_name(page: Page) -> None:
    page.get_by_text("Add a portrait").click()
    nameless = page.evaluate(
        """[...document.querySelectorAll("button, input, select, meter, video")].filter((e) =>
            e.offsetParent && !(e.labels?.length || e.ariaLabel || e.textContent.trim())).map((e) => e.outerHTML)"""
    )
    assert nameless == []


# ---- on a phone ------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 390])
def test_nothing_sticks_out_of_a_phone(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.get_by_text("Add a portrait").click()
    page.get_by_role("button", name="Add portrait").click()  # shows a problem box too
    assert page.evaluate("document.documentElement.scrollWidth") == width
    talk = page.locator("#talk").bounding_box()
    assert talk is not None and talk["height"] >= 44 and talk["x"] >= 0 and talk["x"] + talk["width"] <= width


# ---- portraits -------------------------------------------------------------------------------


def test_a_portrait_needs_consent(page: Page, picture: Path) -> None:
    posted: list[str] = []
    page.on("request", lambda request: posted.append(request.url) if request.method == "POST" else None)
    page.get_by_text("Add a portrait").click()
    page.get_by_label("Picture of one face").set_input_files(picture)
    page.get_by_role("button", name="Add portrait").click()
    expect(page.locator("#upload-message")).to_contain_text("Consent is needed first")
    assert focused(page) == "consent"
    assert posted == []


def test_a_text_file_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    text = tmp_path / "portrait.png"
    text.write_text("This is no picture.")
    send_portrait(page, text)
    message = page.locator("#upload-message")
    expect(message).to_contain_text("This file cannot be read as a picture")
    expect(message).to_contain_text("the picture cannot be read")  # the server's own words
    expect(page.get_by_role("button", name="Add portrait")).to_be_enabled()


def test_a_portrait_is_deleted_after_a_question(page: Page, picture: Path) -> None:
    add_portrait(page, picture)
    added = page.locator("#portraits input:checked").input_value()
    expect(page.locator("#kept")).to_contain_text("Kept until")
    page.get_by_role("button", name="Delete this portrait").click()
    page.keyboard.press("Escape")
    expect(page.locator(f'#portraits input[value="{added}"]')).to_have_count(1)
    page.get_by_role("button", name="Delete this portrait").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator(f'#portraits input[value="{added}"]')).to_have_count(0)
    expect(page.locator("#portraits input:checked")).to_have_value("default")


def test_the_portrait_changes_while_it_speaks(page: Page, picture: Path) -> None:
    add_portrait(page, picture)
    page.get_by_role("radio", name="Default portrait").check(force=True)
    start_call(page)
    page.locator("#portraits input").last.check(force=True)
    page.wait_for_function(
        """() => {  // the fake engine shows the avatar's colour, orange, in a corner
            const canvas = new OffscreenCanvas(256, 256).getContext("2d");
            canvas.drawImage(document.getElementById("video"), 0, 0, 256, 256);
            const [r, g, b] = canvas.getImageData(16, 16, 1, 1).data;
            return Math.abs(r - 230) < 25 && Math.abs(g - 140) < 25 && Math.abs(b - 40) < 35;
        }""",
        timeout=SLOW_MS,
    )


# ---- what fails, in words --------------------------------------------------------------------


def test_a_blocked_microphone_is_explained(start_browser: StartBrowser, server: Server) -> None:
    page = open_page(start_browser(DENY_MICROPHONE).new_page(), server.url)
    page.get_by_role("button", name="Start talking").click()
    expect(problem(page)).to_contain_text("The microphone is blocked")
    expect(problem(page)).to_contain_text("Allow the microphone for this page")
    page.close()


def test_a_missing_microphone_is_explained(start_browser: StartBrowser, server: Server) -> None:
    page = open_page(start_browser(["--use-fake-ui-for-media-stream"]).new_page(), server.url)
    page.get_by_role("button", name="Start talking").click()
    expect(problem(page)).to_contain_text("No microphone was found")
    page.close()


def test_a_page_without_https_is_explained(start_browser: StartBrowser, keyed_server: Server) -> None:
    browser = start_browser(["--host-resolver-rules=MAP visavis.test 127.0.0.1"])
    page = browser.new_page()
    page.goto(keyed_server.url.replace("127.0.0.1", "visavis.test") + f"/?key={KEY}")
    expect(problem(page)).to_contain_text("The browser gives no microphone to this page")
    expect(problem(page)).to_contain_text("https://")
    assert KEY not in page.url
    page.close()


def test_a_lost_key_is_asked_for(browser: Browser, keyed_server: Server) -> None:
    with browser.new_context() as context:
        page = open_page(context.new_page(), f"{keyed_server.url}/?key={KEY}")
        context.clear_cookies()
        page.get_by_role("button", name="Start talking").click()
        expect(problem(page)).to_contain_text("This server needs a key")
        page.get_by_label("Server key").fill(KEY)
        page.get_by_role("button", name="Use this key").click()
        page.get_by_role("radio").first.wait_for(state="attached")
        start_call(page)


def test_a_full_server_is_explained_and_can_be_tried_again(page: Page, browser: Browser, server: Server) -> None:
    start_call(page)
    with browser.new_context() as context:
        second = open_page(context.new_page(), server.url)
        second.get_by_role("button", name="Start talking").click()
        expect(problem(second)).to_contain_text("All places on this server are taken")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("status")).to_contain_text("Stopped")
        second.get_by_role("button", name="Try again").click()
        second.wait_for_selector(LIVE, timeout=SLOW_MS)
        expect(problem(second)).to_be_hidden()


def test_a_connection_without_a_way_is_explained(browser: Browser, server: Server) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        # A real ICE failure: relays are demanded and there are none.
        page.add_init_script(
            "window.RTCPeerConnection = class extends RTCPeerConnection {"
            " constructor(given) { super({ ...given, iceTransportPolicy: 'relay' }); } };"
        )
        open_page(page, server.url)
        page.get_by_role("button", name="Start talking").click()
        expect(problem(page)).to_contain_text("No way was found for sound and picture")


def test_a_killed_server_is_explained(browser: Browser, start_server: StartServer) -> None:
    server = start_server("--engine", "fake")
    with browser.new_context() as context:
        page = open_page(context.new_page(), server.url)
        start_call(page)
        server.kill()
        expect(problem(page)).to_contain_text("The server does not answer")
        expect(page.get_by_role("button", name="Start talking")).to_be_enabled()
        page.get_by_role("button", name="Try again").click()
        expect(problem(page)).to_contain_text("The server does not answer")


def test_leaving_the_page_frees_the_place(browser: Browser, server: Server) -> None:
    for _ in range(2):  # with one place, the second call is possible only when the first has gone
        with browser.new_context() as context:
            page = open_page(context.new_page(), server.url)
            start_call(page)
            page.goto("about:blank")
