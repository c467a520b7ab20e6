"""Defines the base class of the MusicGen and AudioGen deployments: text in, codec tokens out."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from opentelemetry.trace import get_current_span

from deployments.metrics import EngineMetrics
from deployments.scaling.load_report import TokenModelLoad
from deployments.settings import NoTunables, TokenModelSettings
from deployments.tracing import add_span, open_span, trace_calls
from deployments.worker import Health, Worker, end_replica, keep_logs, prepare_hub

if TYPE_CHECKING:
    from engine.params import Generated, GenerationParams, LanguageModelInfo, Load
    from engine.request import Request


MAX_ENCODING_S = 300.0
"""The longest time that one text or melody may take to be encoded before the replica has failed."""


@trace_calls
class TokenModel:
    """A replica of a token model; it decodes its requests together, step by step."""

    STRIDE_SECONDS: float
    """The distance between windows in a clip that is longer than one window."""

    def __init__(self, settings: TokenModelSettings, *, stem_separation: bool = False) -> None:
        prepare_hub(settings.checkpoint, settings.text_encoder)
        keep_logs()
        from engine import errors, params
        from engine.device import check_device
        from engine.engine import EngineSettings
        from engine.language_model import LanguageModel

        self._name, self._params, self._failed = settings.name, params, errors.EngineFailed
        self._model = LanguageModel.load(
            settings.checkpoint,
            EngineSettings(
                precision=settings.dtype,
                gpu_share=settings.gpu_share,
                **settings.engine.model_dump(),
            ),
            device=settings.torch_device,
            frame_rate=settings.frame_rate,
            stride_seconds=self.STRIDE_SECONDS,
            text_encoder=settings.text_encoder,
            stem_separation=stem_separation,
        )
        self._encoder = Worker(check_device=check_device)
        self._health, self._encoder_health = Health(), Health(MAX_ENCODING_S)
        self._metrics = EngineMetrics()
        self._measured_load = TokenModelLoad(self._model.info.frame_rate)
        self._requests = self._completed = self._cancelled = 0

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Apply new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def info(self) -> "LanguageModelInfo":
        """Return the properties of the model."""
        return self._model.info

    async def load(self) -> "Load":
        """Return the current load of this replica."""
        return self._read_load()

    def _read_load(self) -> "Load":
        engine = self._model.loop.engine
        done, steps = engine.statistics, max(engine.statistics.steps, 1)
        pages = engine.scheduler.pages
        return self._params.Load(
            requests=self._requests,
            waiting=engine.scheduler.waiting,
            running=len(engine.scheduler.running),
            slots=self._measured_load.count_slots(pages.slots, pages.limit),
            rows=engine.scheduler.rows,
            queued_row_seconds=engine.scheduler.queued_rows / self._model.info.frame_rate,
            completed=self._completed,
            cancelled=self._cancelled,
            steps=done.steps,
            row_positions=done.row_positions,
            pages=pages.limit,
            free_pages=max(pages.limit - pages.used, 0),
            step_ms=1000 * done.seconds / steps,
            mean_running=done.requests / steps,
            rows_used=done.rows / max(done.rows_run, 1),
            frames=done.frames,
            frames_per_second=done.frames / max(done.seconds, 1e-9),
            first_chunk_seconds=done.first_chunk_seconds / max(done.first_chunks, 1),
        )

    async def record_routing_stats(self) -> dict[str, float]:
        """Return the slots and the speed for `deployments.scaling.router`."""
        load = self._read_load()
        self._measured_load.measure_steps(load)
        return self._measured_load.build_capacity(load)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the load report for `deployments.scaling.policy`."""
        return asdict(self._measured_load.build_report(self._read_load()))

    async def generate(
        self,
        params: "GenerationParams",
        chunk_frames: int,
        first_chunk_frames: int,
        turn: float = 0.0,
    ) -> AsyncGenerator["Generated", None]:
        """Yield codes while they are generated, in chunks of at least so many frames.

        Among waiting requests, the lowest `turn` starts first.

        A cancelled call frees its slot within one step. A caller that only stops reading keeps
        its slot, since Ray continues the call. Raises InvalidRequest if the text is too long, and
        GenerationFailed if the model fails.
        """
        with self._count_request():
            self._describe_span(params)
            with open_span("condition"):
                request = await self._prepare_request(params)
            request.priority = turn
            self._measured_load.add_request(request.row_positions)
            chunks = self._model.loop.generate(request, chunk_frames, first_chunk_frames)
            first: float | None = None
            try:
                async with aclosing(chunks):
                    async for chunk in chunks:
                        first = first or time.perf_counter()
                        self._metrics.update_from(self._read_load())
                        codes = self._params.Codes.pack(chunk)
                        yield self._params.Generated(codes, *request.seconds_waited_and_run())
            except self._failed as error:
                end_replica(error)
            finally:
                _add_phases(request, first)

    async def _prepare_request(self, params: "GenerationParams") -> "Request":
        return await self._encoder.run(self._model.prepare, params)

    def _describe_span(self, params: "GenerationParams") -> None:
        """Describe the current span by OpenTelemetry's conventions for generative models."""
        current = get_current_span()
        current.update_name(f"generate_content {self._name}")
        current.set_attributes(
            {
                "gen_ai.operation.name": "generate_content",
                "gen_ai.provider.name": "audiocraft",
                "gen_ai.request.model": self._name,
                "gen_ai.request.seed": params.seed,
                "gen_ai.request.temperature": params.temperature,
                "gen_ai.request.top_k": params.top_k,
                "gen_ai.request.top_p": params.top_p,
                "audiocraft.frames": params.frames,
                "audiocraft.variation": params.variation,
            }
        )

    @contextmanager
    def _count_request(self) -> Iterator[None]:
        """Count a running request, and then whether it was completed or cancelled."""
        self._requests += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self._cancelled += 1
            raise
        finally:
            self._requests -= 1
            self._metrics.update_from(self._read_load())
        self._completed += 1

    async def check_health(self) -> None:
        """Raise an error if the model no longer responds."""
        try:
            self._model.loop.check_alive()
        except self._failed as error:
            end_replica(error)
        self._metrics.update_from(self._read_load())
        engine, encoder = self._model.loop.engine, self._encoder
        needs_probe = self._health.needs_probe(engine.statistics.steps, busy=engine.busy)
        # A probe would wait behind a long melody, and an idle engine would seem to hang.
        self._encoder_health.needs_probe(encoder.finished, busy=encoder.pending > 0)
        if needs_probe and not encoder.pending:
            probe = self._params.GenerationParams(text="probe", frames=1, seed=0)
            request = await self._prepare_request(probe)
            async with aclosing(self._model.loop.generate(request)) as chunks:
                assert [chunk async for chunk in chunks]


def _add_phases(request: "Request", first_chunk: float | None) -> None:
    """Add spans for the request's phases until now: queue, first chunk and decoding."""
    now = time.perf_counter()
    add_span("queue", request.arrived, request.started or now)
    if request.started:
        add_span("first_chunk", request.started, first_chunk or now)
    if first_chunk:
        add_span("decode", first_chunk, now)
        waited = first_chunk - request.arrived
        get_current_span().set_attribute("gen_ai.response.time_to_first_chunk", waited)
