// A viewer of a session, by WHEP: offer there, answer back, one address to delete when we leave.

import { fetchIceServers } from "./api.js";

const GATHER_MS = 1000; // host candidates come at once; a slow STUN server must not hold up the picture
const CONNECT_MS = 15_000;

/** Why no picture came, in words for the log. `gone`: nobody is live under that name (yet). */
export class NoView extends Error {
  constructor(message, { gone = false } = {}) {
    super(message);
    this.gone = gone;
  }
}

export class Viewer {
  #peer = null;
  #location = null;

  /**
   * @param {string} endpoint WHEP address of the session
   * @param {(reason: string) => void} onLost the connection stood and broke
   */
  constructor(endpoint, onLost) {
    this.endpoint = endpoint;
    this.onLost = onLost;
  }

  /**
   * Connect.
   *
   * @returns {Promise<MediaStream>} sound and picture; resolves once the way stands.
   * @throws {NoView}
   */
  async open() {
    const { ice_servers: iceServers } = await fetchIceServers().catch((error) => {
      throw new NoView(`the server does not answer (${error.message})`);
    });
    const peer = (this.#peer = new RTCPeerConnection({ iceServers }));
    const stream = new MediaStream(); // both tracks in one, so that lips and sound stay together
    peer.ontrack = ({ track }) => stream.addTrack(track);
    for (const kind of ["audio", "video"]) peer.addTransceiver(kind, { direction: "recvonly" });
    await peer.setLocalDescription(await peer.createOffer());
    await gathered(peer);
    await peer.setRemoteDescription({ type: "answer", sdp: await this.#post(peer.localDescription.sdp) });
    await connected(peer);
    peer.onconnectionstatechange = () => {
      if (peer.connectionState === "failed" || peer.connectionState === "closed") this.onLost("the connection was lost");
    };
    return stream;
  }

  /** Leave. May be repeated. */
  close() {
    if (this.#peer) this.#peer.onconnectionstatechange = null;
    this.#peer?.close();
    this.#peer = null;
    if (this.#location) fetch(this.#location, { method: "DELETE", keepalive: true }).catch(() => {}); // gone is as good
    this.#location = null;
  }

  async #post(sdp) {
    let response;
    try {
      response = await fetch(this.endpoint, { method: "POST", headers: { "Content-Type": "application/sdp" }, body: sdp });
    } catch {
      throw new NoView("the server does not answer");
    }
    if (!response.ok) {
      const { error } = await response.json().catch(() => ({}));
      throw new NoView(error?.message ?? `the server answered ${response.status}`, { gone: [404, 409].includes(response.status) });
    }
    const location = response.headers.get("Location");
    if (location) this.#location = new URL(location, response.url).href;
    return response.text();
  }
}

function gathered(peer) {
  return new Promise((resolve) => {
    if (peer.iceGatheringState === "complete") return resolve();
    setTimeout(resolve, GATHER_MS);
    peer.addEventListener("icegatheringstatechange", () => peer.iceGatheringState === "complete" && resolve());
  });
}

function connected(peer) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new NoView("no network path for the media was found (UDP?)")), CONNECT_MS);
    const look = () => {
      if (!["connected", "failed", "closed"].includes(peer.connectionState)) return;
      clearTimeout(timer);
      if (peer.connectionState === "connected") resolve();
      else reject(new NoView("no network path for the media was found (UDP?)"));
    };
    peer.addEventListener("connectionstatechange", look);
    look();
  });
}
