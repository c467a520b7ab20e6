"""Keys, limits and refusals over HTTP."""

from hashlib import sha256

import pytest

from api.keys import EVERYONE
from api.routes.models import LimitsAnswer
from api.settings import KeySettings, UserConfig
from deployments.ledger_state import Charge
from engine.errors import GenerationFailed
from tests.api.conftest import LocalLedger, Served, Server
from tests.api.test_uploads import wav

PATH = "/v1/generations"
SECRET, OTHER = "a secret", "another"


def hashed(*keys: str) -> list[str]:
    return [sha256(key.encode()).hexdigest() for key in keys]


@pytest.fixture
def ledger(served: Served) -> LocalLedger:
    return served.service.ledger.methods


@pytest.fixture
def with_keys(served: Served) -> Served:
    keys = (
        KeySettings(name="studio", sha256=hashed(SECRET, OTHER), weight=2, requests_per_minute=2),
        KeySettings(name="game", sha256=hashed("third")),
    )
    served.service.limits = UserConfig(keys=keys)
    return served


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {SECRET}"},
        {"authorization": f"bearer  {OTHER}"},
        {"xi-api-key": SECRET},
    ],
)
async def test_a_known_key_may_ask(with_keys: Served, headers: dict[str, str]):
    answer = await with_keys.http.get("/v1/limits", headers=headers)
    assert answer.status_code == 200
    assert answer.json()["key"]["name"] == "studio"
    assert answer.json()["key"]["weight"] == 2
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {SECRET}"},
     {"xi-api-key": ""}, {"authorization": f"Bearer {hashed(SECRET)[0]}"}],
)  # fmt: skip
async def test_others_may_not(with_keys: Served, headers: dict[str, str]):
    response = await with_keys.http.post(PATH, json={"prompt": "a"}, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert not with_keys.music.seen


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json"])
async def test_some_pages_need_no_key(with_keys: Served, path: str):
    assert (await with_keys.http.get(path)).status_code == 200


async def test_a_keys_rate_is_a_429_with_a_time(with_keys: Served):
    headers = {"authorization": f"Bearer {SECRET}"}
    body = {"prompt": "a", "duration": 0.1}
    statuses = [(await with_keys.http.post(PATH, json=body, headers=headers)) for _ in range(3)]
    assert [one.status_code for one in statuses] == [200, 200, 429]
    error = statuses[-1].json()["error"]
    assert error["code"] == "rate_limited"
    assert 25 <= int(statuses[-1].headers["retry-after"]) <= 31
    assert "try again in" in error["message"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_charge_lasts_as_long_as_its_request(
    served: Served, ledger: LocalLedger, stream: bool
):
    seen: list[dict[str, float]] = []
    generate = served.music._generate

    async def watched(*args: object):
        async for one in generate(*args):
            seen.append(ledger.accounts.compute_backlog())
            yield one

    served.music._generate = watched  # type: ignore[method-assign]
    body = {"prompt": "a", "duration": 2, "stream": stream}
    assert (await served.http.post(PATH, json=body)).status_code == 200
    await served.service.ledger.wait_for_calls()
    assert seen
    assert [one["music"] for one in seen] == [4.0] * len(seen), "2 s, two rows"
    assert ledger.accounts.compute_backlog() == {}


async def test_the_price_is_audio_by_rows(served: Served, ledger: LocalLedger):
    prices: list[float] = []
    admit = ledger.accounts.admit

    def noted(ingress: str, number: str, charge: Charge, *rest: object):
        prices.append(charge.row_seconds)
        return admit(ingress, number, charge, *rest)

    ledger.accounts.admit = noted  # type: ignore[method-assign]
    for more in ({}, {"guidance_scale": 1}, {"n": 3}):
        await served.http.post(PATH, json={"prompt": "a", "duration": 2} | more)
    assert prices == [4.0, 2.0, 12.0]


async def test_a_request_that_fails_is_not_charged_on(served: Served, ledger: LocalLedger):
    served.music.error, served.music.fails_at = GenerationFailed("broken"), 1
    assert (await served.http.post(PATH, json={"prompt": "a"})).status_code == 500
    await served.service.ledger.wait_for_calls()
    assert ledger.accounts.compute_backlog() == {}


async def test_more_than_can_start_soon_is_refused(served: Served):
    served.service.limits = UserConfig(max_wait_s=1)
    async with served.service.executor.admission.hold_charges(
        EVERYONE, [Charge("everyone", 1.0, "music", 100, 99)]
    ):
        response = await served.http.post(PATH, json={"prompt": "a", "duration": 2})
    assert response.status_code == 429
    assert response.json()["error"]["code"] == "overloaded"
    assert int(response.headers["retry-after"]) >= 1
    assert not served.music.seen
    await served.service.ledger.wait_for_calls()  # that the other has ended
    assert (await served.http.post(PATH, json={"prompt": "a"})).status_code == 200


async def test_without_the_ledger_a_local_cap_holds(served: Served, ledger: LocalLedger):
    ledger.reached = False
    served.service.limits = UserConfig(local_row_seconds=10)
    body = {"prompt": "a", "duration": 2}
    assert (await served.http.post(PATH, json=body)).status_code == 200
    async with served.service.executor.admission.hold_charges(
        EVERYONE, [Charge("everyone", 1.0, "music", 100, 99)]
    ):
        assert (await served.http.post(PATH, json=body)).status_code == 429
    assert (await served.http.post(PATH, json=body)).status_code == 200


async def test_the_limits_can_be_read(server: Server):
    answer = (await server.http.get("/v1/limits")).json()
    assert answer["max_body_bytes"] == 2000
    assert answer["key"] == {
        "name": "everyone", "weight": 1.0, "requests_per_minute": None, "row_seconds": None,
    }  # fmt: skip


def test_every_limit_can_be_read():
    assert set(LimitsAnswer.model_fields) - {"key", "formats"} == set(UserConfig.model_fields) - {
        "keys",
        "config_hash",
    }


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [({"name": "a"}, {"sha256": hashed("x")}, "same name"), ({}, {"name": "b"}, "same sha256")],
)
def test_keys_are_told_apart(one: dict[str, object], other: dict[str, object], reason: str):
    base = {"name": "a", "sha256": hashed(SECRET)}
    with pytest.raises(ValueError, match=reason):
        UserConfig(keys=(KeySettings(**base | one), KeySettings(**base | other)))


@pytest.mark.parametrize(
    ("path", "sent", "models"),
    [
        ("/v1/codec/encode", {"files": {"audio_file": wav(2.0)}}, ["codec", "media"]),
        ("/v1/codec/decode", {"json": {"codes": [[1] * 100] * 4}}, ["codec"]),
        (
            "/v1/mbd/regenerate",
            {"files": {"audio_file": wav(2.0)}},
            ["diffusion", "codec", "media"],
        ),
    ],
)
async def test_work_of_every_kind_is_charged(
    served: Served, ledger: LocalLedger, path: str, sent: dict[str, object], models: list[str]
):
    prices: list[tuple[str, float]] = []
    admit = ledger.accounts.admit

    def noted(ingress: str, number: str, charge: Charge, *rest: object):
        prices.append((charge.model, charge.row_seconds))
        return admit(ingress, number, charge, *rest)

    ledger.accounts.admit = noted  # type: ignore[method-assign]
    answer = await served.http.post(path, **sent)
    assert answer.status_code == 200, answer.text
    assert prices == [(model, 2.0) for model in models]
