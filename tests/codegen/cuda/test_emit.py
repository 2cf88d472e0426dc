"""CUDA source, word for word; schedules and launches; what has no code yet. None of it needs numba-cuda."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from graphc.codegen.cuda import GridSchedule, choose, emit, launch
from graphc.errors import CompileError
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel
from graphc.kernel.verify import verify

FOLDER = Path(__file__).parent / "golden"
KERNELS = {
    "relu_gradient": "(g: f32[N,50], h: f32[N,50]) -> (d: f32[N,50]) where N <= 37 { space n < N, c < 50 stage {"
    " d[n, c] = where(h[n, c] > 0.0, g[n, c], 0.0) } }",
    "bias": "(x: f32[N,5,7], b: f32[5]) -> (y: f32[N,5,7]) where N <= 9 { space n < N, c < 5, p < 7 stage {"
    " y[n, c, p] = tanh(x[n, c, p] + b[c]) } }",
    "pooling": "(x: f32[3,11,11]) -> (y: f32[3,6,6]) { space c < 3, i < 6, j < 6 stage {"
    " reduce a in max(0, 1-2*i) .. min(3, 12-2*i), b in max(0, 1-2*j) .. min(3, 12-2*j)"
    " m: f32 = max(x[c, 2*i+a-1, 2*j+b-1]) y[c, i, j] = m } }",
    "log_softmax": "(x: f32[N,100], t: i32[N]) -> (z: f32[N,100], loss: f32[N]) where N <= 128 { space n < N"
    " stage { reduce c < 100 m: f32 = max(x[n, c]) }"
    " stage { reduce c < 100 s: f32 = sum(exp(x[n, c] - m)) let l: f32 = log(s) + m"
    " loss[n] = l - x[n, i64(t[n]) in 0 .. 100] } stage { space c < 100 z[n, c] = x[n, c] - l } }",
    "hidden": "(x: f32[N,784], W: f32[784,512], b: f32[512]) -> (y: f32[N,512]) where N <= 128 {"
    " space n < N, o < 512 stage { reduce k < 784 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = max(acc + b[o], 0.0) } }",
    "update": "(g: f32[N,10], x: f32[N,300], inout V: f32[10,300], inout W: f32[10,300], lr: f32[]) -> ()"
    " where N <= 64 { space o < 10, k < 300 stage { reduce n < N acc: f32 = sum(g[n, o] * x[n, k])"
    " let v: f32 = 0.9 * V[o, k] + acc V[o, k] = v W[o, k] = W[o, k] - lr[] * v } }",
    "convolution": "(W: f32[16,6,3,3], X: f32[6,7,7,20], b: f32[16]) -> (Y: f32[16,7,7,20]) {"
    " space co < 16, y < 7, x < 7, n < 20 stage {"
    " reduce ky in max(0, 1-y) .. min(3, 8-y), kx in max(0, 1-x) .. min(3, 8-x), ci < 6"
    " acc: f32 = sum(W[co, ci, ky, kx] * X[ci, y+ky-1, x+kx-1, n]) Y[co, y, x, n] = max(acc + b[co], 0.0) } }",
}
KINDS = {"relu_gradient": "map", "bias": "map", "pooling": "map", "log_softmax": "reduce", "hidden": "contract",
         "update": "contract", "convolution": "contract"}  # fmt: skip


def parsed(name: str, text: str = "") -> Kernel:
    kernel = parse_kernel(f"kernel {name} {text or KERNELS[name]}")
    verify(kernel)
    return kernel


@pytest.mark.parametrize("name", KERNELS)
def test_source(name: str) -> None:
    """To accept a change, write `GRAPHC_GOLDEN=write` before the test command and read the difference."""
    kernel = parsed(name)
    schedule = choose(kernel)
    source = emit(kernel, schedule)
    assert schedule.kind == KINDS[name] and source == emit(kernel, choose(kernel))
    ast.parse(source)
    path = FOLDER / f"{name}.txt"
    if os.environ.get("GRAPHC_GOLDEN") == "write":
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "counts", "blocks", "threads"), [
    ("relu_gradient", {"N": 37}, (8, 1, 1), (256, 1, 1)), ("relu_gradient", {"N": 0}, (1, 1, 1), (256, 1, 1)),
    ("pooling", {}, (1, 1, 1), (256, 1, 1)), ("log_softmax", {"N": 5}, (5, 1, 1), (256, 1, 1)),
    ("hidden", {"N": 128}, (8, 2, 1), (16, 16, 1)), ("hidden", {"N": 3}, (8, 1, 1), (16, 16, 1)),
    ("update", {"N": 64}, (5, 1, 1), (16, 16, 1)), ("convolution", {}, (1, 1, 49), (16, 16, 1)),
])  # fmt: skip
def test_launch(name: str, counts: dict[str, int], blocks: tuple[int, ...], threads: tuple[int, ...]) -> None:
    kernel = parsed(name)
    assert launch(kernel, choose(kernel), counts) == (blocks, threads)


def test_a_grid_has_a_limit_that_threads_stride_over() -> None:
    kernel = parsed("long", "(x: f32[N]) -> (y: f32[N]) where N <= 100000000 { space n < N stage { y[n] = x[n] } }")
    assert launch(kernel, choose(kernel), {"N": 10**8}) == ((65535, 1, 1), (256, 1, 1))


def test_sequential_axes_are_a_thread_s_own_loop() -> None:
    text = "(x: f32[N,18], inout s: f32[18]) -> () where N <= 41 { space sequential n < N, c < 18 stage {"
    kernel = parsed("in_order", text + " s[c] += x[n, c] } }")
    assert choose(kernel).kind == "map"
    lines = emit(kernel, choose(kernel)).splitlines()
    assert "    for c in range(cuda.grid(1), 18, cuda.gridsize(1)):" in lines and "        for n in range(N):" in lines
    lines = emit(kernel, GridSchedule("reduce", (32, 1))).splitlines()
    assert "    for c in range(cuda.blockIdx.x, 18, cuda.gridDim.x):" in lines and "        for n in range(N):" in lines


@pytest.mark.parametrize(("text", "reason"), [
    ("(x: f32[9]) -> (y: f32[18] init 3) { space i < 9 stage { y[2*i] = x[i] } }", "'y' is filled before"),
    ("(x: f32[9]) -> (y: f32[9]) { space i < 9 stage { y[i] = floor(x[i]) } }", "computes 'floor'"),
    ("(x: f32[9]) -> (y: f32[9]) { space i < 9 stage { y[i] = mod(x[i], 2.0) } }", "'mod' of floats"),
    ("(x: f32[N,3]) -> (y: f32[N,3], db: f32[3] init 0) where N <= 9 { space n < N, o < 3 stage {"
     " y[n, o] = x[n, o] db[o] += x[n, o] through 4 partials } }", "'db' is filled before"),
])  # fmt: skip
def test_what_has_no_code_yet_is_told(text: str, reason: str) -> None:
    kernel = parsed("odd", text)
    with pytest.raises(CompileError, match=reason):
        emit(kernel, choose(kernel))


@pytest.mark.parametrize(("name", "schedule", "reason"), [
    ("bias", GridSchedule("contract", (16, 16), (64, 64), 16), "'bias' is no contraction"),
    ("hidden", GridSchedule("contract", (16, 16), (60, 64), 16), "cannot share out"),
    ("log_softmax", GridSchedule("reduce", (96, 1)), "power of two"), ("bias", GridSchedule("warp"), "kind 'warp'"),
])  # fmt: skip
def test_a_schedule_that_does_not_fit_is_told(name: str, schedule: GridSchedule, reason: str) -> None:
    with pytest.raises(CompileError, match=reason):
        emit(parsed(name), schedule)


def test_names_of_operands_do_not_hide_what_the_source_needs() -> None:
    text = "(cuda: f32[9], math: f32[9]) -> (float32: f32[9]) { space i < 9 stage {"
    source = emit(parsed("names", text + " float32[i] = exp(cuda[i]) * 2.0 + math[i] } }"), GridSchedule())
    assert "def names(cuda_1, math_1, float32_1):" in source and "math.exp(cuda_1[i]) * float32(2.0)" in source


def test_a_kernel_s_name_does_not_hide_what_the_source_needs() -> None:
    text = "(x: f32[9]) -> (y: f32[9]) { space i < 9 stage { y[i] = abs(x[i]) } }"
    source = emit(parsed("abs", text), GridSchedule())
    assert "def x_abs(x, y):" in source and "y[i] = abs(x[i])" in source


def test_schedules_print() -> None:
    assert str(GridSchedule()) == "map; block 256"
    assert str(GridSchedule("contract", (16, 8), (64, 32), 4)) == "contract; block 16 x 8; tile 64 x 32; depth 4"


def test_without_numba_cuda_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.codegen.cuda import compile as compiling

    monkeypatch.setattr(compiling, "available", lambda: False)
    kernel = parsed("bias")
    with pytest.raises(CompileError, match=r"pip install 'graphc\[cuda\]'"):
        compiling.compile_ptx(kernel, emit(kernel, choose(kernel)))
