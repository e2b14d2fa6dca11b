"""Processes that each hold an engine of their own and measure with it, one piece of work after the other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

import cv2
from tqdm import tqdm

from engine.api import Engine
from engine.errors import VisavisError
from engine.registry import create_engine

Result = TypeVar("Result")

_engine: Engine | None = None  # of a worker process


class EnginePool:
    """``jobs`` processes for a ``with`` block.

    Args:
        engine: its name in the registry.
        jobs: processes; the machine's cores are shared out among them.
    """

    def __init__(self, engine: str, jobs: int) -> None:
        threads = max(1, (os.cpu_count() or 1) // jobs)
        spawn = get_context("spawn")  # torch and OpenCV do not survive a fork
        self._pool = ProcessPoolExecutor(jobs, spawn, initializer=_start_worker, initargs=(engine, threads))

    def __enter__(self) -> EnginePool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(
        self, works: Mapping[str, Callable[[Engine], Result]], unit: str
    ) -> tuple[dict[str, Result], dict[str, str]]:
        """Do all works, with a progress bar.

        Args:
            works: by name; what is called with the worker's engine. They cross to a process, so each is a
                ``functools.partial`` of a module's function, or the like.

        Returns:
            the results by name, and the reasons of those works that raised a ``VisavisError``: one broken
            file must not end the run. Both in the order of ``works``.
        """
        futures = {self._pool.submit(_try_work, work): name for name, work in works.items()}
        results: dict[str, Result] = {}
        failed: dict[str, str] = {}
        for future in tqdm(as_completed(futures), total=len(works), unit=unit, disable=None):
            result, reason = future.result()
            if reason is None:
                results[futures[future]] = result
            else:
                failed[futures[future]] = reason
        return {n: results[n] for n in works if n in results}, {n: failed[n] for n in works if n in failed}


def _start_worker(name: str, threads: int) -> None:
    global _engine
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # MediaPipe's notices, which no setting silences; errors are returned
    os.environ["VISAVIS_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(threads)  # before an engine starts its pool
    cv2.setNumThreads(threads)
    _engine = create_engine(name)


def _try_work(work: Callable[[Engine], Any]) -> tuple[Any, str | None]:
    """(result, None) or (None, reason)."""
    assert _engine is not None
    try:
        return work(_engine), None
    except VisavisError as error:
        return None, str(error)
