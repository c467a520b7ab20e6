"""Who may have a session: keys, origins, limits, and what each passage costs."""

import asyncio
import base64
from contextlib import AsyncExitStack
from hashlib import sha256
from typing import Any

import pytest
from websockets.asyncio.client import connect

from api.keys import EVERYONE
from api.settings import KeySettings, UserConfig
from deployments.accounts import Verdict
from deployments.ledger_state import Charge
from tests.api.conftest import Served
from tests.api.live.conftest import Client, Open, eventually
from tests.api.test_metrics import Noted

SECRET = "a/secret+ü?"
KEYS = (KeySettings(name="studio", sha256=[sha256(SECRET.encode("latin-1")).hexdigest()]),)
FAR = UserConfig(live_ahead_s=1000)


def protocol(key: str) -> str:
    """As docs/live.md has browsers do it."""
    return "audiocraft.key." + base64.urlsafe_b64encode(key.encode("latin-1")).decode().rstrip("=")


@pytest.mark.parametrize(
    "options",
    [
        {"additional_headers": {"authorization": "Bearer plain"}},
        {"additional_headers": {"xi-api-key": "plain"}},
        {"subprotocols": ["audiocraft.live", protocol(SECRET)]},
        {"subprotocols": [protocol(SECRET), "audiocraft.live"]},
    ],
)
async def test_a_known_key_may(served: Served, session: Open, options: dict[str, Any]):
    plain = KeySettings(name="game", sha256=[sha256(b"plain").hexdigest()])
    served.service.limits = UserConfig(keys=(*KEYS, plain))
    async with session(**options) as live:
        await live.start(prompt="a")
        chosen = "audiocraft.live" if "subprotocols" in options else None
        assert live.connection.subprotocol == chosen
        assert list(served.service.live.open) == ["studio" if chosen else "game"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"additional_headers": {"authorization": "Bearer wrong"}},
        {"subprotocols": ["audiocraft.live"]},
        {"subprotocols": ["audiocraft.live", protocol("wrong")]},
        {"subprotocols": ["audiocraft.live", "audiocraft.key.a"]},
        {"subprotocols": ["audiocraft.live", protocol("")]},
    ],
)
async def test_others_may_not(served: Served, session: Open, options: dict[str, Any]):
    served.service.limits = UserConfig(keys=KEYS)
    async with session(**options) as live:
        assert await live.end() == 4401
    (error,) = live.errors
    assert error["error"]["code"] == "invalid_api_key"
    assert error["request_id"]
    assert not served.music.seen


async def test_a_key_in_the_address_is_none(served: Served, address: str):
    served.service.limits = UserConfig(keys=KEYS)
    async with connect(f"{address}/v1/live?xi-api-key={SECRET}") as connection:
        await connection.wait_closed()
        assert connection.close_code == 4401


@pytest.mark.parametrize(("host", "code"), [("evil.example", 4403), ("localhost", 1000)])
async def test_a_rebound_name_opens_no_session(address: str, host: str, code: int):
    port = int(address.rpartition(":")[2])
    named = f"ws://{host}:{port}/v1/live"
    async with connect(named, host="127.0.0.1", port=port) as connection:
        live = Client(connection)
        if code == 1000:
            await live.start(prompt="a")
            await live.say(stop=True)
        assert await live.end() == code


@pytest.mark.parametrize(
    ("origin", "code"),
    [("https://evil.example", 4403), ("null", 4403), ("http://127.0.0.1", 4403), (None, 1000)],
)
async def test_pages_of_others_may_not_call(
    served: Served, session: Open, address: str, origin: str | None, code: int
):
    """With none: the server's own."""
    own = address.replace("ws:", "http:")
    async with session(origin=origin or own) as live:
        if code == 1000:
            await live.start(prompt="a")
            await live.say(stop=True)
        assert await live.end() == code


async def test_each_passage_is_charged(served: Served, session: Open, monkeypatch: Any):
    noted = Noted()
    for name in (
        "count_price",
        "count_request",
        "set_live_sessions",
        "observe_clip",
        "observe_first_audio",
    ):
        monkeypatch.setattr(served.service.metrics, name, getattr(noted, name))
    served.service.limits = FAR
    gate = served.music.gate = asyncio.Event()
    async with session() as live:
        await live.start(prompt="a", passage=1.5)
        await live.hear_until(lambda: live.passages)
        await live.say(stop=True)
        gate.set()
        assert await live.end() == 1000
    async with session() as live:
        await live.start(prompt="a", passage=1.5, guidance_scale=1, model="hum")
        await live.hear_until(lambda: len(live.passages) == 3)
    assert noted.of("count_price")[0] == ["music", "admitted", 3.0]
    assert noted.of("count_price")[1:4] == [
        ["hum", "admitted", 1.5 * number] for number in (1, 2, 3)
    ], "a passage feeds those before it again"
    assert [model for model, *_ in noted.of("observe_clip")][:2] == ["hum", "hum"]
    await eventually(lambda: len(noted.of("count_request")) == 2)
    assert [one[:3] for one in noted.of("count_request")] == [
        ["/v1/live", "music", "1000"], ["/v1/live", "hum", "1000"],
    ]  # fmt: skip
    assert noted.of("set_live_sessions") == [[1], [0], [1], [0]]


async def busy(served: Served, stack: AsyncExitStack) -> None:
    """Let nobody in for now."""
    charge = Charge("everyone", 1.0, "music", 1000, 99)
    await stack.enter_async_context(
        served.service.executor.admission.hold_charges(EVERYONE, [charge])
    )


async def test_a_session_that_is_refused_ends(served: Served, session: Open):
    served.service.limits = UserConfig(max_wait_s=1)
    async with AsyncExitStack() as others, session() as live:
        await busy(served, others)
        await live.start(prompt="a")
        assert await live.end() == 4429
    assert live.errors[0]["error"]["code"] == "overloaded"


@pytest.mark.parametrize("then", ["stops", "goes on", "gives up"])
async def test_a_later_passage_waits(
    served: Served, session: Open, monkeypatch: pytest.MonkeyPatch, then: str
):
    """It asks again each second."""
    served.service.limits = UserConfig(
        live_ahead_s=1000, max_wait_s=0.5 if then == "gives up" else 60
    )
    gate = served.music.gate = asyncio.Event()
    async with session() as live:
        await live.start(prompt="a", passage=1)
        await live.hear_until(lambda: live.passages)
        accounts = served.service.ledger.methods.accounts
        monkeypatch.setattr(accounts, "_check_backlog", lambda *_: Verdict("busy", 0.1))
        gate.set()
        await live.hear_until(lambda: live.errors)
        if then == "stops":
            await live.say(stop=True)
            assert await live.end() == 1000
        elif then == "goes on":
            monkeypatch.undo()
            await live.hear_until(lambda: len(live.passages) == 3)
        else:
            assert await live.end() == 4429
    assert {one["error"]["code"] for one in live.errors} == {"overloaded"}
    if then != "goes on":
        assert len(served.music.seen) == 1


async def test_a_key_that_is_taken_back_ends_its_sessions(served: Served, session: Open):
    served.service.limits = UserConfig(keys=KEYS, live_ahead_s=1000)
    async with session(subprotocols=["audiocraft.live", protocol(SECRET)]) as live:
        await live.start(prompt="a", passage=1)
        await live.hear_until(lambda: live.passages)
        served.service.limits = UserConfig(keys=(KeySettings(name="game", sha256=["0" * 64]),))
        assert await live.end() == 4401
    assert "no longer known" in live.errors[0]["error"]["message"]


@pytest.mark.parametrize("limit", ["max_live", "max_live_per_key"])
async def test_no_more_sessions_than_allowed(served: Served, session: Open, limit: str):
    served.service.limits = UserConfig(**{limit: 1})
    async with session() as first:
        await first.start(prompt="a")
        async with session() as second:
            assert await second.end() == 4429
        assert second.errors[0]["error"]["code"] == "too_many_sessions"
    await eventually(lambda: not served.service.live.open)
    async with session() as third:
        await third.start(prompt="a")
