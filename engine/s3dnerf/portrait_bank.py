"""Portraits' tensors resident where frames are computed: uploaded once, gathered by place ever after."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from engine.api import Avatar
from engine.landmarks import eye_openness
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.eyelids import LID_ROWS, find_eyelids, lid_columns
from engine.s3dnerf.face import paintable
from engine.s3dnerf.geometry import CROP_PX, DEPTH_SIZE, anchor_of


class Portraits(NamedTuple):
    """What frames need of portraits, one behind the other. Where avatars hold half precision, so does this."""

    image: Tensor  # float32 [N, 3, 256, 256] in [-1, 1]
    planes: Tensor  # float16 [N, 3, hidden, S, S]
    aggregate: Tensor  # float32 [N, Hs * Ws, Dslot]
    shallow: Tensor  # float16 [N, C, 128, 128]
    depth: Tensor  # float32 [N, 1, 32, 32]
    head: Tensor  # float32 [N, 1, 256, 256]
    paintable: Tensor  # float32 [N, 1, 256, 256]
    own_code: Tensor  # float32 [N, K]
    mouth: Tensor  # float32 [N, 3]
    unit: Tensor  # float32 [N, 1]
    lids: Tensor  # float32 [N, 4, 256], see eyelids.lid_columns

    def take(self, places: Tensor) -> Portraits:
        """Those at ``places``, int64 [B]."""
        return Portraits(*(x[places] for x in self))


class PortraitBank:
    """A fixed number of places; a portrait keeps its own until its avatar goes, or others need it more.

    Args:
        config: of the model.
        places: portraits at most, each about 5 MB.
        device: where they lie.
    """

    def __init__(self, config: S3DConfig, places: int, device: torch.device) -> None:
        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(places, *shape, dtype=dtype, device=device)

        size = config.plane_size
        self.portraits = Portraits(
            image=room(3, CROP_PX, CROP_PX),
            planes=room(3, config.plane_features, size, size, dtype=torch.float16),
            aggregate=room(config.slot_grid**2, config.slot_width),
            shallow=room(config.encoder_widths[0], CROP_PX // 2, CROP_PX // 2, dtype=torch.float16),
            depth=room(1, DEPTH_SIZE, DEPTH_SIZE),
            head=room(1, CROP_PX, CROP_PX),
            paintable=room(1, CROP_PX, CROP_PX),
            own_code=room(config.codes),
            mouth=room(3),
            unit=room(1).fill_(1),
            lids=room(LID_ROWS, CROP_PX),
        )
        self.mouths = np.zeros((places, 3), np.float32)
        self.eyes = np.zeros(places)  # their openness
        self._places: OrderedDict[int, int] = OrderedDict()  # by id() of the avatar, oldest use first
        self._free = list(range(places))[::-1]

    def __len__(self) -> int:
        return len(self._places)

    def place(self, avatars: Sequence[Avatar]) -> list[int]:
        """Where these portraits lie; new ones are uploaded, on the current stream.

        Args:
            avatars: of this model, no more different ones than there are places.
        """
        for avatar in avatars:  # before others are put out of their places
            if id(avatar) in self._places:
                self._places.move_to_end(id(avatar))
        for avatar in avatars:
            if id(avatar) not in self._places:
                self._upload(avatar)
        return [self._places[id(avatar)] for avatar in avatars]

    @torch.inference_mode()
    def _upload(self, avatar: Avatar) -> None:
        place = self._free.pop() if self._free else self._places.popitem(last=False)[1]
        arrays = {name: torch.from_numpy(np.array(value)) for name, value in avatar.arrays.items()}
        landmarks = avatar.arrays["landmarks"]
        anchor = anchor_of(torch.from_numpy(landmarks)[None])
        portrait = Portraits(
            image=arrays["crop"].permute(2, 0, 1).float().contiguous() / 127.5 - 1,
            planes=arrays["planes"],
            aggregate=arrays["aggregate"],
            shallow=arrays["shallow"],
            depth=arrays["depth"],
            head=arrays["head_share"][None].float() / 255,
            paintable=torch.from_numpy(paintable(landmarks))[None],
            own_code=arrays["own_code"],
            mouth=anchor.mouth[0],
            unit=anchor.unit[0],
            lids=lid_columns(find_eyelids(landmarks)),
        )
        for room, value in zip(self.portraits, portrait, strict=True):
            room[place].copy_(value)
        self.mouths[place] = anchor.mouth[0].numpy()
        self.eyes[place] = eye_openness(landmarks)
        self._places[id(avatar)] = place
        # Of the bank itself nothing may hang on an avatar, which others hold for longer.
        weakref.finalize(avatar, _vacate, self._places, self._free, id(avatar))


def _vacate(places: OrderedDict[int, int], free: list[int], key: int) -> None:
    place = places.pop(key, None)
    if place is not None:
        free.append(place)
