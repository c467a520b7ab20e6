"""Builds the past codes that a language model is trained on, and computes its loss.

Music repeats itself, so a true past makes prediction easy: a model trained only on true codes lost
the beat after its first mistake. So half of a clip's past is replaced by the model's own guesses
(parallel scheduled sampling, Duckworth et al., 2019). For some clips the past is another clip, so
that only text and position tell where a beat is. Such a past has the wrong timbre too, so there
are fewer of these clips at the end of the training.
"""

import numpy as np
import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes as Conditions
from torch import Tensor
from torch.nn import functional

from bundles.tiny.train.progress import rounded

RUN, MISHEARD = 8, 0.5
"""Mean frames of a run, and the share of runs that are replaced by guesses."""
FOREIGN, FOREIGN_AT_LAST, LAST = 0.5, 1 / 6, 0.8
"""Share of clips whose past is another clip, before and after `LAST` of the training."""


def mix_in_guesses(
    model: LMModel, codes: Tensor, conditions: list[Conditions], draw: np.random.Generator
) -> Tensor:
    """Replace random runs of codes [clips, codebooks, frames] by the model's own guesses."""
    with torch.no_grad(), rounded():
        output = model.compute_predictions(codes, conditions)
    likely = output.logits.float().nan_to_num().softmax(-1)
    guessed = likely.flatten(0, 2).multinomial(1).view_as(codes)
    begins = draw.random(codes[:, 0].shape) < 1 / RUN
    runs = begins.cumsum(axis=1, dtype=np.int64)
    chosen = np.take_along_axis(draw.random(runs.shape) < MISHEARD, runs, axis=1)
    return torch.where(torch.from_numpy(chosen)[:, None] & output.mask, guessed, codes)


def swap_clips(codes: Tensor, draw: np.random.Generator) -> Tensor:
    """Return codes in which each clip is replaced by another one, shifted in time."""
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
    """Build the past codes of a batch; `share` is the finished part of the training, 0 to 1."""
    others = FOREIGN if share < LAST else FOREIGN_AT_LAST
    own = len(codes) - round(len(codes) * others)
    guessed = mix_in_guesses(model, codes[:own], conditions[:own], draw)
    return torch.cat([guessed, swap_clips(codes, draw)[own:]])


def compute_losses(
    model: LMModel, codes: Tensor, heard: Tensor, conditions: list[Conditions]
) -> Tensor:
    """Return each codebook's cross-entropy [codebooks] of `codes`, given the past `heard`."""
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
