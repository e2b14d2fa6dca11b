"""Work on the first rows of fixed tensors, recorded as one CUDA graph for each of a few numbers of rows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence

import torch

from engine.compile.cuda_graph import WARM_RUNS

logger = logging.getLogger(__name__)

BUCKETS = (1, 2, 4, 8, 16, 32, 64)  # rows that a recording may have
Work = Callable[[int], None]  # does its rows 0..n-1; reads and writes tensors that never move


class BucketGraphs:
    """Replays work for the smallest bucket that holds the rows. What lies behind them is padding.

    All recordings share their memory: nothing that one computes outlives the next, but for what the work writes
    to tensors of its owner's.

    Args:
        device: a GPU, or the CPU, where nothing is recorded and all is computed as it is called.
        buckets: rising.
        record: False on a GPU computes there without recordings, to compare.
    """

    def __init__(self, device: torch.device, buckets: Sequence[int] = BUCKETS, *, record: bool = True) -> None:
        self.device, self.buckets = device, list(buckets)
        self._gpu = device.type == "cuda"
        self._record = record and self._gpu
        self.stream = torch.cuda.Stream(device) if self._gpu else None
        self._graphs: dict[tuple[str, int], torch.cuda.CUDAGraph] = {}
        self._pool = torch.cuda.graph_pool_handle() if self._record else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))  # which moved weights and filled tensors

    def on_stream(self) -> contextlib.AbstractContextManager[object]:
        """What is started inside runs in order with the work."""
        return contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def wait(self) -> None:
        """Until all that was started is done."""
        if self.stream is not None:
            self.stream.synchronize()

    def bucket_of(self, rows: int) -> int:
        """The smallest bucket that holds so many rows, at most the largest there is."""
        return next((bucket for bucket in self.buckets if bucket >= rows), self.buckets[-1])

    def give_up(self, bucket: int) -> None:
        """Do without a bucket, and larger ones, for which there is too little memory.

        Raises:
            torch.OutOfMemoryError: none would be left.
        """
        if bucket == self.buckets[0]:
            raise torch.OutOfMemoryError(f"too little memory on the GPU to compute {bucket} row(s)")
        logger.warning("too little memory on the GPU for %d rows at once; more are drawn in parts", bucket)
        self.buckets = [smaller for smaller in self.buckets if smaller < bucket]

    @torch.inference_mode()
    def run(self, name: str, work: Work, rows: int) -> None:
        """Start ``work`` on a bucket's rows; recorded now where that was not prepared.

        Args:
            name: of the work.
            work: always the same for a name.
            rows: a bucket.
        """
        with self.on_stream():
            if not self._record:
                work(rows)
                return
            graph = self._graphs.get((name, rows))
            if graph is None:
                graph = self._graphs[name, rows] = self._recorded(work, rows)
            graph.replay()

    @torch.inference_mode()
    def prepare(self, name: str, work: Work, rows: int) -> None:
        """Record now what ``run`` would at its first time."""
        if self._record and (name, rows) not in self._graphs:
            self._graphs[name, rows] = self._recorded(work, rows)

    def _recorded(self, work: Work, rows: int) -> torch.cuda.CUDAGraph:
        with self.on_stream():
            for _ in range(WARM_RUNS):
                work(rows)
        self.wait()
        graph = torch.cuda.CUDAGraph()
        # Enrolment and encoding go on in other threads: they may ask CUDA for what this one may not.
        with torch.cuda.graph(graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"):
            work(rows)
        return graph

    def close(self) -> None:
        self.wait()
        self._graphs.clear()
