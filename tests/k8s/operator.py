"""Simulates KubeRay's operator for one RayService, with a local Ray in place of pods.

It has two properties of KubeRay 1.7.0. Serve's status is read before a changed configuration is
submitted, so the new `observedGeneration` can be published with the old status RUNNING. If the
operator refuses an object, it does not advance `observedGeneration`.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Any

import yaml
from kubernetes import client

from tests.k8s.api_server_proxy import ApiServerProxy
from tests.k8s.local_ray import LocalRay

PERIOD_S = 0.5
Status = dict[str, Any]


class Operator:
    """Reconciles one RayService until it is closed."""

    def __init__(
        self, api: client.ApiClient, name: str, ray: LocalRay, proxy: ApiServerProxy
    ) -> None:
        self.false_successes = 0
        """How often the new observedGeneration was published with the old status RUNNING."""
        self._objects, self._name = client.CustomObjectsApi(api), name
        self._at = ("ray.io", "v1", "audio", "rayservices", name)
        self._ray, self._proxy = ray, proxy
        self._submitted: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            try:
                self._reconcile(self._objects.get_namespaced_custom_object(*self._at))
            except client.ApiException as error:
                if error.status not in (404, 409):
                    raise

    def _reconcile(self, service: Status) -> None:
        status = service.get("status") or {}
        if "refuse-me" in (service["metadata"].get("labels") or {}):
            status["conditions"] = [self._condition("Ready", False, "ValidationFailed", "refused")]
            return self._publish(service, status)
        wanted = service["spec"]["serveConfigV2"]
        before = self._ray.applications()
        changed = wanted != self._submitted
        if changed and (refusal := self._ray.put(yaml.safe_load(wanted))):
            return self._add_event("FailedToUpdateServeApplications", refusal)
        self._submitted = wanted
        serves = any(one["status"] == "RUNNING" for one in before.values())
        status = {
            "observedGeneration": service["metadata"]["generation"],
            "numServeEndpoints": int(serves),
            "activeServiceStatus": {
                "rayClusterName": "audiocraft-cluster",
                "applicationStatuses": {
                    name: _convert_application(one) for name, one in before.items()
                },
            },
            "conditions": [
                self._condition("Ready", serves or bool(before), "Endpoints", "as counted"),
                self._condition("UpgradeInProgress", False, "NoPendingCluster", ""),
            ],
        }
        self.false_successes += changed and serves
        for application in before.values():
            if application["status"] == "DEPLOY_FAILED":
                self._add_event("ServeDeployFailed", application["message"][:200])
        return self._publish(service, status)

    def _publish(self, service: Status, status: Status) -> None:
        self._objects.replace_namespaced_custom_object_status(
            *self._at, {**service, "status": status}
        )

    def _add_event(self, reason: str, message: str) -> None:
        self._proxy.events.append(
            {
                "metadata": {"name": f"e{time.monotonic_ns()}", "namespace": "audio"},
                "involvedObject": {"kind": "RayService", "name": self._name},
                "type": "Warning",
                "reason": reason,
                "message": message,
            }
        )

    @staticmethod
    def _condition(kind: str, holds: bool, reason: str, message: str) -> Status:
        return {
            "type": kind,
            "status": str(holds),
            "reason": reason,
            "message": message,
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


def _convert_application(found: Status) -> Status:
    deployments = {
        name: {"status": one["status"], "message": one["message"]}
        for name, one in found["deployments"].items()
    }
    status = {"status": found["status"], "message": found["message"]}
    return {**status, "serveDeploymentStatuses": deployments}
