"""Builds a complete decode step of each compared system, at a given position."""

from collections.abc import Callable

import numpy as np
import torch
from audiocraft.models.lm import LMModel
from audiocraft.utils.utils import sample_top_k
from transformers import MusicgenForCausalLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from engine.conditioning import Conditions
from engine.engine import Engine
from engine.params import GenerationParams
from engine.request import Request
from engine.sequence import Sequence, Windowing

TEXT_TOKENS = 26
MORE_FRAMES = 32
"""The frames that an engine's requests still have to generate, at most so many steps."""
Step = Callable[[], None]


def make_audiocraft_step(lm: LMModel, requests: int, position: int) -> Step:
    """Return AudioCraft's step, with a past of `position` steps in its streaming state."""
    device = next(lm.parameters()).device
    text = torch.randn(requests, TEXT_TOKENS, lm.dim, device=device)
    mask = torch.ones(2 * requests, TEXT_TOKENS, device=device)
    conditions = {"description": (torch.cat([text, torch.zeros_like(text)]), mask)}
    column = torch.randint(0, lm.card, (requests, lm.n_q, 1), device=device)
    half = device.type == "cuda"

    def step() -> None:
        with torch.autocast(device.type, torch.float16, enabled=half):
            lm._sample_next_token(
                column, conditions, {}, use_sampling=True, top_k=250, cfg_coef=3.0
            )

    lm._set_streaming(True)
    lm.reset_streaming()
    step()
    for layer in lm.transformer.layers:
        state = layer.self_attn._streaming_state
        for key in ("past_keys", "past_values"):
            batch, heads, _, width = state[key].shape
            shape = (batch, heads, max(position, 1), width)
            state[key] = torch.randn(shape, device=device, dtype=state[key].dtype)
    return step


def build_transformers_model(lm: LMModel) -> MusicgenForCausalLM:
    """Build transformers' MusicGen decoder of the same shape, in float32."""
    layer = lm.transformer.layers[0]
    config = MusicgenDecoderConfig(
        vocab_size=lm.card,
        num_hidden_layers=len(lm.transformer.layers),
        ffn_dim=layer.linear1.out_features,
        num_attention_heads=layer.self_attn.num_heads,
        hidden_size=lm.dim,
        num_codebooks=lm.n_q,
    )
    return MusicgenForCausalLM(config).eval()


def make_transformers_step(model: MusicgenForCausalLM, requests: int, position: int) -> Step:
    """Return transformers' step, with a past of `position` steps in its cache."""
    width, books = model.config.hidden_size, model.config.num_codebooks
    text = torch.randn(requests, TEXT_TOKENS, width)
    source = torch.cat([text, torch.zeros_like(text)])
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    column = torch.randint(0, model.config.vocab_size, (2 * requests * books, 1))

    def step() -> None:
        output = model(column, encoder_hidden_states=source, past_key_values=cache, use_cache=True)
        conditional, null = output.logits.view(2, requests, books, -1)
        for logits in null + (conditional - null) * 3.0:
            sample_top_k(torch.softmax(logits, -1), 250)

    step()
    for layer in cache.self_attention_cache.layers:
        batch, heads, _, size = layer.keys.shape
        layer.keys, layer.values = torch.randn(2, batch, heads, max(position, 1), size)
    return step


def make_engine_step(engine: Engine, requests: int, position: int) -> Step:
    """Return the engine's step, for requests that have reached `position`."""
    decoder = engine.decoder
    for request in list(engine.scheduler.running.values()):
        engine.cancel_request(request)
    decoder.cache.pool.normal_()
    windowing = Windowing([0, 1, 2, 3], decoder.special, 2000, 1900)
    text = torch.randn(TEXT_TOKENS, decoder.width, device=decoder.device)
    for number in range(requests):
        prompt = np.random.default_rng(number).integers(0, decoder.cardinality, (4, position))
        sequence = Sequence(windowing, position + MORE_FRAMES, prompt)
        params = GenerationParams("", sequence.frames, number)
        request = Request(params, Conditions(text, None), sequence)
        engine.scheduler.add_request(request)
        request.fed = position

    def step() -> None:
        assert len(engine.step()) == requests

    return step


def weight_bytes(lm: LMModel, precision: str) -> int:
    """Return the bytes of weights that a step reads."""
    numbers = sum(p.numel() for p in (*lm.transformer.parameters(), *lm.linears.parameters()))
    each = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1}[precision]
    return int(numbers) * each
