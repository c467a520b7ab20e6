"""Sends the events of jobs to other services, signed as Standard Webhooks specifies.

The URL is checked when the job is accepted. The network addresses of its host are checked when an
event is sent, and the connection is made to one of these.
"""

import asyncio
import ipaddress
import json
import logging
import os
import re
import socket
import ssl
from datetime import UTC, datetime
from fnmatch import fnmatch
from functools import cached_property

import httpx
from standardwebhooks.webhooks import Webhook

from graph.errors import ApiError
from graph.jobs.job import Job
from graph.settings import JobsSettings

SECRETS = "AUDIOCRAFT_WEBHOOK_SECRETS"
"""The environment variable with the secrets, `whsec_...`, separated by spaces; each one signs."""
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,}={0,2}")
TIMEOUT_S = 15.0
AGAIN_AFTER_S = (5.0, 60.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0)
GONE = 410
"""The status by which a receiver ends the attempts (Standard Webhooks)."""
logger = logging.getLogger("ray.serve")
NAT64 = ipaddress.ip_network("64:ff9b::/96")


class Webhooks:
    """Sends the events of jobs; one for each ingress replica."""

    def __init__(self, settings: JobsSettings) -> None:
        self._settings = settings
        secrets = os.environ.get(SECRETS, "").split()
        if not all(SECRET.fullmatch(one) for one in secrets):
            raise ValueError(f"{SECRETS}: a secret is `whsec_` and 24 bytes or more in base64")
        self._signers = [Webhook(one) for one in secrets]

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()

    def check_address(self, address: str) -> None:
        """Raise ApiError 422 where this server sends no webhooks to a URL."""
        if not self._signers:
            raise _build_refusal(f"this server cannot sign; its operator must set {SECRETS}")
        try:
            url = httpx.URL(address)
        except httpx.InvalidURL as error:
            raise _build_refusal(f"not an address: {error}") from error
        schemes = ("https", "http") if self._settings.webhooks_to_private_addresses else ("https",)
        if url.scheme not in schemes or not url.host or url.userinfo:
            raise _build_refusal(f"it must be {' or '.join(schemes)}://, a host, no password")
        if not any(fnmatch(url.host, host) for host in self._settings.webhook_hosts):
            raise _build_refusal(f"allowed hosts are {', '.join(self._settings.webhook_hosts)}")
        if _is_address(url.host) and not self._is_allowed(url.host):
            raise _build_refusal(f"{url.host} is a private address")

    async def send_event(self, job: Job, status: str, address: str, attempt: int) -> float | None:
        """Send one event. Returns None after the last attempt, or the seconds until the next one.

        It is sent at least once: a receiver recognises a repetition by its `webhook-id`.
        """
        now = datetime.now(UTC)
        name = f"{job.name}.{status}"
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
        signatures = " ".join(signer.sign(name, now, body) for signer in self._signers)
        headers = {
            "content-type": "application/json",
            "webhook-id": name,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signatures,
        }
        try:
            status_code = await self._post_event(httpx.URL(address), headers, body)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
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
        address = await self._resolve_host(url)
        pinned = url.copy_with(host=address)
        headers["host"] = url.netloc.decode()
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(verify=self._tls, trust_env=False) as client,
        ):
            request = client.build_request(
                "POST", pinned, content=body, headers=headers, extensions={"sni_hostname": url.host}
            )
            answer = await client.send(request, stream=True)
            await answer.aclose()
            return answer.status_code

    async def _resolve_host(self, url: httpx.URL) -> str:
        """Return a host's address. Raises OSError where it has none, or a private one."""
        port = url.port or {"https": 443, "http": 80}[url.scheme]
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in found]
        if not all(map(self._is_allowed, addresses)):
            raise OSError(f"{url.host} is at a private address")
        return addresses[0]

    def _is_allowed(self, address: str) -> bool:
        return self._settings.webhooks_to_private_addresses or is_public(address)


def is_public(text: str) -> bool:
    """Return whether an IP address is public, also an IPv4 address inside an IPv6 one."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour or address.teredo or address in NAT64:
            return False
        if address.ipv4_mapped:
            address = address.ipv4_mapped
    return address.is_global and not address.is_multicast


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _build_refusal(reason: str) -> ApiError:
    return ApiError(422, "webhook_not_allowed", f"webhook: {reason}", "webhook")
