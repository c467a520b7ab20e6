"""Where the server is, and how it is asked: what both clients are made with."""

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import httpx

URL, API_KEY = "AUDIOCRAFT_SERVE_URL", "AUDIOCRAFT_SERVE_API_KEY"
LOCAL = "http://127.0.0.1:8000"
TIMEOUT_S, CONNECT_S = 600.0, 10.0
"""What a whole answer may be waited for at any byte, and a connection."""


def _version() -> str:
    try:
        return version("audiocraft-serve")
    except PackageNotFoundError:  # run from its source
        return "0"


def settings(url: str | None, api_key: str | None, timeout: float) -> dict[str, Any]:
    """Return what an HTTP client is made with; what is not given comes of the environment.

    Raises ValueError where the address is none of HTTP.
    """
    base = url or os.environ.get(URL) or LOCAL
    if not base.startswith(("http://", "https://")):
        raise ValueError(f"url: {base!r}; it begins with http:// or https://")
    key = api_key or os.environ.get(API_KEY)
    headers = {"user-agent": f"audiocraft-serve-python/{_version()}"}
    return {
        "base_url": base,
        "headers": headers | ({"authorization": f"Bearer {key}"} if key else {}),
        "timeout": httpx.Timeout(timeout, connect=min(CONNECT_S, timeout)),
    }
