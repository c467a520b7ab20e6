"""Finds the API key of a request by its hash."""

import base64
from hashlib import sha256

from starlette.requests import HTTPConnection

from api.settings import UserConfig, read_webhook_secrets
from deployments.ledger_state import Share
from graph.errors import ApiError

EVERYONE = Share("everyone")
OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/redoc", "/openapi.json")
OPEN_FOLDERS = ("/playground/", "/static-offline-docs/")

KEY_PROTOCOL = "audiocraft.key."
"""The prefix of a WebSocket subprotocol that contains a key."""


def find_share(name: str, limits: UserConfig) -> Share:
    """Return the share of a key by its name. Raises ApiError 401 if the key was removed."""
    if key := limits.keys_by_name.get(name):
        return key.build_share()
    if name == EVERYONE.name:
        return EVERYONE
    raise ApiError(401, "invalid_api_key", f"the API key {name!r} is no longer known")


def find_webhook_secrets(name: str, limits: UserConfig) -> list[str]:
    """Return the secrets that sign the webhooks of a key; none where the key was removed.

    Those of the environment sign for everyone, where no keys are configured.
    """
    if not limits.keys and name == EVERYONE.name:
        return read_webhook_secrets()
    key = limits.keys_by_name.get(name)
    return [one.get_secret_value() for one in key.webhook_secrets] if key else []


def is_open(request: HTTPConnection) -> bool:
    """Return whether a path needs no key."""
    path = request.scope["path"]
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)


def authenticate(request: HTTPConnection, limits: UserConfig) -> Share:
    """Return the share of the request's key, or EVERYONE without keys. Raises ApiError 401.

    The time of a look-up depends on the hash of what was sent, not on how much of a key is right.
    """
    if not limits.keys or is_open(request):
        return EVERYONE
    sent = _read_key(request)
    key = limits.keys_by_hash.get(sha256(sent.encode("latin-1")).hexdigest())
    if sent and key:
        return key.build_share()
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
