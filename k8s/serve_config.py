"""What each overlay serves: `serveConfigV2`, made from the Serve files of this repository.

An overlay's `settings.yaml` names the file and says what is different on a cluster; `serve.yaml`
and `models.yaml` beside it are generated (`python -m k8s generate`) and checked in, so that
`kubectl apply -k` and tools that follow a repository need nothing of ours.
"""

import copy
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from deployments.settings import StrictModel
from graph.settings import INGRESS, AppArgs
from k8s.errors import K8sError
from k8s.yaml_text import dump
from launch.config_file import ConfigFileError, check_config

ROOT = Path(__file__).resolve().parent.parent
OVERLAYS = ROOT / "k8s" / "overlays"
NAME = "audiocraft"
ON_A_CLUSTER = {
    "proxy_location": "EveryNode",
    "http_options": {"host": "0.0.0.0", "port": 8000},
}
MADE = "# Made by `python -m k8s generate` from settings.yaml; do not edit.\n"


class OverlaySettings(StrictModel):
    """An overlay's `settings.yaml`."""

    source: Annotated[str, Field(min_length=1)]
    """A Serve file at the top of the repository."""
    without: tuple[str, ...] = ()
    """Models of it that are left out."""
    changes: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Merged into it: mappings by key, lists of things with a `name` by name."""


def merged(base: Any, changes: Any) -> Any:
    """Return `base` with `changes` in it. Raises K8sError where a name is not in a named list."""
    if isinstance(base, dict) and isinstance(changes, dict):
        both = {key: merged(base[key], changes[key]) for key in base.keys() & changes.keys()}
        return {**base, **changes, **both}
    if _named(base) and _named(changes):
        by_name = {item["name"]: item for item in changes}
        if unknown := by_name.keys() - {item["name"] for item in base}:
            raise K8sError(f"changes of {', '.join(sorted(unknown))}: nothing has that name")
        return [merged(item, by_name.get(item["name"], {})) for item in base]
    return changes


def _named(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(v, dict) and "name" in v for v in value)


def config_hash(config: dict[str, Any]) -> str:
    """Return a hash of a Serve configuration, without the hash that it may hold itself."""
    bare = copy.deepcopy(config)
    for deployment in bare["applications"][0].get("deployments", []):
        deployment.get("user_config", {}).pop("config_hash", None)
    return hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()[:16]


def with_hash(config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration, whose ingress tells its hash in `/readyz`.

    The hash is a tunable of the ingress: Serve takes it in place, with everything else of the same
    update, and restarts nothing for it.
    """
    config = copy.deepcopy(config)
    deployments = config["applications"][0].setdefault("deployments", [])
    ingress = next((one for one in deployments if one["name"] == INGRESS), None)
    if ingress is None:
        ingress = {"name": INGRESS}
        deployments.append(ingress)
    ingress.setdefault("user_config", {})["config_hash"] = config_hash(config)
    return config


def hash_in(config: dict[str, Any]) -> str | None:
    """Return the hash that a configuration's ingress tells."""
    for application in config.get("applications", []):
        for deployment in application.get("deployments", []):
            if deployment["name"] == INGRESS:
                found: str | None = deployment.get("user_config", {}).get("config_hash")
                return found
    return None


def serve_config(overlay: Path) -> dict[str, Any]:
    """Return what the overlay serves, checked as `make serve` checks it. Raises K8sError."""
    path = overlay / "settings.yaml"
    try:
        settings = OverlaySettings.model_validate(yaml.safe_load(path.read_text()))
        base = yaml.safe_load((ROOT / settings.source).read_text())
    except (OSError, ValidationError, yaml.YAMLError) as error:
        raise K8sError(f"{path}: {error}") from error
    application = base["applications"][0]
    for at, key in ((application["args"], "models"), (application, "deployments")):
        at[key] = [item for item in at[key] if item["name"] not in settings.without]
    config = with_hash(merged(merged(base, ON_A_CLUSTER), settings.changes))
    try:
        check_config(config, path)
    except ConfigFileError as error:
        raise K8sError(str(error)) from error
    return config


def models_of(config: dict[str, Any]) -> str:
    """Return what `engine.fetch` takes, as JSON: every model that is not embedded."""
    needed = {"kind", "checkpoint", "text_encoder", "stem_separation", "file"}
    models = AppArgs.model_validate(config["applications"][0]["args"]).models
    wanted = [m.model_dump(include=needed) for m in models if "bundle:" not in m.checkpoint]
    return json.dumps(wanted)


def generated(overlay: Path) -> dict[str, str]:
    """Return the generated files of an overlay by name: a patch, and what is to be fetched."""
    config = serve_config(overlay)
    patch = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": NAME},
        "spec": {"serveConfigV2": dump(config)},
    }
    files = {"serve.yaml": MADE + dump(patch)}
    models = models_of(config)
    if models != "[]":
        kept = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "audiocraft-models"},
            "data": {"models": models},
        }
        files["models.yaml"] = MADE + dump(kept)
    return files
