"""The same words from another throat, room or line, in time with the original to a few milliseconds."""

from __future__ import annotations

import io

import av
import numpy as np
from scipy.signal import fftconvolve

from tools.training.phones import SAMPLE_RATE_HZ

OPUS_RATES = (16_000, 24_000, 32_000, 64_000)  # bit/s


def shift_pitch(sound: np.ndarray, factor: float) -> np.ndarray:
    """Raise pitch and formants by ``factor`` (0.5 to 2) and keep the tempo: float32 [samples] -> [samples]."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(format="fltp", sample_rate=SAMPLE_RATE_HZ, layout="mono", time_base=None)
    steps = [
        source,
        graph.add("asetrate", str(round(SAMPLE_RATE_HZ * factor))),
        graph.add("aresample", str(SAMPLE_RATE_HZ)),
        graph.add("atempo", f"{1 / factor:.6f}"),
        graph.add("abuffersink"),
    ]
    graph.link_nodes(*steps).configure()
    shifted = _fit(_run(graph, np.pad(sound, (0, SAMPLE_RATE_HZ // 4))), len(sound))
    late = _lateness(shifted, sound)  # the tempo filter begins in the middle of a segment of its own
    return _fit(shifted[late:], len(sound)) if late >= 0 else _fit(np.pad(shifted, (-late, 0)), len(sound))


def _run(graph: av.filter.Graph, sound: np.ndarray) -> np.ndarray:
    frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), format="fltp", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    graph.push(frame)
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray().reshape(-1))
        except (av.error.BlockingIOError, av.error.EOFError):
            return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def through_opus(sound: np.ndarray, bit_rate: int) -> np.ndarray:
    """Through the codec that calls use, at ``bit_rate`` bit/s: float32 [samples] -> [samples]."""
    file = io.BytesIO()
    with av.open(file, "w", format="ogg") as out:
        stream = out.add_stream("libopus", rate=SAMPLE_RATE_HZ)
        stream.bit_rate = bit_rate
        stream.layout = "mono"
        resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE_HZ, frame_size=320)
        whole = (np.clip(sound, -1, 1) * 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(np.pad(whole, ((0, 0), (0, 1600))), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        for part in resampler.resample(frame) + resampler.resample(None):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
        parts = [f.to_ndarray().reshape(-1) for raw in container.decode(audio=0) for f in resampler.resample(raw)]
        parts += [f.to_ndarray().reshape(-1) for f in resampler.resample(None)]
    return _fit(np.concatenate(parts), len(sound))


def in_a_room(sound: np.ndarray, rng: np.random.Generator, recorded: list[np.ndarray]) -> np.ndarray:
    """Reverberate: a recorded impulse response, or exponentially decaying noise of 0.1 to 0.6 s, direct sound first."""
    if recorded and rng.random() < 0.3:
        response = recorded[rng.integers(len(recorded))]
        response = response[int(np.abs(response).argmax()) :]
    else:
        length = int(rng.uniform(0.1, 0.6) * SAMPLE_RATE_HZ)
        decay = np.exp(-np.arange(length) / length * 6.9)
        response = rng.standard_normal(length) * decay * rng.uniform(0.02, 0.15)
        response[: int(rng.uniform(0.001, 0.01) * SAMPLE_RATE_HZ)] = 0
        response[0] = 1
    wet = fftconvolve(sound, response.astype(np.float32))[: len(sound)]
    return (wet * (np.abs(sound).max() + 1e-6) / (np.abs(wet).max() + 1e-6)).astype(np.float32)


def vary(sound: np.ndarray, rng: np.random.Generator, rooms: list[np.ndarray]) -> np.ndarray:
    """One random variant: another throat most of the time, a room and a line now and then."""
    if rng.random() < 0.75:
        sound = shift_pitch(sound, float(np.exp(rng.uniform(np.log(0.72), np.log(1.45)))))
    if rng.random() < 0.25:
        sound = in_a_room(sound, rng, rooms)
    if rng.random() < 0.3:
        sound = through_opus(sound, int(rng.choice(OPUS_RATES)))
    return sound


def _lateness(sound: np.ndarray, reference: np.ndarray, hop: int = 80, reach: int = 8) -> int:
    """By how many samples the loudness of ``sound`` follows that of ``reference``, within ``reach`` hops."""
    loudness = []
    for one in (sound, reference):
        blocks = one[: len(one) // hop * hop].reshape(-1, hop)
        level = np.log(np.sqrt((blocks**2).mean(1)) + 1e-3)
        loudness.append(level - level.mean())
    late, true = loudness
    inner = true[reach:-reach]
    match = [float(late[reach + lag : len(late) - reach + lag] @ inner) for lag in range(-reach, reach + 1)]
    return (int(np.argmax(match)) - reach) * hop


def _fit(sound: np.ndarray, length: int) -> np.ndarray:
    return np.pad(sound[:length], (0, max(0, length - len(sound)))).astype(np.float32)
