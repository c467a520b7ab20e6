"""Trains the three discriminators to separate real clips from clips that the bundle makes.

With AudioCraft's hinge loss they learn to tell real clips from their copies by the finished codec,
and from clips of the finished language models. Then a logistic regression, fitted on held-out
clips, turns their logits into a probability.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from audiocraft.adversarial import AdversarialLoss
from audiocraft.solvers import builders as solver_builders
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from bundles.tiny import generate
from bundles.tiny.data.store import SECONDS, Clips, clips
from bundles.tiny.recipe import SAMPLE_RATE
from bundles.tiny.train.codec import MUSIC_CLIPS, SOUND_CLIPS, trained_codec
from bundles.tiny.train.decoder import adversaries_config
from bundles.tiny.train.language import draw_caption
from bundles.tiny.train.progress import Progress
from engine.codec import Codec
from engine.discriminators import NAMES, Discriminators
from engine.params import GenerationParams, Waveform, WindowScores

KINDS = ("music", "sound")
GENERATED_CLIPS = {"music": 320, "sound": 160}
HELD_OUT_CLIPS = 100
"""Clips of each kind, real and generated, for the fit of the probability."""
CROPS, SAMPLES_OF_A_CROP = 2, SAMPLE_RATE
"""Crops of each kind per batch, from real clips and as many from generated ones."""


def compute_digest(*folders: Path) -> str:
    """Return a short digest of all files in these folders."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def generate_clips(work: Path, kind: str, rendered: Clips, name: str, bundle: Path) -> Clips:
    """Generate clips for the captions of rendered ones.

    Their codes are stored for the next call. They belong to the language model and the text encoder
    of the bundle, and are generated anew when one of these has changed. Another decoder needs only
    to decode them again.
    """
    digest = compute_digest(bundle / kind, bundle / "t5")
    path = work / "data" / f"{kind}-{name}-{digest}.npy"
    if not path.exists():
        draw = np.random.default_rng([37, len(rendered.numbers)])
        frames = int(SECONDS * generate.FRAME_RATE)
        wanted = [
            GenerationParams(draw_caption(kind, number, draw), frames, seed=number)
            for number in rendered.numbers
        ]
        model = generate.load_model(kind, bundle)
        np.save(path, np.stack(generate.generate_codes(model, wanted)))
        model.loop.close()
    codec = Codec.load(str(bundle / "codec"), device="cpu")
    audio = generate.decode_codes(codec, np.load(path))
    return Clips(rendered.numbers, np.round(audio.clip(-1, 1) * 32767).astype(np.int16))


def get_adversary(adversaries: nn.ModuleDict, name: str) -> nn.Module:
    """Return the discriminator inside one of the losses."""
    loss = adversaries[name]
    assert isinstance(loss, AdversarialLoss)
    discriminator: nn.Module = loss.adversary
    return discriminator


def compute_mean_logits(models: Discriminators, rendered: Clips) -> NDArray[np.float64]:
    """Return the mean logit over the scales of each discriminator for each clip, [clips, 3]."""
    rows = []
    for clip in rendered.audio:
        wave = Waveform.pack(clip[None] / 32768, SAMPLE_RATE)
        (scores,) = models.analyze([wave])
        assert isinstance(scores, WindowScores)
        rows.append([np.mean(scores.logits[name]) for name in NAMES])
    return np.array(rows)


def fit_calibration(
    models: Discriminators, real: list[Clips], made: list[Clips]
) -> dict[str, object]:
    """Fit the probability that a clip is real; return the contents of `calibration.json`."""
    parts = [compute_mean_logits(models, rendered) for rendered in (*real, *made)]
    labels = np.repeat([1] * len(real) + [0] * len(made), [len(part) for part in parts])
    model = LogisticRegression().fit(np.concatenate(parts), labels)
    weights = dict(zip(NAMES, model.coef_[0].round(5).tolist(), strict=True))
    return {"weights": weights, "bias": round(float(model.intercept_[0]), 5)}


def load_held_out(work: Path, kind: str, bundle: Path) -> tuple[Clips, Clips]:
    """Return held-out real clips, and clips generated for their captions."""
    real = clips(work, kind, HELD_OUT_CLIPS, held_out=True)
    return real, generate_clips(work, kind, real, f"generated-held-out-{HELD_OUT_CLIPS}", bundle)


def load_adversaries(work: Path) -> nn.ModuleDict:
    """Load the trained discriminators from `work`."""
    adversaries: nn.ModuleDict = solver_builders.get_adversarial_losses(adversaries_config())
    state = torch.load(work / "discriminators" / "state.pt", weights_only=True)
    adversaries.load_state_dict(state["adv"])
    adversaries.eval()
    return adversaries


def train(work: Path, bundle: Path, budget_hours: float) -> None:
    """Train against the models in `bundle` until the budget is spent."""
    torch.manual_seed(0)
    sets = {"music": clips(work, "music", MUSIC_CLIPS), "sound": clips(work, "sound", SOUND_CLIPS)}
    pools = {}
    for kind, rendered in sets.items():
        few = Clips(rendered.numbers[: GENERATED_CLIPS[kind]], rendered.audio[:1])
        pools[kind] = generate_clips(work, kind, few, "generated", bundle)
    codec = trained_codec(bundle)
    adversaries: nn.ModuleDict = solver_builders.get_adversarial_losses(adversaries_config())
    progress = Progress(work, "discriminators", budget_hours, adv=adversaries)
    draw = np.random.default_rng([41, progress.step])
    adversaries.train()
    learning: dict[str, AdversarialLoss] = dict(adversaries.items())
    while progress.share < 1:
        real = torch.cat([sets[kind].crops(draw, CROPS, SAMPLES_OF_A_CROP) for kind in KINDS])
        with torch.inference_mode():
            copies = codec(real).x
        made = torch.cat([pools[kind].crops(draw, CROPS, SAMPLES_OF_A_CROP) for kind in KINDS])
        other = torch.cat([sets[kind].crops(draw, CROPS, SAMPLES_OF_A_CROP) for kind in KINDS])
        fake, true = torch.cat([copies.clone(), made]), torch.cat([real, other])
        losses = {name: loss.train_adv(fake, true).item() for name, loss in learning.items()}
        progress.log(**losses)
    progress.save()
