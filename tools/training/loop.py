"""The loop that every stage of training runs in: steps, not minutes, so that a run can be repeated and resumed.

Batch k is drawn from ``numpy.random.default_rng((seed, k))`` and step k runs under a torch generator seeded by
(seed, k): a run that was interrupted and resumed is the run that was not.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

AHEAD = 4  # batches drawn before they are wanted
WRITE_EVERY_S = 180.0
PRINT_EVERY = 50  # steps

Batch = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and how a stage runs; what it learns is the recipe's business."""

    out: Path  # of the state; the sample pictures lie beside it
    resume: bool = False
    stop_at: float | None = None  # time.monotonic() at which to write the state and stop
    device: torch.device = torch.device("cpu")
    workers: int = 0  # processes that draw batches; none: a thread of this one


class Stage(Protocol):
    """What the loop asks of a stage."""

    name: str
    steps: int
    seed: int

    def draw(self, rng: np.random.Generator, step: int) -> Batch:
        """The batch of a step, on the CPU; called on a thread of its own, some steps ahead."""

    def learn(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """One step of the optimiser; what it tells is printed as means."""

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, by name."""

    def restore(self, state: dict[str, Any]) -> None: ...

    def show(self, path: Path) -> None:
        """Write what can be looked at to ``path`` with a suffix of its own; nothing where there is nothing."""


def pick_device(name: str = "auto") -> torch.device:
    """``auto`` is CUDA where there is a GPU.

    Raises:
        ValueError: the device asked for is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"no GPU to train on ({name!r} was asked for); take --device cpu")
    return device


def half(device: torch.device) -> torch.autocast:
    """bfloat16 where it is faster and safe, on the CPU as on a GPU."""
    return torch.autocast(device.type, torch.bfloat16)


def rng_of(seed: int, step: int) -> np.random.Generator:
    """The random numbers of one step's batch."""
    return np.random.default_rng((seed, step))


def seed_torch(seed: int, step: int) -> None:
    """The random numbers of one step itself."""
    torch.manual_seed(int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def cosine(step: int, steps: int, warm_up: int = 0, least: float = 0.0) -> float:
    """Share of the full rate at a step: up over ``warm_up`` steps, then a half cosine down to ``least``."""
    up = min(1.0, (step + 1) / warm_up) if warm_up else 1.0
    return float(up * (least + (1 - least) * (0.5 + 0.5 * np.cos(np.pi * step / steps))))


class _Drawn(Dataset[Batch]):
    """Batches by the number of their step."""

    def __init__(self, draw: Callable[[int], Batch]) -> None:
        self._draw = draw

    def __getitem__(self, step: int) -> Batch:
        return self._draw(step)


def draw_apart(draw: Callable[[int], Batch], first: int, last: int, workers: int, *, pin: bool) -> Iterator[Batch]:
    """``draw(k)`` for k from ``first`` to ``last`` - 1, in this order, drawn by processes forked from this one.

    A GPU takes batches faster than one thread draws them. ``pin`` lays them in page-locked memory.
    """
    cv2.setNumThreads(0)  # its threads do not live on in a fork, and are waited for there
    before = signal.getsignal(signal.SIGCHLD)
    loader = DataLoader(
        _Drawn(draw),
        batch_size=None,
        sampler=range(first, last),
        num_workers=workers,
        multiprocessing_context="fork",
        pin_memory=pin,
    )
    batches = iter(loader)
    # By a handler DataLoader hears sooner that a process of its has died; without, it asks now and then. The handler
    # would hear of every later child, too, and where some library freed its signal stack, that ends this process.
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, before)
    yield from batches


def draw_ahead(draw: Callable[[int], Batch], first: int, last: int) -> Iterator[Batch]:
    """``draw(k)`` for k from ``first`` to ``last`` - 1, a few ahead on one thread; its exceptions come through."""
    waiting: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(1, "batches") as thread:
        try:
            for step in range(first, min(first + AHEAD, last)):
                waiting.append(thread.submit(draw, step))
            for step in range(first, last):
                batch = waiting.popleft().result()
                if step + AHEAD < last:
                    waiting.append(thread.submit(draw, step + AHEAD))
                yield batch
        finally:
            for future in waiting:
                future.cancel()


def train(stage: Stage, run: Run) -> bool:
    """Run a stage to its last step, or to the run's time.

    The state is written every three minutes and at the end.

    Returns:
        whether the last step is done.
    """
    step, spent = _begin(stage, run)
    if step >= stage.steps:
        return True
    begin = written = time.monotonic()
    told: dict[str, list[Tensor]] = defaultdict(list)
    draw = partial(_draw, stage)
    if run.workers:
        batches = draw_apart(draw, step, stage.steps, run.workers, pin=run.device.type == "cuda")
    else:
        batches = draw_ahead(draw, step, stage.steps)
    for batch in batches:
        seed_torch(stage.seed, step)
        losses = stage.learn({name: part.to(run.device, non_blocking=True) for name, part in batch.items()}, step)
        for name, loss in losses.items():
            told[name].append(loss.detach())
        step += 1
        now = time.monotonic()
        if step % PRINT_EVERY == 0 or step == stage.steps:
            _say(stage, step, spent + now - begin, told)
        if now - written > WRITE_EVERY_S:
            _write(stage, run, step, spent + now - begin)
            written = time.monotonic()
        if run.stop_at is not None and now >= run.stop_at and step < stage.steps:
            print(f"{stage.name}: time is over at step {step} of {stage.steps}; --resume goes on", flush=True)
            break
    batches.close()  # type: ignore[attr-defined]
    _write(stage, run, step, spent + time.monotonic() - begin)
    return step >= stage.steps


def _draw(stage: Stage, step: int) -> Batch:
    return stage.draw(rng_of(stage.seed, step), step)


def _begin(stage: Stage, run: Run) -> tuple[int, float]:
    """Steps done and seconds spent before this run."""
    if not (run.resume and run.out.exists()):
        return 0, 0.0
    state = torch.load(run.out, map_location=run.device)
    stage.restore(state)
    if state.get("steps", stage.steps) != stage.steps or state.get("seed", stage.seed) != stage.seed:
        print(f"{stage.name}: was begun with {state['steps']} steps and seed {state['seed']}", flush=True)
    print(f"{stage.name}: goes on from step {state['step']} of {stage.steps}", flush=True)
    return state["step"], state["spent"]


def _say(stage: Stage, step: int, spent: float, told: dict[str, list[Tensor]]) -> None:
    means = " ".join(f"{name} {torch.stack(values).mean().item():.4f}" for name, values in told.items())
    print(f"{stage.name} {step}/{stage.steps} {spent:.0f} s {means}", flush=True)
    told.clear()


def _write(stage: Stage, run: Run, step: int, spent: float) -> None:
    """The state in one piece or not at all, and the sample pictures."""
    state = stage.state() | dict(step=step, spent=spent, steps=stage.steps, seed=stage.seed)
    part = run.out.with_suffix(".part")
    torch.save(state, part)
    part.replace(run.out)
    stage.show(run.out)
