"""docs/models.md serves every family that is tested, and its figures are those of the code."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import yaml
from audiocraft.models import builders
from audiocraft.models.lm import LMModel

from benchmarks.shapes import SHAPES, build_config, build_language_model
from deployments.settings import EnCodecSettings, EngineArgs, TokenModelSettings
from engine.cache import page_bytes
from engine.codec import Codec
from engine.engine import EngineSettings
from engine.language_model import CPU_CACHE_GB, LanguageModel
from engine.page_table import PAGE as PAGE_POSITIONS
from engine.page_table import count_pages
from engine.sources import BUNDLES
from graph.settings import AppArgs
from launch.config_file import read_config_file
from tests.conftest import Checkpoints
from tests.docs.pages import ROOT, blocks, named, page, rows, sections
from tests.families import FAMILIES, Family, codec_config, write_family

PAGE = page("models.md")
EXAMPLES = [AppArgs.model_validate(yaml.safe_load(block)) for block in blocks(PAGE, "yaml")]
MODELS = {model.name: model for args in EXAMPLES for model in args.models}
CODEBOOKS, CARDINALITY, LAST_DELAY = 4, 2048, 3
MELODY_FRAMES, TEXT_TOKENS = 235, EngineArgs().max_text_tokens
PUBLISHED = {"small": "300M", "medium": "1.5B", "large": "3.3B"}


def shape_of(name: str) -> str:
    return next((one for one in ("small", "large") if name.endswith(one)), "medium")


def positions_of(family: Family) -> int:
    prefix = MELODY_FRAMES + TEXT_TOKENS if family.melody else 0
    return prefix + int(family.seconds * 50) + LAST_DELAY


def page_mb(name: str, precision: str) -> float:
    layers, width, _ = SHAPES[shape_of(name)]
    lm = SimpleNamespace(transformer=SimpleNamespace(layers=[None] * layers), dim=width)
    return page_bytes(cast(LMModel, lm), precision) / 1e6


def largest_pages(name: str) -> int:
    return EngineSettings(max_positions=positions_of(FAMILIES[name])).largest_request


def largest_mb(name: str, precision: str) -> float:
    return largest_pages(name) * page_mb(name, precision)


def numbers(name: str, codebooks: int) -> int:
    """Weights of attention, to itself and to the text, feed-forward, embeddings and heads."""
    layers, width, _ = SHAPES[shape_of(name)]
    return width * (16 * layers * width + codebooks * (2 * CARDINALITY + 1))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_its_figures(name: str):
    family = FAMILIES[name]
    told = {named(row[0])[0]: row[1:] for row in rows(sections(PAGE)["Language models"])}
    weights = 2 * numbers(name, CODEBOOKS * (1 + family.stereo)) / 1e9
    assert told[name] == [
        PUBLISHED[shape_of(name)],
        f"{family.sample_rate // 1000} kHz",
        f"{family.seconds:g} s",
        "yes" if family.melody else "",
        "yes" if family.stereo else "",
        f"{weights:.1f}",
        f"{largest_mb(name, 'float16'):.0f}",
        f"{largest_mb(name, 'float32'):.0f}",
    ]


def test_weights_are_those_of_audiocrafts_module():
    model = build_language_model("mini")
    layers, width, _ = SHAPES["mini"]
    counted = sum(parameter.numel() for parameter in model.parameters())
    computed = width * (16 * layers * width + CODEBOOKS * (2 * CARDINALITY + 1))
    assert counted == pytest.approx(computed, rel=0.01)
    assert build_config("mini").transformer_lm.n_q == CODEBOOKS


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_the_lines_that_serve_it(name: str):
    model, family = MODELS[name], FAMILIES[name]
    assert isinstance(model, TokenModelSettings)
    assert (model.kind, model.checkpoint) == (family.kind, f"facebook/{name}")
    codec = MODELS[model.codec]
    assert isinstance(codec, EnCodecSettings)
    assert codec.stereo is family.stereo
    rates = {named(row[0])[0]: row[1] for row in rows(sections(PAGE)["Codecs: EnCodec"])}
    assert rates[codec.checkpoint] == f"{family.sample_rate // 1000} kHz"


def test_published_weights_are_not_for_commerce():
    licences = {m.license for m in MODELS.values() if m.checkpoint.startswith("facebook/")}
    assert licences == {"CC-BY-NC-4.0", None}
    assert {m.name for m in MODELS.values() if m.license is None} == {"encodec-24khz"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["musicgen-melody", "musicgen-stereo-small", "audiogen-medium"])
def test_the_cache_has_pages_for_the_largest_request(
    name: str, checkpoints: Checkpoints, tmp_path: Path
):
    torch.manual_seed(0)
    family = write_family(name, checkpoints.text_encoder, tmp_path)
    settings = EngineSettings(max_slots=1, max_text_tokens=TEXT_TOKENS)
    model = LanguageModel.load(
        str(tmp_path), settings, device="cpu", frame_rate=50, stride_seconds=2
    )
    try:
        cache, largest = model.loop.engine.decoder.cache, largest_pages(name)
        assert cache.pages.number == cache.pool.shape[2] == largest
        assert largest == 2 * count_pages(positions_of(family)) + TEXT_TOKENS // PAGE_POSITIONS
    finally:
        model.loop.close()


def pages_of(name: str, gigabytes: float, precision: str) -> int:
    most = EngineArgs().max_slots * largest_pages(name)
    return min(most, int(gigabytes * 1000 / page_mb(name, precision)))


def test_the_shipped_file_has_so_many_pages():
    shipped = read_config_file(ROOT / "serve_config.gpu.yaml")["applications"][0]["args"]["models"]
    engines: dict[str, Any] = {one["name"]: one["engine"] for one in shipped if "engine" in one}
    table = rows(sections(PAGE)["Memory and pages"])
    assert {named(row[0])[0]: float(row[1]) for row in table} == {
        name: engine["cache_gb"] for name, engine in engines.items()
    }
    for name, gigabytes, *told in ((named(row[0])[0], float(row[1]), *row[2:]) for row in table):
        pages = pages_of(name, gigabytes, "float16")
        assert [int(one) for one in told] == [
            pages,
            largest_pages(name),
            pages // largest_pages(name),
        ]
    of_cpu = [pages_of("musicgen-small", CPU_CACHE_GB, one) for one in ("float32", "int8")]
    assert "musicgen-small has {} pages in float32 and {} in int8".format(*of_cpu) in " ".join(
        PAGE.split()
    )


def test_the_bundle_is_as_large_as_told():
    weights = {".bin", ".th", ".safetensors", ".model"}
    files = [path for path in BUNDLES.rglob("*") if path.suffix in weights]
    total = sum(path.stat().st_size for path in files)
    assert f"All of it has {total / 1e6:.0f} MB" in PAGE


def test_a_codec_that_normalises_is_refused():
    cfg = codec_config(16000)
    cfg.encodec.renormalize = True
    with pytest.raises(TypeError, match="normalises"):
        Codec(builders.get_compression_model(cfg))
