"""The S3D-NeRF engine: ``engine/api.py``'s contract kept by the model, its stages and a backend."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from engine.api import Avatar, Engine, EngineSpec, StepRow, StreamOptions, StreamState
from engine.audio.features import FeatureStream, SpeechFeatures
from engine.audio.speech_gate import SpeechGate
from engine.compile import Stage, candidates, compile_stage, on_gpu
from engine.compile.gpu import present_gpu
from engine.compile.openvino import engine_threads
from engine.cutout import cut_out
from engine.errors import AvatarStale, EngineUnavailable
from engine.lanes import Lanes
from engine.motion import idle_motion
from engine.portrait import Portrait, read_portrait
from engine.s3dnerf.batch_step import BatchStep
from engine.s3dnerf.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
from engine.s3dnerf.cpu_render import CpuRender
from engine.s3dnerf.eyelids import shut_eyes
from engine.s3dnerf.face import Face, draw_cutout, drive_of, head_share, head_turn
from engine.s3dnerf.geometry import CROP_PX, Pose
from engine.s3dnerf.stage_examples import stages_of, thrifty_samples
from engine.s3dnerf.stages import Render
from engine.s3dnerf.warp_kernel import finish

logger = logging.getLogger(__name__)

MAX_BATCH = 64
SHARED_OUT = ("paint",)  # stages long enough to be worth sharing, where a row is drawn alone
AVATAR_VERSION = "2"  # of the arrays below; another one makes stored avatars stale


class S3DNerfState(StreamState):
    """Per stream: the window of conv features, what was speech, hops heard, options."""

    def __init__(self, features: SpeechFeatures, slots: int) -> None:
        self.windows, self.gate = FeatureStream(features, slots), SpeechGate(slots)
        self.hops = np.zeros(slots, np.int64)
        self.options = [StreamOptions()] * slots

    def reset(self, slot: int, options: StreamOptions) -> None:
        self.windows.reset(slot)
        self.gate.reset(slot)
        self.hops[slot] = 0
        self.options[slot] = options

    def hush(self, slot: int) -> None:
        self.windows.reset(slot)

    def adjust(self, slot: int, options: StreamOptions) -> None:
        self.options[slot] = options

    @contextmanager
    def all_or_nothing(self, slots: list[int]) -> Iterator[None]:
        """Where the block raises, these streams have heard nothing in it."""
        windows, gate, hops = self.windows.copy(slots), self.gate.copy(slots), self.hops[slots]
        try:
            yield
        except BaseException:
            self.windows.restore(slots, windows)
            self.gate.restore(slots, gate)
            self.hops[slots] = hops
            raise


class S3DNerfEngine(Engine):
    """Rows of a step are drawn each by itself, as many at a time as there are lanes: on a CPU a batch brings nothing,
    and a row's frame hangs on its neighbours by a colour's last bit at most: drawn alone, its paint is shared out among
    the cores. With CUDA graphs rows are drawn together (``batch_step.py``)."""

    def __init__(self, checkpoint: Path | None = None, backend: str | None = None) -> None:
        """Load the checkpoint and compile the stages.

        Args:
            checkpoint: default the one that ships, or ``VISAVIS_CHECKPOINT``.
            backend: one of ``engine.compile.BACKENDS``; default ``VISAVIS_BACKEND``, or ``auto``.

        Raises:
            CheckpointError: it cannot be used.
            EngineUnavailable: no such backend, or it does not work here.
        """
        loaded = load_checkpoint(checkpoint or Path(os.environ.get("VISAVIS_CHECKPOINT", DEFAULT_CHECKPOINT)))
        self._model, self._motion = loaded.model, loaded.motion
        self._closed, self._gain = torch.from_numpy(loaded.closed), torch.from_numpy(loaded.gain)
        config = self._model.config
        self.spec = EngineSpec(
            name="s3dnerf",
            window_ms=config.audio.window_samples * 1000 // 16_000,
            lookahead_ms=config.audio.lookahead_ms,
            max_batch=MAX_BATCH,
            thrift_levels=int(thrifty_samples(config.samples) < config.samples),
            cuts_out=True,
        )
        self.fingerprint = f"{AVATAR_VERSION}-{loaded.fingerprint}"
        self._backend = ""
        self._batched: BatchStep | None = None
        self._lanes = Lanes(1)
        self._stages = self._compile(backend or os.environ.get("VISAVIS_BACKEND") or "auto")
        self._last = threading.local()  # ``.stage_ms`` of the last step on each thread
        self._faces: dict[int, Face] = {}  # by id() of the avatar; an entry goes with its avatar

    def _compile(self, backend: str) -> dict[str, Stage]:
        failures = []
        for name in candidates(backend):
            if name == "cuda-graph":
                try:
                    self._batched = self._compile_batched()
                except EngineUnavailable as error:
                    failures.append(str(error))
                    continue
                return self._chosen(name, failures, {})
            stages = stages_of(self._model, gpu=on_gpu(name))
            # Look-ups are most of the render stage: a CPU does them in kernels of our own.
            kernels = {k: stage for k, (stage, _) in stages.items() if type(stage) is Render and name != "eager"}
            try:
                lanes = Lanes(engine_threads() if name == "openvino" else 1)
                made = {
                    k: CpuRender(kernels[k], lanes)
                    if k in kernels
                    else compile_stage(
                        k, stage, example, name, self.fingerprint, alone=lanes.alone if k in SHARED_OUT else None
                    )
                    for k, (stage, example) in stages.items()
                }
            except EngineUnavailable as error:
                failures.append(str(error))
                continue
            self._lanes = lanes
            return self._chosen(name, failures, made)
        raise EngineUnavailable("; ".join(failures))

    def _chosen(self, name: str, failures: list[str], made: dict[str, Stage]) -> dict[str, Stage]:
        for failure in failures:
            logger.warning("%s; %s takes its place", failure, name)
        self._backend = name
        # PyTorch's own threads spin for a while when they have done their part, in the way of the backend's.
        torch.set_num_threads(engine_threads() if name == "eager" else 1)
        return made

    def _compile_batched(self) -> BatchStep:
        present_gpu("cuda-graph")
        try:
            device = torch.device("cuda", torch.cuda.current_device())
            return BatchStep(self._model, self.spec, self._closed, self._gain, device)
        except Exception as error:  # CUDA and cuDNN raise errors of many kinds
            raise EngineUnavailable(f"a step cannot be recorded as a CUDA graph: {error}") from error

    @property
    def backend(self) -> str:
        return self._backend

    @property
    def lanes(self) -> int:
        return self._lanes.count

    @property
    def threads(self) -> int:
        return 1 if on_gpu(self._backend) else engine_threads()

    @property
    def stage_ms(self) -> Mapping[str, float]:
        """Of the lane that was busy longest."""
        stage_ms: Mapping[str, float] = getattr(self._last, "stage_ms", {})
        return stage_ms

    def enrol(self, image: bytes) -> Avatar:
        return self.enrol_portrait(read_portrait(image))

    @torch.inference_mode()
    def enrol_portrait(self, portrait: Portrait) -> Avatar:
        """Everything about a portrait that frames need, from its aligned view."""
        picture = torch.from_numpy(portrait.crop).permute(2, 0, 1)[None].float() / 127.5 - 1
        identity = self._model.enrol(picture, torch.from_numpy(portrait.landmarks)[None])
        arrays = {
            "crop": portrait.crop,
            "landmarks": portrait.landmarks,
            "matte": portrait.matte,
            "cutout": cut_out(portrait.crop, portrait.matte, portrait.face_mask),
            "face_mask": portrait.face_mask,
            "photo_from_crop": portrait.photo_from_crop,
            "photo_size": np.array(portrait.photo_size, np.int32),
            "planes": identity.planes[0].half().numpy(),
            "aggregate": identity.aggregate[0].numpy(),
            "shallow": identity.shallow[0].half().numpy(),
            "depth": identity.depth[0].numpy(),
            "own_code": np.clip(self._motion.guess_code(portrait.landmarks), -4, 4),
            "head_share": (head_share(portrait) * 255).round().astype(np.uint8),
        }
        angles = {n: f"{getattr(portrait, n):.1f}" for n in ("yaw_deg", "pitch_deg", "roll_deg")}
        return Avatar(engine=self.spec.name, fingerprint=self.fingerprint, arrays=arrays, notes=angles)

    def batch_key(self, avatar: Avatar) -> Hashable:
        return None  # any avatars may share a step

    def init_state(self, max_batch: int) -> S3DNerfState:
        if self._batched is not None:
            self._batched.make_ready(max_batch)
        return S3DNerfState(self._model.features, max_batch)

    def step(self, rows: Sequence[StepRow], state: StreamState) -> np.ndarray:
        assert isinstance(state, S3DNerfState)
        if self._batched is not None:
            return self._step_batched(self._batched, rows, state)
        booked: dict[int, dict[str, float]] = {}  # by the thread that drew
        for row in rows:
            self._face(row.avatar)  # here, where no lane that shares in this step does the same

        def draw(row: StepRow) -> np.ndarray:
            return self._draw(row, state, booked.setdefault(threading.get_ident(), {}))

        with state.all_or_nothing([row.slot for row in rows]):
            pictures = np.stack(self._lanes.each(draw, rows))
        self._last.stage_ms = max(booked.values(), key=lambda stages: sum(stages.values()))
        return pictures

    def _step_batched(self, batched: BatchStep, rows: Sequence[StepRow], state: S3DNerfState) -> np.ndarray:
        for row in rows:
            self._check(row.avatar)
        with state.all_or_nothing([row.slot for row in rows]):
            pictures = batched.step(rows, state)
        self._last.stage_ms = dict(batched.stage_ms)
        return pictures

    @torch.inference_mode()
    def _draw(self, row: StepRow, state: S3DNerfState, booked: dict[str, float]) -> np.ndarray:
        """A row's picture; ``booked``: where the time goes."""
        face = self._face(row.avatar)
        begin = time.perf_counter()
        driving, codes = self._hear(row, state)
        begin = book(booked, "features", begin)
        options = state.options[row.slot]
        frame = self.spec.frame_after(int(state.hops[row.slot]))
        motion = row.turn.added_to(idle_motion(options.seed, frame, options.motion, self.spec.fps))
        drive = drive_of(codes, face, motion)
        anchor = (face.anchor.mouth, face.anchor.unit)
        (lattice,) = self._stages["deform"](drive, driving, face.aggregate, *anchor)
        begin = book(booked, "deformation", begin)
        pose = head_turn(face, motion)
        image = shut_eyes(face.image, face.lids, motion.blink)
        warped, flow, seen = self._stages["render_thrifty" if row.thrift else "render"](
            lattice, face.planes, face.depth, image, face.head, *anchor, pose.rotation, pose.shift
        )
        begin = book(booked, "render", begin)
        picture = self._paint(face, drive, pose, warped, seen)
        begin = book(booked, "superres", begin)
        if row.cutout is not None:
            draw_cutout(row.cutout, picture, row.avatar.arrays["cutout"], flow[0].float().cpu().numpy())
            book(booked, "cutout", begin)
        return picture

    def _hear(self, row: StepRow, state: S3DNerfState) -> tuple[Tensor, Tensor]:
        window = state.windows.push(row.slot, torch.from_numpy(np.ascontiguousarray(row.samples, np.float32)))
        state.hops[row.slot] += len(row.samples) // self.spec.hop_samples
        driving, codes, logit = self._stages["hear"](window[None])
        if self._model.audio.gated:
            share = state.gate.open(row.slot, logit.item(), row.samples)
            driving, codes = self._model.audio.shut(driving, codes, torch.tensor([share]))
        return driving, self._closed + (codes - self._closed) * self._gain

    def _paint(self, face: Face, drive: Tensor, pose: Pose, warped: Tensor, seen: Tensor) -> np.ndarray:
        """The finished picture, uint8 [256, 256, 3]."""
        box = self._model.config.mouth_box
        centre = self._model.mouth_box_centre(face.anchor, pose)
        left, top = (round(float(c + 1) / 2 * CROP_PX) - box // 2 for c in centre[0])
        inside = (..., slice(top, top + box), slice(left, left + box))
        before = warped[inside].contiguous()
        colour, cover = self._stages["paint"](
            seen, face.shallow, before, drive, centre, face.anchor.mouth, face.anchor.unit
        )
        picture = np.empty((CROP_PX, CROP_PX, 3), np.uint8)
        maps = (x[0].numpy() for x in (warped, colour, cover[0], face.paintable[0]))
        finish(picture, *maps, top, left)
        return picture

    def _face(self, avatar: Avatar) -> Face:
        """The avatar's tensors, for as long as anybody holds the avatar."""
        face = self._faces.get(id(avatar))
        if face is None:
            self._check(avatar)
            face = self._faces[id(avatar)] = Face.of(avatar)
            weakref.finalize(avatar, self._faces.pop, id(avatar), None)
        return face

    def _check(self, avatar: Avatar) -> None:
        if (avatar.engine, avatar.fingerprint) != (self.spec.name, self.fingerprint):
            raise AvatarStale(
                f"the avatar was made by {avatar.engine} {avatar.fingerprint}, this is {self.spec.name} "
                f"{self.fingerprint}; enrol the portrait again"
            )

    def close(self) -> None:
        if self._batched is not None:
            self._batched.close()
            self._batched = None
        self._faces.clear()
        self._stages = {}
        self._lanes.close()


def book(booked: dict[str, float], stage: str, begin_s: float) -> float:
    """Add the milliseconds since ``begin_s`` to a stage's; returns the time now."""
    now_s = time.perf_counter()
    booked[stage] = booked.get(stage, 0.0) + (now_s - begin_s) * 1000
    return now_s
