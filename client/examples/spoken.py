"""Speech for the examples, without a key: espeak-ng reads a sentence, or a WAV file is taken."""

from __future__ import annotations

import io
import shutil
import subprocess
import wave
from pathlib import Path

import numpy as np


def read_wav(data: bytes) -> tuple[bytes, int]:
    """16-bit mono samples of a WAV file, and their rate; of several channels, the first."""
    with wave.open(io.BytesIO(data)) as file:
        if file.getsampwidth() != 2:
            raise SystemExit(f"the WAV file has {8 * file.getsampwidth()} bits a sample: convert it to 16")
        samples = np.frombuffer(file.readframes(1 << 30), "<i2").reshape(-1, file.getnchannels())
        return samples[:, 0].tobytes(), file.getframerate()


def speech_of(text: str, wav: Path | None) -> tuple[bytes, int]:
    """16-bit mono samples, and their rate."""
    if wav is not None:
        return read_wav(wav.read_bytes())
    if shutil.which("espeak-ng") is None:
        raise SystemExit("espeak-ng is not installed: install its package, or give --wav FILE")
    spoken = subprocess.run(["espeak-ng", "--stdout", text], check=True, capture_output=True).stdout
    # To a pipe espeak-ng writes a header that does not know the length.
    at = spoken.index(b"data") + 8
    return spoken[at : at + (len(spoken) - at) // 2 * 2], int.from_bytes(spoken[24:28], "little")
