"""CUDA kernels in numba.cuda's simulator against the kernel interpreter, and as PTX. No GPU is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba_cuda", reason="needs the extra 'cuda' (numba-cuda)")

from graphc.codegen.cuda import GridSchedule, choose, emit  # noqa: E402
from graphc.codegen.cuda.compile import compile_ptx, resources  # noqa: E402
from graphc.codegen.cuda.simulate import simulate  # noqa: E402
from graphc.errors import CompileError  # noqa: E402
from graphc.ir.dims import evaluate  # noqa: E402
from graphc.kernel import interpret  # noqa: E402
from graphc.kernel.form import Kernel  # noqa: E402
from graphc.kernel.parser import parse_kernel  # noqa: E402
from graphc.kernel.verify import verify  # noqa: E402

MAP, REDUCE = GridSchedule("map", (4, 1)), GridSchedule("reduce", (4, 1))
TILE = GridSchedule("contract", (2, 2), (4, 4), 4)  # small blocks: a simulated thread costs 0.1 ms and more
CASES = {  # name -> the kernel after its name, the schedule, the counts
    "elementwise": ("(x: f32[N,5], y: f32[N,5], s: f32[]) -> (z: f32[N,5]) where N <= 7 { space n < N, c < 5 stage {"
                    " z[n, c] = where(x[n, c] > 0.0, tanh(x[n, c]) * y[n, c], s[] / 2.0) } }", MAP, {"N": 4}),
    "broadcast": ("(x: f32[N,3,2], b: f32[3]) -> (y: f32[N,3,2]) where N <= 5 { space n < N, c < 3, p < 2 stage {"
                  " y[n, c, p] = max(x[n, c, p] + b[c], 0.1) } }", MAP, {"N": 3}),
    "activations": ("(x: f32[12], y: f32[12]) -> (a: f32[12], b: f32[12], c: f32[12]) { space i < 12 stage {"
                    " a[i] = sigmoid(x[i]) - softplus(y[i]) b[i] = erf(x[i]) + log1p(exp(y[i])) + sign(x[i])"
                    " c[i] = sqrt(abs(x[i])) + rsqrt(abs(y[i]) + 1.0) + pow(abs(x[i]), 1.5) } }", MAP, {}),
    "integers": ("(k: i32[10], j: i32[10], u: u8[10]) -> (q: i32[10], r: i32[10], w: u8[10], e: bool[10]) {"
                 " space i < 10 stage { q[i] = floordiv(3i32 - k[i] * 2i32, j[i] - 1i32)"
                 " r[i] = mod(3i32 - k[i] * 2i32, j[i] - 1i32) w[i] = u[i] + 200u8"
                 " e[i] = k[i] == j[i] or not u[i] > 2u8 } }", MAP, {}),
    "index_values": ("(x: f32[4,6]) -> (y: f32[4,6], k: i64[4,6]) { space i < 4, j < 6 stage {"
                     " y[i, j] = x[i, j] * f32(6*i + j) k[i, j] = i * 3 - j } }", MAP, {}),
    "guarded_gather": ("(x: f32[N,5], t: i64[N], on: bool[N], inout y: f32[N]) -> () where N <= 9 { space n < N stage {"
                       " y[n] = x[n, t[n] in 0 .. 5] if on[n] } }", MAP, {"N": 6}),
    "pooling": ("(x: f32[2,5,5]) -> (y: f32[2,3,3]) { space c < 2, i < 3, j < 3 stage {"
                " reduce a in max(0, 1-2*i) .. min(3, 6-2*i), b in max(0, 1-2*j) .. min(3, 6-2*j)"
                " m: f32 = max(x[c, 2*i+a-1, 2*j+b-1]) y[c, i, j] = m } }", MAP, {}),
    "scatter": ("(g: f32[N,3], t: i64[N], inout E: f32[5,3]) -> () where N <= 9 { space sequential n < N, c < 3"
                " stage { E[t[n] in 0 .. 5, c] += g[n, c] } }", MAP, {"N": 7}),
    "log_softmax": ("(x: f32[N,11], t: i32[N]) -> (z: f32[N,11], loss: f32[N]) where N <= 5 { space n < N"
                    " stage { reduce c < 11 m: f32 = max(x[n, c]) }"
                    " stage { reduce c < 11 s: f32 = sum(exp(x[n, c] - m)) let l: f32 = log(s) + m"
                    " loss[n] = l - x[n, i64(t[n]) in 0 .. 11] } stage { space c < 11 z[n, c] = x[n, c] - l } }",
                    REDUCE, {"N": 3}),
    "argmax": ("(x: f32[N,9]) -> (v: f32[N], k: i64[N]) where N <= 4 { space n < N stage { reduce c < 9"
               " m: f32, i: i64 = argmax(x[n, c], c) v[n] = m k[n] = i } }", REDUCE, {"N": 3}),
    "variance": ("(x: f32[N,3]) -> (v: f32[3]) where N <= 9 { space c < 3 stage { reduce n < N"
                 " m: f32, q: f32, k: f32 = welford(x[n, c], 0.0, 1.0) v[c] = q / k } }", REDUCE, {"N": 7}),
    "total": ("(x: f32[N,5]) -> (y: f32[], z: f32[]) where N <= 9 { stage { reduce n < N, c < 5"
              " a: f32 = sum(x[n, c] * x[n, c]) l: f32 = min(x[n, c]) y[] = a z[] = l } }", REDUCE, {"N": 6}),
    "no_points": ("(x: f32[N,5]) -> (y: f32[]) where N <= 9 { stage { reduce n < N, c < 5"
                  " a: f32 = sum(x[n, c]) y[] = a } }", REDUCE, {"N": 0}),
    "normalised_in_place": ("(inout x: f32[N,6]) -> () where N <= 4 { space n < N stage { reduce c < 6"
                            " s: f32 = sum(x[n, c]) } stage { space c < 6 x[n, c] = x[n, c] / s } }", REDUCE, {"N": 2}),
    "clipped_sums": ("(x: f32[4,9]) -> (y: f32[4]) { space i < 4 stage { reduce a < 2, c in i .. min(9, 2*i+3)"
                     " s: f32 = sum(x[i, c]) y[i] = s } }", REDUCE, {}),
    "hidden": ("(x: f32[N,9], W: f32[9,10], b: f32[10]) -> (y: f32[N,10]) where N <= 9 { space n < N, o < 10 stage {"
               " reduce k < 9 acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = max(acc + b[o], 0.0) } }", TILE, {"N": 6}),
    "transposed": ("(x: f32[9,9], W: f32[10,9]) -> (y: f64[9,10]) { space n < 9, o < 10 stage {"
                   " reduce k < 9 acc: f32 = sum(x[n, k] * W[o, k]) y[n, o] = f64(acc) } }", TILE, {}),
    "update": ("(g: f32[N,8], x: f32[N,9], inout V: f32[8,9], inout W: f32[8,9], lr: f32[]) -> () where N <= 7 {"
               " space o < 8, k < 9 stage { reduce n < N acc: f32 = sum(g[n, o] * x[n, k]) let v: f32 = 0.9 * V[o, k]"
               " + acc V[o, k] = v W[o, k] = W[o, k] - lr[] * v } }", TILE, {"N": 5}),
    "batched": ("(x: f32[3,8,5], w: f32[3,5,8]) -> (y: f32[3,8,8]) { space b < 3, n < 8, o < 8 stage {"
                " reduce k < 5 acc: f32 = sum(x[b, n, k] * w[b, k, o]) y[b, n, o] = acc } }", TILE, {}),
    "convolution": ("(W: f32[8,2,3,3], X: f32[2,3,3,8], b: f32[8]) -> (Y: f32[8,3,3,8]) {"
                    " space co < 8, y < 3, x < 3, n < 8 stage {"
                    " reduce ky in max(0, 1-y) .. min(3, 4-y), kx in max(0, 1-x) .. min(3, 4-x), ci < 2"
                    " acc: f32 = sum(W[co, ci, ky, kx] * X[ci, y+ky-1, x+kx-1, n])"
                    " Y[co, y, x, n] = max(acc + b[co], 0.0) } }", TILE, {}),
    "window_of_sums": ("(X: f32[2,9,8], W: f32[8,2,2]) -> (Y: f32[8,8,8]) { space o < 8, i < 8, n < 8 stage {"
                       " reduce c < 2, k < 2 acc: f32 = sum(W[o, c, k] * X[c, i+k, n]) Y[o, i, n] = acc } }", TILE, {}),
}  # fmt: skip


def parsed(name: str) -> Kernel:
    kernel = parse_kernel(f"kernel {name} {CASES[name][0]}")
    verify(kernel)
    return kernel


def inputs_for(kernel: Kernel, counts: dict[str, int]) -> dict[str, Any]:
    rng, found = np.random.default_rng(3), {}
    for operand in kernel.inputs:
        shape = tuple(evaluate(d, counts) for d in operand.shape)
        drawn = rng.standard_normal(shape) if operand.dtype.is_float else rng.integers(0, 5, shape)
        found[operand.name] = np.asarray(drawn).astype(operand.dtype.numpy)
    return found


@pytest.mark.parametrize("name", CASES)
def test_simulated_kernels_compute_what_the_form_says(name: str) -> None:
    kernel, (_, schedule, counts) = parsed(name), CASES[name]
    inputs = inputs_for(kernel, counts)
    wanted = interpret.run(kernel, inputs, counts, float64=True)
    found = simulate(kernel, schedule, emit(kernel, schedule), inputs, counts)
    assert found.keys() == wanted.keys()
    for operand, value in found.items():
        np.testing.assert_allclose(value, wanted[operand], rtol=2e-5, atol=2e-5, err_msg=operand)


def test_full_blocks_in_the_simulator() -> None:
    """The block of 256 threads that a GPU runs, each with sixteen sums; the tile hangs over both edges."""
    text = "(x: f32[9,5], W: f32[5,70]) -> (y: f32[9,70]) { space n < 9, o < 70 stage { reduce k < 5"
    kernel = parse_kernel(f"kernel wide {text} acc: f32 = sum(x[n, k] * W[k, o]) y[n, o] = acc }} }}")
    schedule, inputs = choose(kernel), inputs_for(kernel, {})
    assert schedule.tile == (64, 64)
    found = simulate(kernel, schedule, emit(kernel, schedule), inputs, {})
    np.testing.assert_allclose(found["y"], inputs["x"] @ inputs["W"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["elementwise", "integers", "log_softmax", "argmax", "convolution"])
def test_kernels_compile_to_ptx(name: str) -> None:
    kernel = parsed(name)
    schedule = choose(kernel)
    ptx = compile_ptx(kernel, emit(kernel, schedule))
    assert ".target sm_90" in ptx and ".visible .entry" in ptx
    entry = ptx[ptx.index(".visible .entry") :]
    parameters = entry[: entry.index(")\n")].count(".param")
    assert parameters == len(kernel.operands) + len(kernel.runtime_extents)  # a pointer each, no array structs
    found = resources(ptx)
    if found is not None:
        assert 0 < found.registers <= 255 and found.spilled == found.stack == 0  # the sums are in registers


def test_other_capabilities_and_refused_sources() -> None:
    kernel = parsed("elementwise")
    source = emit(kernel, MAP)
    assert ".target sm_80" in compile_ptx(kernel, source, (8, 0))
    with pytest.raises(CompileError, match="elementwise does not compile for CUDA"):
        compile_ptx(kernel, source.replace("math.tanh", "math.comb"))
