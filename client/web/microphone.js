// The user's microphone: choosing, opening and seeing that it hears something.

import { Problem } from "./problems.js";

const CODE_BY_ERROR_NAME = {
  NotAllowedError: "microphone_denied",
  SecurityError: "microphone_denied",
  NotFoundError: "microphone_missing",
  OverconstrainedError: "microphone_missing",
  NotReadableError: "microphone_busy",
  AbortError: "microphone_busy",
};

/**
 * Ask for the microphone.
 *
 * @param {string} deviceId "" takes the system's default.
 * @returns {Promise<MediaStream>} with one audio track.
 * @throws {Problem} insecure_page, microphone_denied, microphone_missing or microphone_busy.
 */
export async function openMicrophone(deviceId) {
  if (!navigator.mediaDevices?.getUserMedia) throw new Problem("insecure_page");
  const audio = {
    // The avatar may be heard through loudspeakers; without cancellation it would answer itself.
    echoCancellation: true,
    noiseSuppression: true,
    autoGainControl: true,
    channelCount: 1,
  };
  if (deviceId) audio.deviceId = { exact: deviceId };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio });
  } catch (error) {
    throw new Problem(CODE_BY_ERROR_NAME[error.name] ?? "microphone_busy", { message: error.message });
  }
}

/** Fill the drop-down with the microphones that the browser shows; keeps the choice where it can. */
export async function listMicrophones(select) {
  if (!navigator.mediaDevices?.enumerateDevices) return;
  const devices = await navigator.mediaDevices.enumerateDevices();
  // Until permission is given, browsers hide names and ids: then only the default can be chosen.
  const named = devices.filter((d) => d.kind === "audioinput" && d.deviceId && d.deviceId !== "default");
  const chosen = select.value;
  select.replaceChildren(
    new Option("System default", ""),
    ...named.map((d, i) => new Option(d.label || `Microphone ${i + 1}`, d.deviceId)),
  );
  select.value = named.some((d) => d.deviceId === chosen) ? chosen : "";
}

/** Loudness of an open microphone, for the meter. */
export class LevelMeter {
  /** @param {MediaStream} stream */
  constructor(stream) {
    this.context = new AudioContext();
    this.analyser = this.context.createAnalyser();
    this.analyser.fftSize = 1024;
    this.samples = new Float32Array(this.analyser.fftSize);
    this.context.createMediaStreamSource(stream).connect(this.analyser);
  }

  /** @returns {number} 0 (-60 dBFS or less) to 1 (full scale). */
  read() {
    this.analyser.getFloatTimeDomainData(this.samples);
    const power = this.samples.reduce((sum, x) => sum + x * x, 0) / this.samples.length;
    return Math.min(1, Math.max(0, 1 + (10 * Math.log10(power + 1e-12)) / 60));
  }

  close() {
    return this.context.close();
  }
}
