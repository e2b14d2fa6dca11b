// What /check looks at, one function each. A check returns {verdict, detail, advice, passes} or throws a Problem.
//
// verdict: "ok", "warn" (calls may work, but ...), "fail", "skip" (not set up on this server).
// passes: whether media gets through this way, where it is one.

import { checkReady, fetchNetwork, socketUrl } from "./api.js";
import { LevelMeter, openMicrophone } from "./microphone.js";
import { gather, tellErrors, tryPath } from "./network_path.js";
import { Problem } from "./problems.js";
import { playableCodecs } from "./session.js";

const LISTEN_MS = 4_000;
const HEARD = 0.25; // of the meter: -45 dBFS
const SLOW_MS = 250; // there and back; with it a call's delay is noticed
const SOCKET_MS = 5_000;

const ok = (detail) => ({ verdict: "ok", detail, advice: "" });
const warn = (detail, advice) => ({ verdict: "warn", detail, advice });
const fail = (detail, advice) => ({ verdict: "fail", detail, advice });
const skip = (detail) => ({ verdict: "skip", detail, advice: "" });

/** Permission, and whether anything is heard. */
export async function checkMicrophone() {
  const stream = await openMicrophone("");
  const meter = new LevelMeter(stream);
  try {
    const name = stream.getAudioTracks()[0].label || "the microphone";
    let loudest = 0;
    const until = performance.now() + LISTEN_MS;
    while (loudest < HEARD && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      loudest = Math.max(loudest, meter.read());
    }
    const level = `${Math.round(loudest * 100)} % of full scale`;
    if (loudest >= HEARD) return ok(`Allowed, and it hears you: ${name}, ${level}.`);
    return warn(
      `Allowed, but next to nothing was heard: ${name}, ${level}.`,
      "Speak while it is checked. If you did: unmute the microphone, raise its level in the system's settings, or choose another one.",
    );
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    meter.close();
  }
}

/** Opus out and back, VP8 or H.264 in. */
export function checkCodecs() {
  if (!("RTCPeerConnection" in window)) throw new Problem("webrtc_missing");
  const audio = RTCRtpReceiver.getCapabilities?.("audio")?.codecs ?? [];
  const video = playableCodecs();
  if (!audio.some((c) => c.mimeType.toLowerCase() === "audio/opus")) {
    return fail("This browser has no Opus.", "Use a current Chrome, Edge, Firefox or Safari.");
  }
  if (video.length === 0) {
    return fail("This browser shows neither VP8 nor H.264.", "Use a current Chrome, Edge, Firefox or Safari.");
  }
  return ok(`Opus for sound; ${video.map((v) => v.replace("H264", "H.264")).join(" and ")} for the picture.`);
}

/** HTTP and WebSocket; the second is what proxies forget. */
export async function checkServer() {
  const began = performance.now();
  let waits = "";
  try {
    await checkReady();
  } catch (error) {
    if (error.code !== "not_ready") throw error;
    waits = " It is still loading its model.";
  }
  const tookMs = Math.round(performance.now() - began);
  if (!(await socketPasses())) {
    return fail(
      `The page answers in ${tookMs} ms, but WebSockets do not get through.`,
      "Ask whoever runs the server to let its reverse proxy pass WebSockets (the Upgrade header). A company's proxy may block them too: try another network.",
    );
  }
  return ok(`It answers in ${tookMs} ms, over ${location.protocol.replace(":", "")} and WebSocket.${waits}`);
}

/** A socket of a session that does not exist is opened and closed again; that it opens is what counts. */
function socketPasses() {
  return new Promise((resolve) => {
    const socket = new WebSocket(socketUrl("/v1/sessions/none/ws"));
    const timer = setTimeout(() => socket.close(), SOCKET_MS);
    socket.onopen = () => resolve(true);
    socket.onclose = () => {
      clearTimeout(timer);
      resolve(false);
    };
  });
}

/** Straight to the server over UDP, with no relay's help. */
export async function checkUdp() {
  try {
    const path = await tryPath([]);
    const detail = `Media gets to the server without a relay, there and back in ${ms(path)} (${tellPair(path)}).`;
    const long = warn(detail, "The way is long: expect a delay. A cable or a nearer network helps.");
    return { ...(path.roundTripMs <= SLOW_MS ? ok(detail) : long), passes: true };
  } catch (error) {
    if (error.code !== "ice_failed") throw error;
    return warn(
      "UDP does not get from here to the server.",
      "A firewall, a VPN or a missing port forwarding is in the way. Calls then need a relay (below). " +
        "Whoever runs the server can open its UDP ports (--udp-ports, --public-address).",
    );
  }
}

/** @param {RTCIceServer[]} iceServers as the server gives them */
export async function checkStun(iceServers) {
  const stun = iceServers.filter(({ urls }) => urls.some((url) => url.startsWith("stun:")));
  if (stun.length === 0) return skip("No STUN server is set up. It is not needed where the server has a public address.");
  const { candidates, errors, complete } = await gather(stun);
  const seen = candidates.find((c) => c.type === "srflx");
  if (seen) return ok(`The STUN server answers, and sees you as ${seen.address}.`);
  if (errors.length > 0 || !complete) {
    return warn(
      `No address came from the STUN server (${tellErrors(errors) || "no answer"}).`,
      "It is down, or UDP does not leave this network. If UDP works above, calls work all the same.",
    );
  }
  return ok("The STUN server answers, and sees you under this machine's own address: there is no NAT between.");
}

/**
 * Nothing but the relay, over one transport to it.
 *
 * @param {RTCIceServer[]} iceServers as the server gives them
 * @param {"udp"|"tcp"|"tls"} by
 */
export async function checkRelay(iceServers, by) {
  const servers = relaysBy(iceServers, by);
  const name = by.toUpperCase();
  if (servers.length === 0) return skip(`No TURN server over ${name} is set up.`);
  try {
    const path = await tryPath(servers, { relayOnly: true });
    return { ...ok(`A relay was given, and carries data to the server and back in ${ms(path)}.`), passes: true };
  } catch (error) {
    if (error.code === "no_relay") return noRelay(error.serverMessage, name);
    if (!["ice_failed", "channel_silent"].includes(error.code)) throw error;
    return fail(
      "A relay was given, but nothing gets through it to the server.",
      "Whoever runs the TURN server must open its relay ports (min-port to max-port, UDP), and set its external-ip behind a NAT.",
    );
  }
}

function noRelay(said, name) {
  const words = said ? `The TURN server gives no relay over ${name} (${said}).` : `No relay was given over ${name}.`;
  if (/: 401 /.test(said)) {
    return fail(words, "It refuses the credentials: the secret of this server and of the TURN server differ, or a clock is wrong.");
  }
  return fail(words, `The TURN server is down, or a firewall near you does not let ${name} to its port through.`);
}

/** How the server itself sees its STUN and TURN servers. */
export async function checkServersView() {
  const { ice_servers: servers, udp_ports: ports } = await fetchNetwork();
  const bound = ports ? ` Its media uses UDP ports ${ports}.` : "";
  if (servers.length === 0) {
    return warn(
      `No STUN or TURN server is set up.${bound}`,
      "Callers behind strict firewalls will not get through. Whoever runs the server can set up a TURN server (docs/networks.md).",
    );
  }
  const broken = servers.filter((s) => s.status !== "ok");
  if (broken.length === 0) return ok(servers.map((s) => `${s.url}: ${s.detail}.`).join(" ") + bound);
  return fail(
    broken.map((s) => `${s.url}: ${s.detail}.`).join(" "),
    `For whoever runs the server: ${[...new Set(broken.map((s) => s.remedy))].join("; ")}.`,
  );
}

/** The TURN addresses of one transport, with their credentials. */
export function relaysBy(iceServers, by) {
  return iceServers
    .map((server) => ({ ...server, urls: server.urls.filter((url) => transportOf(url) === by) }))
    .filter(({ urls }) => urls.length > 0);
}

function transportOf(url) {
  if (url.startsWith("turns:")) return "tls";
  if (!url.startsWith("turn:")) return "";
  return url.endsWith("?transport=tcp") ? "tcp" : "udp";
}

const ms = ({ roundTripMs }) => `${Math.max(1, Math.round(roundTripMs))} ms`;
const tellPair = ({ local, remote }) => `${local.candidateType ?? "?"} to ${remote.candidateType ?? "?"}`;
