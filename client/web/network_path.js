// One way through the network, tried for real: a data channel to the server, which sends back what it gets.

import { postCheck } from "./api.js";
import { Problem } from "./problems.js";

const GATHER_MS = 4_000; // Chrome gives up on a STUN server after about 10 s; a call would not wait so long
const CONNECT_MS = 10_000;
const PINGS = 5;
const PING_MS = 2_000;

/**
 * The candidates that this browser finds.
 *
 * @typedef {{candidates: RTCIceCandidate[], errors: Array<{url: string, code: number, text: string}>,
 *   complete: boolean}} Gathered
 *   `errors`: what STUN and TURN servers answered, or that they did not. `complete`: all had answered in time.
 */

/** @returns {Promise<Gathered>} without telling anybody. */
export async function gather(iceServers) {
  const path = new Path({ iceServers });
  try {
    await path.gather();
    return path.gathered;
  } finally {
    path.close();
  }
}

/**
 * Connect to the server over one way, and measure it.
 *
 * @param {RTCIceServer[]} iceServers
 * @param {{relayOnly?: boolean}} [options]
 * @returns {Promise<Gathered & {roundTripMs: number, local: object, remote: object}>} `local` and `remote`: the
 *   candidates in use, as in getStats().
 * @throws {Problem} no_relay, ice_failed, channel_silent, or what the server says.
 */
export async function tryPath(iceServers, { relayOnly = false } = {}) {
  const path = new Path({ iceServers, iceTransportPolicy: relayOnly ? "relay" : "all" });
  try {
    await path.gather({ enough: relayOnly ? isRelay : () => false });
    if (relayOnly && !path.gathered.candidates.some(isRelay)) {
      throw new Problem("no_relay", { message: tellErrors(path.gathered.errors) });
    }
    await path.connect();
    const roundTripMs = await path.ping();
    return { ...path.gathered, roundTripMs, ...(await path.pair()) };
  } finally {
    path.close();
  }
}

/** What STUN and TURN servers answered, in a line. */
export function tellErrors(errors) {
  const said = errors.map(({ url, code, text }) => `${url}: ${code === 701 ? "no answer" : `${code} ${text}`}`);
  return [...new Set(said)].join("; ");
}

const isRelay = (candidate) => candidate.type === "relay";

class Path {
  gathered = { candidates: [], errors: [], complete: false };

  constructor(configuration) {
    this.peer = new RTCPeerConnection(configuration);
    this.channel = this.peer.createDataChannel("echo", { ordered: false, maxRetransmits: 0 });
    this.peer.onicecandidateerror = ({ url, errorCode, errorText }) =>
      this.gathered.errors.push({ url, code: errorCode, text: errorText });
  }

  /** Until all are there, one is `enough`, or time is over. */
  async gather({ enough = () => false } = {}) {
    const done = new Promise((resolve) => {
      this.peer.onicecandidate = ({ candidate }) => {
        if (candidate?.candidate) this.gathered.candidates.push(candidate);
        if (!candidate) this.gathered.complete = true;
        if (!candidate || (candidate.candidate && enough(candidate))) resolve();
      };
    });
    await this.peer.setLocalDescription(await this.peer.createOffer());
    await Promise.race([done, after(GATHER_MS)]);
  }

  async connect() {
    const { type, sdp } = this.peer.localDescription;
    const opened = new Promise((resolve, reject) => {
      this.channel.onopen = resolve;
      this.peer.onconnectionstatechange = () => {
        if (this.peer.connectionState === "failed") reject(new Problem("ice_failed"));
      };
    });
    opened.catch(() => {}); // heard below, unless the server refuses first
    const { answer } = await postCheck({ type, sdp });
    await this.peer.setRemoteDescription(answer);
    await Promise.race([opened, after(CONNECT_MS, () => new Problem("ice_failed"))]);
  }

  /** @returns {Promise<number>} median, in ms. Single messages may be lost; all of them may not. */
  async ping() {
    const times = [];
    for (let i = 0; i < PINGS; i++) {
      const sent = performance.now();
      const back = new Promise((resolve) => {
        this.channel.onmessage = ({ data }) => data === `ping ${i}` && resolve(performance.now() - sent);
      });
      this.channel.send(`ping ${i}`);
      const took = await Promise.race([back, after(PING_MS)]);
      if (took !== undefined) times.push(took);
    }
    if (times.length === 0) throw new Problem("channel_silent");
    return times.sort((a, b) => a - b)[times.length >> 1];
  }

  /** The candidates in use. */
  async pair() {
    const report = await this.peer.getStats();
    const entries = [...report.values()];
    const pair = entries.find((s) => s.type === "candidate-pair" && s.nominated && s.state === "succeeded") ?? {};
    return { local: report.get(pair.localCandidateId) ?? {}, remote: report.get(pair.remoteCandidateId) ?? {} };
  }

  close() {
    this.channel.close();
    this.peer.close();
  }
}

/** Resolves, or rejects with what `fail` makes, after a while. */
function after(delayMs, fail) {
  return new Promise((resolve, reject) => setTimeout(() => (fail ? reject(fail()) : resolve()), delayMs));
}
