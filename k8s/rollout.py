"""Waits until a RayService serves its configuration, and decides when that is the case.

KubeRay 1.7 reads Serve's status before it submits a changed `serveConfigV2`. It can therefore
publish the new `observedGeneration` together with the old status RUNNING, and the status is trusted
only when the application itself returns the hash of the new configuration.
"""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import yaml

from k8s.cluster import MANAGER, RAY, RAY_SERVICE, Cluster, Expired, NotFound
from k8s.errors import K8sError, TimedOut, Unreachable
from k8s.manifests import Manifest
from k8s.serve_config import read_hash

WATCH_S = 5
"""Seconds between two reads of an object that does not change."""
RESTART_S = 60.0
"""Seconds that a restarting API server may be unreachable or without its objects."""
FAILING_S = 10.0
"""Seconds after which a failure is no longer taken for one of the previous configuration."""
FINAL = ("InitializingTimeout",)
"""Reasons of `Ready=False` that KubeRay never reverts."""

PrintProgress = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """The state of a RayService, as its status says."""

    state: Literal["ready", "waiting", "failing", "failed"]
    """`failing` may come from the previous configuration; `failed` is final."""
    message: str


def judge_service(service: Manifest) -> Verdict:
    """Return the state of the RayService's present specification."""
    status = service.get("status") or {}
    ready = _find_condition(service, "Ready")
    observed = status.get("observedGeneration", 0) == service["metadata"]["generation"]
    if ready.get("status") == "False":
        problem = f"{ready.get('reason')}: {ready.get('message')}"
        if ready.get("reason") in FINAL:
            return Verdict("failed", problem)
        # The operator does not update observedGeneration for an object that it refuses.
        if ready.get("reason") == "ValidationFailed" and _is_current(ready, service):
            return Verdict("failed", problem)
    if not observed:
        return Verdict("waiting", "the operator has not seen the change yet")
    pending = status.get("pendingServiceStatus") or {}
    upgrading = _find_condition(service, "UpgradeInProgress").get("status") == "True"
    description, failing = _describe_applications(
        pending if upgrading else status.get("activeServiceStatus") or {}
    )
    if failing:
        return Verdict("failing", description)
    if upgrading:
        return Verdict("waiting", f"a new cluster is starting: {description}")
    if missing := _find_missing(service, status):
        return Verdict("waiting", missing)
    if ready.get("status") != "True":
        return Verdict("waiting", ready.get("message") or "no endpoint is ready")
    return Verdict("ready", description)


def wait_until_ready(
    cluster: Cluster,
    name: str,
    timeout_s: float,
    ask_hash: Callable[[], str | None],
    print_progress: PrintProgress,
) -> Manifest:
    """Wait until the RayService serves its configuration; return it.

    `ask_hash` asks the application for the hash of its configuration, and may raise K8sError until
    the application answers. Raises K8sError if the rollout failed, TimedOut with the last state.
    """
    end, last, failing_since = time.monotonic() + timeout_s, "", None
    for service in _watch_states(cluster, name, end, print_progress):
        verdict = judge_service(service)
        message = verdict.message
        if verdict.state == "ready":
            wanted = read_expected_hash(service)
            served, message = _try_ask_hash(ask_hash)
            if wanted is None or served == wanted:
                return service
            message = message or f"the application still serves {served}, not yet {wanted}"
        if message != last:
            print_progress(message)
            last = message
        if verdict.state != "failing":
            failing_since = None
            if verdict.state == "failed":
                raise K8sError(append_events(cluster, name, message))
            continue
        failing_since = failing_since or time.monotonic()
        if time.monotonic() - failing_since > FAILING_S:
            raise K8sError(append_events(cluster, name, message))
    raise TimedOut(append_events(cluster, name, f"not ready after {timeout_s:g} s: {last}"))


def read_expected_hash(service: Manifest) -> str | None:
    """Return the hash in a RayService's Serve configuration, or None if it has no hash."""
    return read_hash(_read_config(service))


def append_events(cluster: Cluster, name: str, message: str) -> str:
    """Return the message, followed by the last five events of the object."""
    try:
        events = cluster.read_events(name)[-5:]
    except K8sError as error:
        events = [f"(no events: {error})"]
    return "\n".join([message, *(f"  {event}" for event in events)])


def _try_ask_hash(ask_hash: Callable[[], str | None]) -> tuple[str | None, str]:
    try:
        return ask_hash(), ""
    except K8sError as error:
        return None, f"the application does not answer yet: {error}"


def _watch_states(
    cluster: Cluster, name: str, end: float, print_progress: PrintProgress
) -> Iterator[Manifest]:
    """Yield the object at each change, and at least every WATCH_S seconds, until `end`."""
    unreachable_since: float | None = None
    while time.monotonic() < end:
        try:
            service = cluster.get_object(RAY, RAY_SERVICE, name)
            unreachable_since = None
            yield service
            left = max(1, min(WATCH_S, round(end - time.monotonic())))
            yield from cluster.watch_service(service, left)
        except Expired:
            continue
        except (Unreachable, NotFound) as error:
            unreachable_since = unreachable_since or time.monotonic()
            if "401" in str(error) or time.monotonic() - unreachable_since > RESTART_S:
                raise
            print_progress(f"waiting for the API server: {error}")
            time.sleep(1)


def _find_condition(service: Manifest, kind: str) -> dict[str, Any]:
    conditions = (service.get("status") or {}).get("conditions") or []
    return next((one for one in conditions if one["type"] == kind), {})


def _is_current(condition: dict[str, Any], service: Manifest) -> bool:
    """Return whether the condition belongs to the specification that was applied last."""
    metadata = service["metadata"]
    if "observedGeneration" in condition:
        return bool(condition["observedGeneration"] == metadata["generation"])
    applied = [f["time"] for f in metadata.get("managedFields", []) if f["manager"] == MANAGER]
    at = condition.get("lastTransitionTime")
    return bool(
        at
        and all(datetime.fromisoformat(at) >= datetime.fromisoformat(moment) for moment in applied)
    )


def _read_config(service: Manifest) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(service["spec"].get("serveConfigV2") or "{}")
    return config


def _describe_applications(cluster: dict[str, Any]) -> tuple[str, bool]:
    """Return a description of the applications of a RayCluster, and whether one has failed."""
    parts, failed = [], False
    for name, application in sorted((cluster.get("applicationStatuses") or {}).items()):
        state, message = application.get("status"), application.get("message")
        deployments = application.get("serveDeploymentStatuses") or {}
        pending = [
            f"{one} {at.get('status')}{_shorten_message(at.get('message'))}"
            for one, at in sorted(deployments.items())
            if at.get("status") != "HEALTHY"
        ]
        failed = failed or state == "DEPLOY_FAILED"
        reason = _shorten_message(message) if state == "DEPLOY_FAILED" else ""
        parts.append(
            f"application {name} {state}{reason}" + (f"; {', '.join(pending)}" if pending else "")
        )
    return "; ".join(parts) or "no application yet", failed


def _shorten_message(message: str | None) -> str:
    """Return the first and the last line of a message, which may contain a traceback."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    return f" ({' … '.join(dict.fromkeys([lines[0], lines[-1]]))})" if lines else ""


def _find_missing(service: Manifest, status: dict[str, Any]) -> str:
    """Describe the first application that is not RUNNING and HEALTHY; empty if all are."""
    active = (status.get("activeServiceStatus") or {}).get("applicationStatuses") or {}
    for application in _read_config(service).get("applications", []):
        found = active.get(application["name"])
        if found is None:
            return f"application {application['name']}: not created yet"
        deployments = (found.get("serveDeploymentStatuses") or {}).values()
        healthy = deployments and all(one.get("status") == "HEALTHY" for one in deployments)
        if found.get("status") != "RUNNING" or not healthy:
            return _describe_applications(status["activeServiceStatus"])[0]
    return ""


def parse_readyz(answer: bytes) -> str | None:
    """Return the hash in a response of `/readyz`. Raises K8sError if it is not valid."""
    try:
        found: str | None = json.loads(answer).get("config_hash")
    except (ValueError, AttributeError) as error:
        raise K8sError(f"/readyz: expected JSON with config_hash, got {answer[:80]!r}") from error
    return found
