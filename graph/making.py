"""Makes what an order asks for, whole."""

import asyncio
import base64
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Annotated

from pydantic import BaseModel, Field

from api.audio.file import ClipFile, whole
from api.service import Service
from engine.params import Codes
from graph.cache import Answer
from graph.calls import together
from graph.order import Order
from graph.pipeline import Clip, Progress

Told = Callable[[int, Progress], None]
"""Takes how far a clip is, by its place among those ordered."""


class GeneratedClip(BaseModel):
    """One clip."""

    prompt: str
    variation: int
    """From 0 to n - 1; the same prompt, seed and variation give the same clip."""
    duration: float
    """Seconds."""
    sample_rate: int
    channels: int
    audio: Annotated[str | None, Field(description="The file, in base64.")] = None
    codes: list[list[int]] | None = None
    """[codebooks][frames], where they were asked for."""


class GenerationsAnswer(BaseModel):
    """Several clips, or one with its codes."""

    model: str
    seed: int
    format: str
    clips: list[GeneratedClip]


async def made(service: Service, order: Order, told: Told | None = None) -> Answer:
    """Return the file of the only clip, or all and their codes in JSON; holds no charge."""
    clips = await together(
        _clip(service, order, number, told) for number in range(len(order.clips))
    )
    of_one = len(clips) == 1 and not order.return_codes
    return await asyncio.to_thread(_file if of_one else _json, service, order, clips)


async def charged_made(service: Service, order: Order) -> Answer:
    """Return the same of an order that waits for nobody. Raises ApiError 429 if not let in."""
    async with charged(service, order):
        return await made(service, order)


def charged(
    service: Service, order: Order, max_wait_s: float | None = None
) -> AbstractAsyncContextManager[None]:
    """Hold an order's charge. Raises ApiError 429 where it is not let in."""
    return service.admission.charged(
        order.share, order.charge, order.voice.model.least_slots, max_wait_s
    )


async def _clip(service: Service, order: Order, number: int, told: Told | None) -> Clip:
    parts = service.pipeline.generate(order.voice.model, order.clips[number])
    async with aclosing(parts):
        async for part in parts:
            if isinstance(part, Clip):
                break
            if told:
                told(number, part)
    assert isinstance(part, Clip)
    count(service, order, part)
    return part


def count(service: Service, order: Order, clip: Clip) -> None:
    """Count a clip that came at once."""
    counted = service.metrics.clip(order.voice.model.name, order.began)
    counted.came(clip.audio.seconds)
    if diffusion := order.clips[0].diffusion:
        service.pace.came(diffusion.name, clip.seconds["decode"], clip.audio.seconds)
    counted.ended()


def file_of(service: Service, order: Order, number: int, clip: Clip) -> ClipFile:
    """Return a clip's whole file. Raises ApiError 503 where it cannot be signed now."""
    return whole(clip.audio, order.output, order.tags(order.clips[number]), service.signer)


def headers_of(service: Service, order: Order) -> dict[str, str]:
    """Return what an answer with whole files says of itself."""
    signed = service.signer and service.signer.takes(order.output)
    return order.all_headers() | ({"x-content-credentials": "signed"} if signed else {})


def _file(service: Service, order: Order, clips: list[Clip]) -> Answer:
    (clip,) = clips
    file = file_of(service, order, 0, clip)
    timing = {"server-timing": _timing(clip.seconds, order.began)}
    headers = headers_of(service, order) | order.name_to_save() | timing
    return Answer(file.data, order.output.kind.media_type, headers)


def _timing(stages: Mapping[str, float], begun: float) -> str:
    """Return the header `server-timing`: stages in seconds, and all since `begun`."""
    total = {**stages, "total": time.perf_counter() - begun}
    return ", ".join(f"{name};dur={1000 * seconds:.1f}" for name, seconds in total.items())


def _json(service: Service, order: Order, clips: list[Clip]) -> Answer:
    all_of_them = []
    for number, clip in enumerate(clips):
        file = file_of(service, order, number, clip)
        data = base64.b64encode(file.data).decode()
        all_of_them.append(generated_clip(order, number, clip.codes, file.seconds, data))
    body = answer_of(order, all_of_them).model_dump_json(exclude_none=True).encode()
    return Answer(body, "application/json", headers_of(service, order))


def answer_of(order: Order, clips: list[GeneratedClip]) -> GenerationsAnswer:
    """Return what is said of several clips."""
    return GenerationsAnswer(
        model=order.voice.model.name, seed=order.seed, format=order.output.format, clips=clips
    )


def generated_clip(
    order: Order, number: int, codes: Codes, seconds: float, audio: str | None
) -> GeneratedClip:
    """Return what is said of one clip, of so many seconds."""
    codec, params = order.voice.codec, order.clips[number].params
    return GeneratedClip(
        prompt=params.text,
        variation=params.variation,
        duration=seconds,
        sample_rate=order.output.rate_for(codec.sample_rate),
        channels=codec.channels,
        audio=audio,
        codes=codes.array().tolist() if order.return_codes else None,
    )
