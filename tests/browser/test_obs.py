"""The OBS page over a chequered page, as OBS lays it over a scene: pixels of a real Chromium."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tests.browser.conftest import GRANT_FAKE_MICROPHONE, Server, StartBrowser, StartServer, add_portrait

# WebGL without a GPU; the rest as everywhere.
SOFTWARE_GL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PRESENTER = "stage-1"
SLOW_MS = 20_000
PINK, MINT = (235, 60, 200), (60, 220, 90)  # of the chequers, 20 px each
ON_CHEQUERS = """([address]) => {
  document.body.style.cssText = "margin:0;height:100vh;background:" +
    "repeating-conic-gradient(rgb(235,60,200) 0 25%, rgb(60,220,90) 0 50%) 0 0/40px 40px";
  const scene = document.createElement("iframe");
  scene.src = address;
  scene.style.cssText = "border:0;position:fixed;inset:0;width:100%;height:100%";
  document.body.replaceChildren(scene);
}"""


# A WHIP publisher in a few lines.
PUBLISH = """async (endpoint) => {
  const peer = (window.publisher = new RTCPeerConnection());
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  peer.addTransceiver(stream.getAudioTracks()[0], { direction: "sendonly" });
  await peer.setLocalDescription(await peer.createOffer());
  while (peer.iceGatheringState !== "complete") await new Promise((resolve) => setTimeout(resolve, 50));
  const headers = { "Content-Type": "application/sdp" };
  const reply = await fetch(endpoint, { method: "POST", headers, body: peer.localDescription.sdp });
  await peer.setRemoteDescription({ type: "answer", sdp: await reply.text() });
  return reply.status;
}"""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server("--engine", "fake", "--max-sessions", "2")


@pytest.fixture(scope="module")
def browser(start_browser: StartBrowser) -> Browser:
    return start_browser([*GRANT_FAKE_MICROPHONE, *SOFTWARE_GL])


@pytest.fixture(scope="module")
def presenter(browser: Browser, server: Server, picture: Path) -> Iterator[Page]:
    """The main page of somebody who presents."""
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(server.url)
        page.get_by_role("radio").first.wait_for(state="attached")
        add_portrait(page, picture)
        page.get_by_label("Presenter name").fill(PRESENTER)
        start_talking(page)
        yield page


@pytest.fixture(scope="module")
def scene(browser: Browser, server: Server, presenter: Page) -> Iterator[Page]:
    """The OBS page over chequers, wider than high, with a picture."""
    with browser.new_context(viewport={"width": 800, "height": 400}) as context:
        page = context.new_page()
        page.goto(server.url + "/healthz")  # a page of the same server, which may frame it
        page.evaluate(ON_CHEQUERS, [f"{server.url}/obs/{PRESENTER}?caption=Jane%20Doe%7CEngineer"])
        wait_until_live(page)
        yield page


def start_talking(page: Page) -> None:
    page.get_by_role("button", name="Start talking").click()
    page.wait_for_selector("#frame[data-state=live]", timeout=SLOW_MS)


def wait_until_live(page: Page, state: str = "live") -> None:
    page.frame_locator("iframe").locator(f"body[data-state={state}]").wait_for(timeout=SLOW_MS)
    page.wait_for_timeout(500)


def shot(page: Page) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def is_chequered(pixels: np.ndarray) -> np.ndarray:
    """Which pixels show the ground, bool [H, W]."""
    return np.any([np.abs(pixels.astype(int) - ground).max(-1) <= 4 for ground in (PINK, MINT)], axis=0)


def test_the_ground_shows_through_around_an_opaque_face(scene: Page) -> None:
    ground = is_chequered(shot(scene))
    assert ground.shape == (400, 800)
    assert ground[:, :190].mean() > 0.85, "beside it nothing but the caption"
    assert ground[:60, 200:260].all() and ground[:60, 540:600].all(), "corners of its square"
    assert not ground[90:310, 290:510].any(), "its face"


def test_colours_are_those_of_the_picture_and_no_rim_is_dark(scene: Page) -> None:
    pixels = shot(scene)
    face = pixels[100:200, 350:450].reshape(-1, 3).astype(int)
    assert np.ptp(face.mean(0)) < 12, "the fake face is grey: chroma of both halves is apart"
    row = pixels[200, 205:235].astype(int)  # across the disc's left edge
    darkest = np.minimum(row[0], face.mean(0)).min() - 25
    assert row.min() >= darkest, "premultiplied once, not twice"


def test_the_mark_is_legible_on_transparent_ground(scene: Page) -> None:
    corner = shot(scene)[366:394, 470:594].astype(int).mean(-1)
    assert corner.max() > 200 and np.percentile(corner, 30) < 110


def test_the_caption_stands_in_the_lower_third_and_off_the_mark(scene: Page) -> None:
    caption = scene.frame_locator("iframe").locator("#caption")
    assert caption.inner_text().split("\n") == ["Jane Doe", "Engineer"]
    box = caption.bounding_box()
    assert box is not None and box["y"] > 400 / 2 and box["y"] + box["height"] < 366


def test_a_dragged_head_turns_and_a_double_click_brings_it_back(scene: Page, presenter: Page) -> None:
    def middle() -> float:
        scene.wait_for_timeout(1500)
        return float(np.nonzero(~is_chequered(shot(scene))[100:200])[1].mean())

    ahead = middle()
    presenter.bring_to_front()
    box = presenter.locator("#frame").bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    presenter.mouse.move(x, y)
    presenter.mouse.down()
    presenter.mouse.move(x + 150, y, steps=5)
    presenter.mouse.up()
    right = middle()
    assert right > ahead + 15
    presenter.mouse.dblclick(x, y)
    assert abs(middle() - ahead) < 4


def test_the_main_page_shows_the_address(presenter: Page, server: Server) -> None:
    assert presenter.get_by_label("Address for a browser source").input_value() == f"{server.url}/obs/{PRESENTER}"


def test_background_wishes(browser: Browser, server: Server, presenter: Page) -> None:
    with browser.new_context(viewport={"width": 300, "height": 300}) as context:
        page = context.new_page()
        for wish, style, value in (
            ("00ff00", "backgroundColor", "rgb(0, 255, 0)"),
            ("%23102030", "backgroundColor", "rgb(16, 32, 48)"),
            ("/static/icon.svg", "backgroundImage", f'url("{server.url}/static/icon.svg")'),
            ("https://elsewhere.example/x.png", "backgroundImage", "none"),
        ):
            page.goto(f"{server.url}/obs/{PRESENTER}?bg={wish}")
            assert page.evaluate(f"getComputedStyle(document.body).{style}") == value


def test_a_whip_publisher_is_shown(browser: Browser, server: Server) -> None:
    with browser.new_context(viewport={"width": 400, "height": 400}) as context:
        publisher, page = context.new_page(), context.new_page()
        for each in (publisher, page):
            each.goto(server.url + "/healthz")
        page.evaluate(ON_CHEQUERS, [f"{server.url}/obs/whipped"])
        wait_until_live(page, "waiting")
        assert publisher.evaluate(PUBLISH, "/whip/whipped") == 201
        wait_until_live(page)
        ground = is_chequered(shot(page))
        assert ground[:40, :40].all() and not ground[90:310, 90:310].any()
        publisher.evaluate("publisher.close()")
        wait_until_live(page, "waiting")


# The last one, because it ends the others' session.
def test_it_comes_back_by_itself_when_the_presenter_does(scene: Page, presenter: Page) -> None:
    presenter.get_by_role("button", name="Stop").click()
    wait_until_live(scene, "waiting")
    start_talking(presenter)
    wait_until_live(scene)
    assert not is_chequered(shot(scene))[90:310, 290:510].any()
