"""Two people in a room, as they use it: a lobby, each other's portraits, one killed, a server that restarts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import GRANT_FAKE_MICROPHONE, Server, StartBrowser, StartServer

SLOW_MS = 40_000  # patience, not a measure

# Is something seen and heard of every tile but one's own? Bytes of sound per tile, and the picture's size.
HEARD = """() => Object.fromEntries([...document.querySelectorAll('.tile')].map((tile) => [
  tile.querySelector('.who').textContent,
  [tile.querySelector('video').videoWidth, tile.querySelector('video').srcObject?.getAudioTracks().length ?? 0,
   tile.querySelector('video').muted]]))"""


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server("--engine", "fake", "--max-sessions", "4")


@pytest.fixture
def browser(start_browser: StartBrowser) -> Browser:
    return start_browser(GRANT_FAKE_MICROPHONE)


@pytest.fixture
def contexts(browser: Browser) -> Iterator[list[BrowserContext]]:
    made = [browser.new_context(), browser.new_context()]
    yield made
    for context in made:
        context.close()


def join(context: BrowserContext, url: str, name: str) -> Page:
    page = context.new_page()
    page.goto(url)
    page.get_by_role("radio").first.wait_for(state="attached", timeout=SLOW_MS)
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Join the room").click()
    expect(page.locator("#room")).to_be_visible(timeout=SLOW_MS)
    return page


def wait_for_picture(page: Page, who: str) -> None:
    tile = page.locator(".tile", has=page.locator(".who", has_text=who))
    expect(tile).to_have_attribute("data-picture", "true", timeout=SLOW_MS)


def test_two_people_meet_and_one_leaves(server: Server, contexts: list[BrowserContext]) -> None:
    url = f"{server.url}/call/tea"
    ann, bob = join(contexts[0], url, "Ann"), join(contexts[1], url, "Bob")
    for page, other in ((ann, "Bob"), (bob, "Ann")):
        wait_for_picture(page, other)
        wait_for_picture(page, "(you)")
    assert ann.evaluate(HEARD) == {"Ann (you)": [256, 0, True], "Bob": [256, 1, False]}, "nobody hears themself"
    expect(bob.locator(".tile[data-speaking=true]").first).to_be_visible(timeout=SLOW_MS)  # the fake microphone beeps
    ann.get_by_role("button", name="Mute").click()
    expect(bob.locator(".note", has_text="muted")).to_be_visible()
    contexts[1].close()
    expect(ann.locator(".tile")).to_have_count(1, timeout=12_000)
    ann.get_by_role("button", name="Leave").click()
    expect(ann.locator("#lobby")).to_be_visible()


def test_a_restarted_server_is_told_and_joined_again(start_server: StartServer, contexts: list[BrowserContext]) -> None:
    first = start_server("--engine", "fake", "--max-sessions", "4")
    port = int(first.url.rsplit(":", 1)[1])
    ann, bob = (join(context, f"{first.url}/call/tea", name) for context, name in zip(contexts, "AB", strict=True))
    wait_for_picture(ann, "B")
    first.kill()
    expect(ann.locator("#problem")).to_contain_text("does not answer", timeout=SLOW_MS)
    expect(bob.locator("#problem")).to_contain_text("comes back by itself", timeout=SLOW_MS)
    start_server("--engine", "fake", "--max-sessions", "4", port=port)
    for page, other in ((ann, "B"), (bob, "A")):
        expect(page.locator("#problem")).to_be_hidden(timeout=SLOW_MS)
        wait_for_picture(page, other)
