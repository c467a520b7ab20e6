"""The one place that knows what all ingress replicas have let in."""

from collections.abc import Mapping

from ray import serve

from deployments.accounts import Accounts, Charge, Share, Verdict
from deployments.settings import NoTunables
from deployments.tracing import traced


@serve.deployment(max_ongoing_requests=1000)
@traced
class Ledger:
    """`Accounts` for every ingress. It may end at any time: beats bring back what it knew."""

    def __init__(self) -> None:
        self._accounts = Accounts()

    def reconfigure(self, user_config: dict[str, object]) -> None:
        """Take new tunables. Raises ValidationError on an unknown key."""
        NoTunables.model_validate(user_config)

    async def admit(
        self, ingress: str, number: str, charge: Charge, share: Share, max_wait_s: float
    ) -> Verdict:
        """Let a request in and charge it, or say why not and how long to wait."""
        return self._accounts.admit(ingress, number, charge, share, max_wait_s)

    async def settle(self, ingress: str, number: str, done: bool) -> None:
        """End a charge."""
        self._accounts.settle(ingress, number, done=done)

    async def beat(self, ingress: str, charges: Mapping[str, Charge]) -> None:
        """Keep an ingress's charges."""
        self._accounts.beat(ingress, charges)

    async def snapshot(self) -> dict[str, dict[str, float]]:
        """Return row-seconds outstanding, and finished a second, by model."""
        return {"backlog": self._accounts.backlog(), "speed": self._accounts.speeds()}
