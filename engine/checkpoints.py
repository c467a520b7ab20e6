"""Loads AudioCraft's published checkpoints (`audiocraft/models/loaders.py`, 1.3.0).

A file holds `{'best_state': tensors, 'xp.cfg': YAML, ...}`. It is read with `weights_only`, so that
no code in it can run, and every key must fit the model.
"""

import pickle
import typing as tp
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from urllib.error import URLError

import demucs.pretrained
import httpx
import torch
import yaml
from audiocraft.data.audio_utils import convert_audio
from audiocraft.models import builders
from audiocraft.models.encodec import CompressionModel, HFEncodecCompressionModel
from audiocraft.models.lm import LMModel
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.base import ContainerMetadata, Metadata
from omegaconf.errors import OmegaConfBaseException
from omegaconf.nodes import AnyNode
from safetensors import SafetensorError
from torch import nn
from transformers import EncodecModel

from engine.conditioning import use_text_encoder
from engine.errors import (
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnreadable,
    first_line,
)
from engine.sources import locate

LANGUAGE_MODEL_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"
DIFFUSION_FILE = "mbd_musicgen_32khz.th"

# Multi-band diffusion files pickle OmegaConf nodes beside their tensors
# (`MultiBandDiffusion.get_mbd_musicgen`); only these classes may be unpickled.
OMEGACONF_NODES = [
    DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode,
    tp.Any, dict, list, int, float, defaultdict,
]  # fmt: skip

# The exceptions that a broken configuration and a broken file can cause.
BUILD_ERRORS = (
    OmegaConfBaseException, AssertionError, AttributeError, KeyError, TypeError, RuntimeError,
    ValueError,
)  # fmt: skip
READ_ERRORS = (
    RuntimeError, EOFError, pickle.UnpicklingError, ValueError, OSError, LookupError, TypeError,
    AttributeError,
)  # fmt: skip
HUB_ERRORS = (HfHubHTTPError, httpx.HTTPError, OSError, ValueError)


def fetch_file(source: str, filename: str) -> Path:
    """Return the path of a checkpoint's file; download it into the hub's cache if needed.

    Raises CheckpointNotFound.
    """
    folder = locate(source)
    if folder is not None:
        path = folder / filename
        if not path.is_file():
            raise CheckpointNotFound(f"{path}: no such file")
        return path
    try:
        return Path(hf_hub_download(source, filename))
    except HUB_ERRORS as error:
        reason = f"cannot be downloaded from the hub: {first_line(error)}"
        raise CheckpointNotFound(f"{source}/{filename}: {reason}") from error


def read_checkpoint(path: Path) -> dict[tp.Any, tp.Any]:
    """Read a checkpoint file without running code in it. Raises a CheckpointError."""
    try:
        with torch.serialization.safe_globals(OMEGACONF_NODES):
            mapped = zipfile.is_zipfile(path)
            package = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except READ_ERRORS as error:
        reason = f"truncated or not a checkpoint: {first_line(error)}"
        raise CheckpointUnreadable(f"{path}: {reason}") from error
    if not isinstance(package, dict):
        raise CheckpointMismatch(f"{path}: holds a {type(package).__name__}, not a dictionary")
    return package


def get_entry(package: dict[tp.Any, tp.Any], key: str | int, path: Path) -> tp.Any:
    """Return `package[key]`; raise CheckpointMismatch if the key is missing."""
    if key not in package:
        raise CheckpointMismatch(f"{path}: has no key {key!r}, only {sorted(map(str, package))}")
    return package[key]


def read_config(package: dict[tp.Any, tp.Any], section: str, path: Path) -> DictConfig:
    """Return the training configuration in `xp.cfg`, which must have the key `section`."""
    text = get_entry(package, "xp.cfg", path)
    try:
        cfg = OmegaConf.create(text)
    except (OmegaConfBaseException, yaml.YAMLError, TypeError) as error:
        raise CheckpointMismatch(f"{path}: 'xp.cfg' is not a configuration: {error}") from error
    if not isinstance(cfg, DictConfig) or section not in cfg:
        raise CheckpointMismatch(f"{path}: 'xp.cfg' has no {section!r}: a model of another kind")
    return cfg


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load `state` into a model; raise CheckpointMismatch if a key or a shape differs."""
    try:
        model.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise CheckpointMismatch(f"{path}: 'best_state' does not fit: {error}") from error


def load_language_model(
    source: str,
    *,
    device: str,
    dtype: str,
    text_encoder: str | None = None,
    stem_separation: bool = False,
) -> LMModel:
    """Load a MusicGen or AudioGen language model with its conditioners, ready to generate.

    `dtype` is a torch name, such as "float32". `text_encoder` is a source for T5 and replaces the
    one that the checkpoint names. With `stem_separation`, a melody model removes drums and bass
    from a melody with demucs, as AudioCraft does; otherwise it follows the whole mix. Raises a
    CheckpointError.
    """
    path = fetch_file(source, LANGUAGE_MODEL_FILE)
    package = read_checkpoint(path)
    cfg = read_config(package, "transformer_lm", path)
    cfg.device, cfg.dtype = device, dtype
    for training_only in (
        "conditioners.self_wav.chroma_stem.cache_path",
        "conditioners.args.merge_text_conditions_p",
        "conditioners.args.drop_desc_p",
    ):
        parent, _, key = training_only.rpartition(".")
        (OmegaConf.select(cfg, parent) or {}).pop(key, None)
    try:
        use_text_encoder(cfg, text_encoder)
        with nullcontext() if stem_separation else without_stem_separator():
            model = builders.get_lm_model(cfg)
    except URLError as error:
        reason = f"cannot download the stem separator's weights (htdemucs): {first_line(error)}"
        raise CheckpointNotFound(
            f"{path}: {reason}; with stem_separation: false they are not needed"
        ) from error
    except BUILD_ERRORS as error:
        raise CheckpointMismatch(f"{path}: cannot build a model from 'xp.cfg': {error}") from error
    load_strictly(model, get_entry(package, "best_state", path), path)
    model.cfg = cfg
    if "self_wav" in model.condition_provider.conditioners:
        # MusicGen.get_pretrained sets these values for inference.
        melody = model.condition_provider.conditioners["self_wav"]
        melody.match_len_on_eval, melody._use_masking = True, False
        if not stem_separation:
            melody._get_stemmed_wav = partial(_keep_all_stems, rate=melody.sample_rate)
    return model.eval()


def _keep_all_stems(audio: torch.Tensor, sample_rate: int, *, rate: int) -> torch.Tensor:
    """Convert a melody [B, C, T] to mono at the chroma's rate, without removing any stem."""
    converted: torch.Tensor = convert_audio(audio, sample_rate, rate, 1)
    return converted


class _NoSeparator(nn.Module):
    """A placeholder for demucs in melody models without stem separation."""

    sources = ("drums", "bass", "other", "vocals")


@contextmanager
def without_stem_separator() -> Iterator[None]:
    """Build melody models inside this context without downloading demucs."""
    get_model = demucs.pretrained.get_model
    demucs.pretrained.get_model = lambda _name: _NoSeparator()
    try:
        yield
    finally:
        demucs.pretrained.get_model = get_model


def load_codec(source: str, *, device: str, follow: bool = True) -> CompressionModel:
    """Load an EnCodec in AudioCraft's or transformers' format. Raises a CheckpointError.

    A file may hold only the name of another codec; one such reference is followed.
    """
    folder = locate(source)
    try:
        path = fetch_file(source, CODEC_FILE)
    except CheckpointNotFound as missing:
        if folder is None or (folder / "config.json").is_file():
            return _load_transformers_codec(source, device, missing)
        raise
    package = read_checkpoint(path)
    if "pretrained" in package and follow:
        # CompressionSolver.model_from_checkpoint removes the same prefix.
        target = str(package["pretrained"]).removeprefix("//pretrained/")
        return load_codec(target, device=device, follow=False)
    cfg = read_config(package, "encodec", path)
    cfg.device = device
    try:
        model = builders.get_compression_model(cfg)
    except BUILD_ERRORS as error:
        raise CheckpointMismatch(f"{path}: cannot build a codec from 'xp.cfg': {error}") from error
    load_strictly(model, get_entry(package, "best_state", path), path)
    return model.eval()


def _load_transformers_codec(
    source: str, device: str, missing: CheckpointNotFound
) -> CompressionModel:
    """Load a codec in transformers' format, such as facebook/encodec_24khz."""
    try:
        model, report = EncodecModel.from_pretrained(
            locate(source) or source, output_loading_info=True
        )
    except (*HUB_ERRORS, RuntimeError, SafetensorError) as error:
        reason = f"and it is not a transformers model: {first_line(error)}"
        raise CheckpointNotFound(f"{missing}; {reason}") from error
    if any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise CheckpointMismatch(f"{source}: weights do not fit: {report}")
    return HFEncodecCompressionModel(model).to(device).eval()


def load_diffusion(
    source: str, filename: str, *, device: str
) -> tuple[list[nn.Module], list[nn.Module], list[DictConfig]]:
    """Load multi-band diffusion: the U-Net, sample processor and configuration of each band.

    `filename` is `DIFFUSION_FILE` or "mbd_comp_{2,4,8}.pt". Raises a CheckpointError.
    """
    path = fetch_file(source, filename)
    package = read_checkpoint(path)
    sample_rate = get_entry(package, "sample_rate", path)
    models, processors, configs = [], [], []
    for number in range(get_entry(package, "n_bands", path)):
        band = get_entry(package, number, path)
        cfg = get_entry(band, "cfg", path)
        try:
            model = builders.get_diffusion_model(cfg)
            processor = builders.get_processor(cfg.processor, sample_rate)
        except BUILD_ERRORS as error:
            raise CheckpointMismatch(f"{path}: band {number} cannot be built: {error}") from error
        load_strictly(model, get_entry(band, "model_state", path), path)
        load_strictly(processor, get_entry(band, "processor_state", path), path)
        models.append(model.to(device).eval())
        processors.append(processor.to(device))
        configs.append(cfg)
    return models, processors, configs
