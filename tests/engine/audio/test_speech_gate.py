"""The speech gate: what has sounded before weighs beside the instant."""

import numpy as np
import pytest

from engine.audio.speech_gate import SpeechGate

HOP = 640
LOUD, SILENT = np.full(HOP, 0.1, np.float32), np.zeros(HOP, np.float32)


def hear(gate: SpeechGate, logit: float, frames: int, sound: np.ndarray = LOUD, slot: int = 0) -> float:
    return [gate.open(slot, logit, sound) for _ in range(frames)][-1]


def test_speech_out_of_silence_opens_at_once():
    gate = SpeechGate(1)
    hear(gate, -8.0, 100, SILENT)
    assert hear(gate, 4.0, 1) > 0.95


def test_a_moment_like_speech_within_music_stays_shut():
    gate = SpeechGate(1)
    hear(gate, -5.0, 100)
    assert hear(gate, 3.0, 2) < 0.2 < SpeechGate(1).open(0, 3.0, LOUD)


def test_speech_after_music_is_let_in_within_a_second():
    gate = SpeechGate(1)
    hear(gate, -5.0, 100)
    assert hear(gate, 8.0, 25) > 0.95


def test_the_past_never_opens_it():
    gate = SpeechGate(1)
    hear(gate, 9.0, 100)
    assert gate.open(0, -2.0, LOUD) == pytest.approx(1 / (1 + np.exp(2.0)))


def test_streams_are_apart_and_begin_anew():
    gate = SpeechGate(2)
    hear(gate, -5.0, 100, slot=0)
    fresh = SpeechGate(1).open(0, 3.0, LOUD)
    assert gate.open(1, 3.0, LOUD) == fresh
    gate.reset(0)
    assert gate.open(0, 3.0, LOUD) == fresh


def test_what_was_heard_can_be_taken_back():
    gate = SpeechGate(2)
    hear(gate, -5.0, 50)
    kept = gate.copy([0])
    hear(gate, 9.0, 50)
    gate.restore([0], kept)
    other = SpeechGate(2)
    hear(other, -5.0, 50)
    assert gate.open(0, 1.0, LOUD) == other.open(0, 1.0, LOUD)


def test_a_network_without_a_gate_is_always_open():
    assert SpeechGate(1).open(0, float("inf"), LOUD) == 1.0
