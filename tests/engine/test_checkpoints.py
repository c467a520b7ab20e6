"""Tests that published checkpoints load, and that broken ones give errors with file and key."""

import json
import os
import pickle
import random
import re
import shutil
from pathlib import Path
from urllib.error import URLError

import demucs.pretrained
import numpy as np
import pytest
import torch
from audiocraft.models import MusicGen
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import EncodecConfig, EncodecModel

from benchmarks.reference import ReferenceModel
from engine.checkpoints import CODEC_FILE, load_codec, load_diffusion, load_language_model
from engine.codec import Codec
from engine.errors import (
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnreadable,
)
from engine.params import CodecInfo, Codes, CodesPiece, GenerationParams
from tests import checkpoints as write
from tests.conftest import Checkpoints


def load_music(source: object, **options: str | None) -> torch.nn.Module:
    return load_language_model(str(source), device="cpu", dtype="float32", **options)


def assert_same_weights(model: torch.nn.Module, path: Path) -> None:
    saved = torch.load(path, weights_only=True)["best_state"]
    loaded = model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(
        torch.equal(value.to(loaded[key].dtype), loaded[key]) for key, value in saved.items()
    )


def test_language_model_from_a_folder(checkpoints: Checkpoints):
    model = load_music(checkpoints.music)
    assert_same_weights(model, checkpoints.music / "state_dict.bin")
    assert not model.training


def test_codec_from_a_folder(checkpoints: Checkpoints):
    codec = load_codec(str(checkpoints.codec), device="cpu")
    assert_same_weights(codec, checkpoints.codec / "compression_state_dict.bin")
    assert (codec.sample_rate, codec.frame_rate, codec.num_codebooks) == (16000, 50, 4)


@pytest.mark.parametrize("name", ["music", "sound"])
def test_language_model_from_the_bundle(name: str):
    assert load_music(f"bundle:tiny/{name}").num_codebooks == 4


def test_half_precision(checkpoints: Checkpoints):
    model = load_language_model(str(checkpoints.music), device="cpu", dtype="float16")
    assert model.transformer.layers[0].linear1.weight.dtype == torch.float16


def test_from_the_hub(checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub id is read from the hub's cache, in the layout of the hub library."""
    repository = tmp_path / "models--facebook--musicgen-test"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    for file in (*checkpoints.music.iterdir(), *checkpoints.codec.iterdir()):
        (snapshot / file.name).symlink_to(file)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert_same_weights(load_music("facebook/musicgen-test"), checkpoints.music / "state_dict.bin")
    assert load_codec("facebook/musicgen-test", device="cpu").sample_rate == 16000
    with pytest.raises(CheckpointNotFound, match=r"facebook/absent/state_dict\.bin"):
        load_music("facebook/absent")


def test_codec_that_points_at_another(checkpoints: Checkpoints, tmp_path: Path):
    """musicgen checkpoints may hold only the name of their codec (`audiocraft/utils/export.py`)."""
    for target in (str(checkpoints.codec), f"//pretrained/{checkpoints.codec}"):
        pointer = {"pretrained": target, "exported": True, "version": "1.3.0"}
        torch.save(pointer, tmp_path / CODEC_FILE)
        assert load_codec(str(tmp_path), device="cpu").num_codebooks == 4
    torch.save({"pretrained": str(tmp_path)}, tmp_path / CODEC_FILE)
    with pytest.raises(CheckpointMismatch, match=r"has no key .xp\.cfg"):
        load_codec(str(tmp_path), device="cpu")


def test_codec_in_transformers_format(tmp_path: Path):
    config = EncodecConfig(
        sampling_rate=24000, upsampling_ratios=[8, 5, 4, 2], num_filters=4, hidden_size=16,
        codebook_size=64, target_bandwidths=[0.9, 1.8], num_lstm_layers=1,
    )  # fmt: skip
    theirs = EncodecModel(config).eval()
    theirs.save_pretrained(tmp_path)
    codec = Codec.load(str(tmp_path), device="cpu")
    assert codec.info == CodecInfo(4, 64, 24000, 1, 75.0)
    codes = torch.randint(0, 64, (1, 4, 9))
    (made,) = codec.decode([CodesPiece(Codes.pack(codes[0].numpy()))])
    with torch.no_grad():
        expected = theirs.decode(codes[None], [None]).audio_values[0]
    torch.testing.assert_close(torch.tensor(made.audio.array()), expected)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointNotFound, match="not a transformers model"):
        load_codec(str(tmp_path), device="cpu")


def test_melody_model_without_a_melody(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It needs no stem separator; the codes equal AudioCraft's with an unused separator."""
    write.write_language_model(tmp_path, checkpoints.text_encoder, write.melody_config())
    (tmp_path / CODEC_FILE).write_bytes((checkpoints.codec / CODEC_FILE).read_bytes())
    monkeypatch.setattr(demucs.pretrained, "get_model", lambda name: pytest.fail("asked"))
    ours = ReferenceModel.load(str(tmp_path), device="cpu", dtype="float32")
    params = GenerationParams("calm piano", frames=20, seed=3)
    codes = ours.generate(params, lambda: False).array()

    separator = torch.nn.Identity()
    separator.sources = ["drums", "bass", "other", "vocals"]
    monkeypatch.setattr(demucs.pretrained, "get_model", lambda name: separator)
    theirs = MusicGen.get_pretrained(str(tmp_path))
    theirs.set_generation_params(duration=0.4, extend_stride=1)
    torch.manual_seed(3)
    _, expected = theirs.generate(["calm piano"], return_tokens=True)
    np.testing.assert_array_equal(codes, expected[0].numpy())


def test_stem_separation_needs_its_weights(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Loading fails and tells how to turn stem separation off; the mix is never used silently."""

    def unreachable(name: str) -> torch.nn.Module:
        raise URLError(f"{name}: no network")

    write.write_language_model(tmp_path, checkpoints.text_encoder, write.melody_config())
    monkeypatch.setattr(demucs.pretrained, "get_model", unreachable)
    with pytest.raises(CheckpointNotFound, match="with stem_separation: false"):
        load_language_model(str(tmp_path), device="cpu", dtype="float32", stem_separation=True)


def test_diffusion(tmp_path: Path):
    states = write.write_diffusion(tmp_path / "mbd_musicgen_32khz.th")
    models, processors, configs = load_diffusion(
        str(tmp_path), "mbd_musicgen_32khz.th", device="cpu"
    )
    assert len(models) == len(processors) == len(configs) == 2
    for model, state in zip(models, states, strict=True):
        assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_diffusion_without_a_band(tmp_path: Path):
    write.write_diffusion(tmp_path / "mbd.th")
    package = torch.load(tmp_path / "mbd.th", weights_only=False)
    package["n_bands"] = 3
    torch.save(package, tmp_path / "mbd.th")
    with pytest.raises(CheckpointMismatch, match=r"mbd\.th: has no key 2"):
        load_diffusion(str(tmp_path), "mbd.th", device="cpu")


def test_another_text_encoder(checkpoints: Checkpoints, tmp_path: Path):
    other = write.write_text_encoder(tmp_path / "other")
    model = load_music(checkpoints.music, text_encoder=other)
    assert model.condition_provider.conditioners["description"].name == other


@pytest.mark.parametrize("source", ["bundle:tiny/none", "/no/such/folder", "not a hub id"])
def test_missing_source(source: str):
    with pytest.raises(CheckpointNotFound, match=source):
        load_music(source)


def test_missing_file(tmp_path: Path):
    with pytest.raises(CheckpointNotFound, match=r"state_dict\.bin"):
        load_music(tmp_path)
    with pytest.raises(CheckpointNotFound, match=r"compression_state_dict\.bin"):
        load_codec(str(tmp_path), device="cpu")


def remove_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.final_layer_norm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def truncate_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("harm", "error", "message"),
    [
        (lambda f: (f / "config.json").unlink(), CheckpointUnreadable, r"config\.json"),
        (lambda f: (f / "spiece.model").unlink(), CheckpointNotFound, "no tokenizer"),
        (lambda f: (f / "model.safetensors").unlink(), CheckpointNotFound, "no T5"),
        (lambda f: truncate_file(f / "spiece.model"), CheckpointUnreadable, "broken text encoder"),
        (
            lambda f: truncate_file(f / "model.safetensors"),
            CheckpointUnreadable,
            "broken text encoder",
        ),
        (remove_weight, CheckpointMismatch, "encoder.final_layer_norm.weight"),
        (lambda f: edit_config(f, model_type="bert"), CheckpointMismatch, "'bert', not 't5'"),
        (lambda f: edit_config(f, vocab_size=64), CheckpointError, "shared.weight|embeddings|size"),
    ],
)
def test_broken_text_encoder(
    checkpoints: Checkpoints, tmp_path: Path, harm: object, error: type, message: str
):
    shutil.copytree(checkpoints.text_encoder, tmp_path / "t5")
    harm(tmp_path / "t5")
    with pytest.raises(error, match=f"t5.*({message})"):
        load_music(checkpoints.music, text_encoder=str(tmp_path / "t5"))


def test_more_tokens_than_embeddings(checkpoints: Checkpoints, tmp_path: Path):
    shutil.copytree(checkpoints.text_encoder, tmp_path / "t5")
    edit_config(tmp_path / "t5", vocab_size=100)
    weights = load_file(tmp_path / "t5" / "model.safetensors")
    save_file(
        {k: v[:100].clone() if k == "shared.weight" else v for k, v in weights.items()},
        tmp_path / "t5" / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(CheckpointMismatch, match="tokens, but 100 embeddings"):
        load_music(checkpoints.music, text_encoder=str(tmp_path / "t5"))


@pytest.mark.parametrize("source", ["owner/a..b", "owner/" + "x" * 97, "owner/a.git"])
def test_a_name_that_the_hub_refuses(source: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointNotFound, match=re.escape(source)):
        load_music(source)


def write_changed(checkpoints: Checkpoints, folder: Path, change: object) -> Path:
    package = torch.load(checkpoints.music / "state_dict.bin", weights_only=True)
    change(package)
    torch.save(package, folder / "state_dict.bin")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("best_state"), "has no key 'best_state'"),
        (lambda p: p.pop("xp.cfg"), "has no key 'xp.cfg'"),
        (lambda p: p["best_state"].pop("emb.0.weight"), r"Missing key.*emb\.0\.weight"),
        (lambda p: p["best_state"].update(odd=torch.ones(1)), "Unexpected key.*odd"),
        (lambda p: p["best_state"].update({"emb.0.weight": torch.ones(2, 2)}), "size mismatch"),
        (lambda p: p.update(best_state=None), "does not fit"),
        (lambda p: p.update(best_state=[1]), "does not fit"),
        (lambda p: p.update({"xp.cfg": "a: [b"}), "not a configuration"),
        (lambda p: p.update({"xp.cfg": 7}), "not a configuration|another kind"),
        (lambda p: p.update({"xp.cfg": p["xp.cfg"].replace("dim: 64", "dim: -1")}), "not build"),
        (
            lambda p: p.update(
                {"xp.cfg": p["xp.cfg"].replace("num_layers: 4", "num_layers: ${x}")}
            ),
            "not build",
        ),
        (
            lambda p: p.update({"xp.cfg": "lm_model: none\ntransformer_lm: {}"}),
            "cannot build a model",
        ),
    ],
)
def test_mismatched_file(checkpoints: Checkpoints, tmp_path: Path, change: object, message: str):
    with pytest.raises(CheckpointMismatch, match=f"(?s)state_dict.bin.*{message}"):
        load_music(write_changed(checkpoints, tmp_path, change))


def test_wrong_kind(checkpoints: Checkpoints, tmp_path: Path):
    file = tmp_path / "state_dict.bin"
    file.write_bytes((checkpoints.codec / "compression_state_dict.bin").read_bytes())
    with pytest.raises(CheckpointMismatch, match="no 'transformer_lm'"):
        load_music(tmp_path)


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.99])
def test_truncated_file(checkpoints: Checkpoints, tmp_path: Path, keep: float):
    whole = (checkpoints.music / "state_dict.bin").read_bytes()
    length = keep if isinstance(keep, int) else int(keep * len(whole))
    (tmp_path / "state_dict.bin").write_bytes(whole[:length])
    with pytest.raises(CheckpointUnreadable, match=r"state_dict\.bin: truncated"):
        load_music(tmp_path)


def test_random_damage_is_always_a_typed_error(checkpoints: Checkpoints, tmp_path: Path):
    whole = pickle.dumps({"best_state": {"a": [1, 2.0, "x"]}, "xp.cfg": "a: 1"}, protocol=2)
    draw = random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        (tmp_path / "state_dict.bin").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"state_dict\.bin"):
            load_music(tmp_path)


def test_a_pickle_runs_no_code(tmp_path: Path):
    witness = tmp_path / "witness"

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(witness),)

    (tmp_path / "state_dict.bin").write_bytes(pickle.dumps({"best_state": Attack()}))
    with pytest.raises(CheckpointUnreadable):
        load_music(tmp_path)
    torch.save({"best_state": Attack()}, tmp_path / "state_dict.bin")
    with pytest.raises(CheckpointUnreadable):
        load_music(tmp_path)
    assert not witness.exists()
