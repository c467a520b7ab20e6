"""Bodies of many parts: refused before models are built of them, and with a short answer."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from api.guards import MAX_PARTS, check_parts
from api.schemas.base import MAX_ITEMS
from api.schemas.files import DecodeBody
from api.schemas.generation import GenerationsBody
from api.schemas.jobs import MAX_LISTED_JOBS, SEVERAL_JOBS
from api.schemas.workflows import SongBody
from api.settings import UserConfig
from graph.errors import ApiError
from tests.api.conftest import Server
from tests.api.test_http import assert_error

SIZE = 900_000
SECTION = {"name": "a", "prompt": "a", "bars": 1}
HEADERS = {"content-type": "application/json"}


def repeat(item: bytes, size: int = SIZE) -> bytes:
    return b"[" + b",".join([item] * (size // (len(item) + 1))) + b"]"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/workflows/song", b'{"sections": %b}' % repeat(b"{}")),
        ("/v1/generations", b'{"prompts": %b}' % repeat(b"[]")),
        ("/v1/jobs", repeat(b'{"prompt": "a"}', 1_900_000)),
        ("/v1/codec/decode", b'{"codes": %b}' % repeat(b"[]")),
        ("/v1/audio/speech", b'{"input": "a", "voice": {"a": %b}}' % repeat(b"{}")),
    ],
)
async def test_too_many_parts_are_refused_unparsed(server: Server, path: str, body: bytes):
    server.service.limits = UserConfig(max_body_bytes=2_000_000)
    response = await server.http.post(path, content=body, headers=HEADERS)
    assert_error(response, 413, "body_too_large", None, f"more than {MAX_PARTS} lists")


def test_a_list_of_numbers_is_no_part():
    """Codes of an hour are sent so."""
    check_parts(b'{"codes": %b}' % repeat(repeat(b"1", SIZE // 4), SIZE))
    with pytest.raises(ApiError):
        check_parts(b"{" * (MAX_PARTS + 1))


@pytest.mark.parametrize(
    ("validate", "body"),
    [
        (GenerationsBody.model_validate, {"prompts": [1] * 900}),
        (SongBody.model_validate, {"sections": [SECTION] * 10 + [{"bars": 1.5}] * 900}),
        (SongBody.model_validate, {"sections": [SECTION], "effects": [1] * 900}),
        (SEVERAL_JOBS.validate_python, [1] * 900),
        (DecodeBody.model_validate, {"codes": [[-1] * 900] * 8}),
        (DecodeBody.model_validate, {"codes": [1] * 900}),
    ],
)
def test_a_list_is_checked_to_its_first_error(validate: Any, body: Any):
    with pytest.raises(ValidationError) as caught:
        validate(body)
    assert caught.value.error_count() < 5


@pytest.mark.parametrize(
    ("validate", "body", "field"),
    [
        (GenerationsBody.model_validate, {"prompts": ["a"] * (MAX_ITEMS + 1)}, "prompts"),
        (SongBody.model_validate, {"sections": [SECTION] * (MAX_ITEMS + 1)}, "sections"),
        (SEVERAL_JOBS.validate_python, [{"prompt": "a"}] * (MAX_LISTED_JOBS + 1), None),
    ],
)
def test_lists_have_a_length(validate: Any, body: Any, field: str | None):
    with pytest.raises(ValidationError) as caught:
        validate(body)
    (problem,) = caught.value.errors()
    assert (problem["type"], problem["loc"]) == ("too_long", (field,) if field else ())


def test_the_limit_of_clips_is_within_the_length():
    with pytest.raises(ValidationError):
        UserConfig(max_clips=MAX_ITEMS + 1)
    assert UserConfig(max_clips=MAX_ITEMS).max_clips == MAX_ITEMS


LONG = "a" * 900_000


@pytest.mark.parametrize(
    "body", [{LONG: 1}, {"prompt": "a", "model": LONG}, {"prompt": "a", "format": LONG}]
)
async def test_an_error_is_short(server: Server, body: dict[str, Any]):
    server.service.limits = UserConfig()
    response = await server.http.post("/v1/generations", json=body)
    assert 400 <= response.status_code < 500
    assert len(response.content) < 2000


async def test_a_deep_value_that_nobody_reads_is_no_error(server: Server):
    voice = b'{"a": ' * 600 + b"1" + b"}" * 600
    server.service.limits = UserConfig()
    body = b'{"input": "calm piano", "response_format": "wav", "duration": 1, "voice": %b}' % voice
    response = await server.http.post("/v1/audio/speech", content=body, headers=HEADERS)
    assert response.status_code == 200, response.text


async def test_a_long_list_of_jobs_is_refused_before_any_is_built(server: Server):
    body = json.dumps([{"prompt": "a", "quality": "auto"}] * (MAX_LISTED_JOBS + 1))
    server.service.limits = UserConfig()
    response = await server.http.post("/v1/jobs", content=body.encode(), headers=HEADERS)
    assert_error(response, 422, "invalid_value", None, f"at most {MAX_LISTED_JOBS} items")
