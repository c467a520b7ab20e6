"""Decodes many requests together; a request can join or leave at any step."""

import logging
from dataclasses import dataclass

import numpy as np
import torch
from audiocraft.models.lm import LMModel
from torch import Tensor

from engine.cache import Cache, Segment
from engine.conditioning import Conditions
from engine.decoder import Decoder
from engine.device import check_device
from engine.errors import EngineError, GenerationFailed, InvalidRequest
from engine.graphs import Graphs
from engine.page_table import count_pages
from engine.request import Progress, Request
from engine.sampling import sample_codes, warm_up_sampling
from engine.scheduler import Scheduler

# Positions of prompts per step. On two cores, 16 positions take less time than one more step of the
# musicgen-small shape, and 64 as much as two to four (measured); the value for a GPU is a guess.
PREFILL_CHUNK = {"cpu": 16, "cuda": 256}
OUT_OF_MEMORY = "the model's memory ran out while this request was decoded with others; try again"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """The settings that fix the engine's memory and speed when it is built."""

    max_slots: int = 32
    """The most requests that are decoded together; the cache may have pages for fewer."""
    cache_gb: float | None = None
    """Memory in GB for the cache; by default the rest of the GPU share after the weights, and 2 GB
    on a CPU. It is not allocated beyond what `max_slots` requests can use."""
    pages: int | None = None
    """The pages of the cache; by default as many as `max_slots` requests can use."""
    gpu_share: float = 1.0
    """The share of the GPU's memory that this process may use, 0 to 1."""
    max_text_tokens: int = 256
    """The longest text in tokens."""
    prefill_chunk: int | None = None
    """Positions of prompts fed in one step; by default the value in `PREFILL_CHUNK`."""
    precision: str = "float32"
    """Precision of the weights; see `engine.precision`."""
    max_positions: int = 1600
    """Positions of a row: the prefix and the columns of the longest window."""
    cuda_graphs: bool = True
    """On a GPU, capture decode steps as CUDA graphs."""

    @property
    def largest_request(self) -> int:
        """The pages of the largest request: two rows of all positions, and the longest text."""
        return 2 * count_pages(self.max_positions) + count_pages(self.max_text_tokens)


@dataclass(slots=True)
class Statistics:
    """Counters since the engine was built."""

    steps: int = 0
    """Decode steps."""
    seconds: float = 0.0
    """Seconds of steps and of what is between them; `EngineLoop` counts them."""
    requests: int = 0
    """Requests per step, summed over steps."""
    rows: int = 0
    """Rows of these requests, summed over steps."""
    rows_run: int = 0
    """Rows that were computed, including padding, summed over steps."""
    row_positions: int = 0
    """Rows times the positions that they fed, summed over steps."""
    frames: int = 0
    """Frames that were returned to requests."""
    first_chunks: int = 0
    """Requests whose first chunk was sent."""
    first_chunk_seconds: float = 0.0
    """Seconds from arrival to the first chunk, summed over these requests."""


class Engine:
    """Decodes requests step by step; it must be called from one thread, and it never blocks.

    With `take`, the engine takes over the layers of `lm`; see `Decoder`.
    """

    def __init__(self, lm: LMModel, settings: EngineSettings, *, take: bool = False) -> None:
        cache = Cache(
            lm,
            slots=settings.max_slots,
            pages=settings.pages or settings.max_slots * settings.largest_request,
            positions=max(settings.max_positions, settings.max_text_tokens),
            precision=settings.precision,
        )
        self._max_text_tokens = settings.max_text_tokens
        self.decoder = Decoder(lm, cache, settings.precision, take=take)
        self.decoder.warm_up()
        warm_up_sampling(self.decoder.codebooks, self.decoder.cardinality, self.decoder.device)
        captures = settings.cuda_graphs and self.decoder.device.type == "cuda"
        self.graphs = Graphs(self.decoder, 2 * settings.max_slots) if captures else None
        chunk = settings.prefill_chunk or PREFILL_CHUNK[self.decoder.device.type]
        self.scheduler = Scheduler(cache.pages, chunk)
        self._positions = settings.max_positions
        self.statistics = Statistics()

    @torch.inference_mode()
    def step(self) -> list[Progress]:
        """Schedule, run and postprocess one decode step; return each request's progress."""
        refused = self._admit_requests()
        segments = self.scheduler.plan_segments()
        if not segments:
            return refused
        try:
            logits = self.run(segments)
        except torch.OutOfMemoryError:
            return [*refused, self._shrink_after_out_of_memory()]
        progress = self.postprocess(segments, logits)
        self.scheduler.pages.count_step()
        self._count_step(segments, progress)
        return [*refused, *progress]

    def _admit_requests(self) -> list[Progress]:
        """Start the waiting requests that have room; end those whose text cannot be set."""
        refused = []
        for slot, request in self.scheduler.admit_requests():
            try:
                self.check_room(request)
                self.scheduler.hold_text(request)
                self.decoder.set_text(slot, request.conditions.text)
            except Exception as error:  # noqa: BLE001 - it must end this request only
                refused.append(self.fail_alone(request, "its text could not be set", error))
        return refused

    def _shrink_after_out_of_memory(self) -> Progress:
        """Fail the newest request and withhold its pages, so that the others can repeat the step.

        A step that fails has changed no state except the cache, and the repeated step writes the
        same values there.
        """
        newest = max(self.scheduler.running.values(), key=lambda request: request.started or 0.0)
        ended = self.fail_request(newest, GenerationFailed(OUT_OF_MEMORY))
        self.scheduler.shrink_pool()
        if self.decoder.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.error("%s; %d pages remain", OUT_OF_MEMORY, self.scheduler.pages.limit)
        return ended

    def run(self, segments: list[Segment]) -> Tensor:
        """Return the logits of each row's last position, [rows, codebooks, cardinality]."""
        pairs = [(self.scheduler.running[segment.slot], segment) for segment in segments]
        self.statistics.rows += (rows := sum(segment.rows for segment in segments))
        if self.graphs and all(s.count == 1 and s.start >= r.prefix_length for r, s in pairs):
            self.statistics.rows_run += self.graphs.find_bucket(rows).rows
            columns = [r.sequence.get_columns(s.start - r.prefix_length, 1) for r, s in pairs]
            return self.graphs.run(segments, np.concatenate(columns))
        self.statistics.rows_run += rows
        inputs = [self._embed_inputs(request, segment) for request, segment in pairs]
        return self.decoder.forward(torch.cat(inputs), segments)

    def postprocess(self, segments: list[Segment], logits: Tensor) -> list[Progress]:
        """Draw the next column of each request that has fed all known ones; end the finished."""
        requests = [self.scheduler.running[segment.slot] for segment in segments]
        for request, segment in zip(requests, segments, strict=True):
            request.fed += segment.count
        conditional = np.cumsum([0] + [s.rows for s in segments[:-1]])
        null = conditional + np.array([s.rows for s in segments]) - 1
        samplings = [request.sampling for request in requests]
        drawn = sample_codes(logits, samplings, conditional, null).cpu().numpy()
        finite = [bool(codes.min() >= 0) for codes in drawn]
        for request, codes, known in zip(requests, drawn, finite, strict=True):
            if known and request.unfed == 0:
                request.sequence.accept_codes(codes)
        progress = []
        for request, is_finite in zip(requests, finite, strict=True):
            try:
                progress.append(self._report_progress(request, is_finite))
            except Exception as error:  # noqa: BLE001 - the others' progress must not be lost
                progress.append(self.fail_alone(request, "its codes could not be read", error))
        return progress

    def _count_step(self, segments: list[Segment], progress: list[Progress]) -> None:
        count = self.statistics
        count.row_positions += sum(segment.rows * segment.count for segment in segments)
        count.steps += 1
        count.requests += len(progress)
        count.frames += sum(p.codes.shape[1] for p in progress)

    def _embed_inputs(self, request: Request, segment: Segment) -> Tensor:
        """Embed the positions of a segment, prefix before columns: [rows x positions, width]."""
        prefix, length = request.conditions.prefix, request.prefix_length
        parts = []
        if prefix is not None and segment.start < length:
            end = segment.start + segment.count
            parts.append(prefix[: segment.rows, segment.start : min(end, length)])
        count = segment.count - sum(part.shape[1] for part in parts)
        if count:
            first = max(segment.start - length, 0)
            columns = torch.from_numpy(request.sequence.get_columns(first, count))
            embedded = self.decoder.embed_columns(columns.to(self.decoder.device))
            parts.append(embedded.expand(segment.rows, -1, -1))
        return torch.cat(parts, dim=1).flatten(0, 1)

    def _report_progress(self, request: Request, finite: bool) -> Progress:
        """Return the new complete frames; at a window's end open the next or free the slot."""
        sequence = request.sequence
        error = None if finite else GenerationFailed("the model's output is not a finite number")
        ended = sequence.ended or not finite
        end = sequence.complete_frames
        codes = sequence.get_codes(request.emitted, end)
        request.emitted = end
        if ended:
            self.scheduler.remove_request(request)
        elif sequence.window_ended:
            request.open_next_window()
            self.check_room(request)
        return Progress(request, codes, ended, error)

    @torch.inference_mode()
    def replace_conditions(self, request: Request, conditions: Conditions) -> None:
        """Continue a request with other conditions from the next frame; its past codes stay.

        The caller must have called `request.check_replaceable` and `check_text`.
        """
        request.conditions = conditions
        if request.slot is not None:
            self.scheduler.replace_text(request)
            self.decoder.set_text(request.slot, conditions.text)

    def check_room(self, request: Request) -> None:
        """Raise InvalidRequest if a slot cannot hold the request's text and its current window."""
        self.check_text(request.conditions)
        needed = request.demand.needed
        if needed > self._positions:
            message = (
                f"the text, the melody and the clip take {needed} positions; this model has "
                f"{self._positions}: shorten the text"
            )
            raise InvalidRequest(message, "text")

    def check_text(self, conditions: Conditions) -> None:
        """Raise InvalidRequest if the text has more tokens than `max_text_tokens`."""
        most = self._max_text_tokens
        if conditions.text is not None and len(conditions.text) > most:
            message = (
                f"the text is {len(conditions.text)} tokens long; this model takes up to {most}"
            )
            raise InvalidRequest(message, "text")

    @property
    def busy(self) -> bool:
        """Whether a request is running or waiting."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def fail_running(self, error: GenerationFailed) -> list[Progress]:
        """Fail all running requests after their step failed; waiting requests stay in the queue."""
        running = list(self.scheduler.running.values())
        return [self.fail_request(request, error) for request in running]

    def fail_request(self, request: Request, error: EngineError) -> Progress:
        """End a waiting or running request with an error."""
        self.scheduler.remove_request(request)
        none = np.zeros((self.decoder.codebooks, 0), np.int16)
        return Progress(request, none, ended=True, error=error)

    def fail_alone(self, request: Request, what: str, error: Exception) -> Progress:
        """End one request after an error that concerns no other. Raises EngineFailed."""
        if isinstance(error, EngineError):
            return self.fail_request(request, error)
        check_device()
        reason = f"{what}: {type(error).__name__}: {error}"
        logger.error("a request was ended: %s", reason, exc_info=error)
        return self.fail_request(request, GenerationFailed(reason))

    def cancel_request(self, request: Request) -> bool:
        """Remove a request and free its slot; return whether it was still waiting or running."""
        return self.scheduler.remove_request(request)

    def check_idle(self) -> None:
        """Assert that all slots and pages are free if no request is running."""
        if not self.scheduler.running:
            self.scheduler.pages.check_idle()
