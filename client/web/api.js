// The server's HTTP routes. Every failure leaves here as a Problem.

import { Problem, codeOfResponse } from "./problems.js";

/** GET /v1/info: name, engine, fps, limits. */
export const fetchInfo = () => request("GET", "/v1/info");

/** STUN and TURN servers with fresh credentials: {ice_servers: RTCIceServer[], expires_at}. Ask before each call. */
export const fetchIceServers = () => request("GET", "/v1/ice-servers");

/** The server's view of its STUN and TURN servers; may take 10 seconds. */
export const fetchNetwork = () => request("GET", "/v1/network");

/** @param {{type: string, sdp: string}} offer of one data channel @returns {Promise<{answer: object}>} */
export const postCheck = (offer) =>
  request("POST", "/v1/check", { body: JSON.stringify({ offer }), headers: { "Content-Type": "application/json" } });

/** @throws {Problem} not_ready while the engine is loading. */
export const checkReady = () => request("GET", "/readyz");

/** Wait for the engine. A server that has just been started loads its model for some seconds; that is no failure. */
export async function waitUntilReady(onLoading) {
  for (;;) {
    try {
      return await checkReady();
    } catch (error) {
      if (error.code !== "not_ready") throw error;
      onLoading("The server is loading its model…");
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }
}

/** @returns {Promise<Array<{id, created_at, expires_at, thumbnail}>>} */
export const fetchAvatars = async () => (await request("GET", "/v1/avatars")).avatars;

/**
 * Enrol a portrait.
 *
 * @param {{portrait: File, consent: boolean, keepS: number}} form `keepS`: seconds; 0 keeps it until deleted.
 */
export function postAvatar({ portrait, consent, keepS }) {
  const body = new FormData();
  body.append("portrait", portrait);
  body.append("consent", String(consent));
  body.append("keep_s", String(keepS));
  return request("POST", "/v1/avatars", { body });
}

export const deleteAvatar = (id) => request("DELETE", `/v1/avatars/${encodeURIComponent(id)}`);

/** @param {{avatar_id: string, offer: {type: string, sdp: string}, options: object}} order */
export const postSession = (order) =>
  request("POST", "/v1/sessions", {
    body: JSON.stringify(order),
    headers: { "Content-Type": "application/json" },
  });

/** End a session; `keepalive` lets it be sent while the page is being closed. */
export const deleteSession = (id) =>
  request("DELETE", `/v1/sessions/${encodeURIComponent(id)}`, { keepalive: true });

/** @returns {Promise<boolean>} whether the server answers, be it with a refusal. */
export async function isServerThere() {
  try {
    const { status } = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(3000) });
    return status < 500; // 502 and 504 are a proxy's words for "gone"
  } catch {
    return false;
  }
}

/** Address of a server path as a WebSocket. */
export function socketUrl(path) {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}

async function request(method, path, options = {}) {
  let response;
  try {
    response = await fetch(path, { method, cache: "no-store", ...options });
  } catch {
    throw new Problem("server_gone"); // fetch rejects only when no answer came
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const { error } = await response.json().catch(() => ({}));
  throw new Problem(codeOfResponse(response.status, error?.code), {
    message: error?.message,
    retryAfterS: Number(response.headers.get("Retry-After")) || 0,
  });
}
