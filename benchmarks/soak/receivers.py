"""Receives the webhooks of a soak: one receiver lives, two are dead."""

import socket
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from benchmarks.soak.processes import SECRET

REFUSED = 10
"""The living receiver answers each such event with 500, so that it comes again."""


@dataclass
class Receivers:
    """The addresses of the receivers, and what has come."""

    alive: str
    dead: tuple[str, ...]
    events: Counter[str] = field(default_factory=Counter)
    """How often each event came with a valid signature and was accepted, by its `webhook-id`."""
    forged: int = 0
    """Events without a valid signature."""
    refused: int = 0

    async def receive_event(self, request: web.Request) -> web.Response:
        """Verify an event."""
        body = await request.read()
        try:
            Webhook(SECRET).verify(body, dict(request.headers))
        except WebhookVerificationError:
            self.forged += 1
            return web.Response(status=400)
        if (self.events.total() + self.refused) % REFUSED == REFUSED - 1:
            self.refused += 1
            return web.Response(status=500)
        self.events[request.headers["webhook-id"]] += 1
        return web.Response(status=204)


@asynccontextmanager
async def open_receivers() -> AsyncGenerator[Receivers, None]:
    """Open a receiver that verifies, one that never answers, and one whose port is closed."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            closed = probe.getsockname()[1]
        ports = silent.getsockname()[1], closed
        receivers = Receivers("", tuple(f"http://127.0.0.1:{port}/" for port in ports))
        application = web.Application()
        application.router.add_post("/", receivers.receive_event)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            receivers.alive = f"http://127.0.0.1:{runner.addresses[0][1]}/"
            yield receivers
        finally:
            await runner.cleanup()
