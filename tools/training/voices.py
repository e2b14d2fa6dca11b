"""Speech of many voices with lip-motion codes: spoken digits and synthetic speech, taught by one speaker's video.

A ridge regression learns from the clips which lip motion goes with which phones in time; voices without a
video get their codes from it. GRID's words are timed; the phones of a word are laid into its time as the
synthesiser says it.
"""

from __future__ import annotations

import pydoc_data.topics
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from engine.s3dnerf.lip_motion import LipMotion
from tools.training.clips import Clip
from tools.training.phones import PHONE_CLASS, PHONES, SAMPLE_RATE_HZ, Spoken, Synthesiser
from tools.training.utterances import FPS, Utterance
from tools.training.variants import OPUS_RATES, in_a_room, through_opus, vary

GRID_WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {"a": "ay", "z": "zed"},  # other letters are said as they are written
    dict(zip("z123456789", "zero one two three four five six seven eight nine".split(), strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
DIGITS = "zero one two three four five six seven eight nine".split()
LANGUAGES = (
    "en-us en en-gb-scotland en-gb-x-rp de fr es it pt nl sv da nb fi pl cs ru uk el tr hu ro hi bn ta ar fa "
    "cmn ja ko vi id sw"
).split()
VARIANTS = (
    "m1 m2 m3 m4 m5 m6 m7 m8 f1 f2 f3 f4 f5 klatt klatt2 klatt3 klatt4 klatt6 Alex Andy Annie Denis Diogo Gene Hugo "
    "Jacky Lee Marco Mario Michael Mike Storm adam anika antonio belinda benjamin boris caleb david ed edward grandma "
    "grandpa iven john linda max michel norbert paul pedro quincy rob robert shelby steph travis victor zac"
).split()
STANDS_IN = {  # phones that GRID's fifty-one words lack -> their like
    "ŋ": "n",
    "ʒ": "ʃ",
    "ɜ": "ə",
    "y": "u",
    "ø": "u",
    "ɑ": "a",
    "ɒ": "ɔ",
    "o": "ɔ",
    "x": "ə",
    "ð": "θ",
    "ʌ": "a",
    "ɛ": "e",
    "ʊ": "u",
    "ɪ": "i",
}
TRUST = 0.5  # weight of taught codes beside seen ones
STEP_S, REACH = 0.04, 6  # the lip motion of an instant depends on the phones of so many steps before and behind


def grid_words(name: str) -> list[str]:
    """The words of a GRID clip, which its name spells (``bbaf2n``: bin blue at f two now)."""
    return [words.get(letter, letter) for words, letter in zip(GRID_WORDS, name[:6], strict=True)]


@cache
def _say_word(synthesiser: Synthesiser, word: str) -> Spoken:
    return synthesiser.say(word, "en")


def lay_phones(synthesiser: Synthesiser, words: list[str], times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words said at times [words, 2] s -> phone classes [n] and their spans [n, 2] s."""
    phones, spans = [], []
    for word, (begin, end) in zip(words, times, strict=True):
        said = _say_word(synthesiser, word)
        if not len(said.phones):
            continue
        inside = said.spans - said.spans[0, 0]
        phones.append(said.phones)
        spans.append(begin + inside * (end - begin) / inside[-1, 1])
    if not phones:
        return np.zeros(0, np.int64), np.zeros((0, 2), np.float32)
    return np.concatenate(phones), np.concatenate(spans).astype(np.float32)


def _phone_rows(phones: np.ndarray, spans: np.ndarray, times: np.ndarray) -> np.ndarray:
    """What is said about each instant [n] s: float32 [n, (2 REACH + 1) * PHONES]."""
    edges = times[:, None] + (np.arange(-REACH, REACH + 1) - 0.5) * STEP_S  # [n, steps]
    rows = np.zeros((len(times), 2 * REACH + 1, PHONES), np.float32)
    for phone, (begin, end) in zip(phones, spans, strict=True):
        share = np.minimum(edges + STEP_S, end) - np.maximum(edges, begin)
        rows[:, :, phone] += np.clip(share, 0, None) / STEP_S
    return rows.reshape(len(times), -1)


class LipTeacher:
    """Phones in time -> lip-motion codes, as the clips' speaker moves."""

    def __init__(self, clips: list[Clip], motion: LipMotion, synthesiser: Synthesiser, ridge: float = 30.0) -> None:
        rows, wanted = [], []
        for clip in clips:
            words = grid_words(clip.name)
            if clip.speech is None or len(clip.speech) != len(words):
                continue
            phones, spans = lay_phones(synthesiser, words, clip.speech)
            rows.append(_phone_rows(_stand_in(phones), spans, np.arange(len(clip)) / FPS))
            wanted.append(motion.codes(clip.landmarks))
        if not rows:
            raise ValueError("no clip has the times of its words; prepare GRID with its .align files")
        x, y = np.concatenate(rows), np.concatenate(wanted)
        self._mean = y.mean(0)
        x = np.concatenate([x, np.ones((len(x), 1), np.float32)], 1)
        self._weight = np.linalg.solve(x.T @ x + ridge * np.eye(x.shape[1]), x.T @ y).astype(np.float32)

    def codes(self, phones: np.ndarray, spans: np.ndarray, frames: int) -> np.ndarray:
        """float32 [frames, K], 25 a second from 0 s on."""
        rows = _phone_rows(_stand_in(phones), spans, np.arange(frames) / FPS)
        return rows @ self._weight[:-1] + self._weight[-1]


def _stand_in(phones: np.ndarray) -> np.ndarray:
    change = np.arange(PHONES)
    for letter, other in STANDS_IN.items():
        change[PHONE_CLASS[letter]] = PHONE_CLASS[other]
    return change[phones]


def common_words() -> list[str]:
    """English words of two to ten letters out of Python's own help texts."""
    text = " ".join(pydoc_data.topics.topics.values()).lower()
    counts = Counter(re.findall(r"(?<![\w.`])[a-z]{2,10}(?![\w(`])", text))
    return sorted(word for word, count in counts.items() if count >= 3)


def synthetic_speech(synthesiser: Synthesiser, minutes: float, seed: int) -> list[Spoken]:
    """Short sentences in many voices and languages: English words, GRID's own, and numbers."""
    rng = np.random.default_rng(seed)
    words, spoken, length = common_words(), [], 0.0
    while length < minutes * 60:
        language = LANGUAGES[0] if rng.random() < 0.35 else str(rng.choice(LANGUAGES))
        kind = rng.random()
        if kind < 0.25:
            said = [str(rng.choice(list(some.values()))) for some in GRID_WORDS]
            said[3] = str(rng.choice(list("bcdefghijklmnopqrstuvxyz")))
        elif kind < 0.6 and not language.startswith("en"):
            said = [str(rng.integers(0, 10 ** rng.integers(1, 5))) for _ in range(rng.integers(2, 5))]
        else:
            said = [str(word) for word in rng.choice(words, rng.integers(4, 9))]
        one = synthesiser.say(
            " ".join(said),
            f"{language}+{rng.choice(VARIANTS)}",
            rate=int(rng.integers(120, 230)),
            pitch=int(rng.integers(15, 95)),
            liveliness=int(rng.integers(20, 90)),
        )
        if len(one.phones) >= 3:
            spoken.append(one)
            length += len(one.sound) / SAMPLE_RATE_HZ
    return spoken


@dataclass(frozen=True, kw_only=True)
class DigitFile:
    path: Path
    word: str
    speaker: str


def find_digits(folder: Path) -> list[DigitFile]:
    """Files ``DIGIT_SPEAKER_N.wav`` of the Free Spoken Digit Dataset; none where there is no such folder."""
    found = []
    for path in sorted(folder.glob("*.wav")) if folder.exists() else []:
        parts = path.stem.split("_")
        if len(parts) == 3 and parts[0].isdigit():
            found.append(DigitFile(path=path, word=DIGITS[int(parts[0])], speaker=parts[1]))
    return found


def spoken_digits(
    files: list[tuple[DigitFile, np.ndarray]], synthesiser: Synthesiser, pause_s: float = 0.35, in_a_row: int = 5
) -> list[Spoken]:
    """Digits of one speaker behind one another; ``files`` holds each one's sound, float32 16 kHz."""
    by_speaker: dict[str, list[tuple[DigitFile, np.ndarray]]] = {}
    for file, sound in files:
        by_speaker.setdefault(file.speaker, []).append((file, sound))
    spoken = []
    for group in by_speaker.values():
        order = np.random.default_rng(len(group)).permutation(len(group))
        for first in range(0, len(order), in_a_row):
            sounds, times, words, at = [np.zeros(int(pause_s * SAMPLE_RATE_HZ), np.float32)], [], [], pause_s
            for index in order[first : first + in_a_row]:
                file, sound = group[index]
                length = len(sound) / SAMPLE_RATE_HZ
                times.append((at, at + length))
                words.append(file.word)
                sounds += [sound, sounds[0]]
                at += length + pause_s
            phones, spans = lay_phones(synthesiser, words, np.array(times, np.float32))
            spoken.append(Spoken(sound=np.concatenate(sounds), phones=phones, spans=spans))
    return spoken


def gather_utterances(
    clips: list[Clip],
    motion: LipMotion,
    digits: list[tuple[DigitFile, np.ndarray]],
    rooms: list[np.ndarray],
    *,
    variants: int,
    synthetic_minutes: float,
    seed: int,
) -> list[list[Utterance]]:
    """All that stage 1 listens to: the clips with their own lips, synthetic voices and digits with taught ones.

    Args:
        clips: with the times of their words; without them only the clips are gathered.
        motion: basis of the codes.
        digits: recordings of spoken digits.
        rooms: impulse responses, float32 16 kHz.
        variants: of each clip's sound.
        synthetic_minutes: how much synthetic speech.
        seed: of every choice.

    Raises:
        VoicesUnavailable: there is no espeak-ng.
    """
    rng = np.random.default_rng(seed)
    if not synthetic_minutes:
        nothing = (np.zeros(0, np.int64), np.zeros((0, 2), np.float32))
        return [[_from_clip(clip, motion, *nothing, rng, rooms, variants) for clip in clips], [], []]
    synthesiser = Synthesiser()
    teacher = LipTeacher(clips, motion, synthesiser)
    own = []
    for clip in clips:
        timed = clip.speech is not None and len(clip.speech) == len(GRID_WORDS)
        words, times = (grid_words(clip.name), clip.speech) if timed else ([], np.zeros((0, 2), np.float32))
        assert times is not None
        own.append(_from_clip(clip, motion, *lay_phones(synthesiser, words, times), rng, rooms, variants))
    synthetic = [
        _taught(one, teacher, rng, rooms, TRUST) for one in synthetic_speech(synthesiser, synthetic_minutes, seed)
    ]
    spoken = [_taught(one, teacher, rng, rooms, TRUST, variants=1) for one in spoken_digits(digits, synthesiser)]
    return [own, synthetic, spoken]


def _from_clip(
    clip: Clip,
    motion: LipMotion,
    phones: np.ndarray,
    spans: np.ndarray,
    rng: np.random.Generator,
    rooms: list[np.ndarray],
    variants: int,
) -> Utterance:
    sounds = [clip.sound, *(vary(clip.sound, rng, rooms) for _ in range(variants))]
    return Utterance(sounds=sounds, codes=motion.codes(clip.landmarks), phones=phones, spans=spans, trust=1.0)


def _taught(
    one: Spoken, teacher: LipTeacher, rng: np.random.Generator, rooms: list[np.ndarray], trust: float, variants: int = 0
) -> Utterance:
    frames = max(2, len(one.sound) * FPS // SAMPLE_RATE_HZ)
    codes = teacher.codes(one.phones, one.spans, frames).astype(np.float32)
    sound = one.sound
    if not variants and rng.random() < 0.4:
        sound = in_a_room(sound, rng, rooms) if rng.random() < 0.5 else through_opus(sound, int(rng.choice(OPUS_RATES)))
    sounds = [sound, *(vary(one.sound, rng, rooms) for _ in range(variants))]
    return Utterance(sounds=sounds, codes=codes, phones=one.phones, spans=one.spans, trust=trust)
