"""Sizes and switches of the model: `compact` for two CPU cores, `paper` as published.

Lengths on the picture are pixels of the 256 px crop; *eye distance* is that of the outer eye corners.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

DeformationKind = Literal["cross_modal", "no_correlation", "concatenated", "naive", "none"]


@dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """Wav2Vec2 (its conv stack and transformer) and the 1-D network behind it."""

    pretrained: str | None = None  # whose published weights training may begin with; None: our own from nothing
    conv_dim: tuple[int, ...] = (64, 96, 128)
    conv_kernel: tuple[int, ...] = (80, 5, 4)  # samples of 16 kHz sound, then steps of the layer before
    conv_stride: tuple[int, ...] = (20, 4, 4)  # 320 samples in all: 50 features a second
    conv_bias: bool = False  # without, layer norms make the features blind to loudness
    log_mel: bool = False  # the first layer is a log-mel spectrum of conv_dim[0] bands; False: learned filters
    hidden: int = 128
    layers: int = 3
    heads: int = 4
    feed_forward: int = 384
    position_kernel: int = 15
    position_groups: int = 4
    layer_norm_features: bool = True  # per-step norms, so that streaming is exact; False: as wav2vec2-base
    window_features: int = 32  # features (20 ms each) that one frame looks at
    lookahead_ms: int = 120
    tokens: int = 8  # a_dri has so many steps
    width: int = 128  # and so many channels
    speech_gate: bool = False  # a head tells speech from other sound, which it silences

    @property
    def stride_samples(self) -> int:
        total = 1
        for stride in self.conv_stride:
            total *= stride
        return total

    @property
    def receptive_samples(self) -> int:
        """Samples that one feature sees."""
        size, jump = 1, 1
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            size += (kernel - 1) * jump
            jump *= stride
        return size

    @property
    def window_samples(self) -> int:
        return (self.window_features - 1) * self.stride_samples + self.receptive_samples


@dataclass(frozen=True, kw_only=True)
class S3DConfig:
    """The whole model."""

    name: str = "compact"
    audio: AudioConfig = AudioConfig()
    codes: int = 8  # lip-motion codes, the auxiliary head on a_dri
    # section 1: encoder
    encoder_widths: tuple[int, ...] = (24, 48, 96, 128)  # D0..D3 at 128, 64, 32, 16 px
    plane_channels: int = 16  # C of each plane and scale
    # section 2: slots, correlation, deformation
    slots: int = 8
    slot_width: int = 64
    slot_grid: int = 16  # Hs = Ws
    slot_iterations: int = 3
    attention_heads: int = 4
    deformation: DeformationKind = "cross_modal"
    lattice: int = 64  # points along a side
    lattice_depths: int = 2  # Dz
    lattice_half: float = 1.15  # half side in eye distances
    lattice_rise: float = 0.3  # its centre stands so many eye distances above the mouth's
    lattice_width: int = 32
    # section 3: rendering
    plane_size: int = 128  # baked planes
    plane_features: int = 32  # channels of a baked plane = width of the decoder's first layer
    face_box: int = 176  # px, the part that the radiance field renders
    face_box_top: int = 52  # px from the crop's top; horizontally it is centred
    rays: int = 64  # along a side of the face box
    samples: int = 4  # along a ray
    depth_band: float = 0.12  # samples lie within so much of the depth centre, crop units
    features: int = 16  # feature channels composited beside colour
    mouth_box: int = 112  # px, the part that super-resolution paints
    superres_width: int = 48
    superres_blocks: int = 2  # residual, of two convolutions each
    # section 4 and 5
    sync_loss: bool = False


def compact(**changes: Any) -> S3DConfig:
    """Real time on two CPU cores is its design target."""
    audio = AudioConfig(
        conv_dim=(80, 128), conv_kernel=(512, 4), conv_stride=(160, 2), conv_bias=True, log_mel=True, speech_gate=True
    )
    return S3DConfig(**({"audio": audio} | changes))


def paper(**changes: Any) -> S3DConfig:
    """Paper-sized, on wav2vec2-base features; the widths that the paper leaves open are our choice."""
    audio = AudioConfig(
        pretrained="facebook/wav2vec2-base-960h",
        conv_dim=(512,) * 7,
        conv_kernel=(10, 3, 3, 3, 3, 2, 2),
        conv_stride=(5, 2, 2, 2, 2, 2, 2),
        hidden=768,
        layers=12,
        heads=12,
        feed_forward=3072,
        position_kernel=128,
        position_groups=16,
        layer_norm_features=False,
        width=256,
    )
    sizes: dict[str, Any] = dict(
        name="paper",
        audio=audio,
        encoder_widths=(64, 128, 256, 512),
        plane_channels=32,
        slots=16,
        slot_width=256,
        slot_grid=32,
        attention_heads=8,
        lattice_depths=4,
        lattice_width=64,
        plane_features=64,
        rays=88,
        samples=16,
        depth_band=0.4,
        features=32,
        mouth_box=176,
        superres_width=128,
        superres_blocks=4,
        sync_loss=True,
    )
    return S3DConfig(**(sizes | changes))


def to_json(config: S3DConfig) -> str:
    return json.dumps(dataclasses.asdict(config))


def from_json(text: str) -> S3DConfig:
    """Raises ValueError on text that is no configuration of this version."""
    try:
        data = json.loads(text)
        audio: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.pop("audio").items()}
        rest: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return S3DConfig(audio=AudioConfig(**audio), **rest)
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"not a configuration of this version: {error}") from error
