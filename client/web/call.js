// The page of a room: the lobby (name, portrait, microphone, preview), then the room.

import { fetchIceServers, waitUntilReady } from "./api.js";
import { AvatarPicker, thumbnailUrl } from "./avatars.js";
import { LevelMeter, listMicrophones, openMicrophone } from "./microphone.js";
import { Problem } from "./problems.js";
import { Room } from "./room.js";
import { Session } from "./session.js";
import { hideProblem, say, showProblem } from "./status.js";
import { Tiles } from "./tiles.js";
import { bindUploadForm } from "./upload_form.js";

const $ = (id) => document.getElementById(id);
const roomName = decodeURIComponent(location.pathname.split("/").pop());
const picker = new AvatarPicker({ group: $("portraits"), kept: $("kept"), deleteButton: $("delete") });
const tiles = new Tiles($("tiles"));
let microphone = null; // {stream, meter} while it is open
let preview = null; // a Session
let room = null;

// ---- the lobby -------------------------------------------------------------------------------

async function load() {
  $("room-name").textContent = roomName;
  document.title = `${roomName} · Visavis`;
  $("name").value = localStorage.getItem("visavis_name") ?? "";
  $("lock").disabled = $("lock").checked = Boolean(roomKey());
  if (!window.isSecureContext) showProblem($("problem"), new Problem("insecure_page"));
  listMicrophones($("microphone")).catch(() => {}); // a list without names is no failure
  try {
    await waitUntilReady((words) => say($("status"), words));
    await picker.refresh();
  } catch (error) {
    showProblem($("problem"), error, { onRetry: () => location.reload() });
  }
}

function showChosen() {
  const avatar = picker.chosen;
  $("poster").hidden = !avatar;
  if (avatar) $("poster").src = thumbnailUrl(avatar);
  if (avatar) preview?.switchAvatar(avatar.id);
}

async function takeMicrophone() {
  const stream = await openMicrophone($("microphone").value);
  releaseMicrophone();
  microphone = { stream, meter: new LevelMeter(stream) };
  stream.getAudioTracks()[0].onended = () => showProblem($("problem"), new Problem("microphone_lost"));
  drawLevel();
  await listMicrophones($("microphone")); // names are known from now on
  return stream.getAudioTracks()[0];
}

function releaseMicrophone() {
  microphone?.stream.getTracks().forEach((track) => track.stop());
  microphone?.meter.close();
  microphone = null;
}

function drawLevel() {
  $("level").value = microphone && !room ? microphone.meter.read() : 0;
  if (microphone && !room) setTimeout(drawLevel, 80);
}

async function testMicrophone() {
  hideProblem($("problem"));
  try {
    await takeMicrophone();
    say($("status"), "Speak: the level should move.");
  } catch (error) {
    showProblem($("problem"), error, { onRetry: testMicrophone });
  }
}

async function togglePreview() {
  if (preview) return stopPreview();
  hideProblem($("problem"));
  try {
    const track = await takeMicrophone();
    const options = { seed: null, motion: 1, codec: null };
    const { ice_servers: iceServers } = await fetchIceServers();
    const made = new Session({ iceServers, avatarId: picker.chosenId, track, options });
    preview = made;
    $("preview").textContent = "Stop the preview";
    made.addEventListener("stream", ({ detail }) => void ($("preview-video").srcObject = detail));
    made.addEventListener("state", ({ detail }) => void ($("frame").dataset.state = detail));
    made.addEventListener("problem", ({ detail }) => {
      stopPreview();
      showProblem($("problem"), detail);
    });
    await made.open();
  } catch (error) {
    stopPreview();
    showProblem($("problem"), error);
  }
}

function stopPreview() {
  preview?.close();
  preview = null;
  $("preview").textContent = "Preview with my voice";
  $("preview-video").srcObject = null;
  $("frame").dataset.state = "idle";
}

// ---- the room --------------------------------------------------------------------------------

async function join() {
  if (room) return;
  hideProblem($("problem"));
  const name = $("name").value.trim();
  if (!name) {
    $("name").focus();
    return say($("status"), "Give a name first: the others see it.");
  }
  localStorage.setItem("visavis_name", name);
  try {
    $("join").disabled = true;
    if (preview) {
      stopPreview();
      await new Promise((resolve) => setTimeout(resolve, 500)); // its place is to be free before ours is taken
    }
    const track = await takeMicrophone();
    if ($("lock").checked && !roomKey()) setRoomKey();
    room = makeRoom(name, track, (await fetchIceServers()).ice_servers);
    room.enter();
    say($("status"), "Joining…");
  } catch (error) {
    showProblem($("problem"), error, { onRetry: join });
  } finally {
    $("join").disabled = false;
  }
}

function makeRoom(name, track, iceServers) {
  const avatarId = $("sound-only").checked ? null : picker.chosenId || "default";
  const made = new Room({ room: roomName, key: roomKey(), name, avatarId, track, iceServers });
  const on = (event, act) => made.addEventListener(event, ({ detail }) => made === room && act(detail));
  on("state", showState);
  on("people", (people) => tiles.show(people, made.id));
  on("stream", ({ id, stream }) => tiles.setStream(id, stream));
  on("unwatched", (id) => tiles.clearStream(id));
  on("levels", ({ speaking }) => tiles.showSpeaking(speaking));
  on("notice", (problem) => showProblem($("problem"), problem));
  on("problem", (problem) => {
    backToLobby();
    showProblem($("problem"), problem, { onRetry: join });
  });
  return made;
}

function showState({ state, words }) {
  const inside = state === "in" || state === "back";
  if (inside) setPlace("room");
  if (state === "in") {
    if ($("problem").dataset.code === "coming_back") hideProblem($("problem"));
    say($("status"), "You are in the room.");
  }
  if (state === "back") {
    say($("status"), words);
    showProblem($("problem"), new Problem("coming_back", { message: words }));
  }
}

function leave() {
  room?.leave();
  backToLobby();
  say($("status"), "You have left the room.");
}

function backToLobby() {
  room = null;
  tiles.clear();
  releaseMicrophone();
  $("mute").ariaPressed = "false";
  $("mute").textContent = "Mute";
  setPlace("lobby");
}

function setPlace(place) {
  document.body.dataset.place = place;
  $("lobby").hidden = place !== "lobby";
  $("room").hidden = place !== "room";
}

function toggleMute() {
  const muted = $("mute").ariaPressed !== "true";
  $("mute").ariaPressed = String(muted);
  $("mute").textContent = muted ? "Unmute" : "Mute";
  room?.mute(muted);
}

async function copyLink() {
  try {
    await navigator.clipboard.writeText(location.href);
    say($("status"), "The link is copied: send it to the others.");
  } catch {
    say($("status"), `Send the others this link: ${location.href}`);
  }
}

/** The room's key stands behind the "#": browsers send it to nobody. */
function roomKey() {
  return new URLSearchParams(location.hash.slice(1)).get("key") ?? "";
}

function setRoomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  const key = btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_");
  history.replaceState(null, "", `#key=${key}`);
}

$("join").addEventListener("click", join);
$("preview").addEventListener("click", togglePreview);
$("test").addEventListener("click", testMicrophone);
$("mute").addEventListener("click", toggleMute);
$("copy").addEventListener("click", copyLink);
$("leave").addEventListener("click", leave);
bindUploadForm(picker);
$("delete").addEventListener("click", () => picker.deleteChosen().catch((e) => showProblem($("problem"), e)));
$("name").addEventListener("keydown", ({ key }) => key === "Enter" && join());
picker.addEventListener("choose", showChosen);
window.addEventListener("pagehide", () => {
  preview?.close();
  room?.leave();
});

load();
