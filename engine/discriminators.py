"""Scores audio with AudioCraft's discriminators MPD, MSD and MS-STFT-D.

A codec was trained against them, so "real" means "not made by that codec". A high logit means
real, whatever AudioCraft's names say. AudioCraft's multi-scale discriminator computes a downsampled
signal and does not use it (`msd.py`), so all its scales get the same input; this behaviour is kept,
because trained weights expect it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from audiocraft.solvers import builders
from torch import Tensor, nn

from engine.batches import serve_in_groups
from engine.checkpoints import (
    BUILD_ERRORS,
    fetch_file,
    get_entry,
    load_strictly,
    read_checkpoint,
    read_config,
)
from engine.errors import CheckpointMismatch, CheckpointNotFound, InvalidRequest
from engine.params import DiscriminatorsInfo, Waveform, WindowScores, describe_bad_samples

NAMES = ("mpd", "msd", "msstftd")
DISCRIMINATORS_FILE, CALIBRATION_FILE = "checkpoint.th", "calibration.json"
FEATURES = 32
"""The most values per layer; wider layers are averaged over neighbouring channels."""
LEAST_SAMPLES = 4096
"""The shortest window; a shorter one would be mostly padding for the widest convolutions."""


class Discriminators:
    """The three discriminators of a checkpoint, which score several windows of audio at once."""

    def __init__(self, models: Mapping[str, nn.Module], info: DiscriminatorsInfo) -> None:
        self._models = models
        self.info = info
        self.device = next(models[NAMES[0]].parameters()).device
        self.done = 0
        """Windows scored so far; health checks compare it over time."""

    @classmethod
    def load(cls, source: str, *, device: str) -> "Discriminators":
        """Load from the checkpoint of a codec training, `checkpoint.th`. Raises a CheckpointError.

        An optional `calibration.json` beside it holds `weights` by discriminator and a `bias`.
        """
        path = fetch_file(source, DISCRIMINATORS_FILE)
        package = read_checkpoint(path)
        states = get_entry(package, "adv_losses", path)
        cfg = read_config(package, "adversarial", path)
        models = {}
        for name in NAMES:
            inside = f"{name}.adversary."
            state = {k.removeprefix(inside): v for k, v in states.items() if k.startswith(inside)}
            try:
                model = builders.get_adversary(name, cfg)
            except BUILD_ERRORS as error:
                raise CheckpointMismatch(f"{path}: {name} cannot be built: {error}") from error
            load_strictly(model, state, path)
            models[name] = model.to(device).eval()
        weights, bias = _read_calibration(source, path)
        channels = int(cfg.mpd.get("in_channels", 1))
        return cls(models, DiscriminatorsInfo(int(cfg.sample_rate), channels, weights, bias))

    def analyze(self, windows: Sequence[Waveform]) -> list[WindowScores | InvalidRequest]:
        """Score each window; an invalid one yields its error and does not affect the others."""
        return serve_in_groups(
            windows,
            self.device,
            reject=self._reject_window,
            shape=lambda window: window.samples,
            serve=self._score_all,
        )

    @torch.inference_mode()
    def _score_all(self, windows: Sequence[Waveform]) -> list[WindowScores]:
        audio = torch.from_numpy(np.stack([window.array() for window in windows])).to(self.device)
        scores: dict[str, list[float]] = {}
        logits: dict[str, list[list[float]]] = {}
        layers: list[list[list[float]]] = []
        for name, model in self._models.items():
            made, maps = model(audio)
            scores[name] = made[0].sigmoid().flatten(1).mean(1).tolist()
            means = [scale.flatten(1).mean(1) for scale in made]
            logits[name] = torch.stack(means, dim=1).tolist()
            layers += [_summarise_layer(layer) for layer in maps[0]]
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

    def _reject_window(self, window: Waveform) -> InvalidRequest | None:
        """Return the error for a window that cannot be scored, or None."""
        wanted = (self.info.sample_rate, self.info.channels)
        if (window.sample_rate, window.channels) != wanted:
            problem = f"these discriminators take {wanted[0]} Hz with {wanted[1]} channels"
        elif window.samples < LEAST_SAMPLES:
            least = LEAST_SAMPLES / self.info.sample_rate
            problem = f"the audio is too short to judge; it needs {least:.2f} seconds or more"
        elif bad := describe_bad_samples(window.array()):
            problem = f"the audio has {bad}"
        else:
            return None
        return InvalidRequest(problem, "audio_file")

    def probe(self) -> None:
        """Score some silence, to check that the models still work."""
        silence = np.zeros((self.info.channels, LEAST_SAMPLES))
        (scores,) = self.analyze([Waveform.pack(silence, self.info.sample_rate)])
        assert isinstance(scores, WindowScores)


def _summarise_layer(layer: Tensor) -> list[list[float]]:
    """Return each item's mean absolute activations, [items, channels], at most FEATURES wide."""
    means = layer.abs().flatten(2).mean(2)
    if means.shape[1] > FEATURES:
        means = nn.functional.adaptive_avg_pool1d(means, FEATURES)
    values: list[list[float]] = means.tolist()
    return values


def _read_calibration(source: str, beside: Path) -> tuple[dict[str, float] | None, float]:
    """Return weights and bias from the calibration file, or None and 0 if there is none."""
    try:
        path = fetch_file(source, CALIBRATION_FILE)
    except CheckpointNotFound:
        return None, 0.0
    try:
        stored = json.loads(path.read_text())
        return {name: float(stored["weights"][name]) for name in NAMES}, float(stored["bias"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointMismatch(f"{path}: not a calibration for {beside.name}: {error}") from error
