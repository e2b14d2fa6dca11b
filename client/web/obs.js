// The browser source: shows one session's presenter without background, and comes back by itself.
//
// The screen stays quiet whatever happens, since an audience is looking; words go to the log.

import { Compositor } from "./compositor.js";
import { NoView, Viewer } from "./whep.js";

const RETRY_MS = [1000, 1000, 2000, 2000, 5000]; // the last one for ever
const STALLED_MS = 4000; // without a new frame; the server sends 25 a second, also in silence
const HOLD_MS = 10_000; // the last frame stands so long while we reconnect, then fades

const wishes = new URLSearchParams(location.search);
const session = location.pathname.split("/").pop(); // as encoded in the address
const video = document.getElementById("video");
const compositor = new Compositor(document.getElementById("stage"));
let lastFrameAt = -Infinity;
let fadeTimer = 0;

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (words) => console.info(`[presenter] ${words}`);

function setState(state) {
  document.body.dataset.state = state;
  clearTimeout(fadeTimer);
  if (state === "live" || state === "gone") return;
  fadeTimer = setTimeout(() => setState("gone"), HOLD_MS);
}

/** Connect, watch, and do so again for ever. */
async function keepShowing() {
  for (let failures = 0; ; ) {
    const begun = performance.now();
    const reason = await showOnce();
    if (performance.now() - begun > 30_000) failures = 0; // it had worked
    const pause = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)];
    say(`${reason}; trying again in ${pause / 1000} s`);
    await wait(pause);
  }
}

/** @returns {Promise<string>} why it ended */
async function showOnce() {
  let lose;
  const lost = new Promise((resolve) => (lose = resolve));
  const viewer = new Viewer(`/whep/${session}?rendition=cutout`, lose);
  let watch = 0;
  try {
    video.srcObject = await viewer.open();
    await play();
    lastFrameAt = performance.now();
    say(`connected to ${decodeURIComponent(session)}`);
    watch = setInterval(() => {
      if (performance.now() - lastFrameAt > STALLED_MS) lose("no picture came for some seconds");
    }, 500);
    return await lost;
  } catch (error) {
    if (error instanceof NoView && error.gone) return `nobody presents as ${decodeURIComponent(session)} now`;
    return error.message;
  } finally {
    clearInterval(watch);
    viewer.close();
    if (document.body.dataset.state === "live") setState("waiting");
  }
}

/** OBS lets a page sound at once; an ordinary browser wants a click first, and shows the picture until then. */
async function play() {
  video.muted = wishes.get("audio") === "0";
  try {
    await video.play();
  } catch {
    video.muted = true;
    say("the browser plays no sound before a click on the page");
    addEventListener("click", () => (video.muted = wishes.get("audio") === "0"), { once: true });
    await video.play();
  }
}

function drawNext() {
  lastFrameAt = performance.now();
  if (video.videoWidth > 0) {
    compositor.draw(video);
    if (document.body.dataset.state !== "live") setState("live");
  }
  video.requestVideoFrameCallback(drawNext);
}

/** `bg`: a CSS colour (also without its #), or a picture of this server or in the address itself. */
function showBackground(wish) {
  if (!wish) return;
  const colour = /^[0-9a-f]{3,8}$/i.test(wish) ? `#${wish}` : wish;
  if (CSS.supports("color", colour)) return void (document.body.style.backgroundColor = colour);
  const url = new URL(wish, location.href);
  const ours = url.origin === location.origin || url.href.startsWith("data:image/");
  if (!ours) return say(`bg=${wish.slice(0, 60)} is not shown: give a colour, a path on this server or data:image/...`);
  document.body.style.backgroundImage = `url(${JSON.stringify(url.href)})`;
}

/** `caption`: a name, and after a | what the person does. */
function showCaption(wish) {
  if (!wish) return;
  const [name, role = ""] = wish.split("|", 2);
  document.getElementById("caption-name").textContent = name.trim();
  document.getElementById("caption-role").textContent = role.trim();
  document.getElementById("caption").hidden = false;
}

showBackground(wishes.get("bg"));
showCaption(wishes.get("caption"));
video.requestVideoFrameCallback(drawNext);
compositor.clear();
setState("waiting");
keepShowing();
