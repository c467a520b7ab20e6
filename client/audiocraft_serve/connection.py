"""Builds the settings of an HTTP client: address, API key, headers and timeouts."""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

URL_VARIABLE, API_KEY_VARIABLE = "AUDIOCRAFT_SERVE_URL", "AUDIOCRAFT_SERVE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S, CONNECT_TIMEOUT_S = 600.0, 10.0
"""Longest wait for the next bytes of a response, and for a connection, in seconds."""


def _read_version() -> str:
    try:
        return version("audiocraft-serve")
    except PackageNotFoundError:  # the package runs from its source folder
        return "0"


def build_http_settings(url: str | None, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Return the keyword arguments of an httpx client.

    Without `url` or `api_key`, the environment variable is read. Raises ValueError if the address
    does not begin with http:// or https://.
    """
    base = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if not base.startswith(("http://", "https://")):
        raise ValueError(f"url: {base!r}; it must begin with http:// or https://")
    key = api_key or os.environ.get(API_KEY_VARIABLE)
    headers = {"user-agent": f"audiocraft-serve-python/{_read_version()}"}
    return {
        "base_url": base,
        "headers": headers | ({"authorization": f"Bearer {key}"} if key else {}),
        "timeout": httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT_S, timeout)),
    }
