"""Defines a mix: stems at their places, and the audio that they are made from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from engine.params import Waveform
from graph.workflows.levels import Samples
from graph.workflows.mixing import Placed, sum_blocks
from graph.workflows.planned_clip import PlannedClip


@dataclass(frozen=True)
class Material:
    """The audio that a mix is made from."""

    clips: dict[PlannedClip, Waveform]
    speech: Waveform | None = None
    """The decoded speech of a podcast."""

    def take_clip(self, clip: PlannedClip) -> Waveform:
        """Remove a clip and return it, so that its memory serves the next stem."""
        return self.clips.pop(clip)


@dataclass(frozen=True)
class Stem:
    """A part of a mix."""

    name: str
    placed: Placed
    clip: PlannedClip | None
    """The clip that the stem was generated as; None where the stem was uploaded."""


@dataclass(frozen=True)
class TimeSpan:
    """A section of a song, or a passage of a podcast, in samples."""

    name: str
    start: int
    end: int


@dataclass(frozen=True)
class Mix:
    """Stems at their places in a mix; a single stem is the whole mix."""

    sample_rate: int
    total: int
    """The number of samples per channel of the mix."""
    stems: Sequence[Stem]
    timing: Sequence[TimeSpan]
    is_loop: bool = False

    @property
    def placed(self) -> Sequence[Placed]:
        """The samples of the stems."""
        return [stem.placed for stem in self.stems]

    @property
    def channels(self) -> int:
        """The channels of the mix and of its stems."""
        channels: int = self.stems[0].placed.samples.shape[0]
        return channels

    def sum_blocks(self) -> Iterator[Samples]:
        """Yield the mix in blocks; it is nowhere kept."""
        return sum_blocks(self.placed, self.total)
