"""API keys: who asks, told by a hash of what they send."""

import base64
import hmac
import os
from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated

from pydantic import Field, TypeAdapter
from starlette.requests import HTTPConnection

from deployments.accounts import Share
from deployments.settings import StrictModel
from graph.errors import ApiError

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
EVERYONE = Share("everyone")
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/redoc", "/openapi.json")
OPEN_FOLDERS = ("/playground/", "/static-offline-docs/")

KEY_PROTOCOL = "audiocraft.key."
"""What a WebSocket's subprotocol begins with whose rest is a key."""


class KeySettings(StrictModel):
    """One user of the API."""

    name: Annotated[str, Field(min_length=1)]
    sha256: Annotated[list[Hash], Field(min_length=1)]
    """Of the key, in hexadecimal; several while keys are changed."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    requests_per_minute: Annotated[float | None, Field(ge=1, allow_inf_nan=False)] = None
    row_seconds: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """Outstanding at once: seconds of audio, twice under guidance."""

    def share(self) -> Share:
        """Return what its requests may have."""
        return Share(self.name, self.weight, self.requests_per_minute, self.row_seconds)


def keys_of_environment() -> list[KeySettings]:
    """Return the keys in AUDIOCRAFT_KEYS, a JSON list such as a Kubernetes secret holds.

    Raises ValidationError.
    """
    return TypeAdapter(list[KeySettings]).validate_json(os.environ.get("AUDIOCRAFT_KEYS") or "[]")


def share_named(name: str, keys: Sequence[KeySettings]) -> Share:
    """Return the share of a key that asked before. Raises ApiError 401 where there is none now."""
    if name == EVERYONE.name:
        return EVERYONE
    for key in keys:
        if key.name == name:
            return key.share()
    raise ApiError(401, "invalid_api_key", f"the API key {name!r} is no longer known")


def share_of(request: HTTPConnection, keys: Sequence[KeySettings]) -> Share:
    """Return whose request it is: everyone's where no keys are configured. Raises ApiError 401."""
    path = request.scope["path"]
    if not keys or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return EVERYONE
    sent = _sent(request)
    found = sha256(sent.encode("latin-1")).hexdigest()
    # Every hash is compared, in constant time: how long it takes tells nothing of the keys.
    known = [(hmac.compare_digest(found, one), key) for key in keys for one in key.sha256]
    fitting = [key for fits, key in known if fits]
    if sent and fitting:
        return fitting[0].share()
    message = "send your API key as 'Authorization: Bearer ...' or 'xi-api-key: ...'"
    problem = "the API key is not known" if sent else "no API key"
    headers = {"www-authenticate": "Bearer"}
    raise ApiError(401, "invalid_api_key", f"{problem}; {message}", headers=headers)


def _sent(request: HTTPConnection) -> str:
    """Return the key that came along, if one did, else nothing.

    It comes as OpenAI's clients send it, `Authorization: Bearer`, or as ElevenLabs' do,
    `xi-api-key`; with a WebSocket also as a subprotocol, since browsers can set no headers.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip()
    offered = request.scope.get("subprotocols", ())
    named = next((one for one in offered if one.startswith(KEY_PROTOCOL)), None)
    return _decoded(named) if named else request.headers.get("xi-api-key", "")


def _decoded(protocol: str) -> str:
    """Return the key in a subprotocol's name: base64url (RFC 4648, 5) without padding."""
    text = protocol.removeprefix(KEY_PROTOCOL)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True).decode(
            "latin-1"
        )
    except ValueError:
        return ""
