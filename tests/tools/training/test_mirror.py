"""A mirrored face is a face."""

import numpy as np

from engine.landmarks import EYE_OUTER, FACE_OVAL, LIPS, LIPS_INNER, LIPS_OUTER, RIGID, FaceMesh
from engine.s3dnerf.lip_motion import fit_lip_motion
from tools.training.faces import mirror_track
from tools.training.mirror import MIRRORED_POINTS, code_mirror, mirror_landmarks, mirror_picture


def test_twice_mirrored_is_the_same():
    assert (MIRRORED_POINTS[MIRRORED_POINTS] == np.arange(478)).all()
    assert MIRRORED_POINTS[EYE_OUTER[0]] == EYE_OUTER[1]


def test_parts_of_the_face_stay_parts():
    for part in (LIPS, LIPS_INNER, LIPS_OUTER, FACE_OVAL):
        assert set(MIRRORED_POINTS[part]) == set(part)
    assert len(set(MIRRORED_POINTS[RIGID]) & set(RIGID)) >= len(RIGID) - 2


def test_the_detector_finds_the_points_where_the_mirror_says(portrait):
    mesh = FaceMesh()
    here, there = mesh.find(portrait.crop), mesh.find(mirror_picture(portrait.crop))
    mesh.close()
    wanted = mirror_landmarks(here[0] / 128 - [1, 1, 0])
    away = np.linalg.norm(there[0][:, :2] / 128 - 1 - wanted[:, :2], axis=1) * 128
    assert np.median(away) < 1.5 and away.max() < 8  # px; the detector itself is not quite symmetric


def test_codes_of_a_mirrored_clip_are_those_of_its_mirrored_lips(clip):
    leaning = clip.landmarks.copy()
    right = leaning[:, LIPS, 0] > leaning[:, LIPS, 0].mean()
    leaning[:, LIPS, 1] += np.where(right, 0.03, 0) * np.sin(np.arange(len(clip)))[:, None]
    motion = fit_lip_motion([leaning, mirror_landmarks(leaning)], codes=4)
    here, there = motion.codes(leaning), motion.codes(mirror_landmarks(leaning))
    miss = np.abs(here @ code_mirror(motion) - there)[:, :2].mean()
    assert miss < 0.2 * np.abs(here - there)[:, :2].mean()


def test_a_mirrored_track_is_seen_and_told_mirrored(clip, motion, track):
    mirrored = mirror_track(track, motion)
    np.testing.assert_array_equal(mirrored.codes, motion.codes(mirror_landmarks(clip.landmarks)))
    np.testing.assert_array_equal(mirrored.frame(3), track.frame(3)[:, ::-1])
    np.testing.assert_allclose(mirrored.points(3)[EYE_OUTER[0], 0], -track.points(3)[EYE_OUTER[1], 0])
