"""API keys: which key a request comes with, found by its hash."""

import base64
import hmac
from collections.abc import Sequence
from hashlib import sha256

from starlette.requests import HTTPConnection

from api.settings import KeySettings
from deployments.accounts import Share
from graph.errors import ApiError

EVERYONE = Share("everyone")
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/redoc", "/openapi.json")
OPEN_FOLDERS = ("/playground/", "/static-offline-docs/")

KEY_PROTOCOL = "audiocraft.key."
"""What a WebSocket's subprotocol begins with whose rest is a key."""


def find_share(name: str, keys: Sequence[KeySettings]) -> Share:
    """Return the share of a key that asked before. Raises ApiError 401 where there is none now."""
    if name == EVERYONE.name:
        return EVERYONE
    for key in keys:
        if key.name == name:
            return key.build_share()
    raise ApiError(401, "invalid_api_key", f"the API key {name!r} is no longer known")


def authenticate(request: HTTPConnection, keys: Sequence[KeySettings]) -> Share:
    """Return whose request it is: everyone's where no keys are configured. Raises ApiError 401."""
    path = request.scope["path"]
    if not keys or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
        return EVERYONE
    sent = _read_key(request)
    found = sha256(sent.encode("latin-1")).hexdigest()
    # Every hash is compared, in constant time: how long it takes tells nothing of the keys.
    known = [(hmac.compare_digest(found, one), key) for key in keys for one in key.sha256]
    fitting = [key for fits, key in known if fits]
    if sent and fitting:
        return fitting[0].build_share()
    message = "send your API key as 'Authorization: Bearer ...' or 'xi-api-key: ...'"
    problem = "the API key is not known" if sent else "no API key"
    headers = {"www-authenticate": "Bearer"}
    raise ApiError(401, "invalid_api_key", f"{problem}; {message}", headers=headers)


def _read_key(request: HTTPConnection) -> str:
    """Return the key that came along, if one did, else nothing.

    It comes as OpenAI's clients send it, `Authorization: Bearer`, or as ElevenLabs' do,
    `xi-api-key`; with a WebSocket also as a subprotocol, since browsers can set no headers.
    """
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip()
    offered = request.scope.get("subprotocols", ())
    named = next((one for one in offered if one.startswith(KEY_PROTOCOL)), None)
    return _decode_key(named) if named else request.headers.get("xi-api-key", "")


def _decode_key(protocol: str) -> str:
    """Return the key in a subprotocol's name: base64url (RFC 4648, 5) without padding."""
    text = protocol.removeprefix(KEY_PROTOCOL)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), "-_", validate=True).decode(
            "latin-1"
        )
    except ValueError:
        return ""
