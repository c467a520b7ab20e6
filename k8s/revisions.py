"""Keeps the applied specification and the previous one in annotations of the RayService."""

import json
from typing import Any

from k8s.cluster import RAY, RAY_SERVICE, Cluster, NotFound
from k8s.errors import K8sError
from k8s.manifests import Manifest

APPLIED, PREVIOUS = "audiocraft-serve/applied", "audiocraft-serve/previous"


def read_annotations(cluster: Cluster, name: str) -> dict[str, str]:
    """Return the annotations of the RayService; empty if it does not exist."""
    try:
        found = cluster.get_object(RAY, RAY_SERVICE, name)["metadata"].get("annotations")
    except NotFound:
        return {}
    return dict(found or {})


def record_revision(service: Manifest, annotations: dict[str, str]) -> Manifest:
    """Return the RayService with its specification, and the one before, in its annotations.

    `annotations` are those in the cluster. An unchanged specification keeps its previous one.
    """
    applied = json.dumps(service["spec"], sort_keys=True)
    before = annotations.get(APPLIED)
    previous = annotations.get(PREVIOUS) if before == applied else before
    revisions = {APPLIED: applied} | ({PREVIOUS: previous} if previous else {})
    metadata = service["metadata"]
    own = (metadata.get("annotations") or {}) | revisions
    return {**service, "metadata": {**metadata, "annotations": own}}


def build_previous(cluster: Cluster, name: str) -> Manifest:
    """Return the RayService with its previous specification. Raises K8sError if there is none."""
    live = cluster.get_object(RAY, RAY_SERVICE, name)
    annotations = live["metadata"].get("annotations") or {}
    if PREVIOUS not in annotations:
        raise K8sError(
            f"RayService {name}: there is no previous specification that this tool applied"
        )
    spec: dict[str, Any] = json.loads(annotations[PREVIOUS])
    labels = live["metadata"].get("labels")
    metadata = {"name": name} | ({"labels": dict(labels)} if labels else {})
    service = {"apiVersion": RAY, "kind": RAY_SERVICE, "metadata": metadata, "spec": spec}
    return record_revision(service, annotations)
