// A room as the browser sees it: a socket that tells who is there, a connection that brings the microphone, and one
// for each person watched. It comes back by itself: after a change of network as the same person, after a restart of
// the server as a new one.
//
// States: entering -> in -> (back: coming back) ... -> left.

import { isServerThere, socketUrl } from "./api.js";
import { LipSync } from "./lip_sync.js";
import { Problem } from "./problems.js";

const PING_EVERY_MS = 2_000; // the server frees the place of one who says nothing for 8 s
const SILENT_MS = 6_000; // the server tells levels four times a second
const CONNECTING_MS = 20_000; // of a socket
const INTERRUPTION_MS = 3_000; // of a connection; then it is made anew
const RETRY_MS = [500, 1_000, 2_000, 3_000];
const CLOSE_REFUSED = 4403;
const CLOSE_UNAUTHORIZED = 4401;
// What may pass by itself while one comes back: an old self holds the place, the server loads its model.
const PASSING = ["room_full", "server_full", "not_ready"];

/**
 * Events: "state" (detail: {state, words}), "people" (list), "levels" ({levels, speaking}), "stream"
 * ({id, stream}), "unwatched" (id), "notice" (Problem), "problem" (Problem that ended it).
 */
export class Room extends EventTarget {
  state = "entering";
  id = null;
  people = [];
  #token = null;
  #socket = null;
  #views = new Map(); // id -> View, also of oneself
  #microphone = null; // View that sends
  #heardMs = 0;
  #attempts = 0;
  #timers = new Set();
  #muted = false;

  /** @param {{room: string, key: string, name: string, avatarId: string|null, track: MediaStreamTrack,
   *   iceServers: RTCIceServer[]}} order */
  constructor(order) {
    super();
    this.order = order;
    this.#every(PING_EVERY_MS, () => this.#look());
    this.#every(1_000, () => this.#views.forEach((view) => view.review()));
    this.onOnline = () => this.#reconnect("The network has changed.");
    window.addEventListener("online", this.onOnline);
  }

  enter() {
    this.#openSocket();
  }

  leave() {
    this.#send({ type: "leave" });
    this.#end();
  }

  mute(muted) {
    this.#muted = muted;
    this.order.track.enabled = !muted;
    this.#send({ type: "mute", muted });
  }

  switchAvatar(avatarId) {
    this.order.avatarId = avatarId;
    this.#send({ type: "avatar", avatar_id: avatarId });
  }

  // ---- the socket ----------------------------------------------------------------------------

  #openSocket() {
    const socket = new WebSocket(socketUrl(`/v1/rooms/${encodeURIComponent(this.order.room)}/ws`));
    this.#socket = socket;
    this.#heardMs = performance.now();
    socket.onopen = () => {
      const { name, avatarId, key } = this.order;
      this.#send({ type: "enter", name, avatar_id: avatarId, room_key: key, token: this.#token });
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => socket === this.#socket && this.#socketClosed(code);
  }

  #hear(message) {
    this.#heardMs = performance.now();
    if (message.type === "welcome") this.#welcome(message);
    else if (message.type === "people") this.#meet(message.people);
    else if (message.type === "levels") this.#emit("levels", message);
    else if (message.type === "answer") this.#view(message.id)?.take(message.sdp);
    else if (message.type === "publish_again") this.#publish();
    else if (message.type === "ended") this.#reason = message.reason;
    else if (message.type === "error") this.#refused(message);
  }

  #welcome({ id, token, people, seen }) {
    const same = id === this.id;
    this.id = id;
    this.#token = token;
    this.#attempts = 0;
    this.#setState("in");
    if (!seen && this.order.avatarId) {
      this.#emit("notice", new Problem("heard_only"));
    }
    if (!same) this.#closeViews(); // another server process, or another person to this one
    if (!same || !this.#microphone?.works) this.#publish();
    if (this.#muted) this.#send({ type: "mute", muted: true });
    for (const [watched, view] of this.#views) if (!view.works) this.#drop(watched);
    this.#meet(people);
  }

  #meet(people) {
    if (!this.id) return;
    this.people = people;
    const present = new Map(people.map((person) => [person.id, person]));
    for (const [id, view] of this.#views) {
      if (present.get(id)?.seen !== view.seen) this.#drop(id);
    }
    this.#emit("people", people);
    for (const person of people) {
      const own = person.id === this.id;
      if (!this.#views.has(person.id) && (!own || person.seen)) this.#watch(person, own);
    }
  }

  #refused({ code, message, about }) {
    const problem = new Problem(code, { message });
    if (about?.type === "watch") return this.#drop(about.id); // they left just now; "people" says so too
    if (this.state === "in") return this.#emit("notice", problem);
    if (code === "avatar_not_found" && this.#token) {
      this.order.avatarId = "default"; // the server began anew and has lost uploads
      this.#emit("notice", problem);
    } else if (!(this.#token && PASSING.includes(code))) {
      this.#end();
      this.#emit("problem", problem);
    }
  }

  async #socketClosed(code) {
    if (this.state === "left") return;
    if (code === CLOSE_UNAUTHORIZED) {
      this.#end();
      return this.#emit("problem", new Problem("unauthorized"));
    }
    const there = await isServerThere();
    if (this.state === "left") return;
    if (!this.#token && code !== CLOSE_REFUSED) {
      this.#end();
      return this.#emit("problem", new Problem(there ? "session_ended" : "server_gone"));
    }
    const words = there ? "The connection was interrupted." : "The server does not answer.";
    this.#reconnect(this.#reason ?? words);
    this.#reason = null;
  }

  #reason = null;

  #reconnect(why) {
    if (this.state === "left" || !this.#token) return;
    const old = this.#socket;
    this.#socket = null;
    old?.close();
    this.#setState("back", `${why} Coming back…`);
    const wait = RETRY_MS[Math.min(this.#attempts++, RETRY_MS.length - 1)];
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#tryAgain(), wait);
  }

  /** Ask for the server first: browsers make sockets wait longer and longer after some that failed. */
  async #tryAgain() {
    const there = await isServerThere();
    if (this.state !== "back" || this.#socket) return;
    if (there) this.#openSocket();
    else this.#reconnect("The server does not answer.");
  }

  #retry = 0;

  #look() {
    this.#send({ type: "ping", t: performance.now() });
    const patienceMs = this.#socket?.readyState === WebSocket.CONNECTING ? CONNECTING_MS : SILENT_MS;
    if (this.#socket && performance.now() - this.#heardMs > patienceMs) {
      this.#reconnect("Nothing is heard of the server.");
    }
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  // ---- connections ---------------------------------------------------------------------------

  #publish() {
    this.#microphone?.close();
    const view = new View(this.order.iceServers, (message) => this.#send({ ...message, id: null }));
    this.#microphone = view;
    view.peer.addTransceiver(this.order.track, { direction: "sendonly" });
    view.onlost = () => view === this.#microphone && this.state === "in" && this.#publish();
    view.offer("publish");
  }

  #watch({ id, seen }, own) {
    const view = new View(this.order.iceServers, (message) => this.#send({ ...message, id }));
    view.seen = seen;
    this.#views.set(id, view);
    if (!own) view.peer.addTransceiver("audio", { direction: "recvonly" });
    if (seen) view.watchPicture();
    view.peer.ontrack = ({ track }) => {
      view.stream.addTrack(track);
      this.#emit("stream", { id, stream: view.stream });
    };
    view.onlost = () => {
      if (this.#views.get(id) !== view || this.state !== "in") return;
      this.#drop(id);
      this.#meet(this.people);
    };
    view.offer("watch");
  }

  #view(id) {
    return id === null ? this.#microphone : this.#views.get(id);
  }

  #drop(id) {
    this.#views.get(id)?.close();
    this.#views.delete(id);
    this.#emit("unwatched", id);
  }

  #closeViews() {
    for (const id of [...this.#views.keys()]) this.#drop(id);
  }

  #end() {
    if (this.state === "left") return;
    this.#setState("left");
    window.removeEventListener("online", this.onOnline);
    this.#timers.forEach(clearInterval);
    clearTimeout(this.#retry);
    this.#microphone?.close();
    this.#closeViews();
    this.#socket?.close();
  }

  #every(ms, act) {
    this.#timers.add(setInterval(act, ms));
  }

  #setState(state, words = "") {
    this.state = state;
    this.#emit("state", { state, words });
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** One peer connection to the server, for one purpose. */
class View {
  stream = new MediaStream();
  seen = false;
  onlost = () => {};
  #lipSync = null;
  #closed = false;
  #timer = 0;

  constructor(iceServers, send) {
    this.send = send;
    this.peer = new RTCPeerConnection({ iceServers });
    this.peer.onicecandidate = ({ candidate }) =>
      this.send({ type: "candidate", candidate: candidate?.candidate ? candidate.toJSON() : null });
    this.peer.onconnectionstatechange = () => this.#follow();
  }

  get works() {
    return !this.#closed && ["new", "connecting", "connected"].includes(this.peer.connectionState);
  }

  watchPicture() {
    this.#lipSync = new LipSync(this.peer.addTransceiver("video", { direction: "recvonly" }).receiver);
  }

  async offer(type) {
    await this.peer.setLocalDescription(await this.peer.createOffer());
    if (!this.#closed) this.send({ type, sdp: this.peer.localDescription.sdp });
  }

  async take(sdp) {
    if (this.peer.signalingState === "have-local-offer") await this.peer.setRemoteDescription({ type: "answer", sdp });
  }

  async review() {
    if (this.#lipSync && this.peer.connectionState === "connected") this.#lipSync.correct(await this.peer.getStats());
  }

  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.peer.close();
  }

  #follow() {
    const state = this.peer.connectionState;
    clearTimeout(this.#timer);
    if (state === "failed") this.#lose();
    else if (state === "disconnected") this.#timer = setTimeout(() => this.#lose(), INTERRUPTION_MS);
  }

  #lose() {
    if (!this.#closed) this.onlost();
  }
}
