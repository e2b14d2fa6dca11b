"""Sound devices through PortAudio (sounddevice): list, choose, capture, play."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import av
import numpy as np

from client.errors import SoundUnavailable
from client.player import Player
from client.speech import SOUND_RATE_HZ, CapturedSpeech

BLOCK_S = 0.02
LATENCY_S = 0.06  # asked of the driver: three blocks; "low" makes PulseAudio's ALSA plug-in run dry
MAX_LATENCY_S = 1.0  # what a driver claims beyond this is nonsense
DEFAULT = "default"


@dataclass(frozen=True, kw_only=True)
class SoundDevice:
    """One of PortAudio's devices."""

    index: int
    name: str
    host: str  # the interface it is reached by: ALSA, Core Audio, MME, WASAPI ...
    inputs: int  # channels
    outputs: int
    rate_hz: float  # its own
    is_default_host: bool = True

    def __str__(self) -> str:
        return f"{self.index}: {self.name!r} ({self.host}; {self.inputs} in, {self.outputs} out)"


def choose_device(devices: list[SoundDevice], wanted: str, kind: str) -> SoundDevice:
    """The device that ``wanted`` means: an index, a name, or a part of one name.

    Args:
        devices: all there are.
        wanted: as typed.
        kind: "input" or "output".

    Raises:
        SoundUnavailable: none or several are meant; lists what there is.
    """
    able = [d for d in devices if (d.inputs if kind == "input" else d.outputs) > 0]
    shown = "; ".join(map(str, able)) or "none"
    if wanted.isdecimal():
        found = [d for d in able if d.index == int(wanted)]
    else:
        found = [d for d in able if wanted.lower() in d.name.lower()]
        exact = [d for d in found if d.name.lower() == wanted.lower()]
        found = exact or found
        if len(found) > 1:  # Windows shows each device once per interface
            found = [d for d in found if d.is_default_host] or found
    if not found:
        raise SoundUnavailable(f"no {kind} device is called {wanted!r}. There are: {shown}")
    if len(found) > 1:
        raise SoundUnavailable(
            f"{len(found)} {kind} devices are called {wanted!r}: give the index of one. " + "; ".join(map(str, found))
        )
    return found[0]


def list_devices() -> list[SoundDevice]:
    """All of PortAudio's devices.

    Raises:
        SoundUnavailable: there is no PortAudio.
    """
    sd = load_portaudio()
    hosts = sd.query_hostapis()
    usual = max((sd.default.hostapi, 0))
    return [
        SoundDevice(
            index=index,
            name=entry["name"],
            host=hosts[entry["hostapi"]]["name"],
            inputs=entry["max_input_channels"],
            outputs=entry["max_output_channels"],
            rate_hz=entry["default_samplerate"],
            is_default_host=entry["hostapi"] == usual,
        )
        for index, entry in enumerate(sd.query_devices())
    ]


def find_device(wanted: str, kind: str) -> SoundDevice:
    """``choose_device`` among those of this machine; DEFAULT means the system's.

    Raises:
        SoundUnavailable: no PortAudio, no device, or not exactly one of that name.
    """
    devices = list_devices()
    if wanted != DEFAULT:
        return choose_device(devices, wanted, kind)
    index = load_portaudio().default.device[0 if kind == "input" else 1]
    found = [d for d in devices if d.index == index]
    if not found:
        what = "microphone" if kind == "input" else "sound output"
        raise SoundUnavailable(f"this machine has no {what}{NO_DEVICE_FIX[kind]}")
    return found[0]


NO_DEVICE_FIX = {
    "input": ": connect one, allow this program to use it, or speak from a file with --wav FILE",
    "output": ": connect one, or leave --output out",
}


class Capture:
    """A device's sound into ``speech``, from ``open`` to ``close``.

    Args:
        device: with an input.
        speech: filled on the event loop that runs now.
    """

    def __init__(self, device: SoundDevice, speech: CapturedSpeech) -> None:
        self._device, self._speech = device, speech
        self._loop = asyncio.get_running_loop()
        rate_hz = _usable_rate("input", device, 1)
        self._rate_hz = rate_hz
        self._resampler = None if rate_hz == SOUND_RATE_HZ else av.AudioResampler("s16", "mono", SOUND_RATE_HZ)
        self._stream = _open(
            "InputStream",
            device,
            rate_hz,
            channels=1,
            dtype="int16",
            callback=self._hear,
        )

    def close(self) -> None:
        self._stream.close()

    def _hear(self, block: np.ndarray, _frames: int, _time: Any, _status: Any) -> None:
        """On PortAudio's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._take, block[:, 0].copy())

    def _take(self, samples: np.ndarray) -> None:
        if self._resampler is None:
            self._speech.put(samples)
            return
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
        frame.sample_rate = int(self._rate_hz)
        for made in self._resampler.resample(frame):
            self._speech.put(made.to_ndarray()[0])


class Playback:
    """A player's sound out of a device, from now to ``close``.

    Args:
        device: with an output.
        player: asked on PortAudio's thread.
    """

    def __init__(self, device: SoundDevice, player: Player) -> None:
        self._player = player
        channels = min(2, device.outputs)
        self._rate_hz = _usable_rate("output", device, channels)
        self._latency_s = 0.0
        self._stream = _open(
            "OutputStream", device, self._rate_hz, channels=channels, dtype="float32", callback=self._speak
        )
        self._latency_s = float(self._stream.latency)

    @property
    def latency_s(self) -> float:
        """From asking for sound to hearing it, as the driver says."""
        return self._latency_s

    def close(self) -> None:
        self._stream.close()

    def _speak(self, out: np.ndarray, frames: int, times: Any, _status: Any) -> None:
        """On PortAudio's thread."""
        ahead_s = times.outputBufferDacTime - times.currentTime
        if not 0 < ahead_s < MAX_LATENCY_S:  # some drivers say nothing
            ahead_s = self._latency_s
        out[:] = self._player.pull(frames, time.monotonic() + ahead_s, self._rate_hz)[:, np.newaxis]


def load_portaudio() -> ModuleType:
    """The module ``sounddevice`` with its library.

    Raises:
        SoundUnavailable: one of both is missing; says how to install it here.
    """
    try:
        import sounddevice
    except ImportError as error:
        raise SoundUnavailable(
            "sound devices need the package sounddevice, which is not installed: pip install '.[client]' "
            "in Visavis's folder, or pip install sounddevice. Without it, --wav FILE speaks from a file"
        ) from error
    except OSError as error:  # its PortAudio is missing
        raise SoundUnavailable(
            f"sound devices need the PortAudio library ({error}). {portaudio_fix(sys.platform)}. "
            "Without it, --wav FILE speaks from a file"
        ) from error
    return sounddevice


def portaudio_fix(platform: str) -> str:
    """How to get PortAudio on ``sys.platform``."""
    if platform.startswith("linux"):
        return (
            "Debian and Ubuntu: sudo apt install libportaudio2. Fedora: sudo dnf install portaudio. "
            "Arch: sudo pacman -S portaudio"
        )
    if platform == "darwin":
        return "macOS: pip install --force-reinstall sounddevice (it brings PortAudio along), or brew install portaudio"
    return "Windows: pip install --force-reinstall sounddevice (it brings PortAudio along)"


def _usable_rate(kind: str, device: SoundDevice, channels: int) -> float:
    """48 kHz where the device takes it, else its own rate."""
    sd = load_portaudio()
    check = sd.check_input_settings if kind == "input" else sd.check_output_settings
    try:
        check(device=device.index, channels=channels, samplerate=SOUND_RATE_HZ)
        return SOUND_RATE_HZ
    except sd.PortAudioError:
        return device.rate_hz


def _open(stream: str, device: SoundDevice, rate_hz: float, **settings: Any) -> Any:
    sd = load_portaudio()
    try:
        opened = getattr(sd, stream)(
            device=device.index,
            samplerate=rate_hz,
            blocksize=int(rate_hz * BLOCK_S),
            latency=LATENCY_S,
            **settings,
        )
        opened.start()
    except sd.PortAudioError as error:
        raise SoundUnavailable(
            f"the sound device {device.name!r} cannot be opened ({error}): see whether another program holds it, "
            "whether this one may use it, and choose another with --list-devices"
        ) from error
    return opened
