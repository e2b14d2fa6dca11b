// The page: binds what the user does to the avatar list, the microphone and the session.

import { fetchIceServers, fetchInfo, waitUntilReady } from "./api.js";
import { AvatarPicker, thumbnailUrl } from "./avatars.js";
import { FreeView } from "./free_view.js";
import { LevelMeter, listMicrophones, openMicrophone } from "./microphone.js";
import { PresenterPanel } from "./presenter.js";
import { Problem } from "./problems.js";
import { Session, playableCodecs } from "./session.js";
import { Readings, STATE_WORDS, hideProblem, say, showProblem } from "./status.js";
import { bindUploadForm } from "./upload_form.js";

const $ = (id) => document.getElementById(id);
const NO_PICTURE_AFTER_MS = 10_000;

const picker = new AvatarPicker({ group: $("portraits"), kept: $("kept"), deleteButton: $("delete") });
const readings = new Readings((name) => $(`reading-${name}`));
const freeView = new FreeView($("frame"), (turn) => session?.look(turn));
const presenter = new PresenterPanel({
  name: $("presenter-name"),
  address: $("obs-address"),
  copy: $("obs-copy"),
  note: $("obs-note"),
});
let info = null;
let session = null;
let microphone = null; // {stream, meter} while it is open
let secondTimer = 0;

// ---- starting and stopping -------------------------------------------------------------------

async function start() {
  if (session || $("talk").disabled) return;
  hideProblem($("problem"));
  try {
    setState("microphone");
    await takeMicrophone();
    info ??= await loadServer();
    if (!picker.chosenId) throw new Problem("avatar_not_found");
    session = makeSession((await fetchIceServers()).ice_servers);
    session.mute($("mute").ariaPressed === "true");
    await session.open();
    if (session?.id) presenter.setSession(session.id);
    freeView.repeat();
  } catch (error) {
    fail(error);
  }
}

function makeSession(iceServers) {
  const made = new Session({
    iceServers,
    avatarId: picker.chosenId,
    name: presenter.chosenName,
    track: microphone.stream.getAudioTracks()[0],
    options: { seed: null, motion: Number($("motion").value), codec: $("codec").value || null },
  });
  const on = (name, act) => made.addEventListener(name, ({ detail }) => made === session && act(detail));
  on("state", (state) => state !== "ended" && setState(state));
  on("stream", (stream) => void ($("video").srcObject = stream));
  on("stats", (stats) => readings.showServer(stats));
  on("ping", (roundTripMs) => readings.showPing(roundTripMs));
  on("notice", (problem) => showProblem($("problem"), problem));
  on("problem", fail);
  return made;
}

function stop() {
  session?.close();
  tidy();
  setState("ended");
}

function fail(error) {
  session?.close();
  tidy();
  setState("ended");
  say($("status"), "Not connected.");
  showProblem($("problem"), error, { onRetry: start });
  if (error.code?.startsWith("avatar_")) picker.refresh().catch(() => {}); // the list is out of date
  $("problem").scrollIntoView({ block: "nearest" });
}

/** Give back all that a session held: the browser's recording sign must go out. */
function tidy() {
  session = null;
  presenter.setSession(null);
  clearInterval(secondTimer);
  releaseMicrophone();
  $("video").srcObject = null;
  readings.clear();
}

function setState(state) {
  const busy = state === "microphone" || state === "connecting";
  const open = busy || state === "live";
  $("frame").dataset.state = state;
  $("veil").textContent = busy ? STATE_WORDS[state] : "";
  $("talk").textContent = open ? "Stop" : "Start talking";
  $("talk").classList.toggle("primary", !open);
  $("talk").disabled = state === "microphone"; // the browser's own question is open
  $("mute").disabled = !open;
  $("codec").disabled = open;
  say($("status"), STATE_WORDS[state]);
  if (state === "live") watchLive();
}

/** Every second: show the browser's figures, and notice when no picture comes. */
function watchLive() {
  hideProblem($("problem"));
  clearInterval(secondTimer);
  const since = performance.now();
  secondTimer = setInterval(async () => {
    const report = await session?.review();
    if (!report) return;
    readings.showPeer(report);
    const silent = $("video").videoWidth === 0 && performance.now() - since > NO_PICTURE_AFTER_MS;
    if (silent) fail(new Problem("no_picture"));
  }, 1000);
}

// ---- microphone ------------------------------------------------------------------------------

async function takeMicrophone() {
  const stream = await openMicrophone($("microphone").value);
  releaseMicrophone();
  microphone = { stream, meter: new LevelMeter(stream) };
  stream.getAudioTracks()[0].onended = () => fail(new Problem("microphone_lost"));
  drawLevel();
  await listMicrophones($("microphone")); // names are known from now on
}

function releaseMicrophone() {
  microphone?.stream.getTracks().forEach((track) => track.stop());
  microphone?.meter.close();
  microphone = null;
}

function drawLevel() {
  const muted = $("mute").ariaPressed === "true";
  $("level").value = microphone && !muted ? microphone.meter.read() : 0;
  if (microphone) setTimeout(drawLevel, 80); // a timer: animation frames would repaint 60 times a second
}

async function changeMicrophone() {
  if (!session) return;
  try {
    await takeMicrophone();
    await session.replaceTrack(microphone.stream.getAudioTracks()[0]);
  } catch (error) {
    fail(error);
  }
}

function toggleMute() {
  const muted = $("mute").ariaPressed !== "true";
  $("mute").ariaPressed = String(muted);
  session?.mute(muted);
  say($("status"), muted ? "Muted: the portrait rests." : STATE_WORDS[session?.state ?? "idle"]);
}

// ---- portraits -------------------------------------------------------------------------------

function showChosen() {
  const avatar = picker.chosen;
  $("poster").hidden = !avatar;
  if (avatar) $("poster").src = thumbnailUrl(avatar);
  if (avatar) session?.switchAvatar(avatar.id);
}

function askToDelete() {
  const dialog = $("confirm-delete");
  dialog.returnValue = "cancel"; // Escape leaves it as it is
  dialog.showModal();
  dialog.onclose = async () => {
    if (dialog.returnValue !== "delete") return $("delete").focus();
    try {
      await picker.deleteChosen();
      say($("status"), "The portrait is deleted.");
    } catch (error) {
      showProblem($("problem"), error);
    }
  };
}

// ---- the page itself -------------------------------------------------------------------------

async function loadServer() {
  await waitUntilReady((words) => say($("server"), words));
  const answer = await fetchInfo();
  $("server").textContent = `Connected: ${answer.engine} on ${answer.backend}`;
  $("mark").hidden = answer.mark === false;
  freeView.limits = answer.turn_limit_deg;
  await picker.refresh();
  return answer;
}

async function load() {
  $("open-room").href = `/call/room-${Math.random().toString(36).slice(2, 8)}`; // a name; a key is set in its lobby
  for (const option of $("codec").options) {
    option.disabled = Boolean(option.value) && !("RTCRtpReceiver" in window && playableCodecs().includes(option.value));
  }
  if (!window.isSecureContext) showProblem($("problem"), new Problem("insecure_page"));
  listMicrophones($("microphone")).catch(() => {}); // a list without names is no failure
  try {
    info = await loadServer();
  } catch (error) {
    $("server").textContent = "Not connected to the server";
    showProblem($("problem"), error, { onRetry: () => location.reload() });
  }
}

$("talk").addEventListener("click", () => (session ? stop() : start()));
$("mute").addEventListener("click", toggleMute);
$("hear").addEventListener("change", () => void ($("video").muted = !$("hear").checked));
$("microphone").addEventListener("change", changeMicrophone);
$("motion").addEventListener("input", () => {
  $("motion-value").textContent = `${Math.round($("motion").value * 100)} %`;
});
// Told once the slider is let go: the head goes back to rest at every change.
$("motion").addEventListener("change", () => session?.setMotion(Number($("motion").value)));
$("follow").addEventListener("change", () => {
  freeView.following = $("follow").checked;
  if (!freeView.following) freeView.rest();
});
bindUploadForm(picker);
$("delete").addEventListener("click", askToDelete);
picker.addEventListener("choose", showChosen);
navigator.mediaDevices?.addEventListener?.("devicechange", () => listMicrophones($("microphone")));
window.addEventListener("pagehide", () => session?.close());

load();
