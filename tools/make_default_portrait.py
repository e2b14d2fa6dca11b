"""Make ``engine/assets/default_portrait.jpg``: a composite of many portraits, so a portrait of nobody.

    python -m tools.make_default_portrait --portraits DIR --out engine/assets/default_portrait.jpg

The recipe:

1. Enrol every portrait; keep those in colour that look straight at the camera, mouth closed, eyes open.
2. Of these take the ``--count`` that resemble each other most (hair, clothes, light), so that their mean
   is one believable person and no smear.
3. Warp each to the group's mean shape by a thin-plate spline over the face's landmarks, the head's
   outline and the shoulders', and bring its colours to the group's mean.
4. Average band by band of a Laplacian pyramid, then give each band back part of the contrast that
   averaging took: an average of many faces is smoother than any of them.
5. Neck and clothes, which tell nobody from another and would smear, come from the one picture of the
   group whose are the most typical.
6. Put the result before a soft grey gradient.

The shipped one was made from official portraits of members of the US Congress (public domain).
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from engine.errors import PortraitError
from engine.image import sample
from engine.landmarks import FACE_OVAL, LIPS, eye_distance, eye_openness, mouth_opening
from engine.matte import face_mask, person_matte
from engine.portrait import Portrait, decode_image, read_portrait

SIZE = 512
FRAME_TO_CROP = 1.14  # side of the composite / side of the aligned crop
FRAME_DROP = 0.09  # part of the frame's side above the aligned crop: room for the hair
MAX_YAW_DEG, MAX_PITCH_DEG = 9.0, 12.0
MAX_OPENING = 0.035  # of the inner lips, in eye distances: closed
MIN_EYES = 0.22  # lid distance / eye width
MIN_COLOURFULNESS = 12.0  # mean chroma (Lab) of the face; black-and-white has 0 to 3
LOOK = 24  # side of the thumbnails that likeness is judged on
BEND_STIFFNESS = 1e-4  # of the spline: more bends less to single points
BANDS = 5  # of the pyramid
MAX_GAIN = (1.5, 1.7, 1.6, 1.3, 1.1)  # most contrast given back per band, finest first
HEAD_RAYS_DEG = np.arange(-200, 21, 10)  # from the head's centre to its outline; -90 is up
SHOULDER_COLUMNS = (0.04, 0.12, 0.88, 0.96)  # of the picture's width
CLOTHES_GAP_PX, CLOTHES_SOFT_PX = 4, 40  # below the jaw: where the clothes begin, how softly
CHROMA = 0.92  # the group's studio light is a little orange
TOP_GREY, BOTTOM_GREY = 208, 150  # of the background


@dataclass(frozen=True)
class Face:
    """One portrait in the composite's frame."""

    pixels: np.ndarray  # uint8 [512, 512, 3] RGB
    matte: np.ndarray  # float32 [512, 512] in 0..1
    skin: np.ndarray  # float32 [512, 512], the inner face
    points: np.ndarray  # float32 [N, 2] pixels: landmarks, head outline, shoulders


def read_face(path: Path) -> Face | None:
    """The portrait where it suits, else None."""
    data = path.read_bytes()
    try:
        portrait = read_portrait(data)
    except PortraitError:
        return None
    if not suits(portrait):
        return None
    zoom = SIZE / len(portrait.crop) / FRAME_TO_CROP
    frame_from_crop = np.array([[zoom, 0, SIZE * (1 - 1 / FRAME_TO_CROP) / 2], [0, zoom, SIZE * FRAME_DROP]])
    crop_from_photo = np.vstack([cv2.invertAffineTransform(portrait.photo_from_crop), [0, 0, 1]])
    pixels = sample(decode_image(data), frame_from_crop @ crop_from_photo, SIZE)
    matte = person_matte(cv2.resize(pixels, (256, 256), interpolation=cv2.INTER_AREA), pixels, np.eye(2, 3) * 2)
    landmarks = portrait.landmarks.copy()
    landmarks[:, :2] = ((landmarks[:, :2] + 1) * 128 @ frame_from_crop[:, :2].T + frame_from_crop[:, 2]) * 2 / SIZE - 1
    matte = matte.astype(np.float32) / 255
    skin = face_mask(landmarks, SIZE).astype(np.float32) / 255
    landmarks = (landmarks[:468, :2] + 1) * (SIZE / 2)
    points = np.concatenate([landmarks, head_outline(matte, landmarks), shoulder_line(matte)])
    return Face(pixels, matte, skin, points.astype(np.float32))


def suits(portrait: Portrait) -> bool:
    yardstick = eye_distance(portrait.landmarks)
    lab = cv2.cvtColor(portrait.crop, cv2.COLOR_RGB2LAB).astype(np.float32)[portrait.face_mask > 200] - 128
    return bool(
        abs(portrait.yaw_deg) < MAX_YAW_DEG
        and abs(portrait.pitch_deg) < MAX_PITCH_DEG
        and mouth_opening(portrait.landmarks) / yardstick < MAX_OPENING
        and eye_openness(portrait.landmarks) > MIN_EYES
        and np.hypot(lab[:, 1], lab[:, 2]).mean() > MIN_COLOURFULNESS
    )


def head_outline(matte: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Where rays from the face's centre leave the person, [rays, 2]."""
    centre = landmarks.mean(0)
    radii = np.arange(0, SIZE, dtype=np.float32)
    points = []
    for angle in np.radians(HEAD_RAYS_DEG):
        ray = centre + radii[:, None] * (np.cos(angle), np.sin(angle))
        x, y = np.clip(ray, 0, SIZE - 1).astype(int).T
        outside = (matte[y, x] < 0.5) | (ray < 0).any(1) | (ray > SIZE - 1).any(1)
        points.append(ray[max(1, int(outside.argmax()))])
    return np.array(points)


def shoulder_line(matte: np.ndarray) -> np.ndarray:
    """The shoulders' height in some columns, [columns, 2]."""
    points = []
    for part in SHOULDER_COLUMNS:
        column = matte[SIZE // 2 :, int(part * SIZE)] > 0.5
        points.append((part * SIZE, SIZE // 2 + int(column.argmax()) if column.any() else SIZE - 1))
    return np.array(points)


def most_alike(faces: Sequence[Face], count: int) -> list[Face]:
    """The group of ``count`` faces with the smallest spread around one of them."""
    looks = []
    for face in faces:
        lab = cv2.cvtColor(face.pixels, cv2.COLOR_RGB2LAB).astype(np.float32)
        person = np.dstack([lab * face.matte[..., None], 200 * face.matte])
        looks.append(cv2.resize(person, (LOOK, LOOK), interpolation=cv2.INTER_AREA).ravel())
    table = np.array(looks)
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
    nearest = np.argsort(distances, axis=1)[:, :count]
    spread = np.take_along_axis(distances, nearest, 1).mean(1)
    return [faces[i] for i in nearest[int(spread.argmin())]]


def bend(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The thin-plate spline that takes target points to source points, as a map for ``cv2.remap``.

    Args:
        target, source: float32 [N, 2] pixels.

    Returns:
        float32 [512, 512, 2]: where each pixel of the target frame lies in the source.
    """

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        square = ((a[:, None] - b[None]) ** 2).sum(-1)
        return square * np.log(square + 1e-9)

    def flat(a: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(a)), a])

    a, b = target.astype(np.float64) / SIZE, source.astype(np.float64) / SIZE
    count = len(a)
    system = np.zeros((count + 3, count + 3))
    system[:count, :count] = kernel(a, a) + BEND_STIFFNESS * np.eye(count)
    system[:count, count:] = flat(a)
    system[count:, :count] = flat(a).T
    weights = np.linalg.solve(system, np.concatenate([b, np.zeros((3, 2))]))
    coarse = 64
    at = (np.arange(coarse) + 0.5) / coarse
    grid = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    moved = np.concatenate([kernel(grid, a), flat(grid)], 1) @ weights - grid
    shift = cv2.resize(moved.reshape(coarse, coarse, 2).astype(np.float32), (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
    pixels = np.arange(SIZE, dtype=np.float32)
    return (shift * SIZE + np.stack(np.meshgrid(pixels, pixels), -1)).astype(np.float32)


def bent(face: Face, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A face in another shape: Lab float32 [512, 512, 3], its matte and its skin."""
    where = bend(shape, face.points)
    lab = cv2.cvtColor(face.pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)

    def move(x: np.ndarray, how: int) -> np.ndarray:
        return cv2.remap(x, where[..., 0], where[..., 1], how, borderMode=cv2.BORDER_REPLICATE)

    return (
        move(lab, cv2.INTER_CUBIC),
        np.clip(move(face.matte, cv2.INTER_LINEAR), 0, 1),
        move(face.skin, cv2.INTER_LINEAR),
    )


def matched(labs: list[np.ndarray], skins: list[np.ndarray]) -> list[np.ndarray]:
    """The pictures with the mean and spread of their skin's colours brought to the group's."""
    figures = []
    for lab, skin in zip(labs, skins, strict=True):
        colours = lab[skin > 0.8]
        figures.append((colours.mean(0), colours.std(0)))
    mean, spread = np.mean([f[0] for f in figures], 0), np.mean([f[1] for f in figures], 0)
    return [(lab - m) * (spread / s) + mean for lab, (m, s) in zip(labs, figures, strict=True)]


def blend(labs: list[np.ndarray], mattes: list[np.ndarray]) -> np.ndarray:
    """Their mean, band by band, each band's local contrast partly given back. float32 [512, 512, 3]."""
    weights = [m + 1e-3 for m in mattes]
    total = np.sum(weights, 0)[..., None]
    bands = [_bands(lab) for lab in labs]
    out = np.sum([b[-1] * w[..., None] for b, w in zip(bands, weights, strict=True)], 0) / total
    for level in range(BANDS):
        mean = np.sum([b[level] * w[..., None] for b, w in zip(bands, weights, strict=True)], 0) / total
        sigma = 4.0 * 2**level
        own = cv2.GaussianBlur(mean[..., 0] ** 2, (0, 0), sigma)
        theirs = np.mean([cv2.GaussianBlur(b[level][..., 0] ** 2, (0, 0), sigma) for b in bands], 0)
        gain = np.clip(np.sqrt(theirs / (own + 1e-6)), 1, MAX_GAIN[level])
        out = out + mean * gain[..., None]
    return out.astype(np.float32)


def _bands(lab: np.ndarray) -> list[np.ndarray]:
    """Differences of growing blurs, finest first, and what is left."""
    bands, rest = [], lab
    for level in range(BANDS):
        blurred = cv2.GaussianBlur(rest, (0, 0), 1.2 * 2**level)
        bands.append(rest - blurred)
        rest = blurred
    return [*bands, rest]


def clothes_region(shape: np.ndarray) -> np.ndarray:
    """Where neck and clothes are in a shape, float32 [512, 512, 1]: below the jaw, with a soft edge."""
    oval = shape[FACE_OVAL]
    jaw = oval[oval[:, 1] > np.median(oval[:, 1])]
    jaw = jaw[np.argsort(jaw[:, 0])]
    edge = np.interp(np.arange(SIZE), jaw[:, 0], jaw[:, 1])
    edge = np.maximum(edge, shape[LIPS, 1].max())  # beside the jaw there is nothing to wear
    rows = np.arange(SIZE)[:, None]
    soft = np.clip((rows - edge[None] - CLOTHES_GAP_PX) / CLOTHES_SOFT_PX, 0, 1).astype(np.float32)
    return cv2.GaussianBlur(soft, (0, 0), 4)[..., None]


def most_typical(labs: list[np.ndarray], mattes: list[np.ndarray], region: np.ndarray) -> int:
    """Index of the picture closest to the group's mean within a region."""
    persons = [np.dstack([lab, 100 * matte]) * region for lab, matte in zip(labs, mattes, strict=True)]
    mean = np.mean(persons, 0)
    return int(np.argmin([np.abs(person - mean).mean() for person in persons]))


def compose(faces: list[Face]) -> np.ndarray:
    """The composite, uint8 [512, 512, 3] RGB."""
    shape = np.mean([face.points for face in faces], 0)
    labs, mattes, skins = [], [], []
    for face in tqdm(faces, desc="warp", unit="face"):
        lab, matte, skin = bent(face, shape)
        labs.append(lab)
        mattes.append(matte)
        skins.append(skin)
    labs = matched(labs, skins)
    clothes = clothes_region(shape)
    wearer = most_typical(labs, mattes, clothes)
    lab = blend(labs, mattes) * (1 - clothes) + labs[wearer] * clothes
    matte = np.mean(mattes, 0)[..., None] * (1 - clothes) + mattes[wearer][..., None] * clothes
    lab[..., 0] = np.clip(lab[..., 0], 0, 100)
    lab[..., 1:] *= CHROMA
    person = np.clip(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB), 0, 1) * 255
    matte = np.clip((matte - 0.35) / 0.3, 0, 1)
    grey = np.linspace(TOP_GREY, BOTTOM_GREY, SIZE)[:, None, None] * (0.97, 0.99, 1.0)
    return np.clip(person * matte + grey * (1 - matte), 0, 255).round().astype(np.uint8)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, help="folder of JPEG portraits")
    parser.add_argument("--out", type=Path, required=True, help="the JPEG to write")
    parser.add_argument("--count", type=int, default=20, help="faces in the composite (default 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the order in which portraits are looked at")
    options = parser.parse_args(argv)
    paths = sorted(options.portraits.glob("*.jpg"))
    random.Random(options.seed).shuffle(paths)
    faces = [face for path in tqdm(paths, desc="read", unit="portrait") if (face := read_face(path)) is not None]
    if len(faces) < options.count:
        parser.error(f"{len(faces)} of {len(paths)} portraits suit, {options.count} are needed: lower --count")
    chosen = most_alike(faces, options.count)
    Image.fromarray(compose(chosen)).save(options.out, quality=92, optimize=True)
    print(f"{options.out}: {len(chosen)} of {len(faces)} suitable faces of {len(paths)} portraits")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
