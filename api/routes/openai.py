"""POST /v1/audio/speech, as OpenAI's clients call it."""

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.guards import JsonRoute
from api.routes.answers import ERRORS, EVENTS, FILES, HEADERS, events
from api.routes.clips import file_parts, growing_answer, order_of, streamed_events
from api.routes.examples import json_body
from api.schemas.compatible import SpeechBody
from api.service import Served, Service
from deployments.settings import TokenModelSettings
from graph.errors import ErrorBody, body_of
from graph.order import Order


class Delta(BaseModel):
    """The next part of the file, in base64."""

    type: Literal["speech.audio.delta"] = "speech.audio.delta"
    audio: str


class Usage(BaseModel):
    """Characters of the text, and frames of codes; this service counts no tokens of text."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Done(BaseModel):
    """All of the file was sent."""

    type: Literal["speech.audio.done"] = "speech.audio.done"
    usage: Usage


ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file while it is made, or with `sse` events that bring it.",
        "content": FILES | {EVENTS: events(Delta, Done, ErrorBody)},
        "headers": HEADERS,
    },
    **ERRORS,
}

router = APIRouter(tags=["familiar"], route_class=JsonRoute)


EXAMPLES = json_body(
    file={"input": "calm piano, slow jazz", "duration": 2},
    events={"input": "a dog barks twice", "duration": 2, "stream_format": "sse"},
)


@router.post("/v1/audio/speech", response_class=Response, responses=ANSWERS, openapi_extra=EXAMPLES)
async def create_speech(request: Request, body: SpeechBody, service: Served) -> Response:
    """Generate music or sounds where OpenAI's clients ask for speech."""
    model = service.registry.pick(TokenModelSettings, body.model)
    voice = await service.registry.voice(model)
    params = body.params(voice, service.limits)
    order = order_of(request, voice, params, body.output(), repeatable=body.repeatable)
    if body.stream_format == "audio":
        return await growing_answer(service, order)
    made = _events(service, order)
    return await streamed_events(
        service, order, made, order.all_headers(), lambda error: _data(body_of(request, error))
    )


async def _events(service: Service, order: Order) -> AsyncGenerator[bytes, None]:
    (clip,) = order.clips
    async with aclosing(file_parts(service, order, clip, [])) as parts:
        async for part in parts:
            yield _data(Delta(audio=base64.b64encode(part).decode()))
    read, made = len(clip.params.text), clip.params.frames
    yield _data(Done(usage=Usage(input_tokens=read, output_tokens=made, total_tokens=read + made)))


def _data(model: BaseModel) -> bytes:
    return f"data: {model.model_dump_json()}\n\n".encode()
