"""Tests how the status of a RayService is judged."""

import copy
from typing import Any

import pytest

from k8s.manifests import find_ray_service, render_overlay
from k8s.rollout import judge_service

APPLIED, LATER, EARLIER = "2026-01-01T10:00:00Z", "2026-01-01T10:00:05Z", "2026-01-01T09:00:00Z"


def condition(kind: str, status: str, reason: str = "", **more: Any) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": f"{reason}!"} | more


def application(status: str = "RUNNING", message: str = "", **deployments: str) -> dict[str, Any]:
    states = {
        name: {"status": state} for name, state in (deployments or {"codec": "HEALTHY"}).items()
    }
    found = {"status": status, "message": message, "serveDeploymentStatuses": states}
    return {"applicationStatuses": {"audiocraft": found}}


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    return find_ray_service(render_overlay("cpu-demo"))


@pytest.fixture
def service(rendered: dict[str, Any]) -> dict[str, Any]:
    """A RayService whose application runs."""
    found = copy.deepcopy(rendered)
    fields = [{"manager": "audiocraft-serve", "time": APPLIED}]
    found["metadata"] |= {"generation": 2, "managedFields": fields}
    found["status"] = {
        "observedGeneration": 2,
        "activeServiceStatus": application(),
        "conditions": [condition("Ready", "True"), condition("UpgradeInProgress", "False")],
    }
    return found


def test_a_service_that_is_up_is_ready(service: dict[str, Any]) -> None:
    assert judge_service(service).state == "ready"


def test_a_change_that_was_not_seen_is_waited_for(service: dict[str, Any]) -> None:
    service["metadata"]["generation"] = 3
    assert judge_service(service).state == "waiting"


def test_a_new_service_is_waited_for(service: dict[str, Any]) -> None:
    del service["status"]
    assert judge_service(service).state == "waiting"


def test_a_deployment_that_is_not_healthy_is_named(service: dict[str, Any]) -> None:
    active = application(music="UPDATING", codec="HEALTHY")
    service["status"]["activeServiceStatus"] = active
    verdict = judge_service(service)
    assert (verdict.state, "music UPDATING" in verdict.message) == ("waiting", True)


def test_an_application_that_failed_says_why(service: dict[str, Any]) -> None:
    service["status"]["activeServiceStatus"] = application("DEPLOY_FAILED", "no such folder")
    verdict = judge_service(service)
    assert (verdict.state, "no such folder" in verdict.message) == ("failing", True)


def test_a_missing_application_is_waited_for(service: dict[str, Any]) -> None:
    service["status"]["activeServiceStatus"] = {"applicationStatuses": {}}
    assert judge_service(service).state == "waiting"


def test_an_upgrade_is_waited_for_and_its_failure_seen(service: dict[str, Any]) -> None:
    service["status"]["conditions"][1]["status"] = "True"
    service["status"]["pendingServiceStatus"] = application("DEPLOYING")
    assert judge_service(service).state == "waiting"
    service["status"]["pendingServiceStatus"] = application("DEPLOY_FAILED")
    assert judge_service(service).state == "failing"


def test_a_service_without_endpoints_is_waited_for(service: dict[str, Any]) -> None:
    service["status"]["conditions"][0] = condition("Ready", "False", "ZeroServeEndpoints")
    assert judge_service(service).state == "waiting"


def test_a_refusal_is_final_where_it_is_of_this_specification(service: dict[str, Any]) -> None:
    service["metadata"]["generation"] = 3
    refused = condition("Ready", "False", "ValidationFailed", lastTransitionTime=LATER)
    service["status"]["conditions"][0] = refused
    assert judge_service(service).state == "failed"
    refused["lastTransitionTime"] = EARLIER
    assert judge_service(service).state == "waiting"
    refused["observedGeneration"] = 3
    assert judge_service(service).state == "failed"


def test_an_initialisation_that_took_too_long_is_final(service: dict[str, Any]) -> None:
    service["status"]["conditions"][0] = condition("Ready", "False", "InitializingTimeout")
    assert judge_service(service).state == "failed"
