"""Metrics as Prometheus sees them, and a dashboard that asks for nothing else."""

import json
import re
from contextlib import suppress

import httpx
import ray

from tests.application import ROOT
from tests.cluster.conftest import Deployed
from tests.waiting import until


def scraped() -> str:
    """What every node exports, in Prometheus' text format."""
    ports = [node["MetricsExportPort"] for node in ray.nodes() if node["Alive"]]
    return "".join(httpx.get(f"http://127.0.0.1:{port}/metrics").text for port in ports)


def names(text: str) -> set[str]:
    return set(re.findall(r"^(ray_\w+?)(?:_bucket|_count)?\{", text, re.MULTILINE))


def test_what_the_dashboard_shows_is_measured(deployed: Deployed):
    body = {"prompt": "calm piano", "duration": 2, "stream": True}
    assert deployed.http.post("/v1/generations", json=body).status_code == 200
    assert deployed.http.post("/v1/generations", json={}).status_code == 422
    assert deployed.http.post("/v1/jobs", json=body | {"stream": False}).status_code == 202
    dashboard = json.loads((ROOT / "k8s/components/monitoring/grafana-dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in re.findall(r"ray_\w+", query)}
    wanted = {name.removesuffix("_bucket").removesuffix("_count") for name in asked}
    assert len(wanted) > 10
    missing = set(wanted)

    def all_came() -> bool:
        # Not at once: a gauge goes 20 s after it was last set, which may be late under load.
        missing.difference_update(names(scraped()))
        return not missing

    with suppress(AssertionError):
        until(all_came)
    assert not missing
    for series in (
        r'ray_audiocraft_requests_total\{[^}]*outcome="422"',
        r'ray_audiocraft_slots\{[^}]*deployment="music"[^}]*\} 32',
    ):
        until(lambda: re.search(series, scraped()))  # noqa: B023 - it is called at once
