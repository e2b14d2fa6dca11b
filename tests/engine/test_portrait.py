"""Portraits: what enrols, what is refused, and for which reason. The face used is nobody's."""

from __future__ import annotations

import io
import random
import struct
import threading
import time
import zlib
from functools import cache
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from engine import image as image_module
from engine.errors import (
    FaceCropped,
    FaceTooSmall,
    FaceTurned,
    ImageTooLarge,
    ImageUnreadable,
    NoFace,
    SeveralFaces,
)
from engine.faces import thread_finder
from engine.image import BACKGROUND, PhotoFile, read_photo, sample
from engine.landmarks import EYE_OUTER, crop_landmarks
from engine.portrait import Portrait, decode_image, head_angles_deg, read_portrait

ASSET = Path(__file__).parents[2] / "engine" / "assets" / "default_portrait.jpg"
SHARED = Path(__file__).parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared pictures are not beside the project")


def encode(picture: np.ndarray | Image.Image, format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(out, format, **options)
    return out.getvalue()


@cache
def face() -> Image.Image:
    return Image.open(ASSET).convert("RGB")


@cache
def portrait() -> Portrait:
    return read_portrait(encode(face()))


def pixels() -> np.ndarray:
    return np.asarray(face())


def difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


# What a portrait holds


def test_portrait_has_its_shapes_and_faces_the_camera():
    p = portrait()
    assert p.crop.shape == (256, 256, 3) and p.crop.dtype == np.uint8
    assert p.landmarks.shape == (478, 3) and p.landmarks.dtype == np.float32
    assert p.matte.shape == p.face_mask.shape == (256, 256)
    assert p.photo_from_crop.shape == (2, 3) and p.photo_size == (512, 512)
    assert max(abs(p.yaw_deg), abs(p.pitch_deg), abs(p.roll_deg)) < 6


def test_crop_is_level_and_the_face_fills_its_part():
    points = portrait().landmarks
    assert abs(points[EYE_OUTER[0], 1] - points[EYE_OUTER[1], 1]) < 0.01
    assert np.ptp(points[:468, :2], 0).max() == pytest.approx(2 / 1.6, abs=0.01)


def test_crop_lies_in_the_photo_where_the_transform_says():
    p = portrait()
    crop_from_photo = cv2.invertAffineTransform(p.photo_from_crop)
    assert difference(sample(decode_image(encode(face())), crop_from_photo, 256), p.crop) < 1


def test_masks_tell_face_person_and_background():
    p = portrait()
    x, y = ((p.landmarks[4, :2] + 1) * 128).astype(int)  # tip of the nose
    assert p.face_mask[y, x] == p.matte[y, x] == 255
    assert p.matte[5, 5] == p.face_mask[5, 5] == 0
    assert p.matte[250, 128] > 250 and p.face_mask[250, 128] == 0, "clothes are person, not face"
    assert len(np.unique(p.face_mask)) > 50, "the mask's edge is soft"


@pytest.mark.parametrize("yaw, pitch, roll", [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, 25), (-20, -10, 15)])
def test_head_angles_are_those_of_the_turned_head(yaw, pitch, roll):
    y, p, r = np.radians((yaw, pitch, roll))
    turn_y = np.array([[np.cos(y), 0, -np.sin(y)], [0, 1, 0], [np.sin(y), 0, np.cos(y)]])
    turn_p = np.array([[1, 0, 0], [0, np.cos(p), np.sin(p)], [0, -np.sin(p), np.cos(p)]])
    turn_r = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    straight = portrait().landmarks @ axes(portrait().landmarks)
    turned = straight @ (turn_r @ turn_y @ turn_p).T
    found = head_angles_deg(turned)
    assert found == pytest.approx((yaw, pitch, roll), abs=2.5)


def axes(points: np.ndarray) -> np.ndarray:
    """Columns: the head's right, down and back, by the eyes' line and the nose's."""
    right = points[263] - points[33]
    right = right / np.linalg.norm(right)
    down = points[2] - points[10]
    down = down - right * (right @ down)
    down = down / np.linalg.norm(down)
    return np.column_stack([right, down, np.cross(right, down)])


def test_small_copy_and_full_size_give_the_same_crop():
    large = face().resize((5000, 5000), Image.Resampling.BICUBIC)
    p = read_portrait(encode(large, "JPEG", quality=90))
    assert p.photo_size == (5000, 5000)
    assert difference(p.crop, portrait().crop) < 3
    points = (p.landmarks[:, :2] + 1) * 128 @ p.photo_from_crop[:, :2].T + p.photo_from_crop[:, 2]
    small = (portrait().landmarks[:, :2] + 1) * 128 @ portrait().photo_from_crop[:, :2].T
    small = small + portrait().photo_from_crop[:, 2]
    assert np.abs(points / 5000 - small / 512).max() < 0.01


def test_small_face_in_a_large_picture_is_cropped_from_all_its_pixels():
    canvas = np.full((4200, 4200, 3), 128, np.uint8)
    canvas[1800:2312, 1800:2312] = pixels()
    assert difference(read_portrait(encode(canvas, "JPEG", quality=95)).crop, portrait().crop) < 4


def test_landmarks_follow_the_documented_pixel_centres():
    points = np.zeros((478, 3), np.float32)
    points[0, :2] = 128
    identity = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert crop_landmarks(points, identity)[0, :2] == pytest.approx((0, 0))
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    np.testing.assert_array_equal(sample(picture, identity, 64), picture)


def test_sampling_averages_what_it_shrinks():
    stripes = np.zeros((256, 256), np.uint8)
    stripes[:, ::2] = 200
    view = sample(stripes, np.array([[0.25, 0, 0], [0, 0.25, 0]]), 64)
    assert np.abs(view[4:-4, 4:-4].astype(int) - 100).max() <= 8


# Files of all kinds


@pytest.mark.parametrize(
    "format, mode",
    [("JPEG", m) for m in ("L", "RGB", "CMYK")]
    + [("PNG", m) for m in ("1", "L", "LA", "P", "RGB", "RGBA")]
    + [("WEBP", m) for m in ("L", "P", "RGB", "RGBA")],
)
def test_formats_and_modes_decode_alike(format, mode):
    picture = face().convert(mode)
    found = decode_image(encode(picture, format, **({"lossless": True} if format == "WEBP" else {})))
    assert found.shape == (512, 512, 3)
    expected = np.asarray(picture.convert("RGB"))
    assert difference(found, expected) < 3


def test_every_exif_orientation_stands_upright():
    way = Image.Transpose
    stored_by = {
        2: way.FLIP_LEFT_RIGHT,
        3: way.ROTATE_180,
        4: way.FLIP_TOP_BOTTOM,
        5: way.TRANSPOSE,
        6: way.ROTATE_90,
        7: way.TRANSVERSE,
        8: way.ROTATE_270,
    }
    upright = face().crop((0, 0, 512, 400))
    for orientation, turn in stored_by.items():
        stored = upright.transpose(turn)
        photo = read_photo(encode(stored, exif=oriented(orientation)))
        assert photo.full_size == (512, 400), orientation
        np.testing.assert_array_equal(photo.pixels, np.asarray(upright), err_msg=str(orientation))


def test_sixteen_bit_grey_keeps_its_brightness():
    grey = np.asarray(face().convert("L"))
    data = encode(Image.fromarray(grey.astype(np.uint16) * 257))
    assert difference(decode_image(data)[..., 0], grey) < 1


def test_sixteen_bit_colour_keeps_its_colours():
    deep = pixels()[..., ::-1].astype(np.uint16) * 257
    data = cv2.imencode(".png", deep)[1].tobytes()
    assert difference(decode_image(data), pixels()) < 1


def test_transparency_lies_over_grey_and_cuts_the_matte():
    cut = np.dstack([pixels(), np.full((512, 512), 255, np.uint8)])
    cut[:, :200, 3] = 0
    data = encode(cut)
    assert (decode_image(data)[:, :190] == BACKGROUND).all()
    whole = np.dstack([pixels(), np.full((512, 512), 255, np.uint8)])
    whole[460:, :, 3] = 0
    assert read_photo(encode(whole)).alpha is not None
    p = read_portrait(encode(whole))
    below = int((460 - p.photo_from_crop[1, 2]) / p.photo_from_crop[1, 1]) + 3
    assert below < 256 and (p.matte[below:] == 0).all()


def test_opaque_alpha_changes_nothing():
    photo = read_photo(encode(face().convert("RGBA")))
    assert photo.alpha is None
    np.testing.assert_array_equal(photo.pixels, pixels())


def test_first_of_several_frames_counts():
    other = Image.new("RGB", (512, 512), "red")
    for format in ("PNG", "WEBP"):
        options = {"lossless": True} if format == "WEBP" else {}
        data = encode(face(), format, save_all=True, append_images=[other], duration=100, **options)
        assert difference(decode_image(data), pixels()) < 1, format


def test_broken_colour_profile_counts_as_srgb():
    np.testing.assert_array_equal(decode_image(encode(face(), icc_profile=b"no profile")), pixels())


def test_colour_profile_is_applied(monkeypatch):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(face(), icc_profile=profile)
    assert difference(decode_image(data), pixels()) < 1
    # A profile of another name goes through the conversion, which for these primaries changes nothing.
    monkeypatch.setattr(ImageCms, "getProfileDescription", lambda _: "Display P3")
    converted = []
    convert = ImageCms.profileToProfile

    def count(*args, **options):
        converted.append(args)
        return convert(*args, **options)

    monkeypatch.setattr(ImageCms, "profileToProfile", count)
    assert difference(decode_image(data), pixels()) < 1
    assert converted


def test_fit_bounds_the_decoded_copy():
    large = face().resize((3000, 1500))
    for format in ("JPEG", "PNG", "WEBP"):
        photo = read_photo(encode(large, format), fit=700)
        assert 700 <= max(photo.pixels.shape[:2]) < 1400, format
        assert photo.full_size == (3000, 1500)


@pytest.mark.parametrize(
    "format, mode, opened",
    [(f, m, 1) for f in ("PNG", "WEBP") for m in ("L", "RGB", "RGBA")] + [("JPEG", m, 2) for m in ("L", "RGB", "CMYK")],
)
def test_a_file_read_small_is_read_whole_as_well(format, mode, opened, monkeypatch):
    picture = face().resize((1600, 900)).convert(mode)
    if mode == "RGBA":
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    data = encode(picture, format, exif=oriented(6))
    expected = read_photo(data)
    opening = Mock(wraps=image_module._open)
    monkeypatch.setattr(image_module, "_open", opening)
    file = PhotoFile(data)
    small, whole = file.read(fit=400), file.read()
    assert max(small.pixels.shape) < 800 and small.full_size == whole.full_size == (900, 1600)
    np.testing.assert_array_equal(whole.pixels, expected.pixels)
    assert (whole.alpha is None) == (mode != "RGBA")
    if whole.alpha is not None and expected.alpha is not None:
        np.testing.assert_array_equal(whole.alpha, expected.alpha)
    assert opening.call_count == opened, "only JPEG, which was decoded smaller, is decoded again"


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# Refusals: files


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds nearly nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width, height, count", [(20_000, 10_000, 200), (8_200, 5_000, 41), (60_000, 60_000, 3600)])
def test_too_many_pixels_are_refused_from_the_header(width, height, count, monkeypatch):
    monkeypatch.setattr(image_module, "_decode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(ImageTooLarge, match=f"{count} megapixels, at most 40"):
        read_portrait(png_header(width, height))


def test_forty_megapixels_are_not_too_many():
    with pytest.raises(ImageUnreadable):  # it holds no pixels, but its size passes
        read_portrait(png_header(8_000, 5_000))


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "0 bytes"),
        (b"this is a text file that calls itself portrait.png", "begins with"),
        (b"GIF89a" + bytes(50), "GIF"),
        (b"%PDF-1.7" + bytes(50), "PDF"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"\xff\xd8\xff\xe0", "begins with"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "RIFF"),
    ],
)
def test_what_is_no_picture_says_what_it_is(data, reason):
    with pytest.raises(ImageUnreadable, match=reason):
        read_portrait(data)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("part", [0.9, 0.5, 0.1, 0.01])
def test_truncated_picture_is_refused(format, part):
    data = encode(face(), format)
    with pytest.raises(ImageUnreadable):
        read_portrait(data[: int(len(data) * part)])


def test_scrambled_bytes_never_raise_anything_else():
    rng = random.Random(1)
    for format in ("JPEG", "PNG", "WEBP"):
        clean = encode(face().resize((64, 64)), format)
        for _ in range(60):
            data = bytearray(clean)
            for _ in range(5):
                data[rng.randrange(len(data))] = rng.randrange(256)
            try:
                read_photo(bytes(data), fit=32)
            except (ImageUnreadable, ImageTooLarge):
                pass


# Refusals: what the picture shows


def rotated(degrees: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((256, 256), degrees, 0.8)
    return cv2.warpAffine(pixels(), matrix, (512, 512), borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_blank_picture_has_no_face(shade):
    with pytest.raises(NoFace):
        read_portrait(encode(np.full((300, 400, 3), shade, np.uint8)))


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (5, 5)])
def test_odd_sizes_have_no_face(size):
    with pytest.raises(NoFace):
        read_portrait(encode(np.zeros((*size, 3), np.uint8)))


def test_noise_has_no_face():
    with pytest.raises(NoFace):
        read_portrait(encode(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8)))


@pytest.mark.parametrize("scale", [1.0, 0.7])
@pytest.mark.parametrize("beside", [True, False])
def test_two_faces_of_similar_size_are_refused(scale, beside):
    second = cv2.resize(pixels(), None, fx=scale, fy=scale)
    canvas = np.full((1024, 1024, 3), 170, np.uint8)
    canvas[:512, :512] = pixels()
    y, x = (0, 512) if beside else (512, 0)
    canvas[y : y + len(second), x : x + len(second)] = second
    canvas = canvas[:512] if beside else canvas[:, :512]
    with pytest.raises(SeveralFaces, match="2 faces"):
        read_portrait(encode(canvas))


def test_small_face_in_the_background_is_overlooked():
    canvas = np.full((512, 700, 3), 170, np.uint8)
    canvas[:, :512] = pixels()
    canvas[:180, 520:700] = cv2.resize(pixels(), (180, 180), interpolation=cv2.INTER_AREA)
    assert difference(read_portrait(encode(canvas)).crop, portrait().crop) < 6


def test_small_face_is_refused_with_its_size():
    with pytest.raises(FaceTooSmall, match=r"4\d pixels"):
        read_portrait(encode(face().resize((80, 80), Image.Resampling.LANCZOS)))


@pytest.mark.parametrize("edge", ["left", "right", "top", "bottom"])
@pytest.mark.parametrize("part", [0.15, 0.3, 0.5])
def test_cut_face_is_refused_with_its_edge(edge, part):
    p = portrait()
    points = (p.landmarks[:468, :2] + 1) * 128 @ p.photo_from_crop[:, :2].T + p.photo_from_crop[:, 2]
    (x0, y0), (x1, y1) = points.min(0), points.max(0)
    picture = {
        "left": pixels()[:, int(x0 + part * (x1 - x0)) :],
        "right": pixels()[:, : int(x1 - part * (x1 - x0))],
        "top": pixels()[int(y0 + part * (y1 - y0)) :],
        "bottom": pixels()[: int(y1 - part * (y1 - y0))],
    }[edge]
    with pytest.raises(FaceCropped, match=edge):
        read_portrait(encode(np.ascontiguousarray(picture)))


@pytest.mark.parametrize("degrees", [60, 90, 180, 270])
def test_face_that_does_not_stand_upright_is_refused(degrees):
    with pytest.raises(FaceTurned, match="upright"):
        read_portrait(encode(rotated(degrees)))


@pytest.mark.parametrize("degrees", [-30, 15, 30])
def test_leaning_head_is_made_level(degrees):
    p = read_portrait(encode(rotated(degrees)))
    assert p.roll_deg == pytest.approx(-degrees, abs=3)
    assert abs(p.landmarks[EYE_OUTER[0], 1] - p.landmarks[EYE_OUTER[1], 1]) < 0.01


def test_each_thread_has_its_own_models():
    finders = [thread_finder(), thread_finder()]
    thread = threading.Thread(target=lambda: finders.append(thread_finder()))
    thread.start()
    thread.join()
    assert finders[0] is finders[1] is not finders[2]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux counts a process's threads so")
def test_models_end_with_their_thread():
    def enrol_in_a_thread() -> None:
        thread = threading.Thread(target=read_portrait, args=(encode(face()),))
        thread.start()
        thread.join()

    def native_threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    enrol_in_a_thread()
    before = native_threads()
    times = 3
    for _ in range(times):
        enrol_in_a_thread()
    # a thread leaves the list a moment after it was joined, and a pool of somebody else's may have grown by one
    until_s = time.monotonic() + 10
    while native_threads() > before and time.monotonic() < until_s:
        time.sleep(0.05)
    assert native_threads() < before + times


# Pictures kept beside the project


@needs_shared
@pytest.mark.parametrize(
    "name", ["astronaut.png", "s0.jpg", "s10.jpg", "s3.jpg", "s4.jpg", "s5.jpg", "s8.jpg", "s9.jpg"]
)
def test_photographs_and_paintings_enrol(name):
    p = read_portrait((SHARED / "enrol" / "good" / name).read_bytes())
    assert np.ptp(p.landmarks[:468, :2], 0).max() == pytest.approx(2 / 1.6, abs=0.02)


@needs_shared
@pytest.mark.parametrize("name", ["chelsea.png", "coffee.png"])
def test_cat_and_cup_have_no_face(name):
    with pytest.raises(NoFace):
        read_portrait((SHARED / "enrol" / "refuse" / name).read_bytes())


@needs_shared
def test_man_in_profile_behind_a_camera_is_turned_too_far():
    with pytest.raises(FaceTurned, match="to the side"):
        read_portrait((SHARED / "enrol" / "hard" / "camera.png").read_bytes())


@needs_shared
def test_official_portraits_enrol():
    paths = sorted((SHARED / "portraits").glob("*.jpg"))
    for path in random.Random(2).sample(paths, 20):
        read_portrait(path.read_bytes())
