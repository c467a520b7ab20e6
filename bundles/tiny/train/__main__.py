"""Trains one part of the embedded bundle: `python -m bundles.tiny.train STAGE --budget-hours N`.

The work folder holds the rendered clips, and the state and log of each stage. A stage that was
stopped resumes where it last saved, and its budget counts all of its runs. A stage reads other
models from the bundle, so export each stage (`bundles.tiny.train.export`) before the next: `codec`,
then `decoder`, optionally `adversaries`, and `music` (with the text encoder), then the others.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bundles.tiny.train import codec, decoder, diffusion, discriminators, language
from bundles.tiny.train.export import BUNDLE

STAGES: dict[str, Callable[..., None]] = {
    "codec": codec.train,
    "decoder": partial(decoder.train, "decoder", bundle=BUNDLE),
    "adversaries": partial(decoder.train, "adversaries", bundle=BUNDLE),
    "music": partial(language.train, "music", bundle=BUNDLE),
    "melody": partial(language.train, "melody", bundle=BUNDLE),
    "sound": partial(language.train, "sound", bundle=BUNDLE),
    "diffusion": partial(diffusion.train, bundle=BUNDLE),
    "discriminators": partial(discriminators.train, bundle=BUNDLE),
}


def main() -> None:
    """Train one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--budget-hours", type=float, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/tiny"))
    parser.add_argument(
        "--from-bundle", action="store_true", help="continue from the bundle's language model"
    )
    options = parser.parse_args()
    further = {"from_bundle": True} if options.from_bundle else {}
    STAGES[options.stage](options.work, budget_hours=options.budget_hours, **further)


if __name__ == "__main__":
    main()
