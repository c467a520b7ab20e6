"""Continuous batching of AudioCraft's language models: requests join and leave at any step."""

import logging
import time
from dataclasses import dataclass

import numpy as np
import torch
from audiocraft.models.lm import LMModel
from torch import Tensor

from engine.cache import Cache, Segment
from engine.conditioning import Conditions
from engine.decoder import Decoder
from engine.errors import GenerationFailed, InvalidRequest
from engine.graphs import Graphs
from engine.request import Progress, Request
from engine.sampling import guide, sample
from engine.scheduler import Scheduler

# What a prompt adds to its neighbours' step: on two cores, 16 positions take less than one more
# step of the musicgen-small shape, 64 take two to four (measured); a GPU's number is a guess.
PREFILL_CHUNK = {"cpu": 16, "cuda": 256}
OUT_OF_MEMORY = "the model's memory ran out while this request was decoded with others; try again"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What is allocated once."""

    max_slots: int = 32
    """Requests that are decoded together, at most."""
    cache_gb: float | None = None
    """Memory for all slots' caches; fewer slots are made where they would not fit. By default what
    the weights leave of the share of a GPU, and 2 GB on a CPU."""
    gpu_share: float = 1.0
    """Of the card, of what runs on one."""
    max_text_tokens: int = 256
    prefill_chunk: int | None = None
    """Positions of prompts fed in one step, by default as `PREFILL_CHUNK` has them."""
    precision: str = "float32"
    """Of the weights; see `engine.precision`."""
    max_positions: int = 1600
    """Positions a slot holds: the longest window's columns, and what comes before them."""
    cuda_graphs: bool = True
    """On a GPU, launch all of a step's kernels at once."""


@dataclass(slots=True)
class Statistics:
    """Sums since the start."""

    steps: int = 0
    seconds: float = 0.0
    requests: int = 0
    """Requests in a step, summed over steps."""
    rows: int = 0
    """Rows of those requests, likewise."""
    rows_run: int = 0
    """Rows that were computed for them."""
    frames: int = 0
    """Frames handed out."""
    first_chunks: int = 0
    first_chunk_seconds: float = 0.0
    """From arrival, summed over requests."""


class Engine:
    """Owns the slots. One thread calls it; nothing here waits for anyone.

    With `take`, the model's layers become the engine's; see `Decoder`.
    """

    def __init__(self, lm: LMModel, settings: EngineSettings, *, take: bool = False) -> None:
        cache = Cache(
            lm,
            slots=settings.max_slots,
            positions=settings.max_positions,
            text_tokens=settings.max_text_tokens,
            precision=settings.precision,
        )
        self.decoder = Decoder(lm, cache, settings.precision, take=take)
        self.decoder.warm_up()
        captures = settings.cuda_graphs and self.decoder.device.type == "cuda"
        self.graphs = Graphs(self.decoder, 2 * settings.max_slots) if captures else None
        chunk = settings.prefill_chunk or PREFILL_CHUNK[self.decoder.device.type]
        self.scheduler = Scheduler(settings.max_slots, chunk)
        self.statistics = Statistics()

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Schedule, run, postprocess. Returns what each request got of it."""
        for slot, request in self.scheduler.admit():
            self.decoder.set_text(slot, request.conditions.text)
        segments = self.scheduler.segments()
        if not segments:
            return []
        begun = time.perf_counter()
        try:
            logits = self.run(segments)
        except torch.OutOfMemoryError:
            return [self._make_room()]
        progress = self.postprocess(segments, logits)
        self._count(segments, progress, time.perf_counter() - begun)
        return progress

    def _make_room(self) -> Progress:
        """End who began last, and decode one fewer from now on; the others do their step again.

        Until its end a step has changed nothing: it writes to the cache what it will write again.
        """
        newest = max(self.scheduler.running.values(), key=lambda request: request.started or 0.0)
        ended = self.fail(newest, GenerationFailed(OUT_OF_MEMORY))
        self.scheduler.slots.retire()
        if self.decoder.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.error("%s; %d slots are left", OUT_OF_MEMORY, self.scheduler.slots.number)
        return ended

    def run(self, segments: list[Segment]) -> Tensor:
        """Return the logits of every row's last position."""
        pairs = [(self.scheduler.running[segment.slot], segment) for segment in segments]
        self.statistics.rows += (rows := sum(segment.rows for segment in segments))
        if self.graphs and all(s.count == 1 and s.start >= r.prefix_length for r, s in pairs):
            self.statistics.rows_run += self.graphs.bucket(rows).rows
            columns = [r.sequence.columns(s.start - r.prefix_length, 1) for r, s in pairs]
            return self.graphs.run(segments, np.concatenate(columns))
        self.statistics.rows_run += rows
        inputs = [self._inputs(request, segment) for request, segment in pairs]
        return self.decoder.forward(torch.cat(inputs), segments)

    def postprocess(self, segments: list[Segment], logits: Tensor) -> list[Progress]:
        """Draw the next column of everyone whose known ones are all fed; end who is done."""
        requests = [self.scheduler.running[segment.slot] for segment in segments]
        for request, segment in zip(requests, segments, strict=True):
            request.fed += segment.count
        conditional = np.cumsum([0] + [s.rows for s in segments[:-1]])
        null = conditional + np.array([s.rows for s in segments]) - 1
        scales = logits.new_tensor([r.params.guidance_scale for r in requests])
        guided = guide(logits[conditional], logits[null], scales)
        finite = guided.isfinite().flatten(1).all(1)
        drawing = [index for index, request in enumerate(requests) if request.unfed == 0]
        drawn = sample(guided[drawing], [requests[index].sampling for index in drawing])
        for index, codes in zip(drawing, drawn.cpu().numpy(), strict=True):
            requests[index].sequence.accept(codes)
        return [self._progress(r, g) for r, g in zip(requests, finite.tolist(), strict=True)]

    def _count(self, segments: list[Segment], progress: list[Progress], seconds: float) -> None:
        count = self.statistics
        count.steps += 1
        count.seconds += seconds
        count.requests += len(segments)
        count.frames += sum(p.codes.shape[1] for p in progress)

    def _inputs(self, request: Request, segment: Segment) -> Tensor:
        """Embed what a segment feeds: the prefix, then columns; [rows x positions, width]."""
        prefix, length = request.conditions.prefix, request.prefix_length
        parts = []
        if prefix is not None and segment.start < length:
            end = segment.start + segment.count
            parts.append(prefix[: segment.rows, segment.start : min(end, length)])
        count = segment.count - sum(part.shape[1] for part in parts)
        if count:
            first = max(segment.start - length, 0)
            columns = torch.from_numpy(request.sequence.columns(first, count))
            embedded = self.decoder.embed(columns.to(self.decoder.device))
            parts.append(embedded.expand(segment.rows, -1, -1))
        return torch.cat(parts, dim=1).flatten(0, 1)

    def _progress(self, request: Request, finite: bool) -> Progress:
        """Hand out complete frames; open the next window or free the slot."""
        sequence = request.sequence
        error = None if finite else GenerationFailed("the model's output is not a number")
        ended = sequence.ended or not finite
        end = sequence.complete_frames
        codes = sequence.codes(request.emitted, end)
        request.emitted = end
        if ended:
            self.scheduler.remove(request)
        elif sequence.window_ended:
            request.slide()
        return Progress(request, codes, ended, error)

    @torch.inference_mode()
    def replace_conditions(self, request: Request, conditions: Conditions) -> None:
        """Go on under other conditions from the next frame; what was generated stays the past.

        The caller has asked `request.check_replaceable` and `check_text`.
        """
        request.conditions = conditions
        if request.slot is not None:
            self.decoder.set_text(request.slot, conditions.text)

    def check_text(self, conditions: Conditions) -> None:
        """Raise InvalidRequest where the text is longer than a slot has room for."""
        most = self.decoder.cache.text.shape[4]
        if conditions.text is not None and len(conditions.text) > most:
            message = (
                f"the text is {len(conditions.text)} tokens long; this model takes up to {most}"
            )
            raise InvalidRequest(message, "text")

    @property
    def busy(self) -> bool:
        """Whether anyone runs or waits."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def fail_running(self, error: GenerationFailed) -> list[Progress]:
        """End everyone who has a slot, after a step failed; those who wait go on."""
        return [self.fail(request, error) for request in list(self.scheduler.running.values())]

    def fail(self, request: Request, error: GenerationFailed) -> Progress:
        """End a request that waits or runs."""
        self.scheduler.remove(request)
        none = np.zeros((self.decoder.codebooks, 0), np.int16)
        return Progress(request, none, ended=True, error=error)

    def cancel(self, request: Request) -> bool:
        """Free a request's slot at once; return whether it was still there."""
        return self.scheduler.remove(request)

    def check_idle(self) -> None:
        """Assert, while nothing runs, that the slots add up."""
        if not self.scheduler.running:
            self.scheduler.slots.check_idle()
