"""Tests that the joined pieces of a codec's networks equal AudioCraft's single pass."""

from collections.abc import Sequence

import pytest
import torch
from audiocraft.models import builders
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel

from bundles.tiny.recipe import codec_config
from engine import codec_stream
from tests.parity import Parity

FRAMES = 24
SMALL = {"num_filters": 4, "hidden_size": 16, "codebook_dim": 16}


def build_audiocraft_networks(
    *, causal: bool, pad_mode: str, residuals: int
) -> tuple[nn.Module, nn.Module]:
    cfg = codec_config()
    cfg.encodec.causal, cfg.seanet.pad_mode = causal, pad_mode
    cfg.seanet.n_residual_layers = residuals
    model = builders.get_compression_model(cfg).eval()
    return model.encoder, model.decoder


def build_transformers_networks(**changes: object) -> tuple[nn.Module, nn.Module]:
    model = EncodecModel(EncodecConfig(**(SMALL | changes))).eval()
    return model.encoder, model.decoder


NETWORKS = {
    "AudioCraft's 16 and 32 kHz": lambda: build_audiocraft_networks(
        causal=False, pad_mode="constant", residuals=1
    ),
    "causal, reflecting": lambda: build_audiocraft_networks(
        causal=True, pad_mode="reflect", residuals=1
    ),
    "reflecting on both sides": lambda: build_audiocraft_networks(
        causal=False, pad_mode="reflect", residuals=3
    ),
    "transformers' 24 kHz": build_transformers_networks,
    "transformers' 32 kHz": lambda: build_transformers_networks(
        use_causal_conv=False, pad_mode="constant", use_conv_shortcut=False
    ),
}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def networks(name: str) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return NETWORKS[name]()


@torch.inference_mode()
def run_in_pieces(network: nn.Module, inputs: Tensor, cuts: Sequence[int]) -> Tensor:
    """Run the network on the inputs between the cuts, piece by piece; join the outputs."""
    layers = codec_stream.build_layers(getattr(network, "model", None) or network.layers)
    state: codec_stream.State = {}
    made = []
    for start, end in zip([0, *cuts], [*cuts, inputs.shape[-1]], strict=True):
        kept: dict[str, Tensor] = {}
        ended = end == inputs.shape[-1]
        made.append(codec_stream.run_layers(layers, inputs[..., start:end], state, kept, ended))
        state = kept
    return torch.cat(made, -1)


@settings(max_examples=20, deadline=None)
@given(cuts=st.sets(st.integers(1, FRAMES - 1)), items=st.integers(1, 2))
def test_decoder(
    name: str,
    networks: tuple[nn.Module, nn.Module],
    parity: Parity,
    cuts: set[int],
    items: int,
):
    _, decoder = networks
    latent = torch.randn(items, 64 if hasattr(decoder, "model") else 16, FRAMES)
    with torch.inference_mode():
        whole = decoder(latent)
    made = run_in_pieces(decoder, latent, sorted(cuts))
    what = "decoder in random pieces, of the largest sample"
    assert parity(f"EnCodec's network, {name}", what, made, whole, float(whole.abs().max())) <= 1e-5


@pytest.mark.parametrize("samples", [320 * 40, 320 * 40 + 17, 320 * 40 - 1])
def test_encoder(name: str, networks: tuple[nn.Module, nn.Module], parity: Parity, samples: int):
    """The encoder is equal too if the last frame must be padded."""
    encoder, _ = networks
    audio = torch.randn(1, 1, samples)
    with torch.inference_mode():
        whole = encoder(audio)
    made = run_in_pieces(encoder, audio, [3200, 3520, 9600])
    what = "encoder in pieces, of the largest value"
    assert parity(f"EnCodec's network, {name}", what, made, whole, float(whole.abs().max())) <= 1e-5


def test_a_first_chunk_gives_all_but_what_it_cannot_know():
    """The lookahead is 3 frames in the first layer and less than one frame in the others."""
    _, decoder = NETWORKS["AudioCraft's 16 and 32 kHz"]()
    layers = codec_stream.build_layers(decoder.model)
    with torch.inference_mode():
        made = codec_stream.run_layers(layers, torch.randn(1, 64, 10), {}, {}, ended=False)
    assert 6 * 320 < made.shape[-1] < 7 * 320


def test_what_depends_on_everything_is_refused():
    encoder, _ = build_transformers_networks(norm_type="time_group_norm")
    with pytest.raises(TypeError, match="EncodecConv1d cannot be run piece by piece"):
        codec_stream.build_layers(encoder.layers)
