"""Makes the answer to all requests with one `Idempotency-Key` once.

This follows the IETF's draft-ietf-httpapi-idempotency-key-header: a retry waits for the request
that runs, on whichever ingress, or gets its answer. A request that failed is run again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from uuid import uuid4

from pydantic import BaseModel

from graph.cache import AnswerParts
from graph.calls import start_detached
from graph.jobs.job import KeptAnswer
from graph.jobs.jobs import Jobs, check_fingerprint

LEASE_S = 10.0
POLL_S = 0.2
Make = Callable[[], Awaitable[Callable[[], AnswerParts]]]
"""Does the work of a request, and returns what renders its answer, once for each call."""


class Claim(BaseModel):
    """The request that makes the answer of a key, or the answer itself."""

    fingerprint: str
    holder: str
    leased_until: float
    """Unix seconds; after this time another request may make the answer."""
    answer: KeptAnswer | None = None


class Idempotency:
    """Makes the answer to each key once; one for each ingress replica."""

    def __init__(self, jobs: Jobs, keep_s: Callable[[], float]) -> None:
        self._jobs, self._keep_s = jobs, keep_s
        self._tasks: set[asyncio.Task[KeptAnswer]] = set()

    async def get_answer(
        self, name: str, fingerprint: str, make: Make, held: ExitStack
    ) -> tuple[KeptAnswer, bool]:
        """Return the stored answer of a name, and whether an earlier request has made it.

        The answer is written part by part, and completed also where the client leaves. `held`
        counts the bytes of the request; where this request makes the answer, the count ends with
        the making.

        Raises ApiError 422 where the name belongs to another request, and what `make` raises.
        """
        mine = Claim(fingerprint=fingerprint, holder=uuid4().hex, leased_until=0.0)
        while True:
            mine.leased_until = time.time() + LEASE_S
            raw = await self._jobs.store.add_text(name, mine.model_dump_json(), self._get_expiry())
            claim = Claim.model_validate_json(raw)
            check_fingerprint(claim.fingerprint, fingerprint)
            if claim.answer:
                return claim.answer, True
            # A lease that ends later than any given now is from a clock that was set back since.
            late = not 0 <= claim.leased_until - time.time() <= 2 * LEASE_S
            if claim.holder == mine.holder or (late and await self._swap_claim(name, claim, mine)):
                return await self._start_making(name, mine, make, held.pop_all()), False
            await asyncio.sleep(POLL_S)

    async def _start_making(
        self, name: str, claim: Claim, make: Make, held: ExitStack
    ) -> KeptAnswer:
        work = start_detached(self._make_and_keep(name, claim, make))
        self._tasks.add(work)
        work.add_done_callback(self._tasks.discard)
        work.add_done_callback(lambda _: held.close())
        return await asyncio.shield(work)

    async def _make_and_keep(self, name: str, claim: Claim, make: Make) -> KeptAnswer:
        making = asyncio.ensure_future(self._write_answer(name, make))
        try:
            while not making.done():
                await asyncio.wait({making}, timeout=LEASE_S / 3)
                claim = await self._renew_claim(name, claim)
            kept = making.result()
            await self._swap_claim(name, claim, claim.model_copy(update={"answer": kept}))
        except BaseException:  # also where it is cancelled: a retry must not wait
            making.cancel()
            given_up = claim.model_copy(update={"leased_until": 0.0})
            await asyncio.shield(self._swap_claim(name, claim, given_up))
            raise
        return kept

    async def _write_answer(self, name: str, make: Make) -> KeptAnswer:
        return await self._jobs.write_answer(name, await make())

    async def _renew_claim(self, name: str, claim: Claim) -> Claim:
        renewed = claim.model_copy(update={"leased_until": time.time() + LEASE_S})
        return renewed if await self._swap_claim(name, claim, renewed) else claim

    async def _swap_claim(self, name: str, old: Claim, new: Claim) -> bool:
        texts = old.model_dump_json(), new.model_dump_json()
        return await self._jobs.store.swap_text(name, *texts, self._get_expiry())

    def _get_expiry(self) -> float:
        return time.time() + self._keep_s()

    async def close(self) -> None:
        """Cancel the answers that are being made; another replica may make them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
