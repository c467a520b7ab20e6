"""The next codec: its decoder needs no later frame, and its training hears what repeats."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from audiocraft.models import builders

from bundles.tiny.recipe import codec_config, fill_codebooks, next_codec_config
from bundles.tiny.train import export, next_codec
from bundles.tiny.train.lines import LinesLoss, make_noise
from bundles.tiny.train.warm import begin_with
from engine.codec import Codec

HOP = next_codec.HOP


def build_pair() -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return an old codec with values in its codebooks, and the next one of the same width."""
    torch.manual_seed(3)
    old = builders.get_compression_model(codec_config(4)).eval()
    fill_codebooks(old)
    return old, builders.get_compression_model(next_codec_config(4)).eval()


@torch.inference_mode()
def test_decoder_needs_no_later_frame():
    _, model = build_pair()
    fill_codebooks(model)
    codes = torch.randint(0, model.cardinality, (1, 4, 12))
    whole, begun = model.decode(codes), model.decode(codes[..., :7])
    torch.testing.assert_close(whole[..., : 7 * HOP], begun)


@torch.inference_mode()
def test_it_begins_with_the_encoder_and_the_codes():
    old, model = build_pair()
    begin_with(model, old)
    audio = make_noise(np.random.default_rng(0), 1, 10 * HOP)
    torch.testing.assert_close(model.encoder(audio), old.encoder(audio))
    for layer, before in zip(model.quantizer.vq.layers, old.quantizer.vq.layers, strict=True):
        torch.testing.assert_close(layer.codebook[: len(before.codebook)], before.codebook)
        assert not layer._codebook.cluster_size[len(before.codebook) :].any()


@torch.inference_mode()
def test_codes_that_are_not_used_begin_anew():
    old, model = build_pair()
    begin_with(model, old)
    for layer in model.quantizer.vq.layers:
        layer._codebook.cluster_size[:512] = 1.0
    latents = torch.randn(4, 64, 50)
    assert next_codec.revive_codes(model, latents, 0.03) == 4 * 512
    assert next_codec.revive_codes(model, latents, 0.03) == 0
    book = model.quantizer.vq.layers[0].codebook
    torch.testing.assert_close(book[:512], old.quantizer.vq.layers[0].codebook)
    vectors = latents.transpose(1, 2).reshape(-1, 64)
    assert float(torch.cdist(book[512:], vectors).min(1).values.max()) < 0.05


def test_loss_hears_a_waveform_that_repeats_and_leads_away_from_it():
    draw = np.random.default_rng(1)
    loss = LinesLoss(HOP)
    real = make_noise(draw, 4, 50 * HOP)
    other = make_noise(draw, 4, 50 * HOP)
    repeated = real[..., :HOP].repeat(1, 1, 50)
    assert float(loss(real, real)) < 0.05
    assert float(loss(other, real)) < 0.4
    assert float(loss(repeated, real)) > 5
    mixed = (other + repeated).requires_grad_()
    before = loss(mixed, real)
    before.backward()
    assert mixed.grad is not None
    shorter = mixed.detach() - 0.03 * mixed.grad / mixed.grad.std() * mixed.detach().std()
    assert float(loss(shorter, real)) < float(before.detach())


def test_loss_hears_notches_where_lines_would_be():
    real = make_noise(np.random.default_rng(2), 4, 50 * HOP)
    folded = real.reshape(4, 1, 50, HOP).mean(2)
    notched = real - 0.9 * folded.repeat(1, 1, 50)
    loss = LinesLoss(HOP)
    assert float(loss(notched, real)) > float(loss(real, real)) + 0.2


@pytest.mark.training
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("fluid")
def test_stage_runs_resumes_and_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(next_codec, "MUSIC_CLIPS", 8)
    monkeypatch.setattr(next_codec, "SOUND_CLIPS", 8)
    monkeypatch.setattr(next_codec, "ADVERSARIES_FROM_STEP", 2)
    monkeypatch.setattr("bundles.tiny.train.progress.LOG_EVERY_STEPS", 1)
    for budget in (20, 40):
        next_codec.train(tmp_path, export.BUNDLE, budget / 3600)
    log = (tmp_path / "next-codec" / "log.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in log]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    assert {"lines", "adv_msstftd", "feat_mpd", "d_mpd"} <= rows[-1].keys()
    export.EXPORTS["next-codec"](tmp_path, tmp_path / "bundle")
    assert Codec.load(str(tmp_path / "bundle" / "codec"), device="cpu").info.cardinality == 1024
