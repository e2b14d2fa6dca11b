// Runs in the page before its own scripts: notes when the microphone's sound, the received sound and the
// received pictures are there, in performance.now() (ms). Read and emptied by visavisMeasure.take().
//
// - Sound is noted as loudness (root mean square) of blocks of 2.5 ms. Microphone: a piece (10 ms) is timed by when
//   the device handed it over, so its last sample was heard then. Received sound: by when it was pulled to be played.
// - Of a picture that is shown, the mouth is kept, in grey, as a canvas sees it.
// - The browser's echo cancellation, noise suppression and gain control are switched off: they would change the bursts.
(() => {
  const BLOCK_S = 0.0025;
  const KEPT = 12_000; // of each list: two minutes of sound; what nobody takes is dropped, the oldest first
  const lists = { microphone: [], sound: [], frames: [] };
  let outputLatencyMs = 0;

  const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (constraints) => {
    const off = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const audio = { ...(constraints.audio === true ? {} : constraints.audio), ...off };
    const stream = await open({ ...constraints, audio });
    follow(stream.getAudioTracks()[0].clone(), (piece) => {
      keep(lists.microphone, { ...piece, firstMs: piece.firstMs - piece.spanMs });
    });
    return stream;
  };

  function keep(list, entry) {
    list.push(entry);
    if (list.length > KEPT) list.shift();
  }

  /** Pieces of a track as they come: {firstMs, blockMs, spanMs, rms}. */
  async function follow(track, take) {
    const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 500 }).readable.getReader();
    let rest = new Float32Array(0); // a piece need not hold whole blocks
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const samples = new Float32Array(rest.length + value.numberOfFrames);
      samples.set(rest);
      value.copyTo(samples.subarray(rest.length), { planeIndex: 0, format: "f32-planar" });
      const size = Math.round(value.sampleRate * BLOCK_S);
      const blocks = Math.floor(samples.length / size);
      const perMs = value.sampleRate / 1000;
      take({
        firstMs: value.timestamp / 1000 - rest.length / perMs,
        blockMs: size / perMs,
        spanMs: value.numberOfFrames / perMs,
        rms: Array.from({ length: blocks }, (_, i) => loudness(samples.subarray(i * size, (i + 1) * size))),
      });
      rest = samples.slice(blocks * size);
      value.close();
    }
  }

  function loudness(samples) {
    return Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
  }

  function watch(video, mouth) {
    const { left, top, width, height } = mouth;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const note = (_now, meta) => {
      video.requestVideoFrameCallback(note);
      context.drawImage(video, left, top, width, height, 0, 0, width, height);
      keep(lists.frames, {
        shownMs: meta.expectedDisplayTime,
        arrivedMs: meta.receiveTime ?? meta.expectedDisplayTime,
        ticks: meta.rtpTimestamp,
        mouth: btoa(grey(context.getImageData(0, 0, width, height).data)),
      });
    };
    video.requestVideoFrameCallback(note);
  }

  function grey(pixels) {
    let text = "";
    for (let i = 0; i < pixels.length; i += 4) {
      text += String.fromCharCode(Math.floor((pixels[i] + pixels[i + 1] + pixels[i + 2]) / 3));
    }
    return text;
  }

  window.visavisMeasure = {
    /** Begin with a <video> that plays; `mouth` {left, top, width, height} is the part to keep, in its pixels. */
    async start(video, mouth) {
      watch(video, mouth);
      follow(video.srcObject.getAudioTracks()[0].clone(), (piece) => keep(lists.sound, piece));
      const context = new AudioContext();
      await context.resume();
      outputLatencyMs = context.outputLatency * 1000;
      await context.close();
    },
    take() {
      const taken = { outputLatencyMs };
      for (const name of Object.keys(lists)) taken[name] = lists[name].splice(0);
      return taken;
    },
  };
})();
