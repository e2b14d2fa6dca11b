// One live avatar as the browser sees it: a peer connection for sound and picture, a WebSocket beside it.
//
// States: idle -> connecting -> live -> ended. A session is used once; starting again makes a new one.

import { deleteSession, isServerThere, postSession, socketUrl } from "./api.js";
import { LipSync } from "./lip_sync.js";
import { Problem } from "./problems.js";

const CONNECT_TIMEOUT_MS = 15_000; // ICE that has found no way by then will not find one
const INTERRUPTION_MS = 8_000; // a Wi-Fi hand-over takes a few seconds; more is a failure
const PING_EVERY_MS = 2_000;
const CLOSE_UNAUTHORIZED = 4401;

/**
 * Events: "state" (detail: state), "stream" (MediaStream), "stats" (server's figures),
 * "ping" (round trip, ms), "notice" (Problem that does not end the session), "problem" (Problem that did).
 */
export class Session extends EventTarget {
  state = "idle";
  id = null;
  #peer = null;
  #socket = null;
  #sender = null;
  #lipSync = null;
  #waitingMessages = []; // sent before the socket stood; bounded by what one ICE gathering yields
  #timers = new Set();

  /**
   * @param {{iceServers: RTCIceServer[], avatarId: string, track: MediaStreamTrack,
   *   name: string|null, options: {seed: number|null, motion: number, codec: "VP8"|"H264"|null}}} order
   */
  constructor(order) {
    super();
    this.order = order;
  }

  /** Connect; resolves when the server has answered. Failures arrive as "problem" too. */
  async open() {
    this.#setState("connecting");
    try {
      if (!("RTCPeerConnection" in window)) throw new Problem("webrtc_missing");
      this.#makePeer();
      await this.#peer.setLocalDescription(await this.#peer.createOffer());
      const { type, sdp } = this.#peer.localDescription;
      const { avatarId, name, options } = this.order;
      const reply = await postSession({ avatar_id: avatarId, name, offer: { type, sdp }, options });
      this.id = reply.id;
      if (this.state === "ended") return void this.#deleteQuietly(); // stopped while we waited
      this.#openSocket(reply.ws);
      await this.#peer.setRemoteDescription(reply.answer);
      this.#after(CONNECT_TIMEOUT_MS, () => this.state === "connecting" && this.#failConnecting());
    } catch (error) {
      this.#fail(error);
    }
  }

  /** End it, as the user asked. */
  close() {
    this.#deleteQuietly();
    this.#end();
  }

  mute(muted) {
    this.order.track.enabled = !muted;
    this.#send({ type: "mute", muted });
  }

  switchAvatar(avatarId) {
    if (avatarId === this.order.avatarId) return;
    this.order.avatarId = avatarId;
    this.#send({ type: "avatar", avatar_id: avatarId });
  }

  setMotion(motion) {
    this.#send({ type: "options", motion });
  }

  /** Turn the head: degrees to the right, up and clockwise. */
  look(turn) {
    this.#send({ type: "pose", ...turn });
  }

  /** Speak through another microphone without reconnecting. */
  async replaceTrack(track) {
    track.enabled = this.order.track.enabled;
    this.order.track = track;
    await this.#sender?.replaceTrack(track);
  }

  /**
   * To be called every second: keep sound and picture together, and tell the browser's figures.
   *
   * @returns {Promise<RTCStatsReport|null>} null when the session is not live.
   */
  async review() {
    if (this.state !== "live") return null;
    const report = await this.#peer.getStats();
    this.#lipSync.correct(report);
    return report;
  }

  #makePeer() {
    this.#peer = new RTCPeerConnection({ iceServers: this.order.iceServers });
    const audio = this.#peer.addTransceiver(this.order.track, { direction: "sendrecv" });
    this.#sender = audio.sender;
    const video = this.#peer.addTransceiver("video", { direction: "recvonly" });
    preferCodec(video, this.order.options.codec);
    this.#lipSync = new LipSync(video.receiver);
    const stream = new MediaStream(); // both tracks in one: the browser then keeps lips and sound together
    this.#peer.ontrack = ({ track }) => {
      stream.addTrack(track);
      this.#emit("stream", stream);
    };
    this.#peer.onicecandidate = ({ candidate }) =>
      this.#send({ type: "candidate", candidate: candidate?.candidate ? candidate.toJSON() : null });
    this.#peer.onconnectionstatechange = () => this.#followPeer();
  }

  #followPeer() {
    const state = this.#peer.connectionState;
    if (state === "connected") {
      this.state = "live";
      this.#emit("state", "live"); // said again after an interruption, so that its notice goes away
    }
    else if (state === "failed") this.#failConnecting();
    else if (state === "disconnected") {
      this.#emit("notice", new Problem("interrupted"));
      this.#after(INTERRUPTION_MS, () => this.#peer.connectionState === "disconnected" && this.#failConnecting());
    }
  }

  #openSocket(path) {
    this.#socket = new WebSocket(socketUrl(path));
    this.#socket.onopen = () => {
      for (const message of this.#waitingMessages.splice(0)) this.#send(message);
      this.#ping();
    };
    this.#socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    this.#socket.onclose = ({ code }) => this.#socketClosed(code);
  }

  #hear(message) {
    if (message.type === "stats") this.#emit("stats", message);
    else if (message.type === "pong") this.#emit("ping", performance.now() - message.t);
    else if (message.type === "error") this.#emit("notice", new Problem(message.code, { message: message.message }));
    else if (message.type === "status" && message.state === "ended") {
      const code = this.state === "connecting" ? "ice_failed" : "session_ended";
      this.#fail(new Problem(code, { message: message.reason }));
    }
  }

  async #socketClosed(code) {
    if (this.state === "ended") return;
    if (code === CLOSE_UNAUTHORIZED) return this.#fail(new Problem("unauthorized"));
    this.#fail(new Problem((await isServerThere()) ? "session_ended" : "server_gone"));
  }

  async #failConnecting() {
    this.#fail(new Problem((await isServerThere()) ? "ice_failed" : "server_gone"));
  }

  #ping() {
    this.#send({ type: "ping", t: performance.now() });
    this.#after(PING_EVERY_MS, () => this.#ping());
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
    else if (this.state === "connecting") this.#waitingMessages.push(message);
  }

  #after(delayMs, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (this.state !== "ended") act();
    }, delayMs);
    this.#timers.add(timer);
  }

  #fail(error) {
    if (this.state === "ended") return;
    this.#deleteQuietly();
    this.#end();
    this.#emit("problem", error);
  }

  #end() {
    if (this.state === "ended") return;
    this.#setState("ended");
    this.#timers.forEach(clearTimeout);
    this.#socket?.close();
    this.#peer?.close();
  }

  #deleteQuietly() {
    if (this.id) deleteSession(this.id).catch(() => {}); // gone already is as good as deleted
  }

  #setState(state) {
    if (state === this.state) return;
    this.state = state;
    this.#emit("state", state);
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Codecs among "VP8" and "H264" that this browser can show. */
export function playableCodecs() {
  const known = RTCRtpReceiver.getCapabilities?.("video")?.codecs ?? [];
  return ["VP8", "H264"].filter((name) => known.some((c) => c.mimeType === `video/${name}`));
}

/** Put one codec first in the offer; the others stay as a way out. */
function preferCodec(transceiver, name) {
  const codecs = RTCRtpReceiver.getCapabilities?.("video")?.codecs;
  if (!name || !codecs || !transceiver.setCodecPreferences) return;
  const isWanted = (codec) => codec.mimeType === `video/${name}`;
  transceiver.setCodecPreferences([...codecs.filter(isWanted), ...codecs.filter((c) => !isWanted(c))]);
}
