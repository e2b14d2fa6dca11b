"""What lies in a folder: which files make which clips, with what sound, of which speaker.

Any folder tree of videos works. Two data sets' own layouts are known besides:

* MEAD: ``M003/video/front/angry/level_1/001.mp4`` with its sound in ``M003/audio/angry/level_1/001.m4a``.
  The same file names are in every folder, and each take was filmed from seven sides.
* HDTF: long videos (``Radio11.mp4``, or ``RD_Radio11.mp4``) that ``*_annotion_time.txt`` cuts into clips
  ``Radio11_0``, ``Radio11_1``, the face lying in the window that ``*_crop_wh.txt`` names; or these
  clips cut already (``Radio11_0.mp4``, ``RD_Radio11_000.mp4``).
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from tools.prepare.media import FPS, WHOLE, Span, seconds_of

VIDEO_ENDINGS = {".mp4", ".mpg", ".mpeg", ".mkv", ".mov", ".avi", ".webm", ".m4v"}
IMAGE_ENDINGS = {".jpg", ".jpeg", ".png", ".webp"}
SOUND_ENDINGS = (".m4a", ".wav", ".flac", ".mp3", ".aac", ".ogg")
RESERVED_NAMES = {"lip_motion", "codes"}  # files of the whole set, beside the clips
MEAD_VIEWS = {"front", "left_30", "left_60", "right_30", "right_60", "top", "down"}
HDTF_SUBSETS = ("RD", "WDA", "WRA")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One clip to be."""

    name: str  # of the clip's file, unique in the set
    file: str  # the video's or picture's path in its folder, for people to read
    path: Path
    speaker: str
    sound: Path | None = None  # where the sound lies in a file of its own
    span: Span = WHOLE
    window: tuple[int, int, int, int, int] | None = None  # x, y, width, height; at this height of the whole picture


def find_videos(
    folder: Path, *, views: set[str], max_s: float = math.inf, annotations: Path | None = None
) -> tuple[list[Source], int]:
    """Clips that a tree of videos holds, and how many videos show another view than wanted.

    Args:
        views: MEAD's views to take, of ``MEAD_VIEWS``.
        max_s: what is longer becomes several clips of equal length.
        annotations: folder of HDTF's lists; None looks for them in the tree.
    """
    paths = _search(folder, VIDEO_ENDINGS)
    cuts = read_annotations(annotations or folder)
    stems = {path.stem for path in paths}
    found, others = [], 0
    for path in paths:
        relative = path.relative_to(folder)
        view = _mead_view(path)
        if view is not None and view not in views:
            others += 1
            continue
        pieces = cuts.get(path.stem)
        if pieces is None:
            source = _source(relative, path, _speaker(path, folder, view), _sound_beside(path, view))
            found += _cut(source, max_s)
            continue
        for index, (span, window) in enumerate(pieces):
            if {f"{path.stem}_{index}", f"{path.stem}_{index:03d}"} & stems:
                continue  # lies there cut already
            piece = relative.with_name(f"{path.stem}_{index}{path.suffix}")
            source = _source(piece, path, path.stem, _sound_beside(path, None), span=span, window=window)
            found += _cut(source, max_s)
    return _make_unique(found), others


def find_portraits(folder: Path) -> list[Source]:
    """Every picture of a tree; each is a person of its own."""
    paths = _search(folder, IMAGE_ENDINGS)
    return _make_unique([_source(p.relative_to(folder), p, p.stem, None) for p in paths])


def read_annotations(folder: Path) -> dict[str, list[tuple[Span, tuple[int, int, int, int, int] | None]]]:
    """HDTF's lists: video's stem -> its clips' spans and face windows, under its plain and its prefixed name.

    Raises:
        ValueError: a line that is none of the format's.
    """
    cuts: dict[str, list[tuple[Span, tuple[int, int, int, int, int] | None]]] = {}
    for times in sorted(folder.rglob("*_annotion_time.txt")):
        subset = times.name.removesuffix("_annotion_time.txt")
        windows = _read_rows(times.with_name(f"{subset}_crop_wh.txt"))
        heights = _read_rows(times.with_name(f"{subset}_resolution.txt"))
        for name, spans in _read_rows(times).items():
            pieces = []
            for index, span in enumerate(spans):
                window = None
                if (box := windows.get(f"{name}_{index}")) and (height := heights.get(name)):
                    x, width, y, tall = (int(v) for v in box)
                    window = (x, y, width, tall, int(height[0]))
                pieces.append((_read_span(span, times, name), window))
            cuts[name] = cuts[f"{subset}_{name}"] = pieces
    return cuts


def _read_rows(path: Path) -> dict[str, list[str]]:
    """Lines ``NAME.mp4 VALUE VALUE ...`` by name."""
    if not path.exists():
        return {}
    rows = [line.split() for line in path.read_text().splitlines() if line.strip()]
    return {row[0].removesuffix(".mp4"): row[1:] for row in rows}


def _read_span(text: str, path: Path, name: str) -> Span:
    """``MM:SS-MM:SS``, hours before them if need be."""
    ends = []
    for part in text.split("-"):
        if not re.fullmatch(r"\d+(:\d+){1,2}", part):
            raise ValueError(f"{path.name}: {name} has the time {text!r}, which should read MM:SS-MM:SS")
        seconds = 0
        for number in part.split(":"):
            seconds = 60 * seconds + int(number)
        ends.append(float(seconds))
    if len(ends) != 2 or ends[0] >= ends[1]:
        raise ValueError(f"{path.name}: {name} has the time {text!r}, which should be BEGIN-END")
    return Span(*ends)


def _cut(source: Source, max_s: float) -> list[Source]:
    """Equal parts of at most ``max_s``, named ``NAME__000`` and so on; what is no longer stays whole."""
    start_s, end_s = source.span.start_s, source.span.end_s
    if math.isinf(end_s) and not math.isinf(max_s):
        end_s = seconds_of(source.path) or max_s
    count = math.ceil((end_s - start_s) / max_s - 0.01) if not math.isinf(max_s) else 1
    if count <= 1:
        return [source]
    cuts = [start_s + round((end_s - start_s) * i / count * FPS) / FPS for i in range(count + 1)]  # between frames
    speaker = source.speaker if source.span != WHOLE else source.name
    return [
        replace(source, name=f"{source.name}__{i:03d}", span=Span(cuts[i], cuts[i + 1]), speaker=speaker)
        for i in range(count)
    ]


def _search(folder: Path, endings: set[str]) -> list[Path]:
    """Files by ending in depth, hidden ones left aside (macOS puts ``._001.mp4`` beside ``001.mp4``)."""
    paths = (p for p in folder.rglob("*") if p.suffix.lower() in endings and p.is_file())
    return sorted(p for p in paths if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def _source(relative: Path, path: Path, speaker: str, sound: Path | None, **more: object) -> Source:
    name = "__".join(relative.with_suffix("").parts)
    return Source(name=name, file=relative.as_posix(), path=path, speaker=speaker, sound=sound, **more)  # type: ignore[arg-type]


def _mead_view(path: Path) -> str | None:
    """The view of ``.../video/VIEW/EMOTION/level_N/FILE``, None elsewhere."""
    parts = path.parts
    if len(parts) >= 5 and parts[-5] == "video" and parts[-4] in MEAD_VIEWS and re.fullmatch(r"level_\d", parts[-2]):
        return parts[-4]
    return None


def _sound_beside(path: Path, view: str | None) -> Path | None:
    """A sound file that belongs to a video: of the same name beside it, or in MEAD's tree of sounds."""
    stems = [path.with_suffix("")]
    if view is not None:
        take = Path("audio", *path.parts[-3:-1], path.stem)
        person = path.parents[4]
        stems.append(person / take)
        if person.name.startswith("video"):  # each archive unpacked by itself: video-001/video, audio-001/audio
            stems += [folder / take for folder in sorted(person.parent.glob("audio*"))]
    for stem in stems:
        for ending in SOUND_ENDINGS:
            if (sound := stem.with_name(stem.name + ending)).is_file():
                return sound
    return None


def _speaker(path: Path, folder: Path, view: str | None) -> str:
    """Whose clips are judged together: MEAD's person, HDTF's video, else those of one folder."""
    if view is not None:
        named = [part for part in path.parts if re.fullmatch(r"[MW]\d{3}", part)]
        return named[-1] if named else path.parents[4].name
    if numbered := re.fullmatch(r"(.+)_\d{1,3}", path.stem):
        return (Path(folder.name) / path.parent.relative_to(folder) / numbered[1]).as_posix()
    return (Path(folder.name) / path.parent.relative_to(folder)).as_posix()


def _make_unique(sources: Iterable[Source]) -> list[Source]:
    """Tell names apart that two files share (``a.mov`` and ``a.mp4``): later ones get a number from their path."""
    taken = set(RESERVED_NAMES)
    unique = []
    for source in sources:
        name = source.name
        if name.lower() in taken:
            name = f"{name}__{zlib.crc32(f'{source.file} {source.span}'.encode()):08x}"
        taken.add(name.lower())  # some file systems take A and a for the same
        unique.append(replace(source, name=name))
    return unique
