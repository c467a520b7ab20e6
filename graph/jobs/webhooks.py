"""Sends the events of jobs to other services, signed as Standard Webhooks specifies.

The URL is checked when the job is accepted. The network addresses of its host are checked when an
event is sent, and the connection is made to one of these.
"""

import asyncio
import ipaddress
import json
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property

import httpx
from standardwebhooks.webhooks import Webhook

from graph.errors import ApiError
from graph.jobs.job import Job
from graph.settings import JobsSettings

AT_ONCE, AT_ONCE_FOR_A_RECEIVER = 64, 4
"""How many events one ingress sends at once, in all and to one receiver of one key."""
RESOLVERS = 4 * AT_ONCE
"""Threads that look up names: a name server that does not answer holds one beyond `TIMEOUT_S`."""
TIMEOUT_S = 15.0
AGAIN_AFTER_S = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
GONE = 410
"""The status by which a receiver ends the attempts (Standard Webhooks)."""
MAX_HOST_BYTES, MAX_LABEL_BYTES = 253, 63
"""The limits of a host name and of the parts between its dots (RFC 1035)."""
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All public IPv6 addresses. Others embed IPv4 addresses, or belong to one network."""
logger = logging.getLogger("ray.serve")
FindSecrets = Callable[[str], Sequence[str]]
"""Returns the secrets of a key, by its name: each one signs."""


class Webhooks:
    """Sends the events of jobs; one for each ingress replica."""

    def __init__(self, settings: JobsSettings, find_secrets: FindSecrets) -> None:
        self._settings, self._find_secrets = settings, find_secrets
        self._resolvers = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="webhook-names")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def close(self) -> None:
        """Let the threads end."""
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    def check_address(self, address: str, owner: str) -> None:
        """Raise ApiError 422 where this server sends no webhooks of a key to a URL."""
        if not self._find_secrets(owner):
            raise _build_refusal("no secret signs them; the operator must set webhook_secrets")
        try:
            url = httpx.URL(address)
            host = url.host
        except (httpx.InvalidURL, UnicodeError) as error:
            raise _build_refusal(f"not an address: {error}") from error
        schemes = ("https", "http") if self._settings.webhooks_to_private_addresses else ("https",)
        if url.scheme not in schemes or not host or url.userinfo:
            raise _build_refusal(f"it must be {' or '.join(schemes)}://, a host, no password")
        if not any(fnmatch(host, pattern) for pattern in self._settings.webhook_hosts):
            raise _build_refusal(f"allowed hosts are {', '.join(self._settings.webhook_hosts)}")
        if _is_address(host):
            if not self._is_allowed(host):
                raise _build_refusal(f"{host} is a private address")
        else:
            _check_name(url.raw_host)

    async def send_event(self, job: Job, status: str, attempt: int) -> float | None:
        """Send one event. Returns None after the last attempt, or the seconds until the next one.

        It is sent at least once: a receiver recognises a repetition by its `webhook-id`.
        """
        name = f"{job.name}.{status}"
        secrets = self._find_secrets(job.owner)
        if job.webhook is None or not secrets:
            logger.error("webhook %s: not sent; the key has no webhook or no secret now", name)
            return None
        try:
            body, headers = _build_message(job, status, secrets)
            async with asyncio.timeout(TIMEOUT_S):
                status_code = await self._post_event(httpx.URL(job.webhook), headers, body)
        except Exception as error:  # noqa: BLE001 - any error of an attempt is a failed attempt
            logger.warning("webhook %s: %r", name, error)
            status_code = None
        if status_code and (200 <= status_code < 300 or status_code == GONE):
            return None
        if attempt > len(AGAIN_AFTER_S):
            logger.error("webhook %s: given up after %d attempts", name, attempt)
            return None
        return AGAIN_AFTER_S[attempt - 1]

    async def _post_event(self, url: httpx.URL, headers: dict[str, str], body: str) -> int:
        """Post to a checked address of the host, without following redirects or reading a body."""
        pinned = url.copy_with(host=await self._resolve_host(url))
        headers["host"] = url.netloc.decode()
        async with httpx.AsyncClient(verify=self._tls, trust_env=False) as client:
            request = client.build_request(
                "POST", pinned, content=body, headers=headers, extensions={"sni_hostname": url.host}
            )
            answer = await client.send(request, stream=True)
            await answer.aclose()
            return answer.status_code

    async def _resolve_host(self, url: httpx.URL) -> str:
        """Return a host's address. Raises OSError where it has none, or a private one."""
        port = url.port or {"https": 443, "http": 80}[url.scheme]
        found = await asyncio.get_running_loop().run_in_executor(
            self._resolvers, lambda: socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        )
        addresses = [str(info[4][0]) for info in found]
        if not all(map(self._is_allowed, addresses)):
            raise OSError(f"{url.host} is at a private address")
        return addresses[0]

    def _is_allowed(self, address: str) -> bool:
        return self._settings.webhooks_to_private_addresses or is_public(address)


def _build_message(job: Job, status: str, secrets: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Return the body of an event, and the headers that sign it with each secret."""
    now, name = datetime.now(UTC), f"{job.name}.{status}"
    body = json.dumps(
        {
            "type": f"job.{'started' if status == 'running' else status}",
            "timestamp": now.isoformat(),
            "data": {
                "id": job.name,
                "status": status,
                "model": job.model,
                "seed": job.seed,
                "error": job.error.model_dump() if job.error else None,
            },
        }
    )
    return body, {
        "content-type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(Webhook(one).sign(name, now, body) for one in secrets),
    }


def is_public(text: str) -> bool:
    """Return whether an IP address is public, also an IPv4 address in a mapped IPv6 one."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return is_public(str(address.ipv4_mapped))
        if address not in GLOBAL_UNICAST or address.sixtofour or address.teredo:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _check_name(host: bytes) -> None:
    """Raise ApiError 422 where no name server can know a host name."""
    labels = host.split(b".")
    if len(host) > MAX_HOST_BYTES or not all(0 < len(one) <= MAX_LABEL_BYTES for one in labels):
        allowed = f"parts of 1 to {MAX_LABEL_BYTES} characters, {MAX_HOST_BYTES} in all"
        raise _build_refusal(f"the host is no name; allowed: {allowed}")


def _build_refusal(reason: str) -> ApiError:
    return ApiError(422, "webhook_not_allowed", f"webhook: {reason}", "webhook")
