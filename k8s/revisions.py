"""The configuration that was applied, and the one before it: in annotations of the RayService."""

import json
from typing import Any

from k8s.cluster import RAY, RAY_SERVICE, Cluster, NotThere
from k8s.errors import K8sError
from k8s.manifests import Manifest

APPLIED, PREVIOUS = "audiocraft-serve/applied", "audiocraft-serve/previous"


def current(cluster: Cluster, name: str) -> dict[str, str]:
    """Return the annotations of the RayService, none where it is not there."""
    try:
        found = cluster.get(RAY, RAY_SERVICE, name)["metadata"].get("annotations")
    except NotThere:
        return {}
    return dict(found or {})


def remembering(service: Manifest, annotations: dict[str, str]) -> Manifest:
    """Return the RayService with what it was before in it; applied again, it changes nothing."""
    applied = json.dumps(service["spec"], sort_keys=True)
    before = annotations.get(APPLIED)
    previous = annotations.get(PREVIOUS) if before == applied else before
    kept = {APPLIED: applied} | ({PREVIOUS: previous} if previous else {})
    metadata = service["metadata"]
    own = (metadata.get("annotations") or {}) | kept
    return {**service, "metadata": {**metadata, "annotations": own}}


def previous(cluster: Cluster, name: str) -> Manifest:
    """Return the RayService as it was applied before. Raises K8sError where it never was."""
    live = cluster.get(RAY, RAY_SERVICE, name)
    annotations = live["metadata"].get("annotations") or {}
    if PREVIOUS not in annotations:
        raise K8sError(f"RayService {name}: nothing was applied before, or not by this tool")
    spec: dict[str, Any] = json.loads(annotations[PREVIOUS])
    labels = live["metadata"].get("labels")
    metadata = {"name": name} | ({"labels": dict(labels)} if labels else {})
    service = {"apiVersion": RAY, "kind": RAY_SERVICE, "metadata": metadata, "spec": spec}
    return remembering(service, annotations)
