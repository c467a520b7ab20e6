"""Reading AudioCraft's published checkpoints (`audiocraft/models/loaders.py`, 1.3.0).

A file holds `{'best_state': tensors, 'xp.cfg': YAML, ...}`. Files are read with
`weights_only`, so that none of their code runs, and loaded strictly.
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
# (`MultiBandDiffusion.get_mbd_musicgen`); these and no others may be built.
OMEGACONF_NODES = [
    DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode,
    tp.Any, dict, list, int, float, defaultdict,
]  # fmt: skip

# What building a module from a broken configuration, or reading a broken file, may raise.
BUILD_ERRORS = (
    OmegaConfBaseException, AssertionError, AttributeError, KeyError, TypeError, RuntimeError,
    ValueError,
)  # fmt: skip
READ_ERRORS = (
    RuntimeError, EOFError, pickle.UnpicklingError, ValueError, OSError, LookupError, TypeError,
    AttributeError,
)  # fmt: skip
HUB_ERRORS = (HfHubHTTPError, httpx.HTTPError, OSError, ValueError)


def fetch(source: str, filename: str) -> Path:
    """Return the path of one file of a checkpoint, downloaded into the hub's cache if need be."""
    folder = locate(source)
    if folder is not None:
        path = folder / filename
        if not path.is_file():
            raise CheckpointNotFound(f"{path}: no such file")
        return path
    try:
        return Path(hf_hub_download(source, filename))
    except HUB_ERRORS as error:
        reason = f"not had from the hub: {first_line(error)}"
        raise CheckpointNotFound(f"{source}/{filename}: {reason}") from error


def read(path: Path) -> dict[tp.Any, tp.Any]:
    """Read one checkpoint file without running any code in it."""
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


def entry(package: dict[tp.Any, tp.Any], key: str | int, path: Path) -> tp.Any:
    """Return `package[key]`, or say which key the file lacks."""
    if key not in package:
        raise CheckpointMismatch(f"{path}: has no key {key!r}, only {sorted(map(str, package))}")
    return package[key]


def config(package: dict[tp.Any, tp.Any], section: str, path: Path) -> DictConfig:
    """Return the training configuration in `xp.cfg`; `section` is the key its kind must have."""
    text = entry(package, "xp.cfg", path)
    try:
        cfg = OmegaConf.create(text)
    except (OmegaConfBaseException, yaml.YAMLError, TypeError) as error:
        raise CheckpointMismatch(f"{path}: 'xp.cfg' is no configuration: {error}") from error
    if not isinstance(cfg, DictConfig) or section not in cfg:
        raise CheckpointMismatch(f"{path}: 'xp.cfg' has no {section!r}: a model of another kind")
    return cfg


def load_strictly(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load `state`, whose keys and shapes must be exactly the model's."""
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

    `dtype` is a torch name, such as "float32". `text_encoder` is a source for T5, instead of
    the one that the checkpoint names. With `stem_separation` a melody model takes drums and bass
    out of a melody by demucs, as AudioCraft does; without, it follows all of it. Raises a
    CheckpointError.
    """
    path = fetch(source, LANGUAGE_MODEL_FILE)
    package = read(path)
    cfg = config(package, "transformer_lm", path)
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
        reason = f"the stem separator's weights (htdemucs) were not had: {first_line(error)}"
        raise CheckpointNotFound(
            f"{path}: {reason}; stem_separation: false goes without"
        ) from error
    except BUILD_ERRORS as error:
        raise CheckpointMismatch(f"{path}: 'xp.cfg' does not build a model: {error}") from error
    load_strictly(model, entry(package, "best_state", path), path)
    model.cfg = cfg
    if "self_wav" in model.condition_provider.conditioners:
        # As MusicGen.get_pretrained sets it for inference.
        melody = model.condition_provider.conditioners["self_wav"]
        melody.match_len_on_eval, melody._use_masking = True, False
        if not stem_separation:
            melody._get_stemmed_wav = partial(_as_it_is, rate=melody.sample_rate)
    return model.eval()


def _as_it_is(audio: torch.Tensor, sample_rate: int, *, rate: int) -> torch.Tensor:
    """Return a melody, [B, C, T], mono and at the chroma's rate, with all that sounds in it."""
    converted: torch.Tensor = convert_audio(audio, sample_rate, rate, 1)
    return converted


class _NoSeparator(nn.Module):
    """Stands for demucs in a melody model that separates no stems."""

    sources = ("drums", "bass", "other", "vocals")


@contextmanager
def without_stem_separator() -> Iterator[None]:
    """Build melody models without demucs, whose weights come from elsewhere."""
    get_model = demucs.pretrained.get_model
    demucs.pretrained.get_model = lambda _name: _NoSeparator()
    try:
        yield
    finally:
        demucs.pretrained.get_model = get_model


def load_codec(source: str, *, device: str, follow: bool = True) -> CompressionModel:
    """Load an EnCodec, in AudioCraft's format or in transformers'. Raises a CheckpointError.

    A file may hold only the name of another codec; one such step is followed.
    """
    folder = locate(source)
    try:
        path = fetch(source, CODEC_FILE)
    except CheckpointNotFound as missing:
        if folder is None or (folder / "config.json").is_file():
            return _load_transformers_codec(source, device, missing)
        raise
    package = read(path)
    if "pretrained" in package and follow:
        # As CompressionSolver.model_from_checkpoint strips it.
        target = str(package["pretrained"]).removeprefix("//pretrained/")
        return load_codec(target, device=device, follow=False)
    cfg = config(package, "encodec", path)
    cfg.device = device
    try:
        model = builders.get_compression_model(cfg)
    except BUILD_ERRORS as error:
        raise CheckpointMismatch(f"{path}: 'xp.cfg' does not build a codec: {error}") from error
    load_strictly(model, entry(package, "best_state", path), path)
    return model.eval()


def _load_transformers_codec(
    source: str, device: str, missing: CheckpointNotFound
) -> CompressionModel:
    """Load a codec that transformers published, such as facebook/encodec_24khz."""
    try:
        model, report = EncodecModel.from_pretrained(
            locate(source) or source, output_loading_info=True
        )
    except (*HUB_ERRORS, RuntimeError, SafetensorError) as error:
        reason = f"nor as a transformers model: {first_line(error)}"
        raise CheckpointNotFound(f"{missing}; {reason}") from error
    if any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")):
        raise CheckpointMismatch(f"{source}: weights do not fit: {report}")
    return HFEncodecCompressionModel(model).to(device).eval()


def load_diffusion(
    source: str, filename: str, *, device: str
) -> tuple[list[nn.Module], list[nn.Module], list[DictConfig]]:
    """Load multi-band diffusion: a U-Net, a sample processor and a configuration a band.

    `filename` is `DIFFUSION_FILE` or "mbd_comp_{2,4,8}.pt" as published.
    Raises a CheckpointError.
    """
    path = fetch(source, filename)
    package = read(path)
    sample_rate = entry(package, "sample_rate", path)
    models, processors, configs = [], [], []
    for number in range(entry(package, "n_bands", path)):
        band = entry(package, number, path)
        cfg = entry(band, "cfg", path)
        try:
            model = builders.get_diffusion_model(cfg)
            processor = builders.get_processor(cfg.processor, sample_rate)
        except BUILD_ERRORS as error:
            raise CheckpointMismatch(f"{path}: band {number} does not build: {error}") from error
        load_strictly(model, entry(band, "model_state", path), path)
        load_strictly(processor, entry(band, "processor_state", path), path)
        models.append(model.to(device).eval())
        processors.append(processor.to(device))
        configs.append(cfg)
    return models, processors, configs
