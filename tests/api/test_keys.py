"""Keys: of the environment, of any name, and as many as there are."""

import json
from hashlib import sha256

import pytest
from fastapi import Request
from pydantic import ValidationError

from api.keys import authenticate, find_share
from api.settings import KeySettings, UserConfig
from graph.errors import ApiError

ONE = {"name": "studio", "sha256": [sha256(b"s").hexdigest()], "weight": 2}
OTHER = {"name": "game", "sha256": [sha256(b"g").hexdigest()]}


def test_they_are_added_to_the_configured_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUDIOCRAFT_KEYS", json.dumps([ONE]))
    limits = UserConfig.model_validate({"keys": [OTHER], "max_clips": 3}).add_environment_keys()
    assert [key.name for key in limits.keys] == ["game", "studio"]
    assert (limits.keys[1].weight, limits.max_clips) == (2, 3)


def test_without_any_nothing_changes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AUDIOCRAFT_KEYS", raising=False)
    limits = UserConfig(keys=(), max_clips=3)
    assert limits.add_environment_keys() == limits


@pytest.mark.parametrize("text", ["studio", '[{"name": "studio"}]', json.dumps([OTHER])])
def test_what_is_no_list_of_new_keys_is_refused(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUDIOCRAFT_KEYS", text)
    with pytest.raises(ValidationError):
        UserConfig.model_validate({"keys": [OTHER]}).add_environment_keys()


@pytest.mark.parametrize("name", ["everyone", "none", "a key", "\u00fc"])
def test_a_key_of_any_name_has_its_limits(name: str):
    limits = UserConfig.model_validate({"keys": [ONE | {"name": name, "row_seconds": 5}]})
    assert find_share(name, limits).row_seconds == 5


def test_a_key_that_was_removed_is_unknown():
    with pytest.raises(ApiError, match="no longer known"):
        find_share("studio", UserConfig())


def test_a_look_up_costs_the_same_among_many_keys():
    """Counted in comparisons, of which one for each key took 4 ms for 10,000."""
    hashes = [sha256(str(number).encode()).hexdigest() for number in range(10_000)]
    keys = [KeySettings(name=str(number), sha256=[one]) for number, one in enumerate(hashes)]
    limits = UserConfig(keys=tuple(keys))
    assert authenticate(calling(b"9999"), limits).name == "9999"
    object.__setattr__(limits, "keys", Uncountable())
    assert authenticate(calling(b"5000"), limits).name == "5000"
    with pytest.raises(ApiError, match="not known"):
        authenticate(calling(b"10000"), limits)


def test_an_empty_key_is_none():
    keys = (KeySettings(name="empty", sha256=[sha256(b"").hexdigest()]),)
    with pytest.raises(ApiError, match="no API key"):
        authenticate(calling(b""), UserConfig(keys=keys))


class Uncountable:
    """Keys that are there, and that nobody may go through."""

    def __bool__(self) -> bool:
        return True


def calling(key: bytes) -> Request:
    return Request({"type": "http", "path": "/v1/models", "headers": [(b"xi-api-key", key)]})
