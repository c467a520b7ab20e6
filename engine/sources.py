"""Finds the folder of a checkpoint; imports no torch, so the ingress and the launcher can use it.

A *source* is one of
- `bundle:tiny/music`, a folder under this repository's `bundles/`;
- a path to a folder;
- `owner/name`, a repository on the Hugging Face hub.
"""

import re
from pathlib import Path

from engine.errors import CheckpointNotFound

BUNDLES = Path(__file__).resolve().parent.parent / "bundles"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(source: str) -> Path | None:
    """Return the folder that `source` names, or None if it is a hub id.

    Raises CheckpointNotFound if it is neither.
    """
    if source.startswith("bundle:"):
        folder = BUNDLES / source.removeprefix("bundle:")
        if not folder.is_dir():
            raise CheckpointNotFound(f"{source}: this installation has no such bundle")
        return folder
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if HUB_ID.fullmatch(source):
        return None
    raise CheckpointNotFound(f"{source}: no such folder, and not a hub id (owner/name)")
