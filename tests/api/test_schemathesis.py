"""The API against its own description: every phase and every check of Schemathesis."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import schemathesis
import soundfile
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from hypothesis import strategies as st
from safetensors import numpy as safetensors
from schemathesis.config import SchemathesisConfig
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response
from schemathesis.engine import Status, events, from_schema
from schemathesis.python import asgi

from api.guards import MULTIPART
from api.ingress import create_app
from api.readiness import DeploymentState
from api.routes.documentation import AUDIO_FILE, CODES_FILE
from api.settings import KeySettings, UserConfig
from deployments.settings import (
    AudioGenSettings,
    DiffusionSettings,
    DiscriminatorsSettings,
    EnCodecSettings,
    MusicGenSettings,
)
from engine.codec import Codec
from engine.discriminators import Discriminators
from engine.params import BatchLoad
from graph.settings import FolderStore, JobsSettings
from tests import checkpoints as write
from tests.api.conftest import (
    FakeDiffusion,
    FakeLanguageModel,
    Media,
    Method,
    Real,
    serving,
)

KEY = "a-key"
PHASES = ("examples", "coverage", "fuzzing", "stateful")
QUICK = ("examples", "stateful")

# Fields that a server may refuse although the schema allows what they hold: no schema can say why.
OF_CLIPS = {
    "extend_stride": "at least a tenth of the model's window, and below it",
    "n": "prompts by variations, a product",
    "target_s": "of quality auto alone",
    "quality": "a tier may want the whole clip, or a model that can do less",
    "None": "no prompt: in a form an empty `prompts` is none at all",
    "continue_from": "start and end are of it, and not without it",
    "start": "before end, and before the end of the file",
    "duration": "longer than what is continued",
}
LONG = "longer than one part, or than all, may be"
OF_SONGS = {
    "sections": f"{LONG}: bars by tempo, a product",
    "effects": "end before the song does",
    "crossfade_beats": "at most half of the shortest section",
    "distribution": "one of the codec's kbit/s",
}
OF_CODES = {"codes": "rows of one length, of as many codes as the codec has"}
OF_PODCASTS = {"transitions": "as many parts as one request may have", "voice": LONG}
IDEMPOTENCY_KEY = "idempotency-key"
"""Came with another request before, on any route."""
BEYOND_THE_SCHEMA = {
    "POST /v1/workflows/song": OF_SONGS,
    "POST /v1/workflows/podcast": OF_PODCASTS,
    "POST /v1/workflows/style-transfer": {"content": LONG},
    "POST /v1/generations": OF_CLIPS
    | {"stream": "more than one file only as events, a matter of `accept`"},
    "POST /v1/jobs": OF_CLIPS
    | OF_SONGS
    | OF_PODCASTS
    | OF_CODES
    | {"webhook": "where the operator lets them go, and signs them"},
    "GET /v1/jobs": {"cursor": "the `next_cursor` of an answer"},
    "POST /v1/codec/decode": OF_CODES,
    "POST /v1/codec/encode": {
        "codebooks": "as many as the codec has",
        "bandwidth": "one of the codec's; not beside codebooks",
    },
    "POST /v1/sound-generation": {"output_format": "rates and kbit/s that differ by format"},
}


def wav(rate: int, channels: int) -> bytes:
    file = io.BytesIO()
    audio = np.random.default_rng(rate).normal(0, 0.1, (rate, channels))
    soundfile.write(file, audio, rate, format="WAV")
    return file.getvalue()


def codes(frames: int) -> bytes:
    return safetensors.save({"codes": np.ones((4, frames), np.int16)})


FILES = {AUDIO_FILE: wav(16000, 1), CODES_FILE: codes(20)}
schemathesis.openapi.media_type("audio/wav", st.sampled_from([FILES[AUDIO_FILE], wav(8000, 2)]))
schemathesis.openapi.media_type(
    "application/octet-stream", st.sampled_from([FILES[CODES_FILE], codes(1)])
)


@schemathesis.hook
def before_load_schema(_context: Any, raw_schema: dict[str, Any]) -> None:
    """Leave out the examples of forms, which can but name their files; they have their own test."""
    for methods in raw_schema["paths"].values():
        for operation in methods.values():
            bodies = operation.get("requestBody", {}).get("content", {})
            bodies.get(MULTIPART, {}).pop("examples", None)


@schemathesis.hook
def filter_failure(
    _context: Any, failure: Failure, case: schemathesis.Case, response: Response
) -> bool:
    """Drop what is as it should be, or what Schemathesis 4.32.5 misjudges."""
    operation = failure.operation
    match failure.title:
        case "Schema-valid request rejected" if response.status_code == 422:
            field = str(response.json()["error"]["param"]).partition(".")[0]
            # Of forms with files the coverage phase takes "" for any text, whatever its schema.
            empty = case.media_type == MULTIPART and dict(case.body).get(field) == ""
            known = {IDEMPOTENCY_KEY, *BEYOND_THE_SCHEMA.get(operation, {})}
            return not empty and field not in known
        case "Schema-violating request accepted" if case.media_type == MULTIPART:
            # A form with a file counts as invalid once a link has changed a field, for any form
            # with bytes does in `Case._validate_component`; the message knows that nothing is.
            return "Invalid component: positive test case" not in failure.message
    return True


@dataclass
class Loaded:
    """A handle that says how busy it is."""

    handle: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.handle, name)

    @property
    def load(self) -> Method:
        return Method(lambda: BatchLoad(0, 0, 0))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Discriminators:
    folder = tmp_path_factory.mktemp("judge")
    write.write_discriminators(folder)
    return Discriminators.load(str(folder), device="cpu")


@pytest.fixture(params=["open", "keyed"])
def app(
    codec: Codec, judge: Discriminators, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[FastAPI]:
    """Every kind of model; the first language model follows melodies, as the examples ask."""
    models = [
        MusicGenSettings(name="music", kind="musicgen", checkpoint="x", codec="codec"),
        AudioGenSettings(name="sound", kind="audiogen", checkpoint="x", codec="codec"),
        EnCodecSettings(name="codec", kind="encodec", checkpoint="x"),
        DiffusionSettings(name="diffusion", kind="mbd", checkpoint="x", codec="codec"),
        DiscriminatorsSettings(name="judge", kind="discriminators", checkpoint="x"),
    ]
    parts = {
        "music": FakeLanguageModel(melody=True),
        "sound": FakeLanguageModel(),
        "codec": Real(codec),
        "diffusion": FakeDiffusion(),
        "judge": Real(judge),
    }
    handles = {name: Loaded(part) for name, part in parts.items()} | {"media": Media()}
    key = KeySettings(name="one", sha256=[sha256(KEY.encode()).hexdigest()])
    keys = (key,) if request.param == "keyed" else ()
    limits = UserConfig(max_clips=4, max_duration_s=2, max_text_chars=100, keys=keys)

    async def states() -> dict[str, DeploymentState]:
        return dict.fromkeys(handles, DeploymentState("HEALTHY", 1))

    jobs = JobsSettings(store=FolderStore(folder=str(tmp_path)))
    service = serving(models, handles, limits, states, settings=jobs)
    yield create_app(service, jobs_at_once=2)
    asgi.shutdown_lifespans()


@dataclass
class Run:
    """What came of it."""

    found: dict[str, str]
    """How, by what."""
    phases: dict[str, Status]
    requests: int
    linked: set[str]
    """The links that were followed."""


def run(app: FastAPI, examples: int, phases: Sequence[str], path: str | None = None) -> Run:
    settings: dict[str, Any] = {
        "seed": 1,
        "base-url": "http://localhost",
        "headers": {"Authorization": f"Bearer {KEY}"},
        "continue-on-failure": True,
        "generation": {"max-examples": examples, "deterministic": True, "database": "none"},
        "phases": {phase: {"enabled": phase in phases} for phase in PHASES},
    }
    config = SchemathesisConfig.from_dict(settings)
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    seen = Run({}, {}, 0, set())
    for event in from_schema(schema.include(path=path) if path else schema).execute():
        match event:
            case events.NonFatalError():
                seen.found[f"{event.label}: {event.value!r}"] = ""
            case events.FatalError():
                raise event.exception
            case events.PhaseFinished() if event.phase.name in phases:
                seen.phases[str(event.phase.name)] = event.status
            case events.ScenarioFinished():
                note(seen, event)
    return seen


def note(seen: Run, event: events.ScenarioFinished) -> None:
    seen.requests += len(event.recorder.interactions)
    links = [case.transition for case in event.recorder.cases.values()]
    seen.linked |= {link.id.rpartition(" ")[2] for link in links if link}
    for case_id, checks in event.recorder.checks.items():
        for check in checks:
            if check.failure_info:
                failure, how = check.failure_info.failure, check.failure_info.code_sample
                response = event.recorder.interactions[case_id].response
                answer = response.content[:500] if response else None
                what = f"{event.phase}: {failure.operation}: {check.name}: {failure.message}"
                seen.found[what] = f"{how}\n{answer!r}"


async def test_every_example_of_a_body_runs(app: FastAPI):
    transport, headers = httpx.ASGITransport(app), {"authorization": f"Bearer {KEY}"}
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost")
    async with app.router.lifespan_context(app), client as http:
        for path, methods in app.openapi()["paths"].items():
            bodies = methods.get("post", {}).get("requestBody", {}).get("content", {})
            for kind, media in bodies.items():
                for name, example in media["examples"].items():
                    body = (
                        sent(example["value"]) if kind == MULTIPART else {"json": example["value"]}
                    )
                    response = await http.post(path, headers=headers, **body)
                    assert response.is_success, (path, kind, name, response.text)


def sent(example: dict[str, Any]) -> dict[str, Any]:
    """A form's example with files, which it can but name."""
    files = {field: FILES[value] for field, value in example.items() if value in FILES}
    return {"files": files, "data": {k: str(v) for k, v in example.items() if k not in files}}


def test_schemathesis_finds_nothing(app: FastAPI):
    seen = run(app, 10, QUICK)
    assert not seen.found, "\n\n".join(map("\n".join, seen.found.items()))
    assert seen.phases == dict.fromkeys(QUICK, Status.SUCCESS)
    assert seen.linked, "links were followed"


@pytest.mark.slow
@pytest.mark.parametrize("app", ["keyed"], indirect=True)
def test_schemathesis_finds_nothing_in_any_phase(app: FastAPI):
    seen = run(app, 20, PHASES)
    assert not seen.found, "\n\n".join(map("\n".join, seen.found.items()))
    assert seen.phases == dict.fromkeys(PHASES, Status.SUCCESS)
    assert seen.requests > 500


def test_what_is_wrong_is_found(app: FastAPI):
    """That a route which says one thing and does another does not pass."""

    @app.get("/broken", tags=["health"])
    async def broken() -> dict[str, int]:
        """Say that there is a number."""
        return JSONResponse({"number": "none"})  # type: ignore[return-value]

    found = run(app, 5, ["coverage"], path="/broken").found
    assert any("response_schema_conformance" in one for one in found), found
