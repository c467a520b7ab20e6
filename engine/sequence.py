"""One request's codes in AudioCraft's delay pattern, and how far it has come.

Column 0 is all special tokens; the code of codebook k at frame t stands in column
t + delay[k] + 1; cells of no frame are special (`DelayedPatternProvider` in
`audiocraft/modules/codebooks_patterns.py`). A clip beyond the model's longest window goes on in a
new one, which begins with the tail of the last (`BaseGenModel._generate_tokens`).
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Windowing:
    """How a model reads a clip: its delays, and the frames of a window and of a stride."""

    delays: Items[int]
    special: int
    max_frames: int
    stride_frames: int

    def starts(self, frames: int) -> list[int]:
        """Return the frames at which the windows of a clip begin."""
        beyond = max(frames - self.max_frames, 0)
        return [n * self.stride_frames for n in range(1 - -beyond // self.stride_frames)]


class Sequence:
    """The codes of one request; `columns` go to the model, `accept` takes what it drew."""

    def __init__(self, windowing: Windowing, frames: int, prompt: Grid | None = None) -> None:
        self._windowing = windowing
        self._delays = np.asarray(windowing.delays)
        self.frames = frames
        """Frames of the whole clip, the prompt's included."""
        codebooks = len(windowing.delays)
        self._codes: Grid = np.full((codebooks, frames), UNKNOWN)
        self.prompt_frames = 0 if prompt is None else prompt.shape[1]
        if prompt is not None:
            assert prompt.shape[0] == codebooks, f"prompt must be [{codebooks}, frames]"
            assert self.prompt_frames < frames, "the prompt must be shorter than the clip"
            self._codes[:, : self.prompt_frames] = prompt
        self.window_start = 0
        """The clip's frame at which this window begins."""
        while self.prompt_frames >= self.window_start + windowing.max_frames:
            self.window_start += windowing.stride_frames
        self._open_window(self.prompt_frames - self.window_start)

    def _open_window(self, known_frames: int) -> None:
        """Begin a window at `window_start`, of which the first `known_frames` are known."""
        assert 0 < self._windowing.stride_frames < self._windowing.max_frames
        left = self.frames - self.window_start
        self._window_frames = min(left, self._windowing.max_frames)
        self._last_column = self._window_frames + int(self._delays.max())
        self._window_prompt = known_frames
        self.known_columns = known_frames + 1
        """Columns from the left that can be fed."""

    def columns(self, start: int, count: int) -> Grid:
        """Return columns of this window [count, codebooks], as the model reads them."""
        return np.stack([self._column(column) for column in range(start, start + count)])

    def _column(self, column: int) -> Grid:
        frame = column - 1 - self._delays
        inside = (frame >= 0) & (frame < self._window_frames)
        at = self.window_start + np.where(inside, frame, 0)
        return np.where(inside, self._codes[np.arange(len(at)), at], self._windowing.special)

    @property
    def step(self) -> int:
        """The column that is drawn next, counted from the clip's first frame."""
        return self.window_start + self.known_columns

    def accept(self, codes: Grid) -> None:
        """Take the codes [codebooks] drawn for the next column; known ones stay as they are."""
        frame = self.known_columns - 1 - self._delays
        inside = (frame >= 0) & (frame < self._window_frames)
        books, at = np.flatnonzero(inside), self.window_start + frame[inside]
        unknown = self._codes[books, at] == UNKNOWN
        self._codes[books[unknown], at[unknown]] = codes[books[unknown]]
        self.known_columns += 1

    @property
    def complete_frames(self) -> int:
        """Frames of the clip, from the left, whose codes are all known."""
        drawn = self.known_columns - 1 - int(self._delays.max())
        return self.window_start + max(drawn, self._window_prompt)

    @property
    def window_ended(self) -> bool:
        """Whether the last column of this window is known."""
        return self.known_columns > self._last_column

    @property
    def ended(self) -> bool:
        """Whether every frame of the clip is known."""
        return self.window_ended and self.window_start + self._window_frames == self.frames

    def slide(self) -> None:
        """Open the next window: its prompt is the tail of this one."""
        assert self.window_ended
        assert not self.ended
        self.window_start += self._windowing.stride_frames
        self._open_window(self._window_frames - self._windowing.stride_frames)

    def codes(self, start: int, end: int) -> NDArray[np.int16]:
        """Return complete frames of the clip, int16 [codebooks, end - start]."""
        assert end <= self.complete_frames
        return self._codes[:, start:end].astype(np.int16)
