"""`python -m engine.fetch MODELS`: has every checkpoint in the hub's cache before it is needed.

MODELS is JSON, a list of models as the Serve file has them: `kind`, `checkpoint` and what else
decides which files are read. Each is loaded once, on the CPU, by what loads it in a replica: so
what it names in turn (T5, another codec, demucs) comes along, and a broken file is found here.
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


def _language_model(model: dict[str, Any]) -> None:
    load_language_model(
        model["checkpoint"],
        device="cpu",
        dtype="float32",
        text_encoder=model["text_encoder"],
        stem_separation=model.get("stem_separation", False),
    )


LOADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "musicgen": _language_model,
    "audiogen": _language_model,
    "encodec": lambda model: load_codec(model["checkpoint"], device="cpu"),
    "mbd": lambda model: load_diffusion(model["checkpoint"], model["file"], device="cpu"),
    "discriminators": lambda model: Discriminators.load(model["checkpoint"], device="cpu"),
}


def fetch(models: str) -> None:
    """Load each model, unless these were loaded into this cache before. Raises CheckpointError."""
    done = Path(HF_HOME) / f".loaded-{hashlib.sha256(models.encode()).hexdigest()[:16]}"
    if done.exists():
        return
    for model in json.loads(models):
        LOADERS[model["kind"]](model)
    done.parent.mkdir(parents=True, exist_ok=True)
    done.touch()


def main() -> None:
    """Fetch what the command line names; say in one line what is missing."""
    try:
        fetch(sys.argv[1])
    except CheckpointError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
