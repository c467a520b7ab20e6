"""An application that does nothing, with the hops and payloads of a clip, to measure Serve alone.

`import_path: benchmarks.under_load.noop:application`. `POST /noop` with `{"duration": seconds}`
asks a ledger, reads a stream of codes, has them decoded, tells the ledger, and answers with as
many bytes as a WAV file of so many seconds has.
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI, Request, Response
from ray import serve
from ray.serve import Application
from ray.serve.handle import DeploymentHandle

from benchmarks.under_load.fast import CODEBOOKS, FRAME_RATE, SAMPLE_RATE
from graph.pipeline import CHUNK_S

LEDGER_BYTES = 300
"""Approximate size of a pickled charge and share."""


@serve.deployment(max_ongoing_requests=1000)
class Ledger:
    """A ledger that admits every request."""

    async def admit(self, charge: bytes) -> bool:
        """Admit the request immediately."""
        return True


@serve.deployment(max_ongoing_requests=1000)
class Tokens:
    """A language model that yields zero bytes of the size of codes."""

    async def generate(self, seconds: float) -> AsyncGenerator[bytes, None]:
        """Yield the chunks of a clip immediately."""
        done = 0.0
        while done < seconds:
            chunk = min(CHUNK_S, seconds - done)
            yield bytes(int(chunk * FRAME_RATE) * CODEBOOKS * 2)
            done += chunk


@serve.deployment(max_ongoing_requests=1000)
class Codec:
    """A codec that returns zero bytes of the size of samples."""

    async def decode(self, codes: bytes) -> bytes:
        """Return the bytes immediately."""
        return bytes(len(codes) // (2 * CODEBOOKS) * SAMPLE_RATE // FRAME_RATE * 4)


http = FastAPI()


@serve.deployment(max_ongoing_requests=1000, ray_actor_options={"num_cpus": 0.1})
@serve.ingress(http)
class Noop:
    """The ingress, which calls the ledger, the language model and the codec."""

    def __init__(
        self, ledger: DeploymentHandle, tokens: DeploymentHandle, codec: DeploymentHandle
    ) -> None:
        self._ledger, self._codec = ledger, codec
        self._tokens = tokens.options(stream=True)
        self._telling: set[asyncio.Task[None]] = set()

    @http.post("/noop")
    async def make_clip(self, request: Request) -> Response:
        """Answer with as many bytes as the WAV file of a clip has."""
        body = await request.json()
        assert await self._ledger.admit.remote(bytes(LEDGER_BYTES))
        chunks = [chunk async for chunk in self._tokens.generate.remote(body["duration"])]
        samples = await self._codec.decode.remote(b"".join(chunks))
        telling = asyncio.create_task(self._notify_ledger())
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        return Response(bytes(44 + len(samples) // 2), media_type="audio/wav")

    async def _notify_ledger(self) -> None:
        await self._ledger.admit.remote(bytes(LEDGER_BYTES))


SMALL = {"num_cpus": 0.1}
PARTS: list[Any] = [Ledger, Tokens, Codec]  # Serve does not say that its decorators change them
FRONT: Any = Noop
application: Application = FRONT.bind(
    *(part.options(ray_actor_options=SMALL).bind() for part in PARTS)
)
