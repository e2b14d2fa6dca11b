// Records what the page's <video id="video"> receives: every frame as JPEG, and the sound, on one clock.
//
// Frames and sound are read with MediaStreamTrackProcessor, which gives all of them, not only those that
// the compositor happened to show. Times are performance.now() in ms:
// - a frame's is when it is shown. requestVideoFrameCallback says so for the frames that it sees; as
//   frames carry their RTP time, the median difference between the two places all of them, free of jitter.
// - a sound block's is when the browser pulled it for playing, plus `playDelay`, the device's own delay.
// The sound is recorded twice: as it is, and after a DelayNode of `controlDelayS`, a known artificial offset
// by which the test proves that its measure sees offsets.
async ({ seconds, controlDelayS }) => {
  const video = document.getElementById("video");
  const stream = video.srcObject;
  const [picture] = stream.getVideoTracks();
  const [sound] = stream.getAudioTracks();
  const context = new AudioContext();
  await context.resume();
  const delayed = delaySound(context, sound, controlDelayS);
  const stopAt = performance.now() + seconds * 1000;

  const counts = [await countFrames()];
  const shown = []; // [RTP time in ms, display time in ms]
  const watch = (_now, meta) => {
    shown.push([meta.rtpTimestamp / 90, meta.expectedDisplayTime]);
    if (performance.now() < stopAt) video.requestVideoFrameCallback(watch);
  };
  video.requestVideoFrameCallback(watch);

  const [frames, heard, heardLate] = await Promise.all([
    recordPicture(picture),
    recordSound(sound),
    recordSound(delayed),
  ]);
  counts.push(await countFrames());
  const playDelayMs = context.outputLatency * 1000;
  await context.close();
  return { counts, frames, shown, heard, heardLate, playDelayMs };

  async function countFrames() {
    const report = [...(await window.peers.at(-1).getStats()).values()];
    const { framesReceived, timestamp } = report.find((s) => s.type === "inbound-rtp" && s.kind === "video");
    return { frames: framesReceived, atMs: timestamp };
  }

  function delaySound(context, track, delayS) {
    const delay = context.createDelay(1);
    delay.delayTime.value = delayS;
    const out = context.createMediaStreamDestination();
    context.createMediaStreamSource(new MediaStream([track])).connect(delay).connect(out);
    return out.stream.getAudioTracks()[0];
  }

  async function readUntilEnd(track, take) {
    const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 500 }).readable.getReader();
    while (performance.now() < stopAt) {
      const { value, done } = await reader.read();
      if (done) break;
      take(value);
      value.close();
    }
    await reader.cancel();
  }

  async function recordPicture(track) {
    const frames = [];
    await readUntilEnd(track, (frame) => {
      const canvas = new OffscreenCanvas(frame.displayWidth, frame.displayHeight);
      canvas.getContext("2d").drawImage(frame, 0, 0);
      const jpeg = canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 }).then(toBase64);
      frames.push({ rtpMs: frame.metadata().rtpTimestamp / 90, jpeg });
    });
    return Promise.all(frames.map(async (frame) => ({ ...frame, jpeg: await frame.jpeg })));
  }

  /** Blocks of mono sound at the rate of the track: {atMs, rateHz, pcm: base64 of int16}. */
  async function recordSound(track) {
    const blocks = [];
    await readUntilEnd(track, (block) => {
      const samples = new Float32Array(block.numberOfFrames);
      block.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      blocks.push({ atMs: block.timestamp / 1000, rateHz: block.sampleRate, samples });
    });
    return Promise.all(
      blocks.map(async ({ atMs, rateHz, samples }) => {
        const pcm = Int16Array.from(samples, (x) => Math.max(-1, Math.min(1, x)) * 32767);
        return { atMs, rateHz, pcm: await toBase64(new Blob([pcm])) };
      }),
    );
  }

  async function toBase64(blob) {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text);
  }
}
