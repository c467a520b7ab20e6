"""Captures decode steps as CUDA graphs, so that all kernels of a step are launched at once.

A step in which every request feeds one column needs only integers as input: the rows' numbers and
positions, and the columns. They are copied into the graph's buffer, and the graph is replayed.
There is one graph for each bucket, a power of two of rows; padding rows repeat the first row.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.cache import Segment, TokenLayout
from engine.decoder import Decoder
from engine.page_table import ROWS, TEXT_ROW

Compute = Callable[[], Tensor]


class Recorder:
    """Captures steps on one stream and in one memory pool.

    Steps can share the pool because the result of one is read before the next is replayed.
    """

    def __init__(self) -> None:
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def capture_step(self, compute: Compute) -> Compute:
        """Capture `compute`, which must always use the same memory; return its replay."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            compute()  # the first run compiles and allocates, which cannot be captured
        torch.cuda.current_stream().wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            result = compute()

        def replay() -> Tensor:
            graph.replay()
            return result

        return replay


class Bucket:
    """A captured step with a fixed number of rows."""

    def __init__(self, decoder: Decoder, rows: int, recorder: Recorder) -> None:
        self.rows, fields = rows, 4 + decoder.codebooks
        self._given = torch.zeros(fields, rows, dtype=torch.long, device=decoder.device)
        row_numbers, positions, text_rows, text_lengths = self._given[:4]
        columns = self._given[4:].t()
        every = torch.arange(rows, device=decoder.device)
        layout = TokenLayout(row_numbers, positions, every, every, text_rows, text_lengths)
        self._replay = recorder.capture_step(
            lambda: decoder.compute_logits(decoder.embed_columns(columns), layout)
        )

    def run(self, given: NDArray[np.int64]) -> Tensor:
        """Replay the step; return the logits of the rows in `given`.

        `given` is int64 [fields, rows]: row, position, text row, text length, a column of codes.
        """
        wanted = given.shape[1]
        spare = np.repeat(given[:, :1], self.rows - wanted, axis=1)
        self._given.copy_(torch.from_numpy(np.concatenate([given, spare], axis=1)))
        return self._replay()[:wanted]


class Graphs:
    """The captured steps of a decoder, by bucket.

    They must be captured before there are requests, since capturing writes to page 0.
    """

    def __init__(self, decoder: Decoder, max_rows: int) -> None:
        self._cache = decoder.cache
        recorder, buckets = Recorder(), []
        with torch.inference_mode():
            for exponent in reversed(range((max_rows - 1).bit_length() + 1)):
                buckets.append(Bucket(decoder, 2**exponent, recorder))
        self._buckets = buckets[::-1]

    def find_bucket(self, rows: int) -> Bucket:
        """Return the smallest bucket with at least so many rows."""
        return self._buckets[(rows - 1).bit_length()]

    def run(self, segments: Sequence[Segment], columns: NDArray[np.int64]) -> Tensor:
        """Return each row's logits; segment i feeds row i of `columns`, [segments, codebooks]."""
        lengths = self._cache.text_lengths
        given = [
            (first + row, s.start, first + TEXT_ROW, 0 if row else lengths[s.slot], *column)
            for s, column in zip(segments, columns, strict=True)
            for first in [ROWS * s.slot]
            for row in range(s.rows)
        ]
        return self.find_bucket(len(given)).run(np.array(given, np.int64).T)
