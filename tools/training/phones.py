"""Phones in time: which speech sound is said when, as broad classes that all languages share."""

from __future__ import annotations

import ctypes
from ctypes import CFUNCTYPE, POINTER, c_char, c_char_p, c_int, c_short, c_uint, c_void_p
from dataclasses import dataclass

import numpy as np
from scipy.signal import resample_poly

SAMPLE_RATE_HZ = 16_000

# One class a line; a class holds the IPA letters that look and sound alike enough for lips.
CLASSES = (
    "p b m|ɱ f|ɸ v|β|ʋ w|ʍ|ɥ θ ð t|ʈ d|ɖ|ɗ n|ɳ|ɲ ŋ|ɴ l|ɫ|ɭ|ʎ|ɬ r|ɹ|ɾ|ʁ|ʀ|ɻ|ɽ s z ʃ|ɕ|ʂ ʒ|ʑ|ʐ k|q ɡ|g|ɢ|ɣ x|χ|ç|h|ɦ|ħ "
    "j|ʝ i|ɨ ɪ|ᵻ e ɛ|æ a ɑ|ɒ ɔ o|ɤ ʊ u|ɯ|ʉ ʌ|ɐ ə|ɘ|ɚ ɜ|ɝ y|ʏ ø|œ|ɵ"
).split()
PHONE_CLASS = {letter: index for index, letters in enumerate(CLASSES) for letter in letters.split("|")}
PHONES = len(CLASSES)


class VoicesUnavailable(Exception):
    """The speech synthesiser cannot be had."""


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """Sound with its phones."""

    sound: np.ndarray  # float32 [samples], 16 kHz
    phones: np.ndarray  # int64 [n], classes
    spans: np.ndarray  # float32 [n, 2], begin and end of each in s


def read_ipa(text: str) -> list[int]:
    """One phoneme in IPA -> its classes: both parts of a diphthong or an affricate, none for marks and pauses."""
    return [PHONE_CLASS[letter] for letter in text if letter in PHONE_CLASS]


class _Id(ctypes.Union):
    _fields_ = [("number", c_int), ("name", c_char_p), ("string", c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", c_int),
        ("uid", c_uint),
        ("text_position", c_int),
        ("length", c_int),
        ("audio_position", c_int),
        ("sample", c_int),
        ("user_data", c_void_p),
        ("id", _Id),
    ]


_HEARD = CFUNCTYPE(c_int, POINTER(c_short), c_int, POINTER(_Event))
_SYNCHRONOUS, _PHONEME_EVENTS_IN_IPA = 2, 3
_END, _PHONEME = 0, 7
_UTF8 = 1
_RATE, _PITCH, _PITCH_RANGE = 1, 3, 4


class Synthesiser:
    """espeak-ng's library; its voices, and when it says which phoneme (one at a time, not thread-safe)."""

    def __init__(self) -> None:
        """Raises VoicesUnavailable where the library is not installed."""
        try:
            self._library = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise VoicesUnavailable(f"libespeak-ng cannot be loaded ({error}); install espeak-ng") from error
        self._rate_hz = self._library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS_IN_IPA)
        if self._rate_hz <= 0:
            raise VoicesUnavailable("espeak-ng finds no voices of its own; install espeak-ng-data")
        self._parts: list[np.ndarray] = []
        self._events: list[tuple[int, str]] = []
        self._callback = _HEARD(self._hear)  # kept, or it would be freed
        self._library.espeak_SetSynthCallback(self._callback)

    def _hear(self, sound, count, events) -> int:  # type: ignore[no-untyped-def]
        if sound and count > 0:
            self._parts.append(np.ctypeslib.as_array(sound, (count,)).copy())
        index = 0
        while events[index].type != _END:
            if events[index].type == _PHONEME:
                self._events.append((events[index].sample, events[index].id.string.decode("utf-8", "ignore")))
            index += 1
        return 0

    def say(self, text: str, voice: str, *, rate: int = 175, pitch: int = 50, liveliness: int = 50) -> Spoken:
        """Say a text.

        Args:
            text: what; other languages than the voice's are read as that language would.
            voice: espeak-ng's name, a variant after a plus sign (``de+f3``).
            rate: words a minute, 80 to 450.
            pitch, liveliness: 0 to 100.

        Raises:
            VoicesUnavailable: there is no such voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise VoicesUnavailable(f"espeak-ng has no voice {voice!r}; see espeak-ng --voices")
        for parameter, value in ((_RATE, rate), (_PITCH, pitch), (_PITCH_RANGE, liveliness)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._parts, self._events = [], []
        data = text.encode("utf-8")
        self._library.espeak_Synth(data, len(data) + 1, 0, 1, 0, _UTF8, None, None)
        self._library.espeak_Synchronize()
        sound = np.concatenate([*self._parts, np.zeros(1, np.int16)]).astype(np.float32) / 32768
        return self._place(sound)

    def _place(self, sound: np.ndarray) -> Spoken:
        phones, spans = [], []
        ends = [sample for sample, _ in self._events[1:]] + [len(sound)]
        for (begin, text), end in zip(self._events, ends, strict=True):
            classes = [] if text.startswith("(") else read_ipa(text)
            edges = np.linspace(begin, end, len(classes) + 1) / self._rate_hz
            phones += classes
            spans += list(zip(edges[:-1], edges[1:], strict=True))
        return Spoken(
            sound=resample_poly(sound, SAMPLE_RATE_HZ, self._rate_hz).astype(np.float32),
            phones=np.array(phones, np.int64),
            spans=np.array(spans, np.float32).reshape(-1, 2),
        )
