"""Computes what tasks cost; no other file knows prices.

A language model's unit is the row-second: a second of audio by the rows of the batch that each of
its steps takes, two with guidance and one without. The unit of codecs, diffusion models and
discriminators is a second of audio.
"""

from collections.abc import Sequence
from typing import TypeVar

from deployments.ledger_state import Charge, Share
from engine.params import GenerationParams, LanguageModelInfo
from engine.windows import count_positions
from graph.settings import MEDIA
from graph.tasks.task import Upload

T = TypeVar("T")


def count_rows(guidance_scale: float) -> int:
    """Return the rows of the batch that a clip takes: with guidance a null row is added."""
    return 1 if guidance_scale == 1 else 2


def price_clip(params: GenerationParams, info: LanguageModelInfo, prompt_frames: int = 0) -> float:
    """Return a clip's row-seconds: every position that it feeds, in all of its windows.

    `prompt_frames` are the frames of a prompt that is still to be encoded; a prompt in `params` is
    counted by itself.
    """
    known = params.prompt.frames if params.prompt else prompt_frames
    positions = count_positions(info, params.frames, known, params.stride_seconds)
    return count_rows(params.guidance_scale) * positions / info.frame_rate


def charge_clips(
    share: Share,
    model: str,
    clips: Sequence[GenerationParams],
    info: LanguageModelInfo,
    prompt_frames: int = 0,
) -> Charge:
    """Return what clips of one language model cost."""
    row_seconds = sum(price_clip(params, info, prompt_frames) for params in clips)
    return Charge(share.name, share.weight, model, row_seconds, len(clips))


def charge_audio(share: Share, model: str, seconds: float) -> Charge:
    """Return what a codec, a diffusion model, discriminators or the decoding of uploads cost."""
    return Charge(share.name, share.weight, model, seconds)


def charge_uploads(share: Share, *uploads: Upload | None) -> list[Charge]:
    """Return what decoding the uploads of a task costs the media deployment."""
    seconds = sum(upload.info.seconds for upload in uploads if upload)
    return [charge_audio(share, MEDIA, seconds)] if seconds else []


def estimate_seconds(
    model: str,
    audio_seconds: float,
    guidance_scale: float,
    backlog: dict[str, float],
    speeds: dict[str, float],
    assumed_speed: float,
) -> float:
    """Return the seconds that a language model would take, with the work that waits before.

    `backlog` holds row-seconds and `speeds` row-seconds per second, both by model.
    """
    row_seconds = backlog.get(model, 0.0) + audio_seconds * count_rows(guidance_scale)
    return row_seconds / speeds.get(model, assumed_speed)


ASSUMED_DIFFUSION_S = 1.0
"""Seconds that diffusion takes for a second of audio, until a clip has been measured."""


class DiffusionSpeed:
    """The speed of multi-band diffusion, as one ingress replica has measured it lately."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def add_clip(self, model: str, seconds: float, audio_seconds: float) -> None:
        """Add the measurement of a clip, which weighs as much as all before it together."""
        now = seconds / audio_seconds
        self._seconds[model] = (self._seconds.get(model, now) + now) / 2

    def seconds_for(self, model: str) -> float:
        """Return the seconds that a model takes for a second of audio."""
        return self._seconds.get(model, ASSUMED_DIFFUSION_S)
