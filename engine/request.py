"""Holds the state of one request inside the engine."""

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditions
from engine.errors import EngineError, InvalidRequest
from engine.page_table import NEVER, Demand
from engine.params import GenerationParams
from engine.sampling import Sampling
from engine.sequence import Sequence
from engine.windows import count_window_positions


@dataclass(eq=False)  # compared by identity: two requests may have equal parameters
class Request:
    """One clip to generate; the lowest `priority` is served first, equal ones by arrival."""

    params: GenerationParams
    conditions: Conditions
    sequence: Sequence
    later: Items[Conditions] = ()
    """Conditions of the following windows, where each hears another part of a melody."""
    positions: int = 0
    """The positions of one row that the whole clip feeds; see `engine.windows`."""
    priority: float = 0.0
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    """When the request got its slot, in seconds of `time.perf_counter`."""
    slot: int | None = None
    fed: int = 0
    """Positions of the current window that were fed to the model, including the prefix."""
    held: int = 0
    """Positions of each row that its pages hold, of this window or of a longer one before it."""
    emitted: int = 0
    """Frames of the clip that were returned, including the prompt."""

    def __post_init__(self) -> None:
        self.emitted = self.sequence.prompt_frames

    @property
    def rows(self) -> int:
        """2 with guidance (the conditional and the null row), else 1."""
        return 1 if self.conditions.empty or self.params.guidance_scale == 1 else 2

    @property
    def row_positions(self) -> int:
        """Rows times the positions to feed: the cost of the whole request."""
        return self.rows * self.positions

    @property
    def prefix_length(self) -> int:
        """The number of positions before the first column of codes."""
        return self.conditions.prefix_length

    @property
    def unfed(self) -> int:
        """Positions that can be fed now; after the last of them the next column is drawn."""
        return self.prefix_length + self.sequence.known_columns - self.fed

    @property
    def text_tokens(self) -> int:
        """The tokens of the text that is attended to by cross-attention."""
        return 0 if self.conditions.text is None else len(self.conditions.text)

    @property
    def demand(self) -> Demand:
        """What the request needs of the cache, now and later."""
        prefix = max(one.prefix_length for one in (self.conditions, *self.later))
        sequence = self.sequence
        needed = count_window_positions(sequence.window_frames, sequence.delay_frames, prefix)
        certain = self.unfed == 1 and sequence.in_last_window
        return Demand(
            rows=self.rows,
            known=self.fed + self.unfed,
            held=self.held,
            needed=needed,
            text=self.text_tokens,
            steps_left=needed - self.fed if certain else NEVER,
        )

    def check_replaceable(self, conditions: Conditions) -> None:
        """Raise InvalidRequest if these conditions cannot replace the request's own.

        Rows and positions cannot change while a request runs, so only a text can replace a text.
        """
        both = (self.conditions, conditions)
        if any(one.empty or one.prefix_length for one in both):
            message = "a running request's text can become another text, not empty and no melody"
            raise InvalidRequest(message, "text")

    def open_next_window(self) -> None:
        """Continue in the next window, with its conditions."""
        self.sequence.open_next_window()
        self.fed = 0
        if self.later:
            self.conditions, *self.later = self.later

    def seconds_waited_and_run(self) -> tuple[float, float]:
        """Return the seconds from arrival until the request got its slot, and the seconds since."""
        assert self.started is not None
        return self.started - self.arrived, time.perf_counter() - self.started

    @property
    def sampling(self) -> Sampling:
        """The sampling parameters of the next column."""
        return Sampling(
            seed=self.params.seed,
            variation=self.params.variation,
            step=self.sequence.step,
            temperature=self.params.temperature,
            top_k=self.params.top_k,
            top_p=self.params.top_p,
            guidance_scale=self.params.guidance_scale,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """The result of one step for one request: its new frames, and whether it has ended."""

    request: Request
    codes: NDArray[np.int16]
    """The new codes [codebooks, frames]; there may be no frames."""
    ended: bool
    error: EngineError | None = None
