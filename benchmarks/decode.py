"""One decode step of the musicgen-small shape: AudioCraft, transformers and this engine.

`python -m benchmarks.decode` prints a table, then one line of JSON. The systems take turns within
each round, so that a noisy machine slows them alike; figures are medians over rounds, at three
positions of a 10 s clip, weighted to its mean. Past keys and values are random; every step does
all of a step: both rows of guidance, the model, guidance, top-250 sampling.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from audiocraft.models.lm import LMModel
from transformers import MusicgenForCausalLM
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from benchmarks.shapes import language_model
from engine.cache import slot_bytes
from engine.conditioning import Conditions
from engine.engine import Engine, EngineSettings
from engine.params import GenerationParams
from engine.request import Request
from engine.sampling import filtered
from engine.sequence import Sequence, Windowing

POSITIONS = {0: 1, 250: 2, 500: 1}
"""Weighted so that the mean is that over positions 0 to 500."""
TEXT_TOKENS = 26
FRAME_RATE = 50
Step = Callable[[], None]


def audiocraft_step(lm: LMModel, requests: int, position: int) -> Step:
    """Return AudioCraft's own step, with a past of `position` in its streaming state."""
    text = torch.randn(requests, TEXT_TOKENS, lm.dim)
    source = torch.cat([text, torch.zeros_like(text)])
    conditions = {"description": (source, torch.ones(2 * requests, TEXT_TOKENS))}
    column = torch.randint(0, lm.card, (requests, lm.n_q, 1))

    def step() -> None:
        lm._sample_next_token(column, conditions, {}, use_sampling=True, top_k=250, cfg_coef=3.0)

    lm._set_streaming(True)
    lm.reset_streaming()
    step()
    for layer in lm.transformer.layers:
        state = layer.self_attn._streaming_state
        for key in ("past_keys", "past_values"):
            batch, heads, _, width = state[key].shape
            state[key] = torch.randn(batch, heads, max(position, 1), width)
    return step


def transformers_step(model: MusicgenForCausalLM, requests: int, position: int) -> Step:
    """Return transformers' step, with the same past."""
    width, books = model.config.hidden_size, model.config.num_codebooks
    text = torch.randn(requests, TEXT_TOKENS, width)
    source = torch.cat([text, torch.zeros_like(text)])
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    column = torch.randint(0, model.config.vocab_size, (2 * requests * books, 1))

    def step() -> None:
        output = model(column, encoder_hidden_states=source, past_key_values=cache, use_cache=True)
        conditional, null = output.logits.view(2, requests, books, -1)
        for logits in null + (conditional - null) * 3.0:
            torch.multinomial(filtered(logits, 1.0, 250, 0.0), 1)

    step()
    for layer in cache.self_attention_cache.layers:
        batch, heads, _, size = layer.keys.shape
        layer.keys, layer.values = torch.randn(2, batch, heads, max(position, 1), size)
    return step


def engine_step(engine: Engine, requests: int, position: int) -> Step:
    """Return the engine's step, for requests that have come to `position`."""
    decoder = engine.decoder
    for request in list(engine.scheduler.running.values()):
        engine.cancel(request)
    windowing = Windowing([0, 1, 2, 3], decoder.special, 1000, 900)
    conditions = Conditions(torch.randn(TEXT_TOKENS, decoder.width), None)
    for number in range(requests):
        prompt = np.random.default_rng(number).integers(0, decoder.cardinality, (4, position))
        sequence = Sequence(windowing, 900, prompt)
        request = Request(GenerationParams("", 900, number), conditions, sequence)
        engine.scheduler.add(request)
        request.fed = position
    return lambda: assert_all(len(engine.step()), requests)


def assert_all(got: int, expected: int) -> None:
    """Assert that every request took part in the step."""
    assert got == expected


def milliseconds(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """Time the systems in turn; return each one's median."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if number:  # the first round warms up
                taken[name].append(1000 * (time.perf_counter() - begun))
    return {name: statistics.median(values) for name, values in taken.items()}


def bandwidth() -> float:
    """Return the bytes a second that this process reads from memory."""
    block = torch.ones(250_000_000)
    best = min(
        milliseconds({"sum": lambda: assert_all(int(block.sum()), len(block))}, 1)["sum"]
        for _ in range(3)
    )
    return block.nbytes / best * 1000


def weight_bytes(lm: LMModel, precision: str) -> int:
    """Return the bytes of weights that a step reads."""
    numbers = sum(p.numel() for p in (*lm.transformer.parameters(), *lm.linears.parameters()))
    each = {"float32": 4, "bfloat16": 2, "int8": 1}[precision]
    return int(numbers) * each


def measure(
    precision: str, batches: list[int], rounds: int, speed: float
) -> list[dict[str, object]]:
    """Return a row for each number of requests, in one precision of the engine's."""
    lm = language_model("small")
    settings = EngineSettings(
        max_slots=max(batches), max_positions=540, max_text_tokens=32, precision=precision
    )
    engine = Engine(lm, settings)
    others: dict[str, Callable[[int, int], Step]] = {}
    if precision == "float32":
        config = MusicgenDecoderConfig(
            vocab_size=lm.card, num_hidden_layers=24, ffn_dim=4096, num_attention_heads=16,
            hidden_size=1024, num_codebooks=4, max_position_embeddings=2048,
        )  # fmt: skip
        model = MusicgenForCausalLM(config).eval()
        others["transformers"] = lambda b, p: transformers_step(model, b, p)
    rows: list[dict[str, object]] = []
    for batch in batches:
        at: dict[int, dict[str, float]] = {}
        for position in POSITIONS:
            steps = {
                "audiocraft": audiocraft_step(lm, batch, position),
                **{name: make(batch, position) for name, make in others.items()},
                "engine": engine_step(engine, batch, position),
            }
            at[position] = milliseconds(steps, rounds)
            lm.reset_streaming()
            gc.collect()
        total = sum(POSITIONS.values())
        mean = {
            name: sum(at[p][name] * weight for p, weight in POSITIONS.items()) / total
            for name in at[0]
        }
        cache = slot_bytes(lm, 250, TEXT_TOKENS, precision) * batch
        row = {"precision": precision, "requests": batch}
        row |= {f"{name}_ms": round(value, 1) for name, value in mean.items()}
        row |= {
            "ratio": round(mean["audiocraft"] / mean["engine"], 2),
            "audio_s_per_s": round(batch / mean["engine"] * 1000 / FRAME_RATE, 3),
            "floor_ms": round(1000 * (weight_bytes(lm, precision) + cache) / speed, 1),
        }
        print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure each precision in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16", "int8"])
    parser.add_argument("--requests", nargs="+", type=int, default=[1, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    with torch.inference_mode():
        speed = bandwidth()
        rows = [
            row
            for precision in arguments.precisions
            for row in measure(precision, arguments.requests, arguments.rounds, speed)
        ]
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
    print(json.dumps({"machine": machine, "read_gb_per_s": round(speed / 1e9, 1), "rows": rows}))


if __name__ == "__main__":
    main()
