// Holds the picture back by as much as the browser holds the sound.
//
// Sound needs a longer buffer than pictures against the same jitter. Browsers level that out themselves, but
// leave up to 30 ms of it standing and take long over the rest (Chromium: most of a minute after a stall).
// The sender's clock tells which instant of it is playing right now, for each of the two; where they
// differ, the picture's buffer is set anew. Where a browser does not tell, nothing is done.

const GAIN = 0.6; // of the difference, each second: quick, yet it does not swing
const IGNORED_MS = 8; // less than the reading's own error
const MOST_MS = 500;

export class LipSync {
  #targetMs = null;

  /** @param {RTCRtpReceiver} picture */
  constructor(picture) {
    this.picture = picture;
  }

  /**
   * Correct once; to be called every second.
   *
   * @param {RTCStatsReport} report
   */
  correct(report) {
    const inbound = [...report.values()].filter((s) => s.type === "inbound-rtp");
    const [sound, picture] = ["audio", "video"].map((kind) => inbound.find((s) => s.kind === kind));
    const aheadMs = picture?.estimatedPlayoutTimestamp - sound?.estimatedPlayoutTimestamp;
    if (!Number.isFinite(aheadMs) || Math.abs(aheadMs) < IGNORED_MS) return;
    // Begin at what the browser holds now: a target below that would change nothing for seconds.
    this.#targetMs ??= (picture.jitterBufferDelay / picture.jitterBufferEmittedCount) * 1000 || 0;
    this.#targetMs = Math.min(MOST_MS, Math.max(0, this.#targetMs + GAIN * aheadMs));
    this.picture.jitterBufferTarget = this.#targetMs;
  }
}
