"""Finds the API key of a request by its hash."""

import base64
import hmac
from collections.abc import Sequence
from hashlib import sha256

from starlette.requests import HTTPConnection

from api.settings import KeySettings
from deployments.ledger_state import Share
from graph.errors import ApiError

EVERYONE = Share("everyone")
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/redoc", "/openapi.json")
OPEN_FOLDERS = ("/playground/", "/static-offline-docs/")

KEY_PROTOCOL = "audiocraft.key."
"""The prefix of a WebSocket subprotocol that contains a key."""


def find_share(name: str, keys: Sequence[KeySettings]) -> Share:
    """Return the share of a key by its name. Raises ApiError 401 if the key was removed."""
    if name == EVERYONE.name:
        return EVERYONE
    for key in keys:
        if key.name == name:
            return key.build_share()
    raise ApiError(401, "invalid_api_key", f"the API key {name!r} is no longer known")


def authenticate(request: HTTPConnection, keys: Sequence[KeySettings]) -> Share:
    """Return the share of the request's key, or EVERYONE without keys. Raises ApiError 401."""
    path = request.scope["path"]
    if not keys or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return EVERYONE
    sent = _read_key(request)
    found = sha256(sent.encode("latin-1")).hexdigest()
    # Every hash is compared in constant time, so the time reveals nothing about the keys.
    known = [(hmac.compare_digest(found, one), key) for key in keys for one in key.sha256]
    fitting = [key for fits, key in known if fits]
    if sent and fitting:
        return fitting[0].build_share()
    message = "send your API key as 'Authorization: Bearer ...' or 'xi-api-key: ...'"
    problem = "the API key is not known" if sent else "no API key"
    headers = {"www-authenticate": "Bearer"}
    raise ApiError(401, "invalid_api_key", f"{problem}; {message}", headers=headers)


def _read_key(request: HTTPConnection) -> str:
    """Return the key of a request, or an empty string.

    OpenAI's clients send it as `Authorization: Bearer`, ElevenLabs' clients as `xi-api-key`.
    Browsers cannot set headers of WebSockets, so there it can also be a subprotocol.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip()
    offered = request.scope.get("subprotocols", ())
    named = next((one for one in offered if one.startswith(KEY_PROTOCOL)), None)
    return _decode_key(named) if named else request.headers.get("xi-api-key", "")


def _decode_key(protocol: str) -> str:
    """Decode the key in a subprotocol: base64url (RFC 4648, section 5) without padding."""
    text = protocol.removeprefix(KEY_PROTOCOL)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True).decode(
            "latin-1"
        )
    except ValueError:
        return ""
