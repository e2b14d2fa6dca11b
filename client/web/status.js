// What the page tells: the status line, problems in words, and the measured figures.

import { explain } from "./problems.js";

/** Words for a session's state, for the status line. */
export const STATE_WORDS = {
  idle: "Choose a portrait, then start.",
  microphone: "Waiting for the microphone: allow it in the browser's question.",
  connecting: "Connecting…",
  live: "Live. Speak, and the portrait speaks with you.",
  ended: "Stopped.",
};

/** Say a thing once in an aria-live line; saying the same again would be noise. */
export function say(line, words) {
  if (line.textContent !== words) line.textContent = words;
}

/**
 * Show a failure: what happened, the server's words, what to do, and a button where one helps.
 *
 * @param {HTMLElement} box role=alert
 * @param {unknown} error
 * @param {{onRetry?: () => void}} [handlers]
 */
export function showProblem(box, error, { onRetry } = {}) {
  const { title, message, advice, action, retryAfterS } = explain(error);
  const wait = retryAfterS ? `The server suggests waiting ${retryAfterS} s.` : "";
  const parts = [element("strong", title)];
  for (const words of [message, advice, wait]) if (words) parts.push(element("p", words));
  if (action === "retry" && onRetry) parts.push(button("Try again", onRetry));
  if (action === "reload") parts.push(button("Reload the page", () => location.reload()));
  if (action === "key") parts.push(makeKeyForm());
  box.replaceChildren(...parts);
  box.dataset.code = error?.code ?? "unknown";
  box.hidden = false;
}

export function hideProblem(box) {
  box.hidden = true;
  box.replaceChildren();
  delete box.dataset.code;
}

function element(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text });
}

function button(text, onClick) {
  const made = Object.assign(element("button", text), { type: "button" });
  made.addEventListener("click", onClick);
  return made;
}

/** The key goes once through the address; the server answers with a cookie that scripts cannot read. */
function makeKeyForm() {
  const form = Object.assign(document.createElement("form"), { className: "row", action: "/", method: "get" });
  const field = Object.assign(document.createElement("input"), {
    type: "password",
    name: "key",
    required: true,
    autocomplete: "current-password",
  });
  field.setAttribute("aria-label", "Server key");
  form.append(field, Object.assign(element("button", "Use this key"), { type: "submit" }));
  return form;
}

/** The list of figures: the server's every second, the browser's own, and the ping. */
export class Readings {
  #server = {};
  #before = null; // the browser's counters a second ago

  /** @param {(name: string) => HTMLElement} find cell by name */
  constructor(find) {
    this.find = find;
  }

  clear() {
    this.#server = {};
    this.#before = null;
    for (const name of ["total", "network", "server", "buffer", "ping", "fps", "video", "late", "lost"]) {
      this.#write(name, "–");
    }
  }

  showPing(roundTripMs) {
    this.#write("ping", ms(roundTripMs));
  }

  /** @param {object} stats the server's "stats" message */
  showServer(stats) {
    this.#server = stats;
    this.#write("server", ms(stats.delay_ms));
    this.#write("late", `${stats.repeated ?? 0} / ${stats.dropped ?? 0}`);
  }

  /** @param {RTCStatsReport} report */
  showPeer(report) {
    const now = readReport(report);
    const bufferMs = bufferedSince(this.#before, now);
    this.#before = now;
    this.#write("network", ms(now.roundTripMs));
    this.#write("buffer", ms(bufferMs));
    this.#write("fps", now.fps === undefined ? "–" : String(now.fps));
    this.#write("video", now.width ? `${now.width} × ${now.height}, ${now.codec}` : "–");
    this.#write("lost", String(now.lost));
    this.#write("total", ms((now.roundTripMs ?? 0) + this.#server.delay_ms + bufferMs));
  }

  #write(name, text) {
    this.find(name).textContent = text;
  }
}

/** The few values that we show, out of RTCPeerConnection.getStats(). */
function readReport(report) {
  const entries = [...report.values()];
  const video = entries.find((s) => s.type === "inbound-rtp" && s.kind === "video") ?? {};
  const pair = entries.find((s) => s.type === "candidate-pair" && s.nominated && s.state === "succeeded");
  const inbound = entries.filter((s) => s.type === "inbound-rtp");
  return {
    roundTripMs: pair?.currentRoundTripTime === undefined ? undefined : pair.currentRoundTripTime * 1000,
    fps: video.framesPerSecond,
    width: video.frameWidth,
    height: video.frameHeight,
    codec: (report.get(video.codecId)?.mimeType ?? "").replace("video/", ""),
    heldS: video.jitterBufferDelay,
    framesDecoded: video.framesDecoded ?? 0,
    emitted: video.jitterBufferEmittedCount,
    lost: inbound.reduce((sum, s) => sum + (s.packetsLost ?? 0), 0),
  };
}

/** Mean time that the frames of the last second waited in the browser, in ms. */
function bufferedSince(before, now) {
  const frames = now.emitted - (before?.emitted ?? 0);
  return frames > 0 ? ((now.heldS - (before?.heldS ?? 0)) / frames) * 1000 : NaN;
}

const ms = (value) => (Number.isFinite(value) ? `${Math.round(value)} ms` : "–");
