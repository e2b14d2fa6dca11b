// What can go wrong, in words: what happened and what the user can do about it.
//
// The server's own message, when there is one, is always shown; the advice below is added to it.

/** A failure that the page can explain. `code` is the server's error code or one of the page's own. */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {{message?: string, retryAfterS?: number}} [details] `message`: the server's words.
   */
  constructor(code, { message = "", retryAfterS = 0 } = {}) {
    super(message || code);
    this.code = code;
    this.serverMessage = message;
    this.retryAfterS = retryAfterS;
  }
}

const ANOTHER_PICTURE = "Choose another picture: one face, seen from the front, well lit and not cut off.";

/** code -> {title, advice, action}; `action` names the button: "retry", "key", "reload" or none. */
const EXPLANATIONS = {
  insecure_page: {
    title: "The browser gives no microphone to this page",
    advice:
      "Browsers allow the microphone only on https:// pages and on http://localhost. " +
      "Open the page over https, or on the machine that runs the server.",
  },
  microphone_denied: {
    title: "The microphone is blocked",
    advice:
      "Allow the microphone for this page (the icon beside the address, or the browser's site settings), " +
      "then try again.",
    action: "retry",
  },
  microphone_missing: {
    title: "No microphone was found",
    advice: "Plug one in or switch it on, then try again.",
    action: "retry",
  },
  microphone_busy: {
    title: "The microphone could not be opened",
    advice: "Another program may be holding it. Close that program or choose another microphone, then try again.",
    action: "retry",
  },
  microphone_lost: {
    title: "The microphone went away",
    advice: "It was unplugged or its permission was taken back. Plug it in or choose another one.",
    action: "retry",
  },
  server_full: {
    title: "All places on this server are taken",
    advice: "A place becomes free when somebody stops. Try again in a moment.",
    action: "retry",
  },
  server_gone: {
    title: "The server does not answer",
    advice: "It may have been stopped, or your network is down. Check both, then try again.",
    action: "retry",
  },
  name_taken: {
    title: "Somebody is presenting under this name",
    advice: "Another page or tab holds the presenter name. Stop it there, or choose another name, then start again.",
    action: "retry",
  },
  session_ended: {
    title: "The server ended the session",
    advice: "Start again when you are ready.",
    action: "retry",
  },
  interrupted: {
    title: "The connection is interrupted",
    advice: "Waiting a few seconds for it to come back.",
  },
  ice_failed: {
    title: "No way was found for sound and picture",
    advice:
      "The page reaches the server, but the media connection (UDP) does not. A firewall or VPN often does this. " +
      "The page /check of this server says what gets through. Try another network, or ask whoever runs the server " +
      "to allow UDP or to set up a TURN relay.",
    action: "retry",
  },
  channel_silent: {
    title: "The connection stands, but nothing comes back",
    advice: "Try again; if it stays like this, something on the way drops packets. Try another network.",
    action: "retry",
  },
  no_picture: {
    title: "The connection stands, but no picture arrives",
    advice: "Try again; if it stays like this, choose the other video codec under “Picture”.",
    action: "retry",
  },
  codec_unsupported: {
    title: "The video codec does not fit",
    advice: "Choose “Automatic” under “Picture” and start again.",
  },
  webrtc_missing: {
    title: "This browser cannot make live calls",
    advice: "WebRTC is missing or switched off. Use a current Chrome, Edge, Firefox or Safari.",
  },
  unauthorized: {
    title: "This server needs a key",
    advice: "Open the page with the link you were given (it ends in ?key=…), or type the key here.",
    action: "key",
  },
  picture_missing: { title: "No picture is chosen yet", advice: "Choose a picture file, then add the portrait." },
  consent_required: {
    title: "Consent is needed first",
    advice: "Tick the box that says that the person shown agrees, then add the portrait.",
  },
  not_ready: {
    title: "The server is still getting ready",
    advice: "It is loading its model. Try again in a few seconds.",
    action: "retry",
  },
  engine_failed: {
    title: "The server could not draw this portrait",
    advice: "Try another portrait. If that fails too, tell whoever runs the server.",
    action: "retry",
  },
  foreign_origin: {
    title: "The server does not answer under this address",
    advice: "Open the page under the address that the server printed when it started.",
  },
  rate_limited: { title: "Too many requests", advice: "Wait a little, then try again." },
  upload_too_large: { title: "The file is too large", advice: "Save the picture smaller, then add it again." },
  image_unreadable: { title: "This file cannot be read as a picture", advice: "Use a JPEG, PNG or WebP photo." },
  image_too_large: { title: "The picture has too many pixels", advice: "Save it smaller, then add it again." },
  no_face: { title: "No face was found", advice: ANOTHER_PICTURE },
  several_faces: { title: "There is more than one face", advice: "Cut the picture so that one face is left." },
  face_too_small: { title: "The face is too small", advice: "Cut the picture closer, or use a larger one." },
  face_cropped: { title: "Part of the face is cut off", advice: ANOTHER_PICTURE },
  face_turned: { title: "The face is turned away", advice: "Use a picture that looks towards the camera." },
  room_full: {
    title: "There is no place left",
    advice: "Wait until somebody leaves, then try again.",
    action: "retry",
  },
  room_key_wrong: {
    title: "This room is locked",
    advice: "Open it with the link that its people shared: the key is part of it.",
  },
  heard_only: {
    title: "You are heard, not seen",
    advice: "The server draws as many portraits as it can already. Your voice goes out; others show their portrait.",
  },
  coming_back: {
    title: "You are out of the room for a moment",
    advice: "This page comes back by itself as soon as the server can be reached.",
  },
  avatar_not_found: {
    title: "This portrait is no longer on the server",
    advice: "It was deleted or its time was over. Choose another one or add it again.",
  },
  avatar_stale: {
    title: "This portrait was made by an older version",
    advice: "Add the picture again.",
  },
};

const FALLBACK = { title: "Something went wrong", advice: "Try again; if it stays, reload the page.", action: "reload" };

// A status says enough when the server (or a proxy before it) gave no code that we know.
const CODE_BY_STATUS = { 401: "unauthorized", 413: "upload_too_large", 429: "rate_limited", 502: "server_gone" };

/** @returns {string} the code to explain an HTTP failure by. */
export function codeOfResponse(status, code) {
  if (status === 401) return "unauthorized"; // whatever the server calls it, the key form helps
  if (code && code in EXPLANATIONS) return code;
  return CODE_BY_STATUS[status] ?? code ?? `http_${status}`;
}

/**
 * The words for a failure.
 *
 * @param {unknown} error
 * @returns {{title: string, message: string, advice: string, action?: string, retryAfterS: number}}
 */
export function explain(error) {
  if (!(error instanceof Problem)) {
    return { ...FALLBACK, message: String(error?.message ?? error), retryAfterS: 0 };
  }
  const words = EXPLANATIONS[error.code] ?? FALLBACK;
  return { ...words, message: error.serverMessage, retryAfterS: error.retryAfterS };
}
