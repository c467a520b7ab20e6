"""Defines the clips that workflows plan: each may continue the one before it in its chain."""

from dataclasses import dataclass, replace

from engine.params import Codes, GenerationParams
from graph.price import price_clip
from graph.registry import ModelWithCodec
from graph.tasks.task import ClipRequest

CONTEXT_S = 5.0
"""Seconds of the clip before it that a clip continues."""


@dataclass(frozen=True, eq=False)
class PlannedClip:
    """A clip to generate; two are never equal, so each is generated once."""

    name: str
    pair: ModelWithCodec
    params: GenerationParams
    overlap: int | None = None
    """The frames at the end of the clip before it in its chain that the clip generates anew; it
    continues the rest. None where the clip continues nothing."""

    def price_clip(self) -> float:
        """Return the clip's row-seconds, with the context that it continues."""
        context = 0 if self.overlap is None else int(CONTEXT_S * self.pair.codec.frame_rate)
        params = replace(self.params, frames=context + self.params.frames)
        return price_clip(params, self.pair.language_model, context)

    def build_request(self, before: Codes | None) -> ClipRequest:
        """Build the request for the clip, which continues the codes of the clip before it."""
        if self.overlap is None:
            return ClipRequest(self.params)
        assert before is not None, "the first clip of a chain continues nothing"
        assert before.frames > self.overlap, "nothing is left to continue"
        context = int(CONTEXT_S * self.pair.codec.frame_rate)
        known = Codes.pack(before.array()[:, : before.frames - self.overlap][:, -context:])
        frames = known.frames + self.params.frames
        params = replace(self.params, frames=frames, prompt=known)
        return ClipRequest(params, include_prompt=False)
