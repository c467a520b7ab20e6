"""Decode steps captured as CUDA graphs: all of a step's kernels are launched at once.

A step in which every request feeds one column of codes needs nothing but integers: where its rows
stand, and the columns. They are copied into a graph's own buffer, and the graph is replayed. There
is a graph for each bucket of rows, a power of two; rows that are left over repeat the first.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.cache import Place, Segment
from engine.decoder import Decoder

Compute = Callable[[], Tensor]


class Recorder:
    """Captures steps on one stream and in one pool of memory.

    They may share it: a step's result is read before the next step is replayed.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, compute: Compute) -> Compute:
        """Capture `compute`, which reads and writes the same memory each time; return a replay."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            compute()  # what is compiled or allocated at first use cannot be captured
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            result = compute()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class Bucket:
    """A step of so many rows."""

    def __init__(self, decoder: Decoder, rows: int, recorder: Recorder) -> None:
        self.rows, fields = rows, 4 + decoder.codebooks
        self._given = torch.zeros(fields, rows, dtype=torch.long, device=decoder.device)
        slots, row_numbers, positions, text_lengths = self._given[:4]
        columns = self._given[4:].t()
        every = torch.arange(rows, device=decoder.device)
        place = Place(slots, row_numbers, positions, every, every, slots, text_lengths)
        self._replay = recorder.record(lambda: decoder.compute(decoder.embed(columns), place))

    def run(self, given: NDArray[np.int64]) -> Tensor:
        """Return the logits of the rows that `given` [fields, rows] describes."""
        wanted = given.shape[1]
        spare = np.repeat(given[:, :1], self.rows - wanted, axis=1)
        self._given.copy_(torch.from_numpy(np.concatenate([given, spare], axis=1)))
        return self._replay()[:wanted]


class Graphs:
    """The buckets of a decoder, captured before it has requests: capturing writes to slot 0."""

    def __init__(self, decoder: Decoder, max_rows: int) -> None:
        self._cache = decoder.cache
        recorder, buckets = Recorder(), []
        with torch.inference_mode():
            for exponent in reversed(range((max_rows - 1).bit_length() + 1)):
                buckets.append(Bucket(decoder, 2**exponent, recorder))
        self._buckets = buckets[::-1]

    def bucket(self, rows: int) -> Bucket:
        """Return the smallest that has so many rows."""
        return self._buckets[(rows - 1).bit_length()]

    def run(self, segments: Sequence[Segment], columns: NDArray[np.int64]) -> Tensor:
        """Return each row's logits; each segment feeds its one of `columns` [n, codebooks]."""
        given = [
            (s.slot, row, s.start, 0 if row else self._cache.text_lengths[s.slot], *column)
            for s, column in zip(segments, columns, strict=True)
            for row in range(s.rows)
        ]
        return self.bucket(len(given)).run(np.array(given, np.int64).T)
