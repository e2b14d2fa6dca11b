"""Threads that share the work of a step: each row on one of them, and a row's kernels on those that are idle.

Where several rows are drawn, a thread for each costs the cores least: what is shared out within a row waits for its
slowest part several times a frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

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
        self._working = 0
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

        with self._at_work():
            helpers = min(self.count - self._working, len(items) - 1)
            helping = [self._others.submit(work_off) for _ in range(helpers)] if self._others else []
            work_off()
            for helper in helping:
                if not helper.cancel():  # one that was too busy to begin has nothing left to do
                    helper.result()
        if errors:
            raise errors[0]
        return [told[place] for place in range(len(items))]

    def close(self) -> None:
        """End the threads once they are idle."""
        if self._others is not None:
            self._others.shutdown(wait=False)

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """Count this thread, once, among those that work."""
        if getattr(self._here, "works", False):
            yield
            return
        with self._lock:
            self._working += 1
        self._here.works = True
        try:
            yield
        finally:
            self._here.works = False
            with self._lock:
                self._working -= 1
