"""Serve files: ours are valid, and a wrong key anywhere is named with the valid ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.config_file import ConfigFileError, read_config_file

ROOT = Path(__file__).resolve().parents[2]
Config = dict[str, Any]


@pytest.mark.parametrize("name", ["serve_config.yaml", "serve_config.gpu.yaml"])
def test_the_shipped_files_are_valid(name: str):
    config = read_config_file(ROOT / name)
    assert config["http_options"]["port"] == 8000


def app(config: Config) -> Config:
    return config["applications"][0]


def model(config: Config, name: str) -> Config:
    return next(m for m in app(config)["args"]["models"] if m["name"] == name)


def deployment(config: Config, name: str) -> Config:
    return next(d for d in app(config)["deployments"] if d["name"] == name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.update(htp_options={}),
            "htp_options: unknown key; valid keys: proxy_location",
        ),
        (lambda c: c["http_options"].update(prt=1), "http_options.prt: unknown key.*host, port"),
        (lambda c: app(c).update(arg={}), r"applications\.0\.arg: unknown key"),
        (
            lambda c: deployment(c, "codec").update(max_replicas_per_nod=1),
            r"deployments\.1\.max_replicas_per_nod: unknown key",
        ),
        (
            lambda c: deployment(c, "codec").update(autoscaling_config={"min": 1}),
            r"autoscaling_config\.min: unknown key.*min_replicas",
        ),
        (
            lambda c: deployment(c, "codec").update(ray_actor_options={"num_gpu": 1}),
            r"ray_actor_options\.num_gpu: unknown key.*num_gpus",
        ),
        (
            lambda c: deployment(c, "codec")["user_config"].update(batch=1),
            "user_config: unknown key 'batch'; valid keys: max_batch_s",
        ),
        (
            lambda c: deployment(c, "ingress")["user_config"].update(max_duration_s=-1),
            r"user_config\.max_duration_s: .*greater than 0",
        ),
        (
            lambda c: deployment(c, "ingress")["user_config"].update(
                quality={"high": {"model": "large"}}
            ),
            r"user_config: quality\.high\.model: no language model 'large'; valid: music, sound",
        ),
        (
            lambda c: deployment(c, "ingress")["user_config"].update(
                quality={"draft": {"bitrate": 8}}
            ),
            r"user_config\.quality\.draft: .*bitrate: wav supports no bit rate",
        ),
        (
            lambda c: deployment(c, "codec").update(name="codex"),
            "no deployment 'codex'; valid: ingress",
        ),
        (
            lambda c: app(c)["args"].update(model=[]),
            "unknown key 'model'; valid keys: models, ingress",
        ),
        (
            lambda c: model(c, "music").update(size="big"),
            "unknown key 'size'; valid keys: num_cpus",
        ),
        (lambda c: model(c, "music").update(kind="musicgan"), "'musicgen', 'audiogen', 'encodec'"),
        (lambda c: model(c, "music").update(codec="kodek"), "the encodec entries are: codec"),
        (lambda c: model(c, "music").update(name="sound"), "'sound' is used twice"),
        (
            lambda c: model(c, "music").update(name="ingress"),
            "reserved are ingress, media, ledger",
        ),
        (lambda c: model(c, "music").update(dtype="float16"), "needs a GPU"),
        (
            lambda c: model(c, "music").update(replicas={"min_replicas": 3, "max_replicas": 2}),
            "min_replicas is above max_replicas",
        ),
        (
            lambda c: app(c)["args"].update(ingress={"content_credentials": {"key": "x"}}),
            "content_credentials: unknown key 'key'; valid keys: certificates, private_key",
        ),
        (lambda c: app(c).update(import_path="other:app"), "import_path: graph.app:build"),
        (lambda c: c.pop("applications"), "applications: Field required"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, change: Callable[[Config], None], message: str):
    config = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    change(config)
    path = tmp_path / "serve.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigFileError, match=f"serve.yaml: .*{message}"):
        read_config_file(path)


@pytest.mark.parametrize("text", ["", "- a", "a: [", "\x00"])
def test_a_file_that_is_no_mapping(tmp_path: Path, text: str):
    path = tmp_path / "serve.yaml"
    path.write_text(text)
    with pytest.raises(ConfigFileError, match=r"serve\.yaml"):
        read_config_file(path)
