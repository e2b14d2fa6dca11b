import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from engine.mark import DIGITAL_SOURCE_TYPE, MP4_METADATA, stamp, stamp_cutout, xmp_box

SIZES = [(96, 120), (256, 256), (720, 1280), (1920, 1080)]


def flat(height: int, width: int, level: int) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_mark_stands_in_the_bottom_right_corner_and_nowhere_else(height, width):
    frame = flat(height, width, 90)
    changed = (stamp(frame) != frame).any(axis=2)
    rows, columns = np.nonzero(changed)
    side = min(height, width)
    assert rows.min() > height - side * 0.2 and rows.max() < height
    assert columns.min() > width - max(side * 0.42, 75) and columns.max() < width


@pytest.mark.parametrize("level", [0, 60, 128, 200, 255])
def test_letters_stand_out_on_any_background(level):
    stamped = stamp(flat(256, 256, level))[226:, 170:].astype(int)
    assert stamped.max() >= 230, "light letters"
    assert stamped.max() - np.median(stamped[8:20, 20:70]) >= 100, "on a darker plate"


def test_on_a_person_the_badge_of_a_cutout_is_that_of_a_frame():
    frame = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    cutout = np.dstack([frame, np.full((256, 256), 255, np.uint8)])
    stamp_cutout(cutout)
    assert (cutout[..., 3] == 255).all()
    np.testing.assert_allclose(cutout[..., :3].astype(int), stamp(frame).astype(int), atol=1)


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_a_cutouts_badge_stays_legible_on_transparent_ground(ground):
    cutout = np.zeros((256, 256, 4), np.uint8)
    stamp_cutout(cutout)
    alpha = cutout[..., 3:] / 255
    seen = (cutout[..., :3] * alpha + ground * (1 - alpha))[226:, 170:].round().astype(int)
    np.testing.assert_allclose(seen, stamp(flat(256, 256, ground))[226:, 170:].astype(int), atol=2)


def test_colour_under_the_plate_is_dimmed_not_replaced():
    red = np.zeros((256, 256, 3), np.uint8)
    red[..., 0] = 200
    plate = stamp(red)[237, 210]
    assert 60 < plate[0] < 140 and plate[1] == plate[2] < 10


def test_the_frame_itself_is_left_alone_even_if_it_may_not_be_written():
    frame = flat(256, 256, 17)
    frame.setflags(write=False)
    stamped = stamp(frame)
    assert (frame == 17).all() and stamped.flags.writeable
    assert stamped.dtype == np.uint8 and stamped.shape == frame.shape


def test_a_frame_without_room_for_letters_is_refused_with_its_size():
    with pytest.raises(ValueError, match="40x30"):
        stamp(flat(30, 40, 0))


def test_metadata_names_the_iptc_digital_source_type():
    assert DIGITAL_SOURCE_TYPE == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert DIGITAL_SOURCE_TYPE in MP4_METADATA["comment"]


def test_the_xmp_box_is_a_well_formed_uuid_box_with_the_source_type():
    box = xmp_box()
    assert int.from_bytes(box[:4], "big") == len(box)
    assert box[4:8] == b"uuid" and box[8:24].hex() == "be7acfcb97a942e89c71999491e3afac"
    root = ElementTree.fromstring(box[24:].decode())
    (description,) = root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    assert description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType") == DIGITAL_SOURCE_TYPE
