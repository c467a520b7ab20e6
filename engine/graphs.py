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


def record(compute: Compute) -> Compute:
    """Capture `compute`, which reads and writes the same memory each time; return its replay."""
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        compute()  # what is compiled or allocated at first use cannot be captured
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = compute()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


class Bucket:
    """A step of so many rows."""

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self.rows, fields = rows, 4 + decoder.codebooks
        self._given = torch.zeros(fields, rows, dtype=torch.long, device=decoder.device)
        slots, row_numbers, positions, text_lengths = self._given[:4]
        columns = self._given[4:].t()
        every = torch.arange(rows, device=decoder.device)
        place = Place(slots, row_numbers, positions, every, every, slots, text_lengths)
        self._replay = record(lambda: decoder.compute(decoder.embed(columns), place))

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
        exponents = range((max_rows - 1).bit_length() + 1)
        with torch.inference_mode():
            self._buckets = [Bucket(decoder, 2**exponent) for exponent in exponents]

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
