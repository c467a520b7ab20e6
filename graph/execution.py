"""Runs every kind of task with admission, metrics, cache and idempotency."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, aclosing

from opentelemetry.trace import get_current_span

from graph.admission import Admission
from graph.cache import Answer, AnswerParts, Cache, Found
from graph.held_bytes import HeldBytes
from graph.idempotency import Idempotency
from graph.jobs.job import KeptAnswer
from graph.metrics import ClipMetrics, Metrics
from graph.price import DiffusionSpeed
from graph.tasks.task import AudioPart, ChargeBegin, ChargeLeft, Clip, Event, Result, Task

Render = Callable[[Result], AnswerParts]
"""Turns a task's result into its answer; runs on a thread, as the reading of its parts does."""


class Executor:
    """Runs tasks for one ingress replica."""

    def __init__(
        self,
        admission: Admission,
        cache: Cache,
        idempotency: Idempotency,
        metrics: Metrics,
        diffusion_speed: DiffusionSpeed,
        held_bytes: HeldBytes,
    ) -> None:
        self.admission, self.cache, self.idempotency = admission, cache, idempotency
        self.held_bytes = held_bytes
        self._metrics, self._diffusion_speed = metrics, diffusion_speed

    async def stream_events(
        self,
        task: Task,
        max_wait_s: float | None = None,
        admitted: asyncio.Event | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Admit a task, run it, and yield its events. Closing the generator stops the models.

        `max_wait_s` is how long the task may wait for others, by default the limit's; `admitted` is
        set when it is admitted. Raises ApiError 429 where it is refused, and what the task raises.
        """
        counted: dict[int, ClipMetrics] = {}
        async with self.admission.hold_charges(task.share, task.price(), max_wait_s) as hold:
            if admitted:
                admitted.set()
            async with aclosing(task.run(hold.turns)) as events:
                async for event in events:
                    if isinstance(event, ChargeLeft):
                        hold.reduce_charge(event.name, event.left, event.clips)
                    elif isinstance(event, ChargeBegin):
                        hold.begin_charge(event.name, event.charge)
                    else:
                        self._count_audio(task, event, counted)
                        yield event

    def _count_audio(self, task: Task, event: Event, counted: dict[int, ClipMetrics]) -> None:
        """Count the audio of an event."""
        if isinstance(event, AudioPart):
            clip = counted.setdefault(event.clip, self._metrics.follow_clip(task.model, task.began))
            if event.audio.samples:
                clip.add_audio(event.audio.seconds)
        elif isinstance(event, Clip):
            followed = self._metrics.follow_clip(event.model, task.began)
            clip = counted.pop(event.clip, followed)
            if event.audio:
                clip.add_audio(event.audio.seconds)
                if event.diffusion:
                    seconds = event.seconds["decode"]
                    self._diffusion_speed.add_clip(event.diffusion, seconds, event.audio.seconds)
            clip.finish_clip()

    async def make_answer(self, task: Task, render: Render) -> Answer:
        """Run a task to its end and render its result. Raises as `stream_events` does."""
        parts = await self.make_parts(task, render)
        return await asyncio.to_thread(parts.join)

    async def make_parts(self, task: Task, render: Render) -> AnswerParts:
        """Run a task to its end; its answer is made while its parts are read."""
        result = await self._run_to_end(task)
        return await asyncio.to_thread(render, result)

    async def _run_to_end(self, task: Task) -> Result:
        async with aclosing(self.stream_events(task)) as events:
            async for event in events:
                last = event
        assert isinstance(last, Result)
        return last

    async def make_answer_once(
        self,
        task: Task,
        key: Callable[[], str] | None,
        render: Render,
        name: str,
        fingerprint: str,
        held: ExitStack,
    ) -> tuple[KeptAnswer, bool]:
        """Return the answer to all requests of one `Idempotency-Key`, and whether it is replayed.

        `name` stands for the `Idempotency-Key` and its owner, `fingerprint` for the request. Only
        with a `key` the cache is asked. `held` counts the request's bytes, see `Idempotency`.
        """

        async def find_or_make() -> Callable[[], AnswerParts]:
            if key and self._is_cacheable(task):
                answer, _ = await self.get_answer(task, key, render)
                return answer.as_parts
            result = await self._run_to_end(task)
            return lambda: render(result)

        return await self.idempotency.get_answer(name, fingerprint, find_or_make, held)

    async def find_kept(self, task: Task, key: Callable[[], str]) -> Answer | None:
        """Return the kept answer of a repeatable task, if there is one."""
        if not task.repeatable:
            return None
        answer = self.cache.find_answer(await asyncio.to_thread(key))
        if answer:
            self._count_lookup(task, "hit")
        return answer

    async def get_answer(
        self, task: Task, key: Callable[[], str], render: Render
    ) -> tuple[Answer, Found | None]:
        """Return a kept answer, one that is being made, or a new one, and which of these it is."""
        if not self._is_cacheable(task):
            return await self.make_answer(task, render), None
        name = await asyncio.to_thread(key)
        answer, found = await self.cache.get_answer(name, lambda: self.make_answer(task, render))
        self._count_lookup(task, found)
        return answer, found

    def _is_cacheable(self, task: Task) -> bool:
        return task.repeatable and self.cache.enabled

    def _count_lookup(self, task: Task, found: Found) -> None:
        self._metrics.count_lookup(task.model, found)
        get_current_span().set_attribute("audiocraft.cache", found)
