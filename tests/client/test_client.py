"""Tests both clients against the real routes."""

import asyncio
import io
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import soundfile

from api import settings
from api.audio import output
from api.audio.output import FORMATS
from api.routes.jobs import JobAnswer
from api.routes.models import LimitsAnswer, Model
from api.schemas import workflows
from api.schemas.generation import GenerationsBody
from audiocraft_serve import AsyncClient, Client, answers, api_call, endpoints, errors, parameters
from audiocraft_serve.answers import AudioPart, Done, Progress
from audiocraft_serve.cli.files import FORMAT_BY_SUFFIX
from engine.errors import GenerationFailed
from tests.client.conftest import KEY, Served
from tests.waiting import until_async


def read_seconds(file: bytes) -> float:
    """Return the duration of an audio file in seconds."""
    audio, rate = soundfile.read(io.BytesIO(file))
    return len(audio) / rate


def make_wav(seconds: float = 1.0, rate: int = 16000) -> bytes:
    """Return a WAV file of noise."""
    file = io.BytesIO()
    noise = np.random.default_rng(0).normal(0, 0.1, int(seconds * rate))
    soundfile.write(file, noise, rate, format="WAV")
    return file.getvalue()


def test_every_parameter_of_the_server_can_be_given():
    fields = set(GenerationsBody.model_fields) - {"prompt", "prompts", "stream"}
    fields |= set(parameters.FILES)
    assert set(parameters.GenerationParameters.__annotations__) == fields
    whole_only = {"n", "decoder", "return_codes"}
    assert set(parameters.StreamParameters.__annotations__) == fields - whole_only


def test_answers_have_the_servers_fields():
    for ours, theirs in (
        (answers.Job, JobAnswer), (answers.Limits, LimitsAnswer), (answers.Model, Model),
    ):  # fmt: skip
        assert set(ours.__dataclass_fields__) <= set(theirs.model_fields)
    assert set(get_args(parameters.Format)) == set(FORMATS)
    types = {kind.media_type: name for name, kind in FORMATS.items()}
    assert types == endpoints.MEDIA_TYPES
    assert set(FORMAT_BY_SUFFIX.values()) == set(FORMATS)
    for ours, theirs in (
        (parameters.SampleFormat, output.SampleFormat),
        (parameters.Normalize, output.Normalize),
        (parameters.Decoder, settings.Decoder),
        (parameters.Environment, workflows.Environment),
    ):
        assert get_args(ours) == get_args(theirs)
    assert get_args(parameters.Quality) == (*reversed(settings.BEST_FIRST), "auto")


async def test_one_clip(client: Any, tmp_path: Path):
    made = await client.generate("calm piano", duration=1.5, seed=7, format="flac")
    assert (made.model, made.seed, made.format, made.clip.prompt) == (
        "music", 7, "flac", "calm piano",
    )  # fmt: skip
    assert read_seconds(made.audio) == 1.5
    assert {"generate", "total"} <= set(made.milliseconds)
    made.save(tmp_path / "a.flac")
    assert (tmp_path / "a.flac").read_bytes() == made.audio


async def test_several_clips(client: Any):
    made = await client.generate(["a", "b"], n=2, duration=0.5, seed=1, return_codes=True)
    assert [(clip.prompt, clip.variation) for clip in made.clips] == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip
    assert [read_seconds(clip.audio) for clip in made.clips] == [0.5] * 4
    assert [clip.codes[0][0] for clip in made.clips] == [1, 2, 1, 2]
    assert {(clip.duration, clip.sample_rate, clip.channels) for clip in made.clips} == {
        (0.5, 16000, 1)
    }
    with pytest.raises(ValueError, match="4 clips"):
        _ = made.audio


async def test_the_only_one_of_a_list(client: Any):
    made = await client.generate(["a"], duration=0.5)
    assert made.clip.prompt == "a"


async def test_progress(client: Any):
    told = list[Progress]()
    made = await client.generate("a", duration=3, seed=1, on_progress=told.append)
    assert told
    assert told[-1].done == told[-1].total == 150
    whole = await client.generate("a", duration=3, seed=1, cache=False)
    assert made.audio == whole.audio
    assert (made.clip.duration, made.seed, made.model) == (3, 1, "music")


@pytest.mark.parametrize("as_path", [False, True])
async def test_a_continuation(client: Any, served: Served, tmp_path: Path, as_path: bool):
    path = tmp_path / "first.wav"
    path.write_bytes(make_wav(2.0))
    source = str(path) if as_path else path.read_bytes()
    made = await client.generate(
        "b", duration=2, continue_from=source, start=0.5, end=1.5, include_prompt=False
    )
    assert read_seconds(made.audio) == 1
    (seen,) = served.music.seen
    assert seen.prompt is not None
    assert seen.prompt.frames == 50


async def test_a_melody(client: Any, served: Served):
    await client.generate("b", duration=1, model="hum", melody=make_wav())
    (seen,) = served.hum.seen
    assert seen.melody is not None


def test_a_form_says_what_json_says(served: Served):
    """Numbers, booleans and lists have the same text in a form and in JSON."""
    body = {"greedy": True, "top_p": 0.25, "top_k": 3, "prompt": "ü=&\n", "n": None}
    form = api_call.encode_form(body | {"prompts": ["a", "b"]})
    assert form == {
        "greedy": "true", "top_p": "0.25", "top_k": "3", "prompt": "ü=&\n", "prompts": ["a", "b"],
    }  # fmt: skip


async def test_codes_there_and_back(client: Any, tmp_path: Path):
    codes = await client.encode(make_wav(), codebooks=2)
    assert (codes.codebooks, codes.frames, len(codes.codes)) == (2, 50, 2)
    decoded = await client.decode(codes)
    assert read_seconds(decoded) == 1
    assert await client.decode(await client.encode_file(make_wav(), codebooks=2)) == decoded
    file = await client.encode_file(make_wav())
    (tmp_path / "x.safetensors").write_bytes(file)
    made = await client.generate("c", duration=2, continue_from=tmp_path / "x.safetensors")
    assert read_seconds(made.audio) == 2


async def test_an_analysis(client: Any):
    found = await client.analyze(make_wav(), threshold=0.0)
    assert found.is_real
    assert found.threshold == 0
    assert set(found.scales) == {"mpd", "msd", "msstftd"}


async def test_what_the_server_is(client: Any):
    assert {model.id: model.kind for model in await client.models()}["hum"] == "musicgen"
    limits = await client.limits()
    assert (limits.max_clips, limits.key["name"]) == (6, "tests")
    stats = await client.stats()
    assert stats.deployments["music"] == "HEALTHY"


async def test_a_job(client: Any):
    looks = list[answers.Job]()
    job = await client.submit_job("calm piano", duration=1, seed=3)
    assert job.seed == 3
    made = await client.wait_for_job(job.id, on_progress=looks.append)
    assert looks[-1].has_ended
    assert (read_seconds(made.audio), made.format, made.seed) == (1, "wav", 3)
    assert (await client.get_job(job.id)).status == "finished"
    assert (await client.cancel_job(job.id)).status == "finished"
    assert (await client.fetch_job(job.id)).audio == made.audio
    for _ in range(2):
        await client.delete_job(job.id)
    with pytest.raises(errors.NotFound) as caught:
        await client.get_job(job.id)
    assert caught.value.code == "job_not_found"


async def test_jobs_of_a_list(client: Any):
    jobs = await client.submit_jobs(
        [{"prompt": "a", "duration": 1, "n": 2}, {"prompt": "b", "duration": 1, "format": "ogg"}]
    )
    first, second = [await client.wait_for_job(job.id) for job in jobs]
    assert [clip.prompt for clip in first.clips] == ["a", "a"]
    assert second.format == "ogg"
    page = await client.list_jobs(status="finished", limit=1)
    assert [job.id for job in page.jobs] == [jobs[1].id]
    page = await client.list_jobs(cursor=page.next_cursor, type="generation")
    assert ([job.id for job in page.jobs], page.next_cursor) == ([jobs[0].id], None)
    assert (await client.list_jobs(type="song")).jobs == ()


async def test_a_job_that_fails(client: Any, served: Served):
    served.music.error = GenerationFailed("broken")
    job = await client.submit_job("calm piano", duration=1)
    with pytest.raises(errors.JobEnded) as caught:
        await client.wait_for_job(job.id)
    assert (caught.value.status, caught.value.code) == ("failed", "generation_failed")


async def test_errors_say_what_the_server_says(client: Any, served: Served):
    with pytest.raises(errors.InvalidRequest) as caught:
        await client.generate("a", duration=1e3)
    error = caught.value
    assert (error.status, error.code, error.param) == (422, "invalid_value", "duration")
    assert error.request_id
    assert "30" in error.message
    with pytest.raises(errors.NotFound):
        await client.generate("a", model="none")
    served.music.error = GenerationFailed("broken")
    with pytest.raises(errors.ServerFailed):
        await client.generate("a", duration=1)


async def test_an_error_among_events(client: Any, served: Served):
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    with pytest.raises(errors.ServerFailed) as caught:
        await client.generate("a", duration=3, on_progress=lambda _: None)
    assert (caught.value.status, caught.value.code) == (None, "generation_failed")
    assert caught.value.request_id


async def test_no_key_and_another(served: Served, monkeypatch: pytest.MonkeyPatch):
    def ask(key: str | None) -> None:
        with Client(served.url, key) as client:
            client.limits()

    for key in (None, "wrong"):
        with pytest.raises(errors.InvalidApiKey):
            await asyncio.to_thread(ask, key)
    monkeypatch.setenv("AUDIOCRAFT_SERVE_API_KEY", KEY)
    await asyncio.to_thread(ask, None)


def stream_and_follow(url: str) -> tuple[answers.Streaming[Any], list[bytes], list[Any]]:
    wanted: Any = {"duration": 3, "seed": 5, "format": "pcm"}
    with Client(url, KEY) as client:
        with client.stream("a", **wanted) as stream:
            parts = list(stream.parts)
        with client.events("a", stream=True, **wanted) as events:
            return stream, parts, list(events)


async def stream_and_follow_async(
    url: str,
) -> tuple[answers.Streaming[Any], list[bytes], list[Any]]:
    wanted: Any = {"duration": 3, "seed": 5, "format": "pcm"}
    async with AsyncClient(url, KEY) as client:
        async with client.stream("a", **wanted) as stream:
            parts = [part async for part in stream.parts]
        async with client.events("a", stream=True, **wanted) as events:
            return stream, parts, [event async for event in events]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_stream(served: Served, kind: str):
    if kind == "sync":
        stream, parts, (*audio, done) = await asyncio.to_thread(stream_and_follow, served.url)
    else:
        stream, parts, (*audio, done) = await stream_and_follow_async(served.url)
    assert (stream.model, stream.seed, stream.format) == ("music", 5, "pcm")
    assert len(parts) > 1
    assert len(b"".join(parts)) == 3 * 16000 * 2
    assert isinstance(done, Done)
    heard = b"".join(part.audio for part in audio if isinstance(part, AudioPart))
    assert done.result.audio == heard == b"".join(parts)


@pytest.mark.parametrize("how", ["stream", "events"])
async def test_who_leaves_a_stream_stops_the_work(served: Served, how: str):
    served.music.gate = asyncio.Event()  # never set: the generation never ends
    async with AsyncClient(served.url, KEY) as client:
        async with getattr(client, how)("a", duration=3) as opened:
            parts = opened.parts if how == "stream" else opened
            await anext(parts)
            assert count_charges(served)
        await until_async(lambda: has_no_charges(served))


def count_charges(served: Served) -> int:
    """Return the number of requests that the server's ledger has not closed."""
    return len(served.service.ledger.open)


async def has_no_charges(served: Served) -> bool:
    return not count_charges(served)


async def test_a_cancelled_task_stops_the_work(served: Served):
    served.music.gate, begun = asyncio.Event(), asyncio.Event()
    async with AsyncClient(served.url, KEY) as client:
        waiting = asyncio.create_task(
            client.generate("a", duration=3, on_progress=lambda _: begun.set())
        )
        await begun.wait()
        assert count_charges(served)
        waiting.cancel()
        await until_async(lambda: has_no_charges(served))
