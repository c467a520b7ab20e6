"""Downloads every checkpoint into the hub's cache: `python -m engine.fetch MODELS`.

MODELS is a JSON list of models with the keys of the Serve file: `kind`, `checkpoint` and the keys
that decide which files are read. Each model is loaded once on the CPU, with the function that loads
it in a replica, so that further files it names (T5, another codec, demucs) are downloaded too and a
broken file is found early.
"""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME

from engine.checkpoints import load_codec, load_diffusion, load_language_model
from engine.discriminators import Discriminators
from engine.errors import CheckpointError


def _load_language_model(model: dict[str, Any]) -> None:
    load_language_model(
        model["checkpoint"],
        device="cpu",
        dtype="float32",
        text_encoder=model["text_encoder"],
        stem_separation=model.get("stem_separation", False),
    )


LOADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "musicgen": _load_language_model,
    "audiogen": _load_language_model,
    "encodec": lambda model: load_codec(model["checkpoint"], device="cpu"),
    "mbd": lambda model: load_diffusion(model["checkpoint"], model["file"], device="cpu"),
    "discriminators": lambda model: Discriminators.load(model["checkpoint"], device="cpu"),
}


def fetch_models(models: str) -> None:
    """Load each model, unless the same list was loaded before. Raises a CheckpointError."""
    done = Path(HF_HOME) / f".loaded-{hashlib.sha256(models.encode()).hexdigest()[:16]}"
    if done.exists():
        return
    for model in json.loads(models):
        LOADERS[model["kind"]](model)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()


def main() -> None:
    """Fetch the models of the command line; exit with a one-line message if one is missing."""
    try:
        fetch_models(sys.argv[1])
    except CheckpointError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
