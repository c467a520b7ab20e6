"""Trains one part of the embedded bundle: `python -m bundles.tiny.train STAGE --budget-hours N`.

Everything a stage makes lies in the work folder: rendered clips, its state and its log. A stage
that was ended goes on where it last saved; its budget counts all of its runs. The stages need
those above them; `bundles.tiny.train.export` writes what they made into the bundle, where the
discriminators' stage finds the models that it learns to tell from real clips.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bundles.tiny.train import codec, diffusion, discriminators, language
from bundles.tiny.train.export import BUNDLE

STAGES: dict[str, Callable[[Path, float], None]] = {
    "codec": codec.train,
    "music": partial(language.train, "music"),
    "melody": partial(language.train, "melody"),
    "sound": partial(language.train, "sound"),
    "diffusion": diffusion.train,
    "discriminators": partial(discriminators.train, bundle=BUNDLE),
}


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--budget-hours", type=float, required=True)
    parser.add_argument("--work", type=Path, default=Path("build/tiny"))
    options = parser.parse_args()
    STAGES[options.stage](options.work, options.budget_hours)


if __name__ == "__main__":
    main()
