"""A request inside the engine, from its arrival to its end."""

import time
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.conditioning import Conditions
from engine.errors import EngineError, InvalidRequest
from engine.params import GenerationParams
from engine.sampling import Sampling
from engine.sequence import Sequence


@dataclass(eq=False)  # by identity: two clips of equal parameters are two requests
class Request:
    """One clip to generate. `priority`: lower goes first; equals, in the order they came."""

    params: GenerationParams
    conditions: Conditions
    sequence: Sequence
    later: Items[Conditions] = ()
    """Those of the windows to come, where a melody goes on in them."""
    priority: int = 0
    arrived: float = field(default_factory=time.perf_counter)
    started: float | None = None
    """When it got its slot."""
    slot: int | None = None
    fed: int = 0
    """Positions of this window that the model has seen, the prefix included."""
    emitted: int = 0
    """Frames of the clip that were handed out, the prompt included."""

    def __post_init__(self) -> None:
        self.emitted = self.sequence.prompt_frames

    @property
    def rows(self) -> int:
        """2 under guidance: the conditional and the null row; else 1."""
        return 1 if self.conditions.empty or self.params.guidance_scale == 1 else 2

    @property
    def rows_to_make(self) -> int:
        """What it takes from its beginning to its end: rows by frames."""
        return self.rows * (self.params.frames - self.sequence.prompt_frames)

    @property
    def prefix_length(self) -> int:
        """Positions before the first column of codes."""
        return self.conditions.prefix_length

    @property
    def unfed(self) -> int:
        """Positions that can be fed now; the last of them draws the next column."""
        return self.prefix_length + self.sequence.known_columns - self.fed

    def check_replaceable(self, conditions: Conditions) -> None:
        """Raise InvalidRequest where these cannot take the place of the request's own.

        Rows and positions stay as they are, so one text can become another, and no more.
        """
        both = (self.conditions, conditions)
        if any(one.empty or one.prefix_length for one in both):
            message = "a running request's text can become another text, not none and no melody"
            raise InvalidRequest(message, "text")

    def slide(self) -> None:
        """Go on in the next window, under its conditions."""
        self.sequence.slide()
        self.fed = 0
        if self.later:
            self.conditions, *self.later = self.later

    def seconds_waited_and_run(self) -> tuple[float, float]:
        """Return the seconds until it got its slot, and those since."""
        assert self.started is not None
        return self.started - self.arrived, time.perf_counter() - self.started

    @property
    def sampling(self) -> Sampling:
        """The parameters of the next draw."""
        return Sampling(
            seed=self.params.seed,
            variation=self.params.variation,
            step=self.sequence.step,
            temperature=self.params.temperature,
            top_k=self.params.top_k,
            top_p=self.params.top_p,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step gave one request: new frames, and perhaps its end."""

    request: Request
    codes: NDArray[np.int16]
    """[codebooks, new frames], perhaps none."""
    ended: bool
    error: EngineError | None = None
