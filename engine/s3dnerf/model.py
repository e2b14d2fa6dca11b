"""The whole model: what is done once per portrait, and what is done per frame."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.audio.features import SpeechFeatures
from engine.s3dnerf.audio_network import AudioNetwork
from engine.s3dnerf.config import S3DConfig
from engine.s3dnerf.deformation import DeformationField
from engine.s3dnerf.encoder import AppearanceEncoder
from engine.s3dnerf.geometry import CROP_PX, Anchor, Pose, anchor_of, box_grid, depth_of
from engine.s3dnerf.renderer import Coarse, Renderer
from engine.s3dnerf.slot_attention import SlotAttention
from engine.s3dnerf.superres import Paint, SuperResolution


class Identity(NamedTuple):
    """All of a portrait that frames need; constant while it speaks."""

    planes: Tensor  # [B, 3, hidden, S, S], baked
    aggregate: Tensor  # F_agg [B, Hs * Ws, Dslot]
    shallow: Tensor  # D_0 [B, C, 128, 128]
    depth: Tensor  # [B, 1, 32, 32]
    anchor: Anchor


class Frame(NamedTuple):
    """One rendered frame in its parts."""

    lattice: Tensor  # [B, 3 Dz, N, N]
    coarse: Coarse
    paint: Paint
    centre: Tensor  # [B, 2], of the mouth box in the target, on a pixel boundary
    warped: Tensor  # [B, 3, M, M], the warped portrait in the mouth box

    @property
    def fine(self) -> Tensor:
        """The mouth box, [B, 3, M, M] in [-1, 1]."""
        return self.warped + self.paint.cover * (self.paint.colour - self.warped)


class S3DNerf(nn.Module):
    def __init__(self, config: S3DConfig, *, pretrained: bool = False) -> None:
        """Build the model; ``pretrained`` as in ``SpeechFeatures``: a fresh start on published speech weights."""
        super().__init__()
        self.config = config
        self.features = SpeechFeatures(config.audio, pretrained=pretrained)
        self.audio = AudioNetwork(config)
        self.encoder = AppearanceEncoder(config)
        self.slots = SlotAttention(config)
        self.field = DeformationField(config)
        self.renderer = Renderer(config)
        self.superres = SuperResolution(config)

    def enrol(self, image: Tensor, landmarks: Tensor) -> Identity:
        """Portrait [B, 3, 256, 256] in [-1, 1] and landmarks [B, 478, 3] -> what frames need of it."""
        pyramid, shallow = self.encoder(image)
        return Identity(
            planes=self.renderer.bake(pyramid),
            aggregate=self.slots(pyramid),
            shallow=shallow,
            depth=depth_of(landmarks),
            anchor=anchor_of(landmarks),
        )

    def hear(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Conv features of a window [B, T, C] -> a_dri [B, tokens, width] and lip-motion codes [B, K]."""
        return self.audio(self.features.contextualise(window))

    def mouth_box_centre(self, anchor: Anchor, pose: Pose) -> Tensor:
        """Where the mouth box stands in the target, moved to whole pixels: [B, 2]."""
        mouth = pose.to_target(anchor.mouth[:, None])[:, 0, :2].detach()
        half = self.config.mouth_box // 2
        pixel = ((mouth + 1) / 2 * CROP_PX).round().clamp(half, CROP_PX - half)
        return pixel / CROP_PX * 2 - 1

    def forward(
        self,
        identity: Identity,
        image: Tensor,
        drive: Tensor,
        driving: Tensor,
        pose: Pose,
        steers: Tensor | None = None,
    ) -> Frame:
        """Render one frame.

        Args:
            identity: of the portrait.
            image: the portrait, [B, 3, 256, 256] in [-1, 1].
            drive: [B, 2 * codes + 3]: wanted codes, own codes, controls (``deformation.CONTROLS``).
            driving: a_dri [B, tokens, width].
            pose: source from target.
            steers: [B], in training, 1 where the pictures' loss may move the deformation field, 0 where it
                has landmarks alone to go by; None: everywhere.
        """
        anchor = identity.anchor
        lattice = self.field(drive, driving, identity.aggregate, anchor)
        bent = lattice
        if steers is not None:
            bent = torch.where(steers[:, None, None, None] > 0, lattice, lattice.detach())
        coarse = self.renderer(identity.planes, identity.depth, pose, self.field, bent, anchor)
        centre = self.mouth_box_centre(anchor, pose)
        flow = self.flow_in_box(coarse, centre)
        warped = F.grid_sample(image, flow, align_corners=False, padding_mode="border")
        paint = self.superres(coarse, identity.shallow, warped, drive, centre, anchor)
        return Frame(lattice, coarse, paint, centre, warped)

    def flow_in_box(self, coarse: Coarse, centre: Tensor) -> Tensor:
        """The source coordinate of each pixel of the mouth box: [B, M, M, 2]."""
        renderer = self.renderer
        grid = box_grid(centre, self.config.mouth_box / CROP_PX, self.config.mouth_box)
        in_face = torch.cat([grid[..., :1], grid[..., 1:] - renderer.top], -1) / renderer.extent
        flow = F.grid_sample(coarse.flow, in_face, align_corners=False, padding_mode="border")
        return flow.permute(0, 2, 3, 1)
