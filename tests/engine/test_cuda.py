"""Tests compiled kernels, captured steps and greedy codes on a GPU."""

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from engine import kernels_cpu, sampling_cpu
from engine.checkpoints import load_language_model
from engine.conditioning import build_attributes
from engine.engine import Engine, EngineSettings
from tests.conftest import Checkpoints
from tests.engine.test_exactness import (
    CASES,
    assert_same,
    build_request,
    generate_with_audiocraft,
    run_to_end,
    spread_logits,
)
from tests.engine.test_kernels import HEADS, POSITIONS, ROWS, SIZE, TOKENS, scatter_rows
from tests.engine.test_sampling_twins import make_requests
from tests.parity import Parity

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_logits_are_spread_where_the_weights_are(dtype: torch.dtype):
    """Fake tensors refuse, without a GPU, what a GPU would refuse: operands on two devices."""
    with FakeTensorMode():
        layer = torch.nn.Linear(4, 4, device="cuda", dtype=dtype)
        table = torch.nn.Embedding(4, 4, device="cuda", dtype=dtype)
        lm = SimpleNamespace(transformer=layer, linears=layer, emb=[table], dim=4)
        spread_logits(lm)
    assert (layer.weight.device.type, layer.weight.dtype) == ("cuda", dtype)


@on_a_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_kernels_agree_with_the_cpus(dtype: torch.dtype):
    from engine import kernels_cuda

    torch.manual_seed(0)
    pool, table = scatter_rows(torch.randn(2, ROWS, HEADS, POSITIONS, SIZE).to(dtype))
    projected = torch.randn(len(TOKENS), 3, HEADS, SIZE)
    where = torch.tensor(TOKENS).t().contiguous()
    on_gpu = pool.cuda()
    out = kernels_cuda.attend_past(projected.cuda(), on_gpu, table.cuda(), *where.cuda())
    expected = kernels_cpu.attend_past(projected, pool, table, *where)
    assert torch.equal(on_gpu.cpu().nan_to_num(), pool.nan_to_num())
    assert (out.cpu() - expected).abs().max() < 1e-5


@on_a_gpu
@pytest.mark.parametrize("captured", [False, True])
def test_greedy_codes_are_audiocrafts(
    checkpoints: Checkpoints, captured: bool, parity: Parity, monkeypatch: pytest.MonkeyPatch
):
    """Codes are equal in float32, where rounding differs only in the last bits."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    lm = spread_logits(load_language_model(str(checkpoints.music), device="cuda", dtype="float32"))
    settings = EngineSettings(max_slots=5, max_positions=200, cuda_graphs=captured)
    engine = Engine(lm, settings)
    requests = [build_request(lm, case, build_attributes(lm, case.text)) for case in CASES]
    for request in requests:
        engine.scheduler.add_request(request)
    for case, codes in zip(CASES, run_to_end(engine, requests), strict=True):
        expected = generate_with_audiocraft(lm, case, build_attributes(lm, case.text))
        assert_same(parity, "greedy codes on a GPU", expected, codes, case)


@on_a_gpu
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_captured_logits_are_those_of_an_eager_step(checkpoints: Checkpoints, precision: str):
    lm = spread_logits(load_language_model(str(checkpoints.music), device="cuda", dtype=precision))
    logits = []
    for captured in (False, True):
        settings = EngineSettings(2, max_positions=60, precision=precision, cuda_graphs=captured)
        engine = Engine(lm, settings)
        engine.scheduler.add_request(
            build_request(lm, CASES[0], build_attributes(lm, "calm piano"))
        )
        engine.step()
        with torch.inference_mode():
            logits.append(engine.run(engine.scheduler.plan_segments()))
    eager, captured_ones = logits
    assert (eager - captured_ones).abs().max() < 0.02 * eager.abs().max()


@on_a_gpu
@pytest.mark.parametrize("cardinality", [2048, 64, 3])
def test_codes_drawn_on_a_gpu_are_the_cpus(cardinality: int):
    from engine import sampling_cuda

    given = make_requests(cardinality)
    drawn = sampling_cuda.sample_rows(*(tensor.cuda() for tensor in given))
    assert torch.equal(drawn.cpu(), sampling_cpu.sample_rows(*given))
