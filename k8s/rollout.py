"""When a RayService serves what was asked of it: the rule, and the waiting.

KubeRay 1.7 reads Serve's status before it hands over a changed `serveConfigV2`, so it can publish
the new `observedGeneration` once beside the old RUNNING. So its status is believed only when the
application itself tells the configuration's hash.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import yaml

from k8s.cluster import MANAGER, RAY, RAY_SERVICE, Cluster, Expired, NotThere
from k8s.errors import K8sError, TimedOut, Unreachable
from k8s.manifests import Manifest
from k8s.serve_config import hash_in

WATCH_S = 5
AWAY_S = 60.0
"""For how long an API server that restarts may be away, or not know its objects yet."""
FAILED_FOR_S = 10.0
"""A failure that lasts is of this configuration, not what the one before it left in the status."""
FINAL = ("InitializingTimeout",)
"""Reasons of `Ready=False` that KubeRay never takes back."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """What an object's status says."""

    state: Literal["ready", "waiting", "failing", "failed"]
    """`failing` may still be what the last configuration left behind; `failed` is final."""
    message: str


def judge(service: Manifest) -> Verdict:
    """Return what the status says about the specification as it now is."""
    status = service.get("status") or {}
    ready = _condition(service, "Ready")
    observed = status.get("observedGeneration", 0) == service["metadata"]["generation"]
    if ready.get("status") == "False":
        told = f"{ready.get('reason')}: {ready.get('message')}"
        if ready.get("reason") in FINAL:
            return Verdict("failed", told)
        # The operator does not say that it has seen what it refuses.
        if ready.get("reason") == "ValidationFailed" and _newer(ready, service):
            return Verdict("failed", told)
    if not observed:
        return Verdict("waiting", "the operator has not seen the change yet")
    pending = status.get("pendingServiceStatus") or {}
    upgrading = _condition(service, "UpgradeInProgress").get("status") == "True"
    told, failing = _told(pending if upgrading else status.get("activeServiceStatus") or {})
    if failing:
        return Verdict("failing", told)
    if upgrading:
        return Verdict("waiting", f"a new cluster takes over: {told}")
    if missing := _missing(service, status):
        return Verdict("waiting", missing)
    if ready.get("status") != "True":
        return Verdict("waiting", ready.get("message") or "no endpoint is ready")
    return Verdict("ready", told)


def wait(
    cluster: Cluster, name: str, timeout_s: float, served: Callable[[], str | None], say: Say
) -> Manifest:
    """Wait until the RayService serves its configuration; return it.

    `served` asks the application for the hash of what it serves; its K8sErrors are waited out.
    Raises K8sError where it failed, TimedOut with the last that was seen.
    """
    end, last, failing_since = time.monotonic() + timeout_s, "", None
    for service in _states(cluster, name, end, say):
        verdict = judge(service)
        message = verdict.message
        if verdict.state == "ready":
            wanted = expected_hash(service)
            has, message = _asked(served)
            if wanted is None or has == wanted:
                return service
            message = message or f"the application still serves {has}, not yet {wanted}"
        if message != last:
            say(message)
            last = message
        if verdict.state != "failing":
            failing_since = None
            if verdict.state == "failed":
                raise K8sError(with_events(cluster, name, message))
            continue
        failing_since = failing_since or time.monotonic()
        if time.monotonic() - failing_since > FAILED_FOR_S:
            raise K8sError(with_events(cluster, name, message))
    raise TimedOut(with_events(cluster, name, f"not ready after {timeout_s:g} s: {last}"))


def expected_hash(service: Manifest) -> str | None:
    """Return the hash that the application is to tell, or None where nobody made one."""
    return hash_in(_config(service))


def with_events(cluster: Cluster, name: str, message: str) -> str:
    """Return the message, and below it what the cluster last said about the object."""
    try:
        events = cluster.events(name)[-5:]
    except K8sError as error:
        events = [f"(no events: {error})"]
    return "\n".join([message, *(f"  {event}" for event in events)])


def _asked(served: Callable[[], str | None]) -> tuple[str | None, str]:
    try:
        return served(), ""
    except K8sError as error:
        return None, f"the application does not answer yet: {error}"


def _states(cluster: Cluster, name: str, end: float, say: Say) -> Iterator[Manifest]:
    """Yield the object as it changes, and every few seconds where it does not, until `end`."""
    away_since: float | None = None
    while time.monotonic() < end:
        try:
            service = cluster.get(RAY, RAY_SERVICE, name)
            away_since = None
            yield service
            left = max(1, min(WATCH_S, round(end - time.monotonic())))
            yield from cluster.watch(service, left)
        except Expired:
            continue
        except (Unreachable, NotThere) as error:
            away_since = away_since or time.monotonic()
            if "401" in str(error) or time.monotonic() - away_since > AWAY_S:
                raise
            say(f"waiting for the API server: {error}")
            time.sleep(1)


def _condition(service: Manifest, kind: str) -> dict[str, Any]:
    conditions = (service.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), {})


def _newer(condition: dict[str, Any], service: Manifest) -> bool:
    """Return whether the condition is about what was applied last, not about what was before."""
    metadata = service["metadata"]
    if "observedGeneration" in condition:
        return bool(condition["observedGeneration"] == metadata["generation"])
    applied = [f["time"] for f in metadata.get("managedFields", []) if f["manager"] == MANAGER]
    at = condition.get("lastTransitionTime")
    return bool(at and all(_time(at) >= _time(moment) for moment in applied))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _config(service: Manifest) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(service["spec"].get("serveConfigV2") or "{}")
    return config


def _told(cluster: dict[str, Any]) -> tuple[str, bool]:
    """Return what a cluster's applications are at, in words, and whether one failed."""
    parts, failed = [], False
    for name, application in sorted((cluster.get("applicationStatuses") or {}).items()):
        state, message = application.get("status"), application.get("message")
        deployments = application.get("serveDeploymentStatuses") or {}
        waits = [
            f"{one} {at.get('status')}{_short(at.get('message'))}"
            for one, at in sorted(deployments.items())
            if at.get("status") != "HEALTHY"
        ]
        failed = failed or state == "DEPLOY_FAILED"
        said = _short(message) if state == "DEPLOY_FAILED" else ""
        parts.append(
            f"application {name} {state}{said}" + (f"; {', '.join(waits)}" if waits else "")
        )
    return "; ".join(parts) or "no application yet", failed


def _short(message: str | None) -> str:
    """Return where a message begins and ends: between them it may hold a traceback."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return f" ({' … '.join(dict.fromkeys([lines[0], lines[-1]]))})" if lines else ""


def _missing(service: Manifest, status: dict[str, Any]) -> str:
    """Return what is not RUNNING and HEALTHY yet, or nothing."""
    active = (status.get("activeServiceStatus") or {}).get("applicationStatuses") or {}
    for application in _config(service).get("applications", []):
        found = active.get(application["name"])
        if found is None:
            return f"application {application['name']}: not there yet"
        deployments = (found.get("serveDeploymentStatuses") or {}).values()
        healthy = deployments and all(one.get("status") == "HEALTHY" for one in deployments)
        if found.get("status") != "RUNNING" or not healthy:
            return _told(status["activeServiceStatus"])[0]
    return ""


def hash_of(answer: bytes) -> str | None:
    """Return the hash in an answer of `/readyz`. Raises K8sError."""
    try:
        found: str | None = json.loads(answer).get("config_hash")
    except (ValueError, AttributeError) as error:
        raise K8sError(f"/readyz: no sensible answer: {answer[:80]!r}") from error
    return found
