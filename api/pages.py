"""Refuses what a browser sends for the pages of others.

Any page can send a form to any address, and open a WebSocket there, without a question to the
server. And a page can give its own name the address of this server (DNS rebinding): then it reads
the answers, and its requests have its name as `Host`. A key stops both, because such a page does
not know it.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address

from starlette.requests import HTTPConnection

from graph.errors import ApiError

LOOPBACK = ("localhost", "*.localhost")
"""Names that every resolver keeps on its own machine (RFC 6761, section 6.3)."""


def check_origin(connection: HTTPConnection, allowed: Sequence[str]) -> None:
    """Check the page that a browser sends a request for. Raises ApiError 403.

    A proxy can replace `Host`; then only `Sec-Fetch-Site`, which pages cannot set, shows that the
    page is this server's own.
    """
    headers = connection.headers
    origin = headers.get("origin")
    own = origin and origin.partition("://")[2] == headers.get("host")
    own = own or headers.get("sec-fetch-site") == "same-origin"
    if origin is None or own or {"*", origin} & set(allowed):
        return
    message = f"pages of {origin} are not allowed; add it to cors_origins of the ingress"
    raise ApiError(403, "origin_not_allowed", message)


def check_host(connection: HTTPConnection, allowed: Sequence[str]) -> None:
    """Check the name by which the server is called. Raises ApiError 403.

    Addresses are always allowed, because a page of others has a name. Browsers always send `Host`.
    """
    host = connection.headers.get("host")
    if host is None:
        return
    name = re.sub(r":\d*$", "", host).strip("[]").rstrip(".").lower()
    if _is_address(name) or any(fnmatchcase(name, one) for one in (*LOOPBACK, *allowed)):
        return
    message = f"a server without API keys cannot be called by the name {name!r}"
    cure = "add it to allowed_hosts of the ingress, or configure keys"
    raise ApiError(403, "host_not_allowed", f"{message}; {cure}")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
