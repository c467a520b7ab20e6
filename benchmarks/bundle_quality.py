"""How good the embedded models are, on what was never trained on.

`python -m benchmarks.bundle_quality PART` measures one part: codec, music, melody, sound,
discriminators or speed. It prints its figures with 95 % intervals (by bootstrap over clips), then
one line of JSON.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

from benchmarks.quality import codec, discriminators, generation, melody, speed
from benchmarks.quality.figures import Row
from bundles.tiny.data.store import Clips, clips
from bundles.tiny.train.discriminators import HELD_OUT_CLIPS
from bundles.tiny.train.export import BUNDLE

KINDS = ("music", "sound")
PARTS = ("codec", "music", "melody", "sound", "discriminators", "speed")


def measure(part: str, work: Path, bundle: Path, how_many: int) -> list[Row]:
    """Measure one part on so many held-out clips of each kind."""

    def held_out(kind: str) -> Clips:
        # The first ones are what the discriminators' probability was fitted on.
        return clips(work, kind, how_many, held_out=True, after=HELD_OUT_CLIPS)

    parts: dict[str, Callable[[], list[Row]]] = {
        "codec": lambda: codec.measure(bundle, {kind: held_out(kind) for kind in KINDS}),
        "music": lambda: generation.measure("music", work, bundle, held_out("music")),
        "sound": lambda: generation.measure("sound", work, bundle, held_out("sound")),
        "melody": lambda: melody.measure(bundle, held_out("music")),
        "discriminators": lambda: discriminators.measure(
            bundle, {kind: held_out(kind) for kind in KINDS}
        ),
        "speed": lambda: [row for kind in KINDS for row in speed.measure(kind, bundle)],
    }
    return parts[part]()


def main() -> None:
    """Measure one part of the bundle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--clips", type=int, default=200, help="of each kind")
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--work", type=Path, default=Path("build/tiny"))
    options = parser.parse_args()
    rows = measure(options.part, options.work, options.bundle, options.clips)
    machine = {"cpu": platform.machine(), "cores": os.cpu_count()}
    print(json.dumps({"machine": machine, "part": options.part, "rows": rows}))


if __name__ == "__main__":
    main()
