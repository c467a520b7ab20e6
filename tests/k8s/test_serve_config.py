"""Tests that the overlays' Serve configurations are generated from the repository's files."""

import copy
import re
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from k8s.errors import K8sError
from k8s.manifests import find_ray_service, list_overlays, render_overlay
from k8s.serve_config import (
    OVERLAYS,
    ROOT,
    add_hash,
    build_serve_config,
    generate_files,
    hash_config,
    merge_changes,
    read_hash,
)

SERVING = sorted(path.parent.name for path in OVERLAYS.glob("*/settings.yaml"))


@pytest.mark.parametrize("name", SERVING)
def test_generated_files_are_current(name: str) -> None:
    for file, text in generate_files(OVERLAYS / name).items():
        assert (OVERLAYS / name / file).read_text() == text, "run: python -m k8s generate"


@pytest.mark.parametrize("name", list_overlays())
def test_rays_own_schema_takes_what_is_served(name: str) -> None:
    text = find_ray_service(render_overlay(name))["spec"]["serveConfigV2"]
    schema = ServeDeploySchema.model_validate(yaml.safe_load(text))
    assert schema.http_options.host == "0.0.0.0"


def test_things_with_a_name_are_merged_by_it() -> None:
    base = {"models": [{"name": "a", "x": 1}, {"name": "b", "x": 2}], "plain": [1, 2]}
    changes = {"models": [{"name": "b", "y": 3}], "plain": [9]}
    models = [{"name": "a", "x": 1}, {"name": "b", "x": 2, "y": 3}]
    assert merge_changes(base, changes) == {"models": models, "plain": [9]}


def test_a_change_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(K8sError, match="changes of c"):
        merge_changes([{"name": "a"}], [{"name": "c"}])


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("source: serve_config.yaml\nwith_out: [sound]\n")
    with pytest.raises(K8sError, match="valid keys: source, without, changes"):
        build_serve_config(tmp_path)


def test_a_setting_that_the_application_refuses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("source: serve_config.yaml\nwithout: [codec]\n")
    with pytest.raises(K8sError, match="names the codec 'codec'"):
        build_serve_config(tmp_path)


def test_the_hash_is_of_everything_but_itself() -> None:
    config = build_serve_config(OVERLAYS / "cpu-demo")
    assert read_hash(config) == hash_config(config)
    assert add_hash(config) == config
    other = copy.deepcopy(config)
    other["applications"][0]["deployments"][1]["user_config"]["max_batch_s"] = 59
    assert hash_config(other) != hash_config(config)


def test_rays_version_is_the_same_everywhere() -> None:
    (locked,) = re.findall(r"^ray==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    cluster = find_ray_service(render_overlay("cpu-demo"))["spec"]["rayClusterConfig"]
    assert cluster["rayVersion"] == locked
    assert f"{locked}-py311-cu" in (ROOT / "Dockerfile").read_text()
