"""Keys that come with the environment, as a Kubernetes secret brings them."""

import json
from hashlib import sha256

import pytest
from pydantic import ValidationError

from api.settings import UserConfig

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
