"""Portraits by voices: the pure parts, and one portrait on the model that ships."""

import numpy as np
import pytest

from engine.cache import DEFAULT_PORTRAIT
from engine.errors import FileError
from engine.registry import create_engine
from tests.tools.media import bursts, write_wav
from tools import portrait_figures
from tools.evaluate import DEFAULT_VOICE
from tools.figure_keys import EPILOG


def entry(**changed) -> dict:
    figures = dict(portrait="a", voice="x", frames=75, faces_found=75, no_face_frames=0, opening_std=2.0)
    figures |= dict(opening_std_silence=0.1, moves=True, upper_psnr=40.0, upper_psnr_worst=35.0)
    return figures | dict(cpbd=0.4, cpbd_source=0.5, cpbd_ratio=0.8) | changed


@pytest.mark.parametrize(
    ("speech_px", "silence_px", "moves"),
    [(2.0, 0.1, True), (0.7, 0.0, False), (0.8, None, True), (3.0, 1.6, False), (None, 0.0, False)],
)
def test_a_mouth_moves_when_it_is_seen_to_and_not_when_it_trembles_anyway(speech_px, silence_px, moves):
    assert portrait_figures.visibly_moves(speech_px, silence_px) is moves


def test_shares_are_over_all_frames_and_all_pairs():
    lost = entry(portrait="b", faces_found=25, no_face_frames=50, moves=False, opening_std=None, upper_psnr_worst=20.0)
    mean = portrait_figures.sum_up_portraits([entry(), entry(voice="y"), lost, entry(portrait="b", voice="y")])
    assert (mean["count"], mean["portraits"], mean["voices"]) == (4, 2, 2)
    assert mean["faces_share"] == pytest.approx(250 / 300) and mean["moves_share"] == 0.75
    assert mean["opening_std"] == 2.0 and mean["upper_psnr_worst"] == 20.0
    assert portrait_figures.sum_up_portraits([])["faces_share"] is None


def test_sounds_are_summed_up_in_their_order_with_the_worst_portrait():
    def row(portrait, sound, share):
        px = None if share is None else 3 * share
        return dict(portrait=portrait, sound=sound, frames=150, opening_std=px, opening_std_speech=3.0, share=share)

    rows = [row("a", "silence", 0.0), row("a", "noise", 0.1), row("b", "silence", 0.02), row("b", "noise", 0.3)]
    silence, noise = portrait_figures.sum_up_sounds([*rows, row("c", "noise", None)])
    assert (silence["sound"], silence["share"], silence["share_worst"]) == ("silence", 0.01, 0.02)
    assert noise["share"] == pytest.approx(0.2) and noise["share_worst"] == 0.3 and noise["portraits"] == 3


def test_a_voice_begins_where_it_speaks(tmp_path):
    sound = np.concatenate([np.zeros(24_000, np.float32), bursts(2.0, 16_000)])
    voice = portrait_figures.read_voice(write_wav(tmp_path / "late.wav", sound), 1.5)
    assert voice.name == "late" and len(voice.samples) == 24_000 and voice.frames == 37
    first = np.flatnonzero(np.abs(voice.samples) > 0.1)[0] / 16_000
    assert first == pytest.approx(portrait_figures.LEAD_S, abs=0.02)


def test_portraits_are_chosen_by_name_and_spread_evenly(tmp_path):
    for name in ("a.jpg", "b.PNG", "c.webp", "d.jpeg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    stems = [p.stem for p in portrait_figures.find_portraits(tmp_path)]
    assert stems == ["a", "b", "c", "d"]
    assert [p.stem for p in portrait_figures.find_portraits(tmp_path, limit=2)] == ["a", "c"]
    assert [p.stem for p in portrait_figures.find_portraits(tmp_path, ["d", "b.PNG"])] == ["b", "d"]
    with pytest.raises(FileError, match="none of the 1 listed"):
        portrait_figures.find_portraits(tmp_path, ["z"])


def test_the_model_that_ships_speaks_and_keeps_still_in_silence():
    engine = create_engine("s3dnerf")
    voice = portrait_figures.read_voice(DEFAULT_VOICE, 2.0)
    (figures,) = portrait_figures.measure_portrait(DEFAULT_PORTRAIT, [voice], None, engine).entries
    assert figures["faces_found"] == figures["frames"] == 50 and figures["moves"]
    assert figures["upper_psnr"] > 30 and 0 < figures["cpbd_ratio"] < 1.5
    silence = portrait_figures.make_silence(1.0)
    (still,) = portrait_figures.measure_sounds(DEFAULT_PORTRAIT, [voice], [silence], engine)
    engine.close()
    assert still["opening_std_speech"] == pytest.approx(figures["opening_std"]) and still["share"] < 0.15
    words = EPILOG.replace(",", " ").split()
    assert not (set(figures) | set(still)) - set(words)
