"""Tests that each request gets the greedy codes that AudioCraft gives it alone, in float32."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import ConditioningAttributes, WavCondition

from engine import graphs
from engine.checkpoints import load_language_model
from engine.conditioning import build_attributes, encode_conditions
from engine.engine import Engine, EngineSettings
from engine.params import GenerationParams
from engine.request import Progress, Request
from engine.sequence import Sequence, Windowing
from tests import checkpoints as write
from tests.conftest import Checkpoints
from tests.parity import Parity

Codes = np.ndarray


def spread_logits(lm: LMModel) -> LMModel:
    """Spread an untrained model's logits, so that its greedy codes vary and ties are rare."""
    generator = torch.Generator().manual_seed(5)
    for weight in (*lm.transformer.parameters(), *lm.linears.parameters()):
        if weight.dim() > 1:
            noise = torch.randn(weight.shape, generator=generator).to(weight)
            weight.data += 0.3 * noise / lm.dim**0.5
    for table in lm.emb:
        table.weight.data *= 4
    return lm


@pytest.fixture(scope="module")
def lm(checkpoints: Checkpoints) -> LMModel:
    return spread_logits(load_language_model(str(checkpoints.music), device="cpu", dtype="float32"))


@dataclass(frozen=True)
class Case:
    """The description of a request that both AudioCraft and the engine can run."""

    text: str = "calm piano"
    frames: int = 30
    guidance: float = 3.0
    prompt: int = 0
    max_frames: int = 1000
    stride: int = 12

    def draw_prompt(self, lm: LMModel) -> Codes | None:
        draw = np.random.default_rng(self.prompt)
        return draw.integers(0, lm.card, (lm.n_q, self.prompt)) if self.prompt else None


def generate_with_audiocraft(lm: LMModel, case: Case, attributes: ConditioningAttributes) -> Codes:
    """Generate a request's codes with AudioCraft, in windows as `BaseGenModel._generate_tokens`."""
    prompt = case.draw_prompt(lm)
    device = next(lm.parameters()).device
    tokens = None if prompt is None else torch.from_numpy(prompt)[None].to(device)
    parts = [] if tokens is None else [tokens]
    offset, known = 0, case.prompt
    while offset + known < case.frames:
        codes = lm.generate(
            tokens,
            [attributes],
            max_gen_len=min(case.frames - offset, case.max_frames),
            use_sampling=False,
            cfg_coef=case.guidance,
        )
        parts.append(codes[:, :, known:])
        tokens = codes[:, :, case.stride :]
        known = tokens.shape[-1]
        offset += case.stride
    return torch.cat(parts, -1)[0].cpu().numpy()


def build_request(lm: LMModel, case: Case, attributes: ConditioningAttributes) -> Request:
    delays = lm.pattern_provider.delays
    windowing = Windowing(delays, lm.special_token_id, case.max_frames, case.stride)
    params = GenerationParams(
        case.text, case.frames, seed=0, temperature=0.0, guidance_scale=case.guidance
    )
    sequence = Sequence(windowing, case.frames, case.draw_prompt(lm))
    return Request(params, encode_conditions(lm, attributes), sequence)


def run_to_end(
    engine: Engine, wanted: list[Request], at: Callable[[int], None] = lambda step: None
):
    """Run steps until all wanted requests have ended; return the new codes of each."""
    got: dict[int, list[Progress]] = {id(request): [] for request in wanted}
    step = 0
    while not all(got[id(request)] and got[id(request)][-1].ended for request in wanted):
        at(step)
        for progress in engine.step():
            got.setdefault(id(progress.request), []).append(progress)
        step += 1
        assert step < 5000
    return [np.concatenate([p.codes for p in got[id(request)]], 1) for request in wanted]


def assert_same(parity: Parity, what: str, expected: Codes, codes: Codes, case: Case) -> None:
    assert parity("language models", what, codes, expected[:, case.prompt :]) == 0, case


CASES = [
    Case(),
    Case(text=""),
    Case(guidance=1.0),
    Case(guidance=7.0, text="thunder over a long slow organ, dark and epic"),
    Case(frames=1),
    Case(frames=2, text="bells"),
    *(Case(prompt=prompt, frames=29) for prompt in (1, 2, 3, 4, 17, 28)),
    Case(frames=50, max_frames=20, stride=12),
    Case(frames=47, max_frames=20, stride=5, prompt=9, guidance=1.0),
    Case(frames=40, max_frames=20, stride=12, prompt=19),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_alone(lm: LMModel, case: Case, parity: Parity):
    attributes = build_attributes(lm, case.text)
    engine = Engine(lm, EngineSettings(max_slots=2, max_positions=200, prefill_chunk=7))
    (codes,) = run_to_end(engine, [add_request(engine, build_request(lm, case, attributes))])
    assert_same(
        parity,
        "greedy codes: text, guidance, prompts, windows",
        generate_with_audiocraft(lm, case, attributes),
        codes,
        case,
    )
    engine.check_idle()


def test_the_codes_are_worth_comparing(lm: LMModel):
    codes = generate_with_audiocraft(lm, CASES[0], build_attributes(lm, "calm piano"))
    assert len(np.unique(codes)) > 40
    other = generate_with_audiocraft(lm, CASES[0], build_attributes(lm, "thunder and rain"))
    assert (codes != other).mean() > 0.5


@pytest.mark.slow
def test_among_fifteen_who_join_and_leave(lm: LMModel, parity: Parity):
    """Other requests arrive, end and are cancelled at random steps beside the wanted ones."""
    draw = np.random.default_rng(1)
    engine = Engine(lm, EngineSettings(max_slots=16, max_positions=200, prefill_chunk=7))
    wanted = [build_request(lm, case, build_attributes(lm, case.text)) for case in CASES]
    others: list[Request] = []

    def join_and_leave(step: int) -> None:
        if step < len(wanted):
            engine.scheduler.add_request(wanted[step])
        while len(engine.scheduler.running) + engine.scheduler.waiting < 16 and step < 200:
            words = " ".join(draw.choice(["rain", "jazz", "slow", "brass"], draw.integers(0, 6)))
            case = Case(words, int(draw.integers(1, 60)), float(draw.choice([1.0, 3.0, 5.0])))
            other = build_request(lm, case, build_attributes(lm, case.text))
            sampled = replace(other.params, temperature=1.0, seed=int(draw.integers(99)))
            other.params = sampled
            others.append(other)
            engine.scheduler.add_request(other)
        if step % 5 == 4:
            engine.cancel_request(others[int(draw.integers(len(others)))])

    for case, codes in zip(CASES, run_to_end(engine, wanted, join_and_leave), strict=True):
        assert_same(
            parity,
            "greedy codes among 15 others who join and leave",
            generate_with_audiocraft(lm, case, build_attributes(lm, case.text)),
            codes,
            case,
        )
    assert len(others) > 30


def test_by_captured_steps(lm: LMModel, monkeypatch: pytest.MonkeyPatch, parity: Parity):
    """Rows are padded to buckets; on the CPU each step is computed instead of captured."""
    anew = SimpleNamespace(capture_step=lambda compute: compute)
    monkeypatch.setattr(graphs, "Recorder", lambda: anew)
    engine = Engine(lm, EngineSettings(max_slots=5, max_positions=200, prefill_chunk=7))
    engine.graphs = graphs.Graphs(engine.decoder, 10)
    cases = [*CASES[:6], *CASES[-3:]]
    requests = [build_request(lm, case, build_attributes(lm, case.text)) for case in cases]
    for request in requests:
        engine.scheduler.add_request(request)
    for case, codes in zip(cases, run_to_end(engine, requests), strict=True):
        assert_same(
            parity,
            "greedy codes by padded steps",
            generate_with_audiocraft(lm, case, build_attributes(lm, case.text)),
            codes,
            case,
        )
    assert engine.statistics.rows < engine.statistics.rows_run < 2 * engine.statistics.rows


def test_melody(checkpoints: Checkpoints, tmp_path, parity: Parity):
    """Chroma and text come before the codes, and both rows have a prefix."""
    write.write_language_model(tmp_path, checkpoints.text_encoder, write.melody_config())
    lm = spread_logits(load_language_model(str(tmp_path), device="cpu", dtype="float32"))
    engine = Engine(lm, EngineSettings(max_slots=2, max_positions=2200, prefill_chunk=50))
    melody = torch.sin(torch.arange(16000) * torch.linspace(0.1, 0.3, 16000))
    for case in (Case(), Case(text=""), Case(prompt=6), Case(guidance=1.0)):
        attributes = build_attributes(lm, case.text)
        attributes.wav["self_wav"] = WavCondition(
            melody[None, None], torch.tensor([16000]), [16000], [None]
        )
        assert encode_conditions(lm, attributes).prefix_length > 100
        (codes,) = run_to_end(engine, [add_request(engine, build_request(lm, case, attributes))])
        assert_same(
            parity,
            "greedy codes by a melody",
            generate_with_audiocraft(lm, case, attributes),
            codes,
            case,
        )


def test_stereo(checkpoints: Checkpoints, tmp_path, parity: Parity):
    """Eight codebooks are delayed in pairs, as in musicgen-stereo."""
    from bundles.tiny import recipe

    cfg = recipe.language_model_config(30.0)
    cfg.transformer_lm.n_q = 8
    cfg.codebooks_pattern.delay.delays = [0, 0, 1, 1, 2, 2, 3, 3]
    write.write_language_model(tmp_path, checkpoints.text_encoder, cfg)
    lm = spread_logits(load_language_model(str(tmp_path), device="cpu", dtype="float32"))
    engine = Engine(lm, EngineSettings(max_slots=2, max_positions=100))
    for case in (Case(), Case(prompt=5), Case(frames=40, max_frames=20, stride=12)):
        attributes = build_attributes(lm, case.text)
        (codes,) = run_to_end(engine, [add_request(engine, build_request(lm, case, attributes))])
        assert_same(
            parity,
            "greedy codes in stereo",
            generate_with_audiocraft(lm, case, attributes),
            codes,
            case,
        )


def add_request(engine: Engine, request: Request) -> Request:
    engine.scheduler.add_request(request)
    return request
