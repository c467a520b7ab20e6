"""One record of each answer, which tells nothing of what was asked for."""

import logging
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import pytest

from api.settings import KeySettings, UserConfig
from engine.errors import GenerationFailed
from tests.api.conftest import Served
from tests.spans import Recorded

PATH = "/v1/generations"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("ray.serve")  # it does not propagate
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "ray.serve"):
        yield caplog
    logger.removeHandler(caplog.handler)


def facts(record: logging.LogRecord) -> dict[str, Any]:
    names = ("method", "path", "outcome", "model", "key")
    return {name: getattr(record, name) for name in names}


async def test_an_answer_is_one_record(served: Served, log: pytest.LogCaptureFixture):
    keys = (KeySettings(name="anna", sha256=[sha256(b"hush").hexdigest()]),)
    served.service.limits = UserConfig(keys=keys)
    headers = {"authorization": "Bearer hush"}
    await served.http.post(PATH, json={"prompt": "a secret wish", "duration": 2}, headers=headers)
    (record,) = log.records
    assert facts(record) == {
        "method": "POST", "path": PATH, "outcome": "200", "model": "music", "key": "anna",
    }  # fmt: skip
    assert record.getMessage().startswith(f"POST {PATH} 200 ")
    assert 0 < record.seconds < 60
    told = str(vars(record))
    assert "secret" not in told
    assert "hush" not in told


async def test_what_goes_wrong_is_a_record_too(served: Served, log: pytest.LogCaptureFixture):
    await served.http.post("/no%0Awhere", json={})
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    await served.http.post(PATH, json={"prompt": "a", "stream": True})
    answers = [record for record in log.records if hasattr(record, "outcome")]
    assert [(r.path, r.outcome, r.model) for r in answers] == [
        ("/no%0Awhere", "404", None),
        (PATH, "cut", "music"),
    ]


async def test_a_record_names_its_trace(
    recorded: Recorded, served: Served, log: pytest.LogCaptureFixture
):
    await served.http.get("/healthz")
    (record,) = log.records
    assert record.trace_id == f"{recorded.one('GET /healthz').context.trace_id:032x}"
