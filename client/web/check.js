// The page /check: runs one check after the other, shows what each found, and sums up.

import { fetchIceServers } from "./api.js";
import {
  checkCodecs,
  checkMicrophone,
  checkRelay,
  checkServer,
  checkServersView,
  checkStun,
  checkUdp,
} from "./check_rows.js";
import { explain } from "./problems.js";
import { say, showProblem, hideProblem } from "./status.js";

const $ = (id) => document.getElementById(id);
const VERDICTS = { wait: "Waits", busy: "Checking…", ok: "Good", warn: "Careful", fail: "Fails", skip: "Not set up" };

let iceServers = []; // fetched when the first check needs them

// In two lanes: what opens connections to the server does so one after the other, since each takes one of its ports.
const CHECKS = [
  { id: "microphone", title: "Microphone", run: checkMicrophone },
  { id: "codecs", title: "Codecs", run: checkCodecs },
  { id: "server", title: "Server", run: checkServer },
  { id: "udp", title: "UDP, straight to the server", run: checkUdp },
  { id: "stun", title: "STUN", run: () => checkStun(iceServers) },
  { id: "turn-udp", title: "Relay over UDP (TURN)", run: () => checkRelay(iceServers, "udp") },
  { id: "turn-tcp", title: "Relay over TCP (TURN)", run: () => checkRelay(iceServers, "tcp") },
  { id: "turn-tls", title: "Relay over TLS (TURN)", run: () => checkRelay(iceServers, "tls") },
  { id: "servers-view", title: "The server's own view", run: checkServersView },
];
const RELAYS = ["turn-udp", "turn-tcp", "turn-tls"];
const WAYS = ["udp", ...RELAYS];

async function start() {
  hideProblem($("problem"));
  $("start").disabled = $("copy").disabled = true;
  say($("verdict"), "Checking. Say a few words…");
  for (const check of CHECKS) show(check, { verdict: "wait", detail: "", advice: "" });
  const found = {};
  try {
    ({ ice_servers: iceServers } = await fetchIceServers());
    const ways = CHECKS.filter(({ id }) => WAYS.includes(id));
    const others = CHECKS.filter(({ id }) => !WAYS.includes(id));
    await Promise.all([runAll(ways, found), runAll(others, found)]);
    say($("verdict"), sumUp(found));
    $("copy").disabled = false;
  } catch (error) {
    say($("verdict"), "The check could not be made.");
    showProblem($("problem"), error, { onRetry: start });
  } finally {
    $("start").disabled = false;
    $("start").textContent = "Check again";
  }
}

/** One after the other. */
async function runAll(checks, found) {
  for (const check of checks) {
    show(check, { verdict: "busy", detail: "", advice: "" });
    found[check.id] = await guarded(check.run);
    show(check, found[check.id]);
  }
}

/** A check that breaks is a finding, too. */
async function guarded(run) {
  try {
    return await run();
  } catch (error) {
    const { title, message, advice } = explain(error);
    return { verdict: "fail", detail: message ? `${title}: ${message}` : `${title}.`, advice };
  }
}

/** One sentence for the one who only wants to call. */
function sumUp(found) {
  const works = (id) => found[id].verdict === "ok" || found[id].verdict === "warn";
  const relayed = RELAYS.some((id) => found[id].passes);
  const direct = found.udp.passes;
  if (!works("server")) return "You cannot call: this page does not get through to the server.";
  if (!works("codecs")) return "You cannot call with this browser.";
  if (!direct && !relayed) return "You cannot call from this network: neither UDP nor a relay gets through.";
  if (!works("microphone")) return "The network is fine, but your microphone is not.";
  const careful = found.microphone.verdict === "warn" ? " Look at the microphone, though." : "";
  if (!direct) return `You can call, through a relay.${careful}`;
  if (RELAYS.some((id) => found[id].verdict === "fail")) {
    return `You can call from here. Others may not: a relay of this server does not work.${careful}`;
  }
  return `You can call from here.${careful}`;
}

function show({ id, title }, { verdict, detail, advice }) {
  const row = document.createElement("li");
  row.id = `check-${id}`;
  row.dataset.verdict = verdict;
  row.append(element("h2", title), element("p", VERDICTS[verdict], "verdict"));
  if (detail) row.append(element("p", detail));
  if (advice) row.append(element("p", advice, "advice"));
  const before = document.getElementById(row.id);
  if (before) before.replaceWith(row);
  else $("rows").append(row);
}

function element(tag, text, className = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className });
}

/** For a mail to whoever runs the server. */
async function copy() {
  const rows = [...$("rows").children].map((row) => [...row.children].map((part) => part.textContent).join(" | "));
  const report = [$("verdict").textContent, location.origin, navigator.userAgent, ...rows].join("\n");
  try {
    await navigator.clipboard.writeText(report);
    say($("verdict"), "The report is copied.");
  } catch {
    say($("verdict"), "The browser does not let this page copy: select the text by hand.");
  }
}

$("start").addEventListener("click", start);
$("copy").addEventListener("click", copy);
