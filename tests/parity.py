"""What the tests saw of the distance to AudioCraft, model by model.

`make parity` runs them and writes the rows below the marker of `docs/parity.md` anew.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

MARKER = "<!-- Written by `make parity`: -->\n"
HEAD = "| model | compared | values | largest difference |\n|---|---|---|---|\n"


@dataclass
class Seen:
    """All comparisons of one row."""

    whole: bool
    values: int = 0
    largest: float = 0.0

    def __str__(self) -> str:
        if self.whole:
            return f"{self.values:,} codes | {int(self.largest) or 'none'}"
        return f"{self.values:,} | {self.largest:.1e}" if self.largest else f"{self.values:,} | 0"


@dataclass
class Parity:
    """Remembers the largest difference of each row."""

    rows: dict[tuple[str, str], Seen] = field(default_factory=dict)

    def __call__(
        self, model: str, compared: str, ours: ArrayLike, theirs: ArrayLike, scale: float = 1.0
    ) -> float:
        """Return the largest absolute difference over `scale`; of whole numbers, how many differ.

        Fails where the shapes do.
        """
        one, other = np.asarray(ours), np.asarray(theirs)
        assert one.shape == other.shape
        whole = one.dtype.kind in "iu"
        seen = self.rows.setdefault((model, compared), Seen(whole))
        difference = (one != other).sum() if whole else np.abs(one - other).max() / scale
        seen.values += one.size
        seen.largest = max(seen.largest, float(difference))
        return float(difference)

    def write(self, path: Path) -> None:
        """Replace the table of the document at `path`."""
        before, found, _ = path.read_text().partition(MARKER)
        assert found, f"{path} has no line {MARKER.strip()}"
        models = defaultdict(list)
        for (model, compared), seen in self.rows.items():
            models[model].append(f"| {model} | {compared} | {seen} |\n")
        lines = [line for model in models.values() for line in model]
        path.write_text(before + MARKER + "\n" + HEAD + "".join(lines))
