"""Compiles the kernels for CUDA as they are called, without a GPU, and reads what came out."""

import re
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from engine import kernels_cuda, sampling_cuda
from tests.engine.test_kernels import HEADS, POSITIONS, ROWS, SIZE, TOKENS, scatter_rows
from tests.engine.test_sampling_twins import make_requests

pytestmark = pytest.mark.slow
REGISTERS = 128
"""The most registers of a thread, so that an SM holds at least 512 threads."""

EXACT = {"cvt", "max", "min", "mov", "selp", "setp"}
"""The instructions that have but one result on every device."""


@pytest.fixture(params=[80, 90, 100], ids="sm_{}".format)
def compile_call(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """Return a function that compiles the kernels that a call would launch."""
    target = GPUTarget("cuda", request.param, 32)
    device = SimpleNamespace(
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        get_current_target=lambda: target,
    )
    compiled: list[Any] = []
    run = JITFunction.run

    def compile_only(kernel: Any, *args: Any, **options: Any) -> None:
        compiled.append(run(kernel, *args, **(options | {"warmup": True})))

    def compile_kernels(call: Callable[..., object], *args: object) -> list[Any]:
        with monkeypatch.context() as patch:
            patch.setattr(triton.runtime.driver, "_active", device)
            patch.setattr(JITFunction, "run", compile_only)
            call(*args)
        return compiled

    return compile_kernels


def read_usage(cubin: bytes, path: Any) -> dict[str, int]:
    """Return the registers of a thread, and its bytes of stack and local memory."""
    path.write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", shown)}


def test_sampling(compile_call: Callable[..., list[Any]], tmp_path):
    """Nothing spills; no operation is fused or approximate, so the codes are those of a CPU."""
    (kernel,) = compile_call(sampling_cuda.sample_rows, *make_requests(2048))
    usage = read_usage(kernel.asm["cubin"], tmp_path / "kernel.cubin")
    assert usage.pop("REG") <= REGISTERS
    assert usage == {"STACK": 0, "LOCAL": 0}
    operations = set(re.findall(r"\b((?:\w+\.)+f32)\s", kernel.asm["ptx"]))
    rounding = {name for name in operations if name.split(".")[0] not in EXACT}
    assert rounding == {"add.rn.f32", "sub.rn.f32", "mul.rn.f32", "div.rn.f32"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_attention(compile_call: Callable[..., list[Any]], dtype: torch.dtype, tmp_path):
    pool, table = scatter_rows(torch.zeros(2, ROWS, HEADS, POSITIONS, SIZE, dtype=dtype))
    projected = torch.zeros(len(TOKENS), 3, HEADS, SIZE, dtype=dtype)
    where = torch.tensor(TOKENS).t().contiguous()
    compiled = compile_call(kernels_cuda.attend_past, projected, pool, table, *where)
    assert len(compiled) == 2
    for kernel in compiled:
        usage = read_usage(kernel.asm["cubin"], tmp_path / "kernel.cubin")
        assert usage.pop("REG") <= REGISTERS
        assert usage == {"STACK": 0, "LOCAL": 0}
