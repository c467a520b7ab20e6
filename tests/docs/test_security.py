"""What docs/security.md says is open, closed, or bounded is so."""

import os
import re
import subprocess
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml
from fastapi import Request

from api.guards import MAX_PARTS
from api.keys import OPEN_PATHS, authenticate
from api.schemas.base import MAX_ITEMS
from api.schemas.jobs import MAX_LISTED_JOBS
from api.settings import UserConfig
from graph.errors import ApiError
from k8s.serve_config import OVERLAYS, build_serve_config
from tests.docs.pages import ROOT, blocks, named, page, rows, sections

PAGE = page("security.md")
BASE = ROOT / "k8s" / "base"


def asking(path: str, headers: dict[str, str]) -> Request:
    sent = [(name.encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "path": path, "headers": sent})


def test_a_key_is_made_and_let_in(tmp_path: Any):
    (script,) = blocks(PAGE, "sh")
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f'{script}printf %s "$KEY" > key'],
        cwd=tmp_path, capture_output=True, text=True, check=True, env=os.environ,
    )  # fmt: skip
    key, printed = (tmp_path / "key").read_text(), ran.stdout.split()[0]
    (example,) = blocks(PAGE, "yaml")
    entries = yaml.safe_load(example.replace("…", printed))["keys"]
    limits = UserConfig.model_validate({"keys": entries})
    for headers in ({"authorization": f"Bearer {key}"}, {"xi-api-key": key}):
        assert authenticate(asking("/v1/models", headers), limits).name == "studio"
    with pytest.raises(ApiError, match="not known"):
        authenticate(asking("/v1/models", {"xi-api-key": f"{key}x"}), limits)


def test_what_goes_without_a_key_is_told():
    (told,) = re.findall(r"Without a key go (.*?)\. Where", PAGE, re.DOTALL)
    assert set(named(told)) == set(OPEN_PATHS)


def test_the_counts_of_a_body_are_told():
    for most in (MAX_PARTS, MAX_ITEMS, MAX_LISTED_JOBS):
        assert re.search(rf"\b{most:,}\b", PAGE), most


def test_the_service_of_the_cluster_is_called_by_its_names():
    config = build_serve_config(OVERLAYS / "cpu-demo")["applications"][0]["args"]["ingress"]
    allowed = config["allowed_hosts"]
    for name in ("audiocraft-serve-svc", "audiocraft-serve-svc.a.svc.cluster.local"):
        assert any(fnmatch(name, one) for one in allowed)


def test_the_limits_are_there():
    table = rows(sections(PAGE)["What a request may cost"])
    told = {name for row in table for name in named(row[1]) if re.match("max_|keep_jobs", name)}
    assert told <= set(UserConfig.model_fields)
    assert {name for name in UserConfig.model_fields if name.startswith("max_")} == {
        name for name in told if name.startswith("max_")
    }


def test_ports_are_those_of_the_cluster():
    table = rows(sections(PAGE)["What listens where"])
    told = {int(port) for row in table for port in re.findall(r"\d+", row[0])}
    service = (BASE / "rayservice.yaml").read_text()
    assert told == {int(port) for port in re.findall(r"containerPort: (\d+)", service)}


def test_the_network_policy_is_as_told():
    policy = yaml.safe_load((BASE / "networkpolicy.yaml").read_text())["spec"]["ingress"]
    for_all = [rule for rule in policy if "from" not in rule]
    assert [port["port"] for rule in for_all for port in rule["ports"]] == [8000]
    to_some = [rule for rule in policy if "from" in rule and "ports" in rule]
    assert [[port["port"] for port in rule["ports"]] for rule in to_some] == [[8265, 8000]]
    service = yaml.safe_load((BASE / "rayservice.yaml").read_text())
    assert service["spec"]["rayClusterConfig"]["authOptions"]["mode"] == "token"


def test_prometheus_may_read_the_metrics_alone():
    component = BASE.parent / "components" / "monitoring"
    (rule,) = yaml.safe_load((component / "networkpolicy.yaml").read_text())["spec"]["ingress"]
    monitors = yaml.safe_load_all((component / "podmonitors.yaml").read_text())
    read = {end["port"] for one in monitors for end in one["spec"]["podMetricsEndpoints"]}
    assert {port["port"] for port in rule["ports"]} == read
    (peer,) = rule["from"]
    assert f"`{yaml.safe_dump(peer['podSelector']['matchLabels']).strip()}`" in PAGE


def test_the_ingress_has_no_certificate_yet():
    ingress = yaml.safe_load((ROOT / "k8s" / "overlays" / "gpu" / "ingress.yaml").read_text())
    assert ("**no certificate yet**" in PAGE) is ("tls" not in ingress["spec"])
