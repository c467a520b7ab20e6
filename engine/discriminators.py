"""AudioCraft's discriminators, MPD, MSD and MS-STFT-D: how real does a stretch of audio sound?

They are what a codec was trained against, so "real" means: not that codec's. A high logit is real,
whatever AudioCraft's names say. Its multi-scale discriminator computes a downsampled signal and
throws it away (`msd.py`), so that all its scales hear the same; trained weights expect that, and it
is kept.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from audiocraft.solvers import builders
from torch import Tensor, nn

from engine.batches import serve_in_groups
from engine.checkpoints import BUILD_ERRORS, config, entry, fetch, load_strictly, read
from engine.errors import CheckpointMismatch, CheckpointNotFound, InvalidRequest
from engine.params import DiscriminatorsInfo, Waveform, WindowScores

NAMES = ("mpd", "msd", "msstftd")
DISCRIMINATORS_FILE, CALIBRATION_FILE = "checkpoint.th", "calibration.json"
FEATURES = 32
"""The longest list of a layer's features; wider layers are averaged over neighbouring channels."""
LEAST_SAMPLES = 4096
"""Below this the widest convolutions see more padding than sound."""


class Discriminators:
    """The three of one checkpoint, over several stretches of audio at once."""

    def __init__(self, models: Mapping[str, nn.Module], info: DiscriminatorsInfo) -> None:
        self._models = models
        self.info = info
        self.device = next(models[NAMES[0]].parameters()).device
        self.done = 0
        """Stretches scored since the start; health checks watch it grow."""

    @classmethod
    def load(cls, source: str, *, device: str) -> "Discriminators":
        """Load from a compression training's checkpoint, `checkpoint.th`. Raises a CheckpointError.

        `calibration.json` beside it, where there is one, has `weights` by name and a `bias`.
        """
        path = fetch(source, DISCRIMINATORS_FILE)
        package = read(path)
        states, cfg = entry(package, "adv_losses", path), config(package, "adversarial", path)
        models = {}
        for name in NAMES:
            inside = f"{name}.adversary."
            state = {k.removeprefix(inside): v for k, v in states.items() if k.startswith(inside)}
            try:
                model = builders.get_adversary(name, cfg)
            except BUILD_ERRORS as error:
                raise CheckpointMismatch(f"{path}: {name} does not build: {error}") from error
            load_strictly(model, state, path)
            models[name] = model.to(device).eval()
        weights, bias = _calibration(source, path)
        channels = int(cfg.mpd.get("in_channels", 1))
        return cls(models, DiscriminatorsInfo(int(cfg.sample_rate), channels, weights, bias))

    def analyze(self, windows: Sequence[Waveform]) -> list[WindowScores | InvalidRequest]:
        """Score each window; a bad one yields its error and disturbs no other."""
        return serve_in_groups(
            windows,
            self.device,
            problem=self._problem,
            shape=lambda window: window.samples,
            serve=self._scores,
        )

    @torch.inference_mode()
    def _scores(self, windows: Sequence[Waveform]) -> list[WindowScores]:
        audio = torch.from_numpy(np.stack([window.array() for window in windows])).to(self.device)
        scores: dict[str, list[float]] = {}
        logits: dict[str, list[list[float]]] = {}
        layers: list[list[list[float]]] = []
        for name, model in self._models.items():
            made, maps = model(audio)
            scores[name] = made[0].sigmoid().flatten(1).mean(1).tolist()
            means = [scale.flatten(1).mean(1) for scale in made]
            logits[name] = torch.stack(means, dim=1).tolist()
            layers += [_features(layer) for layer in maps[0]]
        self.done += len(windows)
        return [
            WindowScores(
                samples=window.samples,
                scores={name: scores[name][item] for name in NAMES},
                logits={name: logits[name][item] for name in NAMES},
                feature_maps=[layer[item] for layer in layers],
            )
            for item, window in enumerate(windows)
        ]

    def _problem(self, window: Waveform) -> InvalidRequest | None:
        wanted = (self.info.sample_rate, self.info.channels)
        if (window.sample_rate, window.channels) != wanted:
            problem = f"these discriminators hear {wanted[0]} Hz with {wanted[1]} channels"
        elif window.samples < LEAST_SAMPLES:
            least = LEAST_SAMPLES / self.info.sample_rate
            problem = f"the audio is too short to judge; it needs {least:.2f} seconds or more"
        elif not np.isfinite(window.array()).all():
            problem = "the audio has samples that are not numbers"
        else:
            return None
        return InvalidRequest(problem, "audio_file")

    def probe(self) -> None:
        """Score a little silence, to see that the models still answer."""
        silence = np.zeros((self.info.channels, LEAST_SAMPLES))
        (scores,) = self.analyze([Waveform.pack(silence, self.info.sample_rate)])
        assert isinstance(scores, WindowScores)


def _features(layer: Tensor) -> list[list[float]]:
    """Return each item's mean absolute activation a channel, or few neighbouring ones."""
    means = layer.abs().flatten(2).mean(2)
    if means.shape[1] > FEATURES:
        means = nn.functional.adaptive_avg_pool1d(means, FEATURES)
    values: list[list[float]] = means.tolist()
    return values


def _calibration(source: str, beside: Path) -> tuple[dict[str, float] | None, float]:
    try:
        path = fetch(source, CALIBRATION_FILE)
    except CheckpointNotFound:
        return None, 0.0
    try:
        stored = json.loads(path.read_text())
        return {name: float(stored["weights"][name]) for name in NAMES}, float(stored["bias"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(f"{path}: no calibration for {beside.name}: {error}") from error
