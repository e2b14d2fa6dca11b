"""A step of the engine in one pass for all its rows: two programs on the GPU, hear and draw, the CPU between.

The CPU keeps what is tiny or has a memory: new sound's conv features, the speech gate, idle motion. Up go
windows of features and one table of numbers, down come pictures, and where each pixel looks of those rows
that want a cut-out.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from engine.api import EngineSpec, StepRow
from engine.compile.bucket_graphs import BUCKETS, BucketGraphs
from engine.compile.gpu import program_on
from engine.motion import idle_motion
from engine.s3dnerf.batch_frame import WIDTHS, BatchFrame, pack
from engine.s3dnerf.face import BROW_RAISE, controls, draw_cutout, head_turns
from engine.s3dnerf.geometry import CROP_PX, Anchor
from engine.s3dnerf.model import S3DNerf
from engine.s3dnerf.portrait_bank import PortraitBank
from engine.s3dnerf.stage_examples import thrifty_samples
from engine.s3dnerf.stages import Hear

if TYPE_CHECKING:
    from engine.s3dnerf.engine import S3DNerfState

PLACES = 128  # portraits resident at once; two thirds of a gigabyte


class BatchStep:
    """Steps rows together; a row's frame depends on its neighbours by the rounding of float32 at most.

    Args:
        model: on the CPU; a copy is moved to the device.
        spec: of the engine.
        closed, gain: of the checkpoint, [K].
        device: where to compute; on the CPU eagerly, which is slow and for tests.
        buckets: rows that a program may be run with; the largest is the most rows of a step.
        half: convolve and multiply in half precision.
        record: False computes on a GPU without CUDA graphs, to compare.
    """

    def __init__(
        self,
        model: S3DNerf,
        spec: EngineSpec,
        closed: Tensor,
        gain: Tensor,
        device: torch.device,
        *,
        buckets: Sequence[int] = BUCKETS,
        places: int = PLACES,
        half: bool = False,
        record: bool = True,
    ) -> None:
        self._model, self._spec = model, spec
        config, most = model.config, buckets[-1]
        moved = copy.deepcopy(model).to(device)
        audio = config.audio
        window = torch.zeros(1, audio.window_features, audio.conv_dim[-1])
        self._hear_net = program_on(device, Hear(model).eval(), (window,), most).module(check_guards=False)
        few = thrifty_samples(config.samples)
        self._nets = {
            thrift: BatchFrame(moved, samples, closed, gain, half=half).to(device).eval()
            for thrift, samples in enumerate((config.samples, few)[: 2 if few < config.samples else 1])
        }
        self.bank = PortraitBank(config, places, device)
        pinned = device.type == "cuda"
        self._windows = torch.zeros(most, audio.window_features, audio.conv_dim[-1], device=device)
        self._windows_host = torch.zeros(self._windows.shape, pin_memory=pinned)
        self._driving = torch.zeros(most, audio.tokens, audio.width, device=device)
        self._codes = torch.zeros(most, config.codes, device=device)
        self._logits = torch.zeros(most, device=device)
        self._logits_host = torch.zeros(most, pin_memory=pinned)
        self._table = torch.zeros(most, sum(WIDTHS), device=device)
        self._table_host = torch.zeros(self._table.shape, pin_memory=pinned)
        self._pictures = torch.zeros(most, CROP_PX, CROP_PX, 3, dtype=torch.uint8, device=device)
        self._pictures_host = torch.zeros(self._pictures.shape, dtype=torch.uint8, pin_memory=pinned)
        self._flows = torch.zeros(most, 2, CROP_PX, CROP_PX, device=device)
        self._graphs = BucketGraphs(device, buckets, record=record)
        self._prepare(buckets[0])  # whether it can be recorded at all, shows here
        self.stage_ms: Mapping[str, float] = {}

    def make_ready(self, rows: int) -> None:
        """Record what steps of up to so many rows need, before anybody waits for them.

        An engine that only enrols does without.
        """
        for bucket in self._graphs.buckets:  # as they were, should memory turn out too small for some
            if bucket <= self._graphs.bucket_of(rows):
                try:
                    self._prepare(bucket)
                except torch.OutOfMemoryError:
                    self._graphs.give_up(bucket)
                    return

    def _prepare(self, bucket: int) -> None:
        self._graphs.prepare("hear", self._hear, bucket)
        for thrift in self._nets:
            self._graphs.prepare(f"draw {thrift}", functools.partial(self._draw, thrift), bucket)

    @torch.inference_mode()
    def step(self, rows: Sequence[StepRow], state: S3DNerfState) -> np.ndarray:
        """As ``Engine.step``, for avatars of this model; what is heard is not taken back where it raises."""
        times = [time.perf_counter()]
        with self._graphs.on_stream():
            places = self.bank.place([row.avatar for row in rows])
        sounds = [torch.from_numpy(np.ascontiguousarray(row.samples, np.float32)) for row in rows]
        self._start_hearing(state.windows.push_rows([row.slot for row in rows], sounds))
        numbers = self._numbers(rows, places, state)  # while the GPU hears
        self._graphs.wait()
        logits = self._logits_host[: len(rows)].tolist()
        shares = [state.gate.open(row.slot, x, row.samples) for row, x in zip(rows, logits, strict=True)]
        table = pack(np.array(places), np.arange(len(rows)), *numbers[:4], np.array(shares), numbers[4])
        times.append(time.perf_counter())
        pictures = np.empty((len(rows), CROP_PX, CROP_PX, 3), np.uint8)
        flows: dict[int, np.ndarray] = {}
        for thrift in self._nets:
            group = [i for i, row in enumerate(rows) if min(row.thrift, len(self._nets) - 1) == thrift]
            if group:
                flows |= self._draw_group(thrift, rows, group, table, pictures)
        times.append(time.perf_counter())
        for i, flow in flows.items():
            cutout = rows[i].cutout
            assert cutout is not None
            draw_cutout(cutout, pictures[i], rows[i].avatar.arrays["cutout"], flow)
        times.append(time.perf_counter())
        features, draw, cut = ((end - begin) * 1000 for begin, end in zip(times, times[1:], strict=False))
        self.stage_ms = {"features": features, "draw": draw} | ({"cutout": cut} if flows else {})
        return pictures

    def _start_hearing(self, windows: Tensor) -> None:
        rows = len(windows)
        self._windows_host[:rows].copy_(windows)
        with self._graphs.on_stream():
            self._windows[:rows].copy_(self._windows_host[:rows], non_blocking=True)
            self._graphs.run("hear", self._hear, self._graphs.bucket_of(rows))
            self._logits_host[:rows].copy_(self._logits[:rows], non_blocking=True)

    def _hear(self, rows: int) -> None:
        told = self._hear_net(self._windows[:rows])
        for kept, new in zip((self._driving, self._codes, self._logits), told, strict=True):
            kept[:rows].copy_(new)

    def _numbers(self, rows: Sequence[StepRow], places: list[int], state: S3DNerfState) -> tuple[np.ndarray, ...]:
        """Rotation, shift, corner of the mouth box, controls and blink of each row."""
        motions = []
        for row in rows:
            state.hops[row.slot] += len(row.samples) // self._spec.hop_samples
            options, frame = state.options[row.slot], self._spec.frame_after(int(state.hops[row.slot]))
            motions.append(row.turn.added_to(idle_motion(options.seed, frame, options.motion, self._spec.fps)))
        mouths, eyes = self.bank.mouths[places], self.bank.eyes[places]
        pose = head_turns(mouths, motions)
        mouth = torch.from_numpy(mouths)
        centre = self._model.mouth_box_centre(Anchor(mouth, mouth[:, :1]), pose)
        corner = ((centre + 1) / 2 * CROP_PX).round() - self._model.config.mouth_box // 2
        faces = [controls(e, e, m.brow * BROW_RAISE) for e, m in zip(eyes.tolist(), motions, strict=True)]
        blinks = np.array([motion.blink for motion in motions])
        return pose.rotation.numpy(), pose.shift.numpy(), corner.numpy(), np.stack(faces), blinks

    def _draw_group(
        self, thrift: int, rows: Sequence[StepRow], group: list[int], table: np.ndarray, pictures: np.ndarray
    ) -> dict[int, np.ndarray]:
        """Draw some of the rows into ``pictures``; returns where the pixels look of those that want a cut-out."""
        count, bucket = len(group), self._graphs.bucket_of(len(group))
        if count > bucket:
            first = self._draw_group(thrift, rows, group[:bucket], table, pictures)
            return first | self._draw_group(thrift, rows, group[bucket:], table, pictures)
        host = self._table_host.numpy()
        host[:count] = table[group]
        host[count:bucket] = table[group[0]]  # padding repeats the first row
        with self._graphs.on_stream():
            self._table[:bucket].copy_(self._table_host[:bucket], non_blocking=True)
            try:
                self._graphs.run(f"draw {thrift}", functools.partial(self._draw, thrift), bucket)
            except torch.OutOfMemoryError:
                self._graphs.give_up(bucket)
                return self._draw_group(thrift, rows, group, table, pictures)
            self._pictures_host[:count].copy_(self._pictures[:count], non_blocking=True)
            self._graphs.wait()
            pictures[group] = self._pictures_host[:count].numpy()
            wanted = [(k, i) for k, i in enumerate(group) if rows[i].cutout is not None]
            return {i: self._flows[k].to("cpu", copy=True).numpy() for k, i in wanted}

    def _draw(self, thrift: int, rows: int) -> None:
        net = self._nets[thrift]
        pictures, flows = net(self.bank.portraits, self._driving, self._codes, self._table[:rows])
        self._pictures[:rows].copy_(pictures)
        self._flows[:rows].copy_(flows)

    def close(self) -> None:
        self._graphs.close()
