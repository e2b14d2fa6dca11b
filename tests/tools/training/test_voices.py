"""Phones in time, variants of sounds, sounds without speech, and the lips that a phone is taught."""

import subprocess
import sys

import numpy as np
import pytest

from engine.s3dnerf.lip_motion import LipMotion
from tools.training.clips import Clip
from tools.training.not_speech import MAKERS, NoiseBank
from tools.training.phones import CLASSES, PHONE_CLASS, Synthesiser, VoicesUnavailable, read_ipa
from tools.training.variants import OPUS_RATES, in_a_room, shift_pitch, through_opus, vary
from tools.training.voices import LANGUAGES, VARIANTS, LipTeacher, grid_words

RATE = 16_000


@pytest.fixture(scope="module")
def synthesiser():
    try:
        return Synthesiser()
    except VoicesUnavailable as error:
        pytest.skip(str(error))


def words_of_sound(seed: int = 0) -> np.ndarray:
    """Two seconds of buzzes with pauses between them, as timing needs."""
    rng = np.random.default_rng(seed)
    time = np.arange(2 * RATE) / RATE
    buzz = sum(np.sin(2 * np.pi * 120 * n * time) / n for n in range(1, 20))
    loud = np.repeat(rng.random(20) < 0.5, RATE // 10)
    loud[:1600] = True
    return (0.1 * buzz * np.convolve(loud, np.ones(200) / 200, "same")).astype(np.float32)


def lateness_ms(sound: np.ndarray, reference: np.ndarray) -> float:
    loudness = [np.log(np.sqrt((x.reshape(-1, 40) ** 2).mean(1)) + 1e-3) for x in (sound, reference)]
    late, true = (x - x.mean() for x in loudness)
    lags = range(-40, 41)
    return 2.5 * lags[int(np.argmax([late[50 + lag : len(late) - 50 + lag] @ true[50:-50] for lag in lags]))]


def peak_hz(sound: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(np.argmax(spectrum) * RATE / len(sound))


def test_ipa_is_read_letter_by_letter_and_marks_are_not():
    assert [CLASSES[c][0] for c in read_ipa("tʃ")] == ["t", "ʃ"]
    assert read_ipa("uː") == [PHONE_CLASS["u"]] and read_ipa("ˈ") == [] == read_ipa("")
    assert read_ipa("ɕ") == read_ipa("ʃ")


def test_a_grid_name_spells_its_sentence():
    assert grid_words("bbaf2n") == ["bin", "blue", "at", "f", "two", "now"]
    assert grid_words("pwizzs") == ["place", "white", "in", "zed", "zero", "soon"]


def test_the_synthesiser_says_which_phone_is_said_when(synthesiser):
    said = synthesiser.say("pea", "en")
    assert [CLASSES[c][0] for c in said.phones] == ["p", "i"]
    assert (said.spans[:, 1] > said.spans[:, 0]).all() and said.spans[-1, 1] <= len(said.sound) / RATE + 0.01
    level = np.sqrt((said.sound[int(said.spans[1, 0] * RATE) :][:1600] ** 2).mean())
    assert level > 0.02, "the vowel must be heard where its span says"
    with pytest.raises(VoicesUnavailable, match="no voice 'klingonish'"):
        synthesiser.say("a", "klingonish")


def test_every_voice_that_training_draws_from_is_there(synthesiser):
    for language in LANGUAGES:
        assert len(synthesiser.say("12", language).phones) >= 2, language
    for variant in VARIANTS:
        said = synthesiser.say("hello there", f"en-us+{variant}")
        assert np.abs(said.sound).max() > 0.05, variant


SAY = """
import hashlib
from tools.training.phones import Synthesiser
from tools.training.voices import synthetic_speech
for one in synthetic_speech(Synthesiser(), 0.1, seed=3):
    print(len(one.sound), one.phones.tolist(), hashlib.sha1(one.sound.tobytes()).hexdigest())
"""


def test_synthetic_speech_can_be_repeated_from_a_fresh_start(synthesiser):
    """The library's own state runs on from sentence to sentence, so a repeat begins with its process."""
    one, two = (
        subprocess.run([sys.executable, "-c", SAY], capture_output=True, text=True, check=True).stdout for _ in range(2)
    )
    assert one == two and sum(int(line.split()[0]) for line in one.splitlines()) >= 6 * RATE


@pytest.mark.parametrize("factor", [0.75, 0.9, 1.2, 1.4])
def test_a_shifted_pitch_keeps_the_time(factor):
    sound = words_of_sound()
    shifted = shift_pitch(sound, factor)
    assert shifted.shape == sound.shape and shifted.dtype == np.float32
    assert abs(lateness_ms(shifted, sound)) <= 10
    tone = np.sin(2 * np.pi * 400 * np.arange(RATE) / RATE).astype(np.float32)
    assert peak_hz(shift_pitch(tone, factor)) == pytest.approx(400 * factor, rel=0.03)


@pytest.mark.parametrize("bit_rate", [OPUS_RATES[0], OPUS_RATES[-1]])
def test_opus_keeps_the_time_and_changes_the_sound(bit_rate):
    sound = words_of_sound()
    heard = through_opus(sound, bit_rate)
    assert heard.shape == sound.shape and abs(lateness_ms(heard, sound)) <= 5
    assert np.corrcoef(heard, sound)[0, 1] > 0.8
    assert np.abs(heard - sound).max() > 1e-3


def test_a_room_adds_a_tail_and_keeps_the_level():
    sound = np.zeros(RATE, np.float32)
    sound[1000:1100] = 0.5
    wet = in_a_room(sound, np.random.default_rng(0), [])
    assert np.abs(wet).max() == pytest.approx(0.5, rel=1e-3)
    assert np.abs(wet[:1000]).max() < 1e-3 and np.abs(wet[2000:4000]).max() > 1e-4
    recorded = np.zeros(800, np.float32)
    recorded[[100, 500]] = 1, 0.5  # an echo 25 ms behind the direct sound
    echoes = [in_a_room(sound, np.random.default_rng(seed), [recorded]) for seed in range(12)]
    assert any(np.abs(echo[1400:1500]).max() > 0.2 and np.abs(echo[1200:1390]).max() < 1e-3 for echo in echoes)


def test_variants_differ_and_can_be_repeated():
    sound = words_of_sound()
    one, two = (vary(sound, np.random.default_rng(1), []) for _ in range(2))
    other = vary(sound, np.random.default_rng(2), [])
    assert (one == two).all() and np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("maker", [maker for maker, _ in MAKERS], ids=lambda maker: maker.__name__)
def test_every_kind_of_other_sound_can_be_heard(maker):
    for seed in range(3):
        row = maker(RATE, np.random.default_rng(seed))
        assert row.shape == (RATE,) and np.isfinite(row).all() and row.std() > 1e-4


def test_noise_is_drawn_at_unit_power():
    bank = NoiseBank(12, 8000, [np.sin(np.arange(20_000) / 9).astype(np.float32)], np.random.default_rng(0))
    drawn = bank.draw(50, np.random.default_rng(1))
    assert drawn.shape == (50, 8000)
    assert 0.3 < drawn.pow(2).mean().sqrt() < 3


def test_the_teacher_learns_which_phones_open_the_lips(synthesiser):
    """Clips whose lips open with the vowel of the second word: the teacher opens them for it at another time too."""
    names = [f"b{colour}a{letter}2n" for colour in "bgrw" for letter in "fgo"]
    rng = np.random.default_rng(0)
    motion = LipMotion(
        basis=np.eye(8, 80, dtype=np.float32),
        scale=np.ones(8, np.float32),
        guess=np.zeros((9, 8), np.float32),
        gap_mean=np.zeros(9, np.float32),
    )

    class Told(LipMotion):
        def codes(self, landmarks):
            return landmarks

    clips = []
    for name in names:
        at = 0.4 + 0.3 * rng.random()
        times = np.array([[at + 0.3 * i, at + 0.3 * i + 0.28] for i in range(6)], np.float32)
        frame = np.arange(75) / 25
        codes = np.zeros((75, 8), np.float32)
        codes[:, 0] = (frame >= times[4, 0]) & (frame <= times[4, 1])  # open during "two"
        clips.append(
            Clip(
                name=name,
                data=np.zeros(0, np.uint8),
                offsets=np.zeros(76),
                landmarks=codes,
                sound=np.zeros(3 * RATE, np.float32),
                speech=times,
            )
        )
    told = Told(**vars(motion))
    teacher = LipTeacher(clips, told, synthesiser, ridge=1.0)
    phones = np.array([PHONE_CLASS["t"], PHONE_CLASS["u"]])
    codes = teacher.codes(phones, np.array([[1.0, 1.08], [1.08, 1.28]], np.float32), 75)
    assert codes[26:31, 0].mean() > codes[:15, 0].mean() + 0.3
    with pytest.raises(ValueError, match="times of its words"):
        LipTeacher([Clip(**(vars(clips[0]) | {"speech": None}))], told, synthesiser)
