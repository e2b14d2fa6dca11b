"""Choosing among devices, and PortAudio as it really is on this machine: there or not."""

import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.errors import SoundUnavailable
from client.sound_device import SoundDevice, choose_device, load_portaudio, portaudio_fix

ROOT = Path(__file__).parents[2]
PORTAUDIO = ctypes.util.find_library("portaudio")


def device(index: int, name: str, inputs: int = 0, outputs: int = 0, *, usual: bool = True) -> SoundDevice:
    return SoundDevice(
        index=index,
        name=name,
        host="ALSA" if usual else "OSS",
        inputs=inputs,
        outputs=outputs,
        rate_hz=48_000,
        is_default_host=usual,
    )


DEVICES = [
    device(0, "USB Headset", 1, 2),
    device(1, "Webcam Microphone", 1),
    device(2, "USB", 2, 2),
    device(3, "CABLE Input", 0, 2),
    device(4, "CABLE Input", 0, 2, usual=False),
]


@pytest.mark.parametrize(
    ("wanted", "kind", "index"),
    [("webcam", "input", 1), ("0", "input", 0), ("usb", "input", 2), ("cable", "output", 3), ("HEADSET", "output", 0)],
)
def test_a_device_is_meant_by_its_index_or_part_of_its_name(wanted, kind, index):
    assert choose_device(DEVICES, wanted, kind).index == index


@pytest.mark.parametrize(
    ("wanted", "kind"), [("webcam", "output"), ("3", "input"), ("99", "input"), ("drum", "output")]
)
def test_a_device_that_is_not_there_is_refused_with_those_that_are(wanted, kind):
    with pytest.raises(SoundUnavailable, match="USB Headset") as caught:
        choose_device(DEVICES, wanted, kind)
    assert repr(wanted) in str(caught.value)


def test_a_name_of_several_devices_is_refused_with_their_indices():
    with pytest.raises(SoundUnavailable, match="0: 'USB Headset'.*2: 'USB Mixer'"):
        choose_device([DEVICES[0], device(2, "USB Mixer", 1)], "usb", "input")


def test_every_system_has_advice_of_its_own():
    assert "apt install libportaudio2" in portaudio_fix("linux") and "dnf install portaudio" in portaudio_fix("linux")
    assert "pip install" in portaudio_fix("darwin") and "pip install" in portaudio_fix("win32")


def test_a_missing_package_is_told_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(SoundUnavailable, match=r"pip install '\.\[client\]'.*--wav FILE"):
        load_portaudio()


def list_devices(tmp_path: Path, alsa: str = "") -> subprocess.CompletedProcess[str]:
    """``visavis live --list-devices`` on a machine whose sound is what ``alsa`` configures."""
    (tmp_path / "asound.conf").write_text(alsa)
    environment = {**os.environ, "ALSA_CONFIG_PATH": str(tmp_path / "asound.conf")}
    command = [sys.executable, "-m", "tools.cli", "live", "--list-devices"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(PORTAUDIO is not None or sys.platform != "linux", reason="PortAudio is installed here")
def test_a_missing_portaudio_is_told_in_one_line_with_the_way_to_install_it(tmp_path):
    done = list_devices(tmp_path)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert "PortAudio library" in done.stderr and "apt install libportaudio2" in done.stderr


@pytest.mark.skipif(PORTAUDIO is None or sys.platform != "linux", reason="PortAudio is not installed here")
def test_devices_are_listed(tmp_path):
    done = list_devices(
        tmp_path, '</usr/share/alsa/alsa.conf>\npcm.quiet { type null\n hint { show on\n description "Nothing" } }\n'
    )
    assert done.returncode == 0, done.stderr
    assert "'quiet' (ALSA" in done.stdout
