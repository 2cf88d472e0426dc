"""Every feature of the kernel grammar as machine code, against the kernel interpreter, scalar and as chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from graphc.codegen.choose import choose
from graphc.codegen.cpu import emit
from graphc.codegen.host import host
from graphc.codegen.translate import translate
from graphc.ir.dims import evaluate
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel
from graphc.kernel.schedule import Schedule

# name -> the kernel after its name, and the kinds of schedule that `choose` may take. Integer inputs are 0 .. 4.
FORMS = {
    "map": "(x: f32[N,10], y: f32[N,10], s: f32[]) -> (z: f32[N,10]) where N <= 41 { space n < N, c < 10 stage {"
    " z[n, c] = where(x[n, c] > 0.0, tanh(x[n, c]) * y[n, c], s[] / 2.0) } }",
    "row_broadcast": "(x: f32[N,33], b: f32[33], m: f32[N]) -> (z: f32[N,33]) where N <= 41 { space n < N, c < 33"
    " stage { z[n, c] = max(x[n, c] + b[c], 0.5) - m[n] } }",
    "transpose": "(x: f32[17,35]) -> (z: f32[35,17]) { space i < 35, j < 17 stage { z[i, j] = x[j, i] } }",
    "reverse": "(x: f32[50]) -> (z: f32[50]) { space i < 50 stage { z[i] = 2.0 * x[49-i] } }",
    "reverse_count": "(x: f32[N]) -> (z: f32[N]) where N <= 64 { space i < N stage { z[i] = 2.0 * x[N-1-i] } }",
    "two_outputs": "(x: f32[N], inout v: f32[N]) -> (y: f32[N]) where N <= 70 { space i < N stage {"
    " let u: f32 = 0.9 * v[i] + x[i] v[i] = u y[i] = v[i] - u } }",
    "old_values": "(inout a: f32[40], inout b: f32[40]) -> () { space i < 40 stage { a[i] = b[i] b[i] = a[i] } }",
    "constants": "() -> (a: f32[35], b: i32[35], c: bool[35], d: f64[35], e: u8[35]) { space i < 35 stage {"
    " a[i] = 1.5 b[i] = 7i32 c[i] = true d[i] = 0.1f64 e[i] = 200u8 } }",
    "index_values": "(x: f32[7,19]) -> (y: f32[7,19], k: i64[7,19]) { space i < 7, j < 19 stage {"
    " y[i, j] = x[i, j] * f32(19*i + j) k[i, j] = i * 3 - j } }",
    "one_hot": "(t: i32[N]) -> (y: f32[N,12]) where N <= 21 { space n < N, c < 12 stage {"
    " y[n, c] = f32(i64(t[n]) == c) } }",
    "gather": "(x: f32[N,5], t: i64[N]) -> (y: f32[N]) where N <= 41 { space n < N stage { y[n] = x[n, t[n] in"
    " 0 .. 5] } }",
    "gather_rows": "(E: f32[5,21], t: i64[N]) -> (y: f32[N,21]) where N <= 41 { space n < N, c < 21 stage {"
    " y[n, c] = E[t[n] in 0 .. 5, c] } }",
    "scatter": "(g: f32[N,21], t: i64[N]) -> (E: f32[5,21] init 0) where N <= 41 { space sequential n < N, c <"
    " 21 stage {"
    " E[t[n] in 0 .. 5, c] += g[n, c] } }",
    "in_order": "(x: f32[N,18]) -> (s: f32[18] init 1) where N <= 41 { space sequential n < N, c < 18 stage {"
    " s[c] += x[n, c] } }",
    "byproduct": "(x: f32[N,37], h: f32[N,37]) -> (y: f32[N,37], db: f32[37] init 0) where N <= 41 { space n <"
    " N, o < 37"
    " stage { let d: f32 = where(h[n, o] > 0.0, x[n, o], 0.0) y[n, o] = d db[o] += d through 4 partials } }",
    "injective": "(x: f32[9,11]) -> (y: f32[18,23] init 3) { space i < 9, j < 11, a < 2 stage {"
    " y[2*i+a, 2*j+1] = x[i, j] + f32(a) } }",
    "guard": "(x: f32[N,20]) -> (y: f32[N,20] init -1) where N <= 21 { space n < N, c < 20 stage {"
    " y[n, c] = sqrt(x[n, c]) if x[n, c] > 0.0 } }",
    "scalar_guard": "(x: f32[20], on: bool[]) -> (y: f32[20] init 5) { space c < 20 stage { y[c] = x[c] if on[]"
    " } }",
    "row_sums": "(x: f32[N,77]) -> (y: f32[N]) where N <= 9 { space n < N stage { reduce c < 77"
    " s: f32 = sum(exp(x[n, c])) y[n] = log(s) } }",
    "column_sums": "(x: f32[N,77]) -> (y: f32[77]) where N <= 41 { space c < 77 stage { reduce n < N"
    " s: f32 = sum(x[n, c]) y[c] = s } }",
    "total": "(x: f32[N,77]) -> (y: f32[], z: f32[], p: f32[]) where N <= 41 { stage { reduce n < N, c < 77"
    " a: f32 = sum(x[n, c] * x[n, c]) b: f32 = max(exp(x[n, c])) l: f32 = min(x[n, c]) y[] = a z[] = b p[] = l } }",
    "product": "(x: f32[5,70]) -> (y: f32[5]) { space i < 5 stage { reduce j < 70"
    " p: f32 = prod(1.0 + 0.01 * x[i, j]) y[i] = p } }",
    "integers": "(x: i32[N,40], u: u8[N,40]) -> (y: i32[N], z: i64[N], w: u8[N,40]) where N <= 21 { space n < N"
    " stage {"
    " reduce c < 40 s: i32 = sum(x[n, c] * 3i32) t: i64 = max(i64(u[n, c])) y[n] = s z[n] = t }"
    " stage { space k < 40 w[n, k] = u[n, k] * 100u8 + u8(x[n, k]) } }",
    "argmax": "(x: f32[N,10]) -> (y: i64[N], z: f32[N,10]) where N <= 41 { space n < N stage { reduce c < 10"
    " v: f32, i: i64 = argmax(x[n, c], c) y[n] = i } stage { space c < 10 z[n, c] = where(c == i, v, x[n, c]) } }",
    "argmin_rows": "(x: f32[3,50]) -> (y: i64[3]) { space n < 3 stage { reduce c < 50"
    " v: f32, i: i64 = argmin(x[n, c], c) y[n] = i } }",
    "log_softmax": "(x: f32[N,10], t: i32[N]) -> (z: f32[N,10], loss: f32[N]) where N <= 41 { space n < N"
    " stage { reduce c < 10 m: f32 = max(x[n, c]) }"
    " stage { reduce d < 10 s: f32 = sum(exp(x[n, d] - m)) let l: f32 = log(s) + m"
    " loss[n] = l - x[n, i64(t[n]) in 0 .. 10] } stage { space e < 10 z[n, e] = x[n, e] - l } }",
    "wide_softmax": "(x: f32[N,130]) -> (z: f32[N,130]) where N <= 5 { space n < N stage { reduce c < 130"
    " m: f32, s: f32 = logsumexp(x[n, c], 1.0) } stage { space e < 130 z[n, e] = exp(x[n, e] - m) / s } }",
    "welford": "(x: f32[N,37]) -> (mean: f32[37], var: f32[37]) where N <= 41 { space c < 37 stage { reduce n < N"
    " m: f32, q: f32, k: f32 = welford(x[n, c], 0.0, 1.0) mean[c] = m var[c] = q / max(k, 1.0) } }",
    "pooling": "(x: f32[2,9,9,N]) -> (y: f32[2,5,5,N]) where N <= 21 { space c < 2, i < 5, j < 5, n < N stage {"
    " reduce a in 0 .. min(2, 9-2*i), b in 0 .. min(2, 9-2*j) m: f32 = max(x[c, 2*i+a, 2*j+b, n]) y[c, i, j, n]"
    " = m } }",
    "tables": "(x: f32[4,6]) -> (y: f32[4]) { space i < 4 stage { reduce j in [0, 1, 1, 3][i] .. [6, 2, 5, 3][i]"
    " s: f32 = sum(x[i, j]) y[i] = s } }",
    "lets_inside": "(x: f32[N,30], y: f32[30]) -> (d: f32[N]) where N <= 21 { space n < N stage { reduce c < 30"
    " let e: f32 = x[n, c] - y[c] s: f32 = sum(e * e) let r: f32 = sqrt(s) d[n] = r * r + r } }",
    "unused": "(x: f32[4,30]) -> (y: f32[4]) { space n < 4 stage { reduce c < 30 then let z: f32 = x[n, 0] y[n]"
    " = z } }",
    "stage_space": "(x: f32[N,6,20]) -> (y: f32[N,20], z: f32[N,6]) where N <= 9 { space n < N"
    " stage { space c < 20 reduce a < 6 s: f32 = sum(x[n, a, c]) y[n, c] = s }"
    " stage { space a < 6 reduce c < 20 s: f32 = max(x[n, a, c]) z[n, a] = s } }",
    "doubles": "(x: f64[N,37], y: f64[37,19]) -> (z: f64[N,19], r: f64[N]) where N <= 9 { space n < N"
    " stage { space j < 19 reduce k < 37 s: f64 = sum(x[n, k] * y[k, j]) z[n, j] = sigmoid(s) }"
    " stage { reduce k < 37 t: f64 = max(abs(x[n, k])) r[n] = t } }",
    "bools": "(a: bool[N,20], b: bool[N,20]) -> (y: bool[N,20], any: bool[N]) where N <= 21 { space n < N"
    " stage { reduce c < 20 k: i32 = max(i32(a[n, c] and b[n, c])) any[n] = bool(k) }"
    " stage { space c < 20 y[n, c] = a[n, c] != b[n, c] or not a[n, c] } }",
    "loop_index": "(x: f32[20], rng: i64[2]) -> (y: f32[20], u: f32[20]) where T <= 9 { space c < 20 stage {"
    " y[c] = x[c] + f32(extent(T)) u[c] = uniform(rng[0], rng[1], 3, extent(T), c) } }",
    "stored_then_read": "(inout v: f32[40]) -> (a: f32[40], b: f32[40]) { space i < 40"
    " stage { a[i] = tanh(v[i]) + 1.0 v[i] = tanh(v[i]) }"
    " stage { b[i] = tanh(v[i]) * 2.0 } }",
    "odd_names": "(len: f32[20], range: f32[20], args: f32[20]) -> (tile_load: f32[20]) { space thread < 20 stage {"
    " let max: f32 = len[thread] * range[thread] tile_load[thread] = max + args[thread] * max } }",
    "classify": "(x: f32[40]) -> (a: bool[40], b: bool[40], c: bool[40], d: f32[40], e: f32[40]) { space i < 40"
    " stage {"
    " let y: f32 = x[i] / f32(i64(i > 3)) a[i] = isnan(y) b[i] = isinf(y) c[i] = isfinite(y) d[i] = sign(x[i])"
    " e[i] = rsqrt(abs(x[i]) + 1.0) } }",
    "rounding": "(x: f32[40], y: f32[40], k: i64[40]) -> (a: f32[40], b: f32[40], m: f32[40], q: i64[40]) {"
    " space i < 40"
    " stage { a[i] = floor(x[i] * 3.0) + ceil(x[i]) b[i] = round(x[i]) m[i] = mod(x[i], abs(y[i]) + 0.5)"
    " q[i] = mod(k[i] - 2, 3) * 10 + floordiv(k[i] - 3, 2) } }",
    "functions": "(x: f32[40], y: f32[40]) -> (a: f32[40], b: f32[40], c: f32[40], d: f32[40]) { space i < 40"
    " stage {"
    " let p: f32 = abs(x[i]) + 0.1 a[i] = log(p) + log1p(p) * expm1(y[i]) b[i] = softplus(x[i]) - erf(y[i])"
    " c[i] = pow(p, y[i]) d[i] = sin(x[i]) * cos(y[i]) + fma(x[i], y[i], -x[i]) } }",
    "trigonometry": "(x: f32[40], y: f32[40]) -> (a: f32[40], b: f32[40], c: f32[40], d: f32[40]) { space i < 40"
    " stage {"
    " let t: f32 = tanh(x[i]) * 0.99 a[i] = asin(t) + acos(t) * y[i] b[i] = atan(x[i]) + tan(t)"
    " c[i] = sinh(x[i]) - cosh(y[i]) d[i] = log2(abs(x[i]) + 0.1) } }",
    "quotients": "(x: f32[40], y: f32[40], k: i32[40], j: i32[40]) -> (a: f32[40], b: f32[40], q: i32[40], r: i32[40])"
    " { space i < 40 stage {"
    " a[i] = floordiv(x[i] * 5.0, y[i]) b[i] = mod(x[i] * 5.0, 0.3) q[i] = floordiv(3i32 - k[i] * 2i32, j[i] - 1i32)"
    " r[i] = mod(3i32 - k[i] * 2i32, j[i] - 1i32) } }",
}


def inputs_for(form: Kernel, counts: dict[str, int], seed: int = 0) -> dict[str, Any]:
    """Random inputs at their exact shapes: floats around 0, integers 0 .. 4, bools."""
    rng, found = np.random.default_rng(seed), {}
    for operand in form.inputs:
        shape = tuple(evaluate(d, counts) for d in operand.shape)
        if operand.dtype.is_float:
            found[operand.name] = rng.standard_normal(shape).astype(operand.dtype.numpy)
        else:
            limit = 2 if operand.dtype.kind == "b" else 5
            found[operand.name] = rng.integers(0, limit, shape).astype(operand.dtype.numpy)
    return found


@pytest.mark.parametrize("name", FORMS)
def test_chosen_schedule(build: Callable[..., Any], name: str) -> None:
    check(build(f"kernel {name} {FORMS[name]}"))


@pytest.mark.parametrize("name", FORMS)
def test_scalar_schedule(build: Callable[..., Any], name: str) -> None:
    check(build(f"kernel {name} {FORMS[name]}", Schedule("scalar")))


@pytest.mark.parametrize("name", FORMS)
def test_numba_compiles_the_same_source_to_the_same_bits(build: Callable[..., Any], name: str) -> None:
    text = f"kernel {name} {FORMS[name]}"
    ours, numba = build(text), build(text, through_numba=True)
    counts = {n: min(20, ours.form.capacities[n]) for n in ours.form.runtime_extents}
    inputs = inputs_for(ours.form, counts)
    wanted = numba.run(inputs, counts)
    for operand, value in ours.run(inputs, counts).items():
        np.testing.assert_array_equal(value, wanted[operand], err_msg=operand, strict=True)


@pytest.mark.parametrize("name", FORMS)
def test_generated_source_needs_no_general_python(name: str) -> None:
    kernel = parse_kernel(f"kernel {name} {FORMS[name]}")
    for schedule in (choose(kernel, host()), Schedule("scalar")):
        translate(emit(kernel, schedule, host()), name, "entry")  # raises Unsupported for what is left to Numba


def check(kernel: Any) -> None:
    """Compare at several runtime counts: none, one, some, the capacity."""
    names = kernel.form.runtime_extents
    for part in (0, 1, 5, 20, 10**6) if names else (0,):
        counts = {n: min(part, kernel.form.capacities[n]) for n in names}
        kernel.check(inputs_for(kernel.form, counts, part), counts)


def test_what_is_the_same_at_all_points_is_computed_before_the_loops(build: Callable[..., Any]) -> None:
    kernel = build(
        "kernel scaled(x: f32[N,3], rate: f32[1]) -> (y: f32[N,3]) where N <= 9 { space n < N, c < 3 stage {"
        " y[n, c] = x[n, c] * (exp(rate[0]) / f32(extent(N))) } }"
    )
    before, loop = kernel.source.rsplit('"""', 1)[1].split("    for ", 1)
    assert "tile_exp(" in before and " / " in before and "tile_exp(" not in loop and "tile_load(x" in loop
    for n in (0, 1, 9):
        kernel.check({"x": np.ones((n, 3), "f4"), "rate": np.array([0.5], "f4")}, {"N": n})
