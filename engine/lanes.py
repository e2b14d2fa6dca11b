"""Threads that share the work of a step: each row on one of them, and a row's kernels on those that are idle.

Where several rows are drawn, a thread for each costs the cores least: what is shared out within a row waits for its
slowest part several times a frame.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

APART_S = 1.0  # since callers met, before one is held to be alone

T = TypeVar("T")
U = TypeVar("U")


class Lanes:
    """A pool whose callers work too; work may share out parts of itself by the same pool.

    Args:
        count: threads at work at a time, the callers included; with more callers than that nothing is shared out.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._others = ThreadPoolExecutor(count - 1, "visavis-lane") if count > 1 else None
        self._lock = threading.Lock()
        self._working = self._calling = 0
        self._met_s = -math.inf  # time.monotonic() when two callers were at work at once
        self._here = threading.local()  # ``.works``: this thread is among them

    def each(self, work: Callable[[T], U], items: Sequence[T]) -> list[U]:
        """``work`` of every item, in order. Where it raises, the first error comes once all that began has ended."""
        waiting, told, errors = list(enumerate(items))[::-1], dict[int, U](), list[BaseException]()

        def work_off() -> None:
            with self._at_work():
                while not errors:
                    try:
                        place, item = waiting.pop()
                    except IndexError:
                        return
                    try:
                        told[place] = work(item)
                    except BaseException as error:
                        errors.append(error)

        with self._at_work(calling=True):
            helpers = min(self.count - self._working, len(items) - 1)
            helping = [self._others.submit(work_off) for _ in range(helpers)] if self._others else []
            work_off()
            for helper in helping:
                if not helper.cancel():  # one that was too busy to begin has nothing left to do
                    helper.result()
        if errors:
            raise errors[0]
        return [told[place] for place in range(len(items))]

    def alone(self) -> bool:
        """Whether the calling thread is the only one at work, and callers have not met of late.

        Where they do, one that took all cores for being alone now would be in the next one's way.
        """
        return self._working <= 1 and time.monotonic() - self._met_s > APART_S

    def close(self) -> None:
        """End the threads once they are idle."""
        if self._others is not None:
            self._others.shutdown(wait=False)

    @contextmanager
    def _at_work(self, *, calling: bool = False) -> Iterator[None]:
        """Count this thread, once, among those that work; ``calling``: of its own, not for another."""
        if getattr(self._here, "works", False):
            yield
            return
        with self._lock:
            self._working += 1
            self._calling += calling
            if self._calling > 1:
                self._met_s = time.monotonic()
        self._here.works = True
        try:
            yield
        finally:
            self._here.works = False
            with self._lock:
                self._working -= 1
                self._calling -= calling
