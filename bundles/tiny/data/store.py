"""Renders clips once, and reads them from disk as int16."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from bundles.tiny.data import effects, music

if TYPE_CHECKING:
    from bundles.tiny.data.fluid import Renderer

SECONDS = 10
SAMPLES = SECONDS * effects.SAMPLE_RATE
FRAME = round(music.FRAME_S * effects.SAMPLE_RATE)


@dataclass(frozen=True)
class Clips:
    """Rendered clips: their numbers, and their audio, int16 [clips, samples], mapped from disk."""

    numbers: list[int]
    audio: NDArray[np.int16]

    def crops(self, draw: np.random.Generator, number: int, samples: int) -> torch.Tensor:
        """Draw random crops, float32 [number, 1, samples], full scale ±1.

        A crop begins at a codec frame, as clips do: notes then always sound the same, including
        their phase, so that a codec with so few bits can learn them.
        """
        which = draw.integers(len(self.audio), size=number)
        starts = FRAME * draw.integers((SAMPLES - samples) // FRAME + 1, size=number)
        crops = [self.audio[w, s : s + samples] for w, s in zip(which, starts, strict=True)]
        return torch.from_numpy(np.stack(crops).astype(np.float32) / 32768)[:, None]


def list_numbers(kind: str, held_out: bool) -> Iterator[int]:
    """Yield, without end, the numbers of pieces or effects that are held out, or are not."""
    for number in count():
        if kind == "music":
            kept = music.is_held_out(music.draw_piece(number))
        else:
            kept = effects.is_held_out(effects.draw_effect(number))
        if kept == held_out:
            yield number


@cache
def _get_renderer() -> "Renderer":
    # Imported here, since reading stored clips does not need fluidsynth.
    from bundles.tiny.data.fluid import Renderer

    torch.set_num_threads(1)
    return Renderer()


def render_music(number: int) -> NDArray[np.float32]:
    """Render the piece with this number, float32 [samples]."""
    return _get_renderer().render(music.draw_piece(number), SECONDS)


def render_effect(number: int) -> NDArray[np.float32]:
    """Render the sound effect with this number, float32 [samples]."""
    return effects.render(effects.draw_effect(number), SECONDS)


RENDERERS: dict[str, Callable[[int], NDArray[np.float32]]] = {
    "music": render_music,
    "sound": render_effect,
}


def clips(work: Path, kind: str, how_many: int, *, held_out: bool = False, after: int = 0) -> Clips:
    """Return `how_many` clips of "music" or "sound", rendering them if they are not stored yet.

    They are the first ones that are held out, or are not, after skipping `after` of them.
    """
    folder = work / "data"
    folder.mkdir(parents=True, exist_ok=True)
    which = f"{after}-{after + how_many}" if after else f"{how_many}"
    path = folder / f"{kind}-{'held-out' if held_out else 'train'}-{which}.npy"
    index = path.with_suffix(".json")
    if not index.exists():
        wanted = list(islice(list_numbers(kind, held_out), after, after + how_many))
        audio = np.lib.format.open_memmap(path, "w+", np.int16, (how_many, SAMPLES))
        with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
            for at, clip in enumerate(pool.imap(RENDERERS[kind], wanted, chunksize=8)):
                audio[at] = np.round(clip * 32767)
        audio.flush()
        index.write_text(json.dumps(wanted))
    return Clips(json.loads(index.read_text()), np.load(path, mmap_mode="r"))
