"""Unseen portraits: does each speak every voice, and keep its mouth still to sounds that are no speech?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.api import Avatar, Engine
from engine.errors import FileError
from engine.landmarks import FaceMesh
from tools import face_figures, lip_figures
from tools.comparison_sheet import Cell, mouth_row, save_portrait_sheet
from tools.files import read_bytes
from tools.sharpness import mean_cpbd, measure_cpbd
from tools.sound_file import read_mono
from tools.speaking import find_landmarks, render_frames

SAMPLE_RATE_HZ = 16_000
PICTURE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp"))
SILENCE = "silence"
SILENCE_S = 2.0  # rendered of each portrait, to know its mouth at rest
SOUND_S = 6.0  # most that is heard of a sound
SLOW_EVERY = 5  # CPBD looks at every 5th frame
MOVES_PX = 0.75  # least standard deviation of a visibly moving mouth: lips about 3 px of 256 apart and together again
MOVES_TIMES = 2.0  # and so many times that of the same portrait in silence
LEADING_QUIET = 0.05  # of the loudest 10 ms; a voice begins where it is first louder
LEAD_S = 0.1  # kept before that


@dataclass(frozen=True, kw_only=True)
class Sound:
    """A voice, or a sound that is none."""

    name: str
    samples: np.ndarray  # float32 [n] 16 kHz

    @property
    def frames(self) -> int:
        return len(self.samples) * 25 // SAMPLE_RATE_HZ


@dataclass(frozen=True, kw_only=True)
class PortraitResult:
    """One portrait with all voices."""

    entries: list[dict[str, Any]]  # one a voice, by the names of tools/figure_keys.py
    mouths: list[Cell]  # its row of the overview; empty when no sheets are wanted


def find_portraits(folder: Path, names: list[str] | None = None, limit: int | None = None) -> list[Path]:
    """Pictures of a folder, sorted by name; ``names`` and ``limit`` as in ``tools.clip.find_clips``.

    Raises:
        FileError: no such folder, no picture in it, or none of ``names``.
    """
    if not folder.is_dir():
        raise FileError(f"{str(folder)!r} is not a folder: give a folder of portraits")
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
    if not paths:
        raise FileError(f"no pictures in {str(folder)!r}: give a folder with .jpg, .png or .webp files")
    if names is not None:
        wanted = set(names)
        paths = [p for p in paths if p.name in wanted or p.stem in wanted]
        if not paths:
            raise FileError(f"none of the {len(wanted)} listed portraits is in {str(folder)!r}: check the list's names")
    return spread(paths, limit)


def spread(paths: list[Path], limit: int | None) -> list[Path]:
    """At most ``limit`` of them, evenly spread."""
    if limit is None or limit >= len(paths):
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


def read_voice(path: Path, seconds: float) -> Sound:
    """The first ``seconds`` of a voice from where it begins to speak.

    Raises:
        FileError, AudioUnreadable: as ``read_mono``; FileError also for a voice that is silent or too short.
    """
    samples = read_mono(path, SAMPLE_RATE_HZ)
    hop = SAMPLE_RATE_HZ // 100
    loudness = np.sqrt((samples[: len(samples) // hop * hop].reshape(-1, hop) ** 2).mean(1))
    if not len(loudness) or loudness.max() < 1e-4:
        raise FileError(f"the voice {path.name!r} is silent: give a recording of speech")
    begin = int(np.argmax(loudness > LEADING_QUIET * loudness.max())) * hop - round(LEAD_S * SAMPLE_RATE_HZ)
    samples = samples[max(0, begin) :][: round(seconds * SAMPLE_RATE_HZ)]
    if len(samples) < SAMPLE_RATE_HZ:
        raise FileError(f"the voice {path.name!r} has less than a second of speech: give a longer recording")
    return Sound(name=path.stem, samples=samples)


def read_sound(path: Path) -> Sound:
    """The first ``SOUND_S`` of a sound; errors as ``read_voice``'s, but it may be quiet."""
    samples = read_mono(path, SAMPLE_RATE_HZ)[: round(SOUND_S * SAMPLE_RATE_HZ)]
    if len(samples) < SAMPLE_RATE_HZ:
        raise FileError(f"the sound {path.name!r} is shorter than a second: give a longer recording")
    return Sound(name=path.stem, samples=samples)


def make_silence(seconds: float) -> Sound:
    return Sound(name=SILENCE, samples=np.zeros(round(seconds * SAMPLE_RATE_HZ), np.float32))


def measure_portrait(path: Path, voices: list[Sound], sheets: Path | None, engine: Engine) -> PortraitResult:
    """One portrait with every voice; writes its sheet into ``sheets``.

    Raises:
        VisavisError: the picture cannot be read or enrolled, or its aligned view shows no face.
    """
    avatar, landmarks = _enrol(path, engine)
    _, rest = _speak(engine, avatar, landmarks, make_silence(SILENCE_S))
    mask = face_figures.upper_face_mask(landmarks, avatar.crop.shape[0])
    source_cpbd = measure_cpbd(avatar.crop)
    entries, spoken = [], {}
    for voice in voices:
        frames, opening = _speak(engine, avatar, landmarks, voice)
        psnr_db, cpbd = face_figures.upper_psnr_db(frames, avatar.crop, mask), mean_cpbd(frames, SLOW_EVERY)
        std_px, rest_px = lip_figures.spread_px(opening), lip_figures.spread_px(rest)
        found = int(np.isfinite(opening).sum())
        entries.append(
            {
                "portrait": path.stem,
                "voice": voice.name,
                "frames": len(frames),
                "faces_found": found,
                "no_face_frames": len(frames) - found,
                "opening_std": std_px,
                "opening_std_silence": rest_px,
                "moves": visibly_moves(std_px, rest_px),
                "upper_psnr": float(psnr_db.mean()),
                "upper_psnr_worst": float(psnr_db.min()),
                "cpbd": cpbd,
                "cpbd_source": source_cpbd,
                "cpbd_ratio": lip_figures.divide(cpbd, source_cpbd),
            }
        )
        spoken[voice.name] = (frames, opening)
    if sheets is None:
        return PortraitResult(entries=entries, mouths=[])
    save_portrait_sheet(sheets / f"portrait_{path.stem}.png", avatar.crop, {v: f for v, (f, _) in spoken.items()})
    return PortraitResult(entries=entries, mouths=mouth_row(path.stem, avatar.crop, landmarks, spoken))


def measure_sounds(path: Path, voices: list[Sound], sounds: list[Sound], engine: Engine) -> list[dict[str, Any]]:
    """How far one portrait's mouth moves to each sound, beside what it does to speech; errors as above."""
    avatar, landmarks = _enrol(path, engine)
    spreads = [lip_figures.spread_px(_speak(engine, avatar, landmarks, voice)[1]) for voice in voices]
    known = [value for value in spreads if value is not None]
    speech_px = float(np.mean(known)) if known else None
    entries = []
    for sound in sounds:
        _, opening = _speak(engine, avatar, landmarks, sound)
        std_px = lip_figures.spread_px(opening)
        entries.append(
            {
                "portrait": path.stem,
                "sound": sound.name,
                "frames": len(opening),
                "opening_std": std_px,
                "opening_std_speech": speech_px,
                "share": lip_figures.divide(std_px, speech_px),
            }
        )
    return entries


def visibly_moves(speech_px: float | None, silence_px: float | None) -> bool:
    """Whether a mouth with these standard deviations of its opening is seen to speak."""
    return speech_px is not None and speech_px >= max(MOVES_PX, MOVES_TIMES * (silence_px or 0.0))


def sum_up_portraits(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures over all portraits and voices."""
    frames = sum(e["frames"] for e in entries)
    return {
        "count": len(entries),
        "portraits": len({e["portrait"] for e in entries}),
        "voices": len({e["voice"] for e in entries}),
        "faces_share": sum(e["faces_found"] for e in entries) / frames if frames else None,
        "moves_share": float(np.mean([e["moves"] for e in entries])) if entries else None,
        **{key: _mean(entries, key) for key in ("opening_std", "opening_std_silence", "upper_psnr")},
        "upper_psnr_worst": min((e["upper_psnr_worst"] for e in entries), default=None),
        **{key: _mean(entries, key) for key in ("cpbd", "cpbd_source", "cpbd_ratio")},
    }


def sum_up_sounds(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of each sound over all portraits, in the order in which the sounds were given."""
    rows = []
    for name in dict.fromkeys(e["sound"] for e in entries):
        of_sound = [e for e in entries if e["sound"] == name]
        shares = [e["share"] for e in of_sound if e["share"] is not None]
        row = {"sound": name, "portraits": len(of_sound)}
        row |= {key: _mean(of_sound, key) for key in ("opening_std", "opening_std_speech", "share")}
        rows.append(row | {"share_worst": max(shares, default=None)})
    return rows


def _enrol(path: Path, engine: Engine) -> tuple[Avatar, np.ndarray]:
    """The avatar, and the landmarks of its aligned view in crop coordinates."""
    avatar = engine.enrol(read_bytes(path, "portrait"))
    mesh = FaceMesh()
    faces = mesh.find(avatar.crop)
    mesh.close()
    if not faces:
        raise FileError(f"no face is found again on the aligned view of {path.name!r}: leave the picture out")
    return avatar, faces[0] * 2 / avatar.crop.shape[0] - np.array([1, 1, 0], np.float32)


def _speak(engine: Engine, avatar: Avatar, landmarks: np.ndarray, sound: Sound) -> tuple[np.ndarray, np.ndarray]:
    """Frames of the sound, uint8 [N, S, S, 3], and the opening on them in pixels, [N], NaN without a face."""
    frames = render_frames(engine, avatar, sound.samples, sound.frames)
    return frames, lip_figures.opening_px(lip_figures.align_landmarks(find_landmarks(frames), landmarks))


def _mean(entries: list[dict[str, Any]], key: str) -> float | None:
    known = [e[key] for e in entries if e[key] is not None]
    return float(np.mean(known)) if known else None
