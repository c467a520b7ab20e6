"""What a language model hears before a frame while it is trained, and its loss.

Music that repeats itself is easily told from what was really there: a model that heard nothing
else was lost after its own first mistake, and its beat with it. So half of what is heard of a clip
is the model's own guesses (parallel scheduled sampling, Duckworth et al., 2019). And of some clips
it is another clip: then text and position alone tell where a beat falls. Such a past tells nothing
of the timbre either, so these clips become few in the end.
"""

import numpy as np
import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes as Conditions
from torch import Tensor
from torch.nn import functional

from bundles.tiny.train.progress import rounded

RUN, MISHEARD = 8, 0.5
"""Frames of a run, and the share of runs that are not what they should be."""
FOREIGN, FOREIGN_AT_LAST, LAST = 0.5, 1 / 6, 0.8
"""The share of clips that hear another one, before and after this share of the training."""


def mix_in_guesses(
    model: LMModel, codes: Tensor, conditions: list[Conditions], draw: np.random.Generator
) -> Tensor:
    """Return codes, [clips, codebooks, frames], runs of which are what the model takes them for."""
    with torch.no_grad(), rounded():
        output = model.compute_predictions(codes, conditions)
    likely = output.logits.float().nan_to_num().softmax(-1)
    guessed = likely.flatten(0, 2).multinomial(1).view_as(codes)
    begins = draw.random(codes[:, 0].shape) < 1 / RUN
    runs = begins.cumsum(axis=1, dtype=np.int64)
    chosen = np.take_along_axis(draw.random(runs.shape) < MISHEARD, runs, axis=1)
    return torch.where(torch.from_numpy(chosen)[:, None] & output.mask, guessed, codes)


def swap_clips(codes: Tensor, draw: np.random.Generator) -> Tensor:
    """Return codes of which each clip is another one, and later or earlier than it was."""
    clips, _, frames = codes.shape
    shifts = int(draw.integers(1, clips)), int(draw.integers(frames))
    return codes.roll(shifts, (0, 2))


def build_past(
    model: LMModel,
    codes: Tensor,
    conditions: list[Conditions],
    share: float,
    draw: np.random.Generator,
) -> Tensor:
    """Return what is heard before the frames of clips; `share` of the training is over."""
    others = FOREIGN if share < LAST else FOREIGN_AT_LAST
    own = len(codes) - round(len(codes) * others)
    guessed = mix_in_guesses(model, codes[:own], conditions[:own], draw)
    return torch.cat([guessed, swap_clips(codes, draw)[own:]])


def compute_losses(
    model: LMModel, codes: Tensor, heard: Tensor, conditions: list[Conditions]
) -> Tensor:
    """Return each codebook's cross-entropy, [codebooks], where the model has heard other codes."""
    with rounded():
        output = model.compute_predictions(heard, conditions)
    each = []
    pairs = zip(output.logits.unbind(1), codes.unbind(1), output.mask.unbind(1), strict=True)
    for logits, wanted, mask in pairs:
        known = int(mask[0].sum())  # the delay leaves a codebook's last frames unpredicted
        assert mask[:, :known].all()
        told = logits[:, :known].float().flatten(0, 1)
        each.append(functional.cross_entropy(told, wanted[:, :known].flatten()))
    return torch.stack(each)
