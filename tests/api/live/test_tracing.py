"""What traces and logs show of a session."""

import logging

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from api.settings import UserConfig
from engine.errors import GenerationFailed
from tests.api.conftest import Served
from tests.api.live.conftest import Open
from tests.spans import Recorded
from tests.waiting import until_async

NAME = "WS /v1/live"


@pytest.mark.parametrize("fails", [False, True])
async def test_a_session_is_a_span_and_a_line(
    recorded: Recorded, served: Served, session: Open, caplog: pytest.LogCaptureFixture, fails: bool
):
    served.service.limits = UserConfig(live_ahead_s=1000)
    served.music.error = GenerationFailed("broken") if fails else None
    code = 4500 if fails else 1000
    with caplog.at_level(logging.INFO, "ray.serve"):
        async with session(additional_headers={"x-request-id": "mine"}) as live:
            await live.start(prompt="a secret wish", passage=1)
            if not fails:
                await live.hear_until(lambda: len(live.passages) == 2)
                await live.say(stop=True)
            assert await live.end() == code

        async def logged() -> list[logging.LogRecord]:
            return [one for one in caplog.records if getattr(one, "path", None) == "/v1/live"]

        (line,) = await until_async(logged)
    assert (line.method, line.outcome, line.model, line.key) == (
        "GET", str(code), "music", "everyone",
    )  # fmt: skip
    whole = recorded.one(NAME)
    assert whole.kind == SpanKind.SERVER
    assert whole.attributes["audiocraft.request_id"] == live.started["request_id"] == "mine"
    assert "http.response.status_code" not in whole.attributes
    wanted = StatusCode.ERROR if fails else StatusCode.UNSET
    assert whole.status.status_code == wanted
    assert "admission" in {one.name for one in recorded.children(whole)}
    assert "secret" not in "".join(span.to_json() for span in recorded.all())
