"""The source of a few kernels, word for word: what a reader of generated code sees.

To accept a change, write `GRAPHC_GOLDEN=write` before the test command and read the difference.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from graphc.codegen.choose import choose
from graphc.codegen.cpu import emit
from graphc.codegen.host import Host
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule
from graphc.kernel.verify import verify

FOLDER = Path(__file__).parent / "golden"
AVX512 = Host("golden", "", 16, 32)
AVX2 = Host("golden", "", 8, 16)
KERNELS = {
    "hidden": "(x: f32[N,784], W: f32[784,512], b: f32[512]) -> (y: f32[N,512]) where N <= 128 {"
    " space n < N, o < 512 stage { reduce k < 784 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = max(acc + b[o], 0.0) } }",
    "linear": "(x: f32[N,784], W: f32[512,784], b: f32[512]) -> (y: f32[N,512]) where N <= 128 {"
    " space n < N, o < 512 stage { reduce k < 784 acc: f32 = sum(x[n, k] * W[o, k]) y[n, o] = max(acc + b[o], 0.0) } }",
    "update": "(g: f32[N,10], x: f32[N,300], inout V: f32[10,300], inout W: f32[10,300], lr: f32[]) -> ()"
    " where N <= 64 { space o < 10, k < 300 stage { reduce n < N acc: f32 = sum(g[n, o] * x[n, k])"
    " let v: f32 = 0.9 * V[o, k] + acc V[o, k] = v W[o, k] = W[o, k] - lr[] * v } }",
    "log_softmax": "(x: f32[N,100], t: i32[N]) -> (z: f32[N,100], loss: f32[N]) where N <= 128 { space n < N"
    " stage { reduce c < 100 m: f32 = max(x[n, c]) }"
    " stage { reduce c < 100 s: f32 = sum(exp(x[n, c] - m)) let l: f32 = log(s) + m"
    " loss[n] = l - x[n, i64(t[n]) in 0 .. 100] } stage { space c < 100 z[n, c] = x[n, c] - l } }",
    "relu_gradient": "(g: f32[N,50], h: f32[N,50]) -> (d: f32[N,50]) where N <= 37 { space n < N, c < 50 stage {"
    " d[n, c] = where(h[n, c] > 0.0, g[n, c], 0.0) } }",
    "scatter": "(g: f32[N,21], t: i64[N]) -> (E: f32[5,21] init 0) where N <= 41 {"
    " space sequential n < N, c < 21 stage { E[t[n] in 0 .. 5, c] += g[n, c] } }",
}
CASES = [(name, AVX512, None, name) for name in KERNELS]
CASES += [("hidden", AVX2, None, "hidden_avx2"), ("log_softmax", AVX512, Schedule("scalar"), "log_softmax_scalar")]


@pytest.mark.parametrize(("name", "host", "schedule", "file"), CASES)
def test_source(name: str, host: Host, schedule: Schedule | None, file: str) -> None:
    kernel = parse_kernel(f"kernel {name} {KERNELS[name]}")
    verify(kernel)
    source = emit(kernel, schedule or choose(kernel, host), host)
    assert source == emit(kernel, schedule or choose(kernel, host), host)
    path = FOLDER / f"{file}.txt"
    if os.environ.get("GRAPHC_GOLDEN") == "write":
        path.write_text(source)
    assert source == path.read_text()
