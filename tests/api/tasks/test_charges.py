"""Every charge of a task ends, also where several stages use one model."""

from tests.api.tasks.conftest import Everything

SONG = {
    "sections": [{"name": "theme", "prompt": "calm piano", "bars": 1}],
    "tempo": 240,
    "effects": [{"prompt": "thunder", "at": 0, "duration": 0.5}],
    "distribution": {"bandwidth": 0.9},
}


async def test_no_charge_outlives_a_song_whose_models_share_a_codec(everything: Everything):
    response = await everything.http.post("/v1/workflows/song", json=SONG)
    assert response.status_code == 200, response.text
    await everything.service.ledger.wait_for_calls()
    assert everything.service.ledger.open == {}
    assert everything.ledger.accounts.snapshot().requests == {}
