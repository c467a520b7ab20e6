"""Holds the codes of one request in AudioCraft's delay pattern.

Column 0 holds only special tokens. The code of codebook k at frame t is in column
t + delay[k] + 1, and cells that belong to no frame hold the special token
(`DelayedPatternProvider` in `audiocraft/modules/codebooks_patterns.py`). A clip longer than the
model's window continues in a new window, whose prompt is the tail of the previous one
(`BaseGenModel._generate_tokens`).
"""

from collections.abc import Sequence as Items
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Windowing:
    """The delay of each codebook, the special token, and the frames of a window and of a stride."""

    delays: Items[int]
    special: int
    max_frames: int
    stride_frames: int


class Sequence:
    """The codes of one clip; `get_columns` gives model input, `accept_codes` takes the output."""

    def __init__(self, windowing: Windowing, frames: int, prompt: Grid | None = None) -> None:
        self._windowing = windowing
        self._delays = np.asarray(windowing.delays)
        self.frames = frames
        """Frames of the whole clip, including the prompt."""
        codebooks = len(windowing.delays)
        self._codes: Grid = np.full((codebooks, frames), UNKNOWN)
        self.prompt_frames = 0 if prompt is None else prompt.shape[1]
        if prompt is not None:
            assert prompt.shape[0] == codebooks, f"prompt must be [{codebooks}, frames]"
            assert self.prompt_frames < frames, "the prompt must be shorter than the clip"
            self._codes[:, : self.prompt_frames] = prompt
        self.window_start = 0
        """The clip's frame at which the current window begins."""
        while self.prompt_frames >= self.window_start + windowing.max_frames:
            self.window_start += windowing.stride_frames
        self._open_window(self.prompt_frames - self.window_start)

    def _open_window(self, known_frames: int) -> None:
        """Open the window at `window_start`, whose first `known_frames` are the prompt."""
        assert 0 < self._windowing.stride_frames < self._windowing.max_frames
        left = self.frames - self.window_start
        self._window_frames = min(left, self._windowing.max_frames)
        self._last_column = self._window_frames + int(self._delays.max())
        self._window_prompt = known_frames
        self.known_columns = known_frames + 1
        """Columns from the left that the model can be fed with."""

    @property
    def window_columns(self) -> int:
        """The number of columns that the current window feeds until its end."""
        return self._last_column

    def get_columns(self, start: int, count: int) -> Grid:
        """Return columns of the current window as the model's input, int64 [count, codebooks]."""
        return np.stack([self._get_column(column) for column in range(start, start + count)])

    def _get_column(self, column: int) -> Grid:
        frame = column - 1 - self._delays
        inside = (frame >= 0) & (frame < self._window_frames)
        at = self.window_start + np.where(inside, frame, 0)
        return np.where(inside, self._codes[np.arange(len(at)), at], self._windowing.special)

    @property
    def step(self) -> int:
        """The next column to draw, counted from the clip's first frame."""
        return self.window_start + self.known_columns

    def accept_codes(self, codes: Grid) -> None:
        """Store the codes [codebooks] drawn for the next column; known codes are kept."""
        frame = self.known_columns - 1 - self._delays
        inside = (frame >= 0) & (frame < self._window_frames)
        books, at = np.flatnonzero(inside), self.window_start + frame[inside]
        unknown = self._codes[books, at] == UNKNOWN
        self._codes[books[unknown], at[unknown]] = codes[books[unknown]]
        self.known_columns += 1

    @property
    def complete_frames(self) -> int:
        """The number of frames from the start of the clip whose codes are all known."""
        drawn = self.known_columns - 1 - int(self._delays.max())
        return self.window_start + max(drawn, self._window_prompt)

    @property
    def window_ended(self) -> bool:
        """Whether the last column of the current window is known."""
        return self.known_columns > self._last_column

    @property
    def ended(self) -> bool:
        """Whether every frame of the clip is known."""
        return self.window_ended and self.window_start + self._window_frames == self.frames

    def open_next_window(self) -> None:
        """Open the next window, whose prompt is the tail of the current one."""
        assert self.window_ended
        assert not self.ended
        self.window_start += self._windowing.stride_frames
        self._open_window(self._window_frames - self._windowing.stride_frames)

    def get_codes(self, start: int, end: int) -> NDArray[np.int16]:
        """Return complete frames of the clip, int16 [codebooks, end - start]."""
        assert end <= self.complete_frames
        return self._codes[:, start:end].astype(np.int16)
