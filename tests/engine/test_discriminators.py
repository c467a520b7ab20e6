"""Tests that scores equal AudioCraft's, and how windows are combined into an analysis."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.analysis import combine
from engine.discriminators import FEATURES, NAMES, Discriminators
from engine.errors import CheckpointMismatch, CheckpointNotFound, InvalidRequest
from engine.params import DiscriminatorsInfo, Waveform, WindowScores
from tests import checkpoints as write
from tests.parity import Parity

RATE = 16000


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, nn.Module]]:
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("discriminators")
    return folder, write.write_discriminators(folder)


@pytest.fixture(scope="module")
def models(theirs: tuple[Path, dict[str, nn.Module]]) -> Discriminators:
    return Discriminators.load(str(theirs[0]), device="cpu")


def draw_noise(seconds: float, seed: int = 0, channels: int = 1) -> Waveform:
    draw = np.random.default_rng(seed)
    return Waveform.pack(draw.normal(0, 0.1, (channels, int(seconds * RATE))), RATE)


def test_scores_are_audiocrafts(
    models: Discriminators, theirs: tuple[Path, dict[str, nn.Module]], parity: Parity
):
    window = draw_noise(1.0)
    (made,) = models.analyze([window])
    assert isinstance(made, WindowScores)
    layers = []
    for name in NAMES:
        with torch.inference_mode():
            logits, maps = theirs[1][name](torch.tensor(window.array())[None])
        score, means = float(logits[0].sigmoid().mean()), [float(one.mean()) for one in logits]
        assert parity(name, "score, from the checkpoint", made.scores[name], score) < 1e-6
        assert parity(name, "mean logits, each scale", made.logits[name], means) < 1e-6
        layers += maps[0]
    assert [len(one) for one in made.feature_maps] == [
        min(layer.shape[1], FEATURES) for layer in layers
    ]
    narrow = [index for index, layer in enumerate(layers) if layer.shape[1] <= FEATURES]
    for index in narrow:
        expected = layers[index][0].abs().flatten(1).mean(1).tolist()
        what = "layers' mean activations"
        assert parity("mpd, msd, msstftd", what, made.feature_maps[index], expected) < 1e-6


def test_all_scales_hear_the_same_as_in_audiocraft(theirs: tuple[Path, dict[str, nn.Module]]):
    """`msd.py` does not use its downsampled signal, so logits of all scales have equal shape."""
    with torch.inference_mode():
        logits, _ = theirs[1]["msd"](torch.randn(1, 1, RATE))
    assert len({one.shape for one in logits}) == 1


def test_windows_of_a_batch_do_not_mix(models: Discriminators):
    windows = [draw_noise(1.0, 1), draw_noise(0.5, 2), draw_noise(1.0, 3)]
    together = models.analyze(windows)
    for window, made in zip(windows, together, strict=True):
        assert models.analyze([window]) == [made]


@pytest.mark.parametrize(
    ("window", "reason"),
    [
        (draw_noise(0.1), "too short"),
        (draw_noise(1.0, channels=2), "16000 Hz with 1 channels"),
        (Waveform.pack(np.zeros((1, RATE)), 8000), "16000 Hz"),
        (Waveform.pack(np.full((1, RATE), np.inf), RATE), "not finite numbers"),
    ],
)
def test_bad_windows_fail_alone(models: Discriminators, window: Waveform, reason: str):
    error, made = models.analyze([window, draw_noise(1.0)])
    assert isinstance(error, InvalidRequest)
    assert reason in str(error)
    assert isinstance(made, WindowScores)


def test_without_weights_there_are_none(tmp_path: Path):
    with pytest.raises(CheckpointNotFound):
        Discriminators.load(str(tmp_path), device="cpu")
    write.write_discriminators(tmp_path)
    stored = torch.load(tmp_path / "checkpoint.th", weights_only=False)
    del stored["adv_losses"]["mpd.adversary.discriminators.0.convs.0.conv.bias"]
    torch.save(stored, tmp_path / "checkpoint.th")
    with pytest.raises(CheckpointMismatch, match=r"discriminators\.0\.convs\.0\.conv\.bias"):
        Discriminators.load(str(tmp_path), device="cpu")
    del stored["adv_losses"]
    torch.save(stored, tmp_path / "checkpoint.th")
    with pytest.raises(CheckpointMismatch, match="adv_losses"):
        Discriminators.load(str(tmp_path), device="cpu")


def test_calibration_lies_beside_the_weights(tmp_path: Path):
    write.write_discriminators(tmp_path)
    assert Discriminators.load(str(tmp_path), device="cpu").info.weights is None
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({"weights": {"mpd": 1, "msd": 2, "msstftd": 3}, "bias": -1}))
    info = Discriminators.load(str(tmp_path), device="cpu").info
    assert info == DiscriminatorsInfo(RATE, 1, {"mpd": 1.0, "msd": 2.0, "msstftd": 3.0}, -1.0)
    path.write_text(json.dumps({"weights": {"mpd": 1}}))
    with pytest.raises(CheckpointMismatch, match="msd"):
        Discriminators.load(str(tmp_path), device="cpu")


def build_scores(samples: int, score: float, logit: float) -> WindowScores:
    return WindowScores(
        samples, dict.fromkeys(NAMES, score), {name: [logit, 0.0] for name in NAMES}, [[logit]]
    )


def test_a_file_is_the_mean_of_its_windows_by_length():
    windows = [build_scores(300, 0.9, 4.0), build_scores(100, 0.1, 0.0)]
    plain = combine(windows, DiscriminatorsInfo(RATE, 1, None, 0.0))
    assert plain.scores == pytest.approx(dict.fromkeys(NAMES, 0.7))
    assert plain.logits["msd"] == pytest.approx([3.0, 0.0])
    assert plain.feature_maps == [[3.0]]
    assert plain.probability is None
    assert plain.is_real(0.69)
    assert not plain.is_real(0.7 + 1e-9)
    weights = {"mpd": 1.0, "msd": 0.5, "msstftd": 0.5}
    fitted = combine(windows, DiscriminatorsInfo(RATE, 1, weights, -3.0))
    assert fitted.probability == pytest.approx(0.5)
    sure = combine(windows, DiscriminatorsInfo(RATE, 1, weights, -1e6))
    assert sure.probability == pytest.approx(0.0)
