"""Continuous batching of AudioCraft's language models: requests join and leave at any step."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from audiocraft.models.lm import LMModel
from torch import Tensor

from engine.cache import Cache, Segment
from engine.conditioning import Conditions
from engine.decoder import Decoder
from engine.errors import GenerationFailed
from engine.request import Progress, Request
from engine.sampling import guide, sample
from engine.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What is allocated once."""

    max_slots: int = 32
    """Requests that are decoded together, at most."""
    cache_gb: float = 2.0
    """Memory for all slots' caches; fewer slots are made where they would not fit."""
    max_text_tokens: int = 256
    prefill_chunk: int = 64
    """Positions of prompts fed in one step."""
    precision: str = "float32"
    """Of the weights; see `engine.precision`."""
    max_positions: int = 1600
    """Positions a slot holds: the longest window's columns, and what comes before them."""


@dataclass(slots=True)
class Statistics:
    """Sums since the start."""

    steps: int = 0
    seconds: float = 0.0
    requests: int = 0
    """Requests in a step, summed over steps."""
    frames: int = 0
    """Frames handed out."""

    def count(self, progress: list[Progress], seconds: float) -> None:
        """Add one step."""
        self.steps += 1
        self.seconds += seconds
        self.requests += len(progress)
        self.frames += sum(p.codes.shape[1] for p in progress)


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
        self.scheduler = Scheduler(settings.max_slots, settings.prefill_chunk)
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
        progress = self.postprocess(segments, self.run(segments))
        self.statistics.count(progress, time.perf_counter() - begun)
        return progress

    def run(self, segments: list[Segment]) -> Tensor:
        """Return the logits of every row's last position."""
        inputs = [self._inputs(self.scheduler.running[s.slot], s) for s in segments]
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

    def _inputs(self, request: Request, segment: Segment) -> Tensor:
        """Embed what a segment feeds: the prefix, then columns; [rows x positions, width]."""
        prefix, length = request.conditions.prefix, request.conditions.prefix_length
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
            sequence.slide()
            request.fed = 0
        return Progress(request, codes, ended, error)

    @torch.inference_mode()
    def replace_conditions(self, request: Request, conditions: Conditions) -> None:
        """Go on under other conditions from the next frame; what was generated stays the past.

        The caller has asked `request.check_replaceable`.
        """
        request.conditions = conditions
        if request.slot is not None:
            self.decoder.set_text(request.slot, conditions.text)

    @property
    def busy(self) -> bool:
        """Whether anyone runs or waits."""
        return bool(self.scheduler.running or self.scheduler.waiting)

    def fail_running(self, error: GenerationFailed) -> list[Progress]:
        """End everyone who has a slot, after a step failed; those who wait go on."""
        failed = list(self.scheduler.running.values())
        for request in failed:
            self.scheduler.remove(request)
        none = np.zeros((self.decoder.codebooks, 0), np.int16)
        return [Progress(request, none, ended=True, error=error) for request in failed]

    def cancel(self, request: Request) -> bool:
        """Free a request's slot at once; return whether it was still there."""
        return self.scheduler.remove(request)

    def check_idle(self) -> None:
        """Assert, while nothing runs, that the slots add up."""
        if not self.scheduler.running:
            self.scheduler.slots.check_idle()
