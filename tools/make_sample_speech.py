"""Make ``engine/assets/sample_speech.wav``: two spoken sentences with silence around and between.

Synthesised with espeak-ng, so that nobody's voice is in it. The silences are there to show that a
silent avatar's mouth stays shut.

    python -m tools.make_sample_speech --out engine/assets/sample_speech.wav
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np

SAMPLE_RATE_HZ = 16_000
SENTENCES = (
    "Hello, and nice to meet you.",
    "Give me your voice, and this picture will say your words.",
)
SILENCE_S = 1.1  # before, between and after the sentences
LEVEL = 0.7  # highest sample
VOICE = ("-v", "en-gb+f3", "-s", "165", "-p", "42")


def speak(sentence: str) -> np.ndarray:
    """A sentence as float32 [n] in [-1, 1] at 16 kHz, without the silence around it."""
    run = subprocess.run(["espeak-ng", *VOICE, "--stdout", sentence], capture_output=True, check=True)
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    with av.open(io.BytesIO(run.stdout), "r") as file:
        frames = [out for frame in file.decode(audio=0) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    sound = np.concatenate([frame.to_ndarray().ravel() for frame in frames])
    loud = np.flatnonzero(np.abs(sound) > 0.003)
    return sound[loud[0] : loud[-1] + 1]


def compose() -> np.ndarray:
    """The whole sample, int16 [n] at 16 kHz."""
    silence = np.zeros(int(SILENCE_S * SAMPLE_RATE_HZ), np.float32)
    parts = [silence]
    for sentence in SENTENCES:
        parts += [speak(sentence), silence]
    sound = np.concatenate(parts)
    return np.round(sound * (LEVEL * 32767 / np.abs(sound).max())).astype("<i2")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the wav file to write")
    options = parser.parse_args(argv)
    if shutil.which("espeak-ng") is None:
        print("espeak-ng is missing; install it (Debian, Ubuntu: apt-get install espeak-ng)", file=sys.stderr)
        return 1
    samples = compose()
    with wave.open(str(options.out), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE_HZ)
        file.writeframes(samples.tobytes())
    print(f"{options.out}: {len(samples) / SAMPLE_RATE_HZ:.2f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
