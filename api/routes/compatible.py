"""The routes for OpenAI's and ElevenLabs' clients: /v1/audio/speech and /v1/sound-generation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.sse import format_sse_event
from pydantic import BaseModel

from api.audio.output import FORMATS
from api.errors import ErrorBody
from api.guards import JsonRoute
from api.respond.clips import ClipsRendering
from api.respond.responses import EVENTS, Built, read_idempotency_key, respond
from api.routes.bodies import build_caller
from api.routes.documentation import ERRORS, FILES, HEADERS, describe_events, describe_json_body
from api.schemas.compatible import SoundBody, SpeechBody, read_output_format
from api.service import Served
from api.tasks.build_generation import build_clip
from deployments.settings import Role, TokenModelSettings
from graph.tasks.task import Event, Result


class Delta(BaseModel):
    """The event with the next part of the file, in base64."""

    type: Literal["speech.audio.delta"] = "speech.audio.delta"
    audio: str


class Usage(BaseModel):
    """The characters of the text as input tokens, and the frames of codes as output tokens."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Done(BaseModel):
    """The event after the whole file was sent."""

    type: Literal["speech.audio.done"] = "speech.audio.done"
    usage: Usage


@dataclass(kw_only=True)
class SpeechRendering(ClipsRendering):
    """Builds OpenAI's events of a clip, which have no names and end with the usage."""

    def build_messages(self, event: Event) -> list[tuple[str, BaseModel]]:
        """Return the messages that an event becomes."""
        if isinstance(event, Result):
            (clip,) = self.task.clips
            read, made = len(clip.params.text), clip.params.frames
            usage = Usage(input_tokens=read, output_tokens=made, total_tokens=read + made)
            return [("", Done(usage=usage))]
        audio = self.embed_bytes(event)
        return [("", Delta(audio=audio))] if audio else []

    def format_message(self, name: str, message: BaseModel) -> Iterator[bytes]:
        """Yield the parts of an event without a name."""
        event = format_sse_event(data_str=message.model_dump_json())
        yield from self.embedded.write_text(event.decode())


SPEECH_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file while it is generated; with `sse`, events that contain it.",
        "content": FILES | {EVENTS: describe_events(Delta, Done, ErrorBody)},
        "headers": HEADERS,
    },
    **ERRORS,
}
SOUND_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file while it is generated.",
        "content": FILES,
        "headers": HEADERS,
    },
    **ERRORS,
}
SPEECH_EXAMPLES = describe_json_body(
    file={"input": "calm piano, slow jazz", "duration": 2},
    events={"input": "a dog barks twice", "duration": 2, "stream_format": "sse"},
)
SOUND_EXAMPLES = describe_json_body(
    short={"text": "thunder over the sea", "duration_seconds": 2},
    closer={"text": "a dog barks twice", "duration_seconds": 1.5, "prompt_influence": 0.6},
)
OutputFormat = Annotated[
    str,
    Query(
        description="The format and the sample rate in Hz; for mp3, aac and opus also kbit/s.",
        examples=["mp3_44100_128", "pcm_16000"],
        json_schema_extra={"pattern": f"^({'|'.join(FORMATS)})_[0-9]{{1,6}}(_[0-9]{{1,6}})?$"},
    ),
]

router = APIRouter(tags=["compatible"], route_class=JsonRoute)


@router.post(
    "/v1/audio/speech",
    response_class=Response,
    responses=SPEECH_ANSWERS,
    openapi_extra=SPEECH_EXAMPLES,
)
async def create_speech(request: Request, body: SpeechBody, service: Served) -> Response:
    """Generate music or sounds for OpenAI's clients, with the route for speech."""
    model = service.registry.find_model(TokenModelSettings, body.model)
    body.check_limits(service.limits)
    pair = await service.registry.get_model_with_codec(model)
    task, rendering = build_clip(
        service, build_caller(request), pair, body.build_params(pair, service.limits),
        body.build_output(), repeatable=body.repeatable,
        streamed=read_idempotency_key(request) is None,
    )  # fmt: skip
    as_events = body.stream_format == "sse"
    if as_events:
        rendering = SpeechRendering(task=task, files=rendering.files)
    built = Built(task, rendering, body.model_dump_json(), {})
    return await respond(request, service, built, growing=True, events=as_events)


@router.post(
    "/v1/sound-generation",
    response_class=Response,
    responses=SOUND_ANSWERS,
    openapi_extra=SOUND_EXAMPLES,
)
async def create_sound(
    request: Request,
    body: SoundBody,
    service: Served,
    output_format: OutputFormat = "mp3_44100_128",
) -> Response:
    """Generate a sound effect; `model_id` can name any language model."""
    output = read_output_format(output_format)
    role: Role | None = None if body.model_id else "sound"
    model = service.registry.find_model(TokenModelSettings, body.model_id, "model_id", role)
    body.check_limits(service.limits)
    pair = await service.registry.get_model_with_codec(model)
    task, rendering = build_clip(
        service, build_caller(request), pair, body.build_params(pair, service.limits), output,
        repeatable=False, streamed=read_idempotency_key(request) is None,
    )  # fmt: skip
    built = Built(task, rendering, body.model_dump_json() + output_format, {})
    return await respond(request, service, built, growing=True)
