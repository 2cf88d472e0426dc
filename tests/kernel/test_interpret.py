"""Every feature of the grammar, from text to values, against NumPy written out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from graphc.errors import InputError, VerifyError
from graphc.kernel import philox
from graphc.kernel.interpret import run
from graphc.kernel.text import parse_kernel, print_kernel
from graphc.kernel.verify import verify

Arrays = Mapping[str, Any]


def check(
    text: str, inputs: Arrays, extents: Mapping[str, int] | None = None, **expected: Any
) -> dict[str, np.ndarray]:
    """Through text, parser and verifier; then the values in both precisions."""
    kernel = parse_kernel(text)
    assert parse_kernel(print_kernel(kernel)) == kernel
    verify(kernel)
    before = {name: np.array(value) for name, value in inputs.items()}
    wide = run(kernel, inputs, extents, float64=True)
    found = run(kernel, inputs, extents)
    assert set(found) == set(wide) == set(expected)
    for name, value in expected.items():
        operand = kernel.operand(name)
        assert found[name].dtype == operand.dtype.numpy
        assert wide[name].dtype == (np.float64 if operand.dtype.is_float else operand.dtype.numpy)
        np.testing.assert_allclose(wide[name], value, rtol=1e-6 if operand.dtype.name == "f32" else 0, atol=1e-6)
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)
    for name, value in before.items():
        np.testing.assert_array_equal(inputs[name], value)
    return found


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def convolve(w: np.ndarray, x: np.ndarray, padding: int, stride: int = 1, dilation: int = 1) -> np.ndarray:
    """Filters [O,C,K,K] over images [C,H,W,N], by a padded copy."""
    x = np.pad(x.astype(np.float64), [(0, 0), (padding,) * 2, (padding,) * 2, (0, 0)])
    window = dilation * (w.shape[-1] - 1) + 1
    rows = range(0, x.shape[1] - window + 1, stride)
    return np.array(
        [[[np.tensordot(f, x[:, y : y + window : dilation, z : z + window : dilation], 3) for z in rows] for y in rows]
         for f in w]
    )  # fmt: skip


# Maps, guards, extents, axis indices


def test_map_with_lets_and_casts() -> None:
    x = normal(5, 3)
    check(
        "kernel k(x: f32[N,3], n0: i32[]) -> (y: f32[N,3], z: i64[N,3]) where N <= 8 { space n < N, c < 3 stage {"
        " let a = x[n, c] * 2.0 y[n, c] = a + f32(n0[]) z[n, c] = i64(a) } }",
        {"x": x, "n0": np.int32(7)},
        y=2 * x + 7,
        z=np.trunc(2 * x),
    )


def test_runtime_extents_and_zero_size() -> None:
    text = """kernel mean(x: f32[N,3]) -> (y: f32[3], m: f32[3]) where N <= 8 {
      space c < 3
      stage { reduce n < N s, q = argmax(x[n, c], n) t = sum(x[n, c]) y[c] = t / f32(extent(N)) m[c] = s } }"""
    for n in (1, 5, 8):
        x = normal(n, 3)
        check(text, {"x": x}, y=x.mean(0), m=x.max(0))
    found = run(parse_kernel(text), {"x": np.zeros((0, 3), np.float32)})
    assert np.isnan(found["y"]).all() and np.isneginf(found["m"]).all()
    check("kernel k(x: f32[0,3]) -> (y: f32[0,3]) { space i < 0, j < 3 stage { y[i, j] = x[i, j] } }",
          {"x": np.zeros((0, 3), np.float32)}, y=np.zeros((0, 3)))  # fmt: skip


def test_extent_of_an_expression_of_extents() -> None:
    check("kernel k() -> (y: i64[2*N+1]) where N <= 4, t <= 9 { space i < 2*N+1 stage {"
          " y[i] = i * extent(N) + extent(t-1) } }", {}, {"N": 2, "t": 9}, y=np.arange(5) * 2 + 8)  # fmt: skip


def test_one_hot_and_comparisons_of_axis_indices() -> None:
    labels = np.array([2, 0, 3], np.int32)
    check("kernel k(t: i32[N]) -> (y: f32[N,4]) where N <= 8 { space n < N, c < 4 stage {"
          " y[n, c] = where(i64(t[n]) == c, 1.0, 0.0) } }", {"t": labels}, y=np.eye(4)[labels])  # fmt: skip


def test_ties_share_evenly() -> None:
    x = np.array([[1, 3, 3], [2, 2, 2]], np.float32)
    check(
        """kernel amax_gradient(x: f32[N,3]) -> (g: f32[N,3]) where N <= 8 {
          space n < N
          stage { reduce c < 3 m = max(x[n, c]) }
          stage { reduce c < 3 count = sum(where(x[n, c] == m, 1.0, 0.0)) }
          stage { space c < 3 g[n, c] = where(x[n, c] == m, 1.0 / count, 0.0) } }""",
        {"x": x},
        g=[[0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]],
    )


def test_guard_leaves_initial_values() -> None:
    x = normal(4, 2)
    check(
        "kernel k(x: f32[4,2]) -> (y: f32[7] init -1) { space i < 4, j < 2 stage {"
        " y[2*i+j] = x[i, j] if 2 * i + j < 7 and x[i, j] > 0.0 } }",
        {"x": x},
        y=np.where(x > 0, x, -1).ravel()[:7],
    )


def test_boolean_values() -> None:
    x = normal(6)
    check("kernel k(x: f32[6]) -> (y: bool[6]) { space i < 6 stage { y[i] = not (x[i] > 0.0) or i == 2 } }",
          {"x": x}, y=(x <= 0) | (np.arange(6) == 2))  # fmt: skip


def test_scalars_without_axes() -> None:
    check("kernel k(x: f64[]) -> (y: f64[]) { stage { let a = x[] y[] = a * a } }", {"x": np.float64(3)}, y=9.0)


# Windows


def test_clipped_convolution() -> None:
    w, x, b = normal(3, 2, 5, 5), normal(2, 7, 7, 4, seed=1), normal(3, seed=2)
    check(
        """kernel conv(W: f32[3,2,5,5], X: f32[2,7,7,N], b: f32[3]) -> (Y: f32[3,7,7,N]) where N <= 8 {
          space co < 3, y < 7, x < 7, n < N
          stage {
            reduce ci < 2, ky in max(0, 2-y) .. min(5, 9-y), kx in max(0, 2-x) .. min(5, 9-x)
            acc: f32 = sum(W[co, ci, ky, kx] * X[ci, y+ky-2, x+kx-2, n])
            Y[co, y, x, n] = max(acc + b[co], 0.0)
          } }""",
        {"W": w, "X": x, "b": b},
        Y=np.maximum(convolve(w, x, 2) + b[:, None, None, None], 0),
    )


def test_strided_dilated_convolution_by_tables() -> None:
    w, x = normal(2, 1, 3, 3), normal(1, 9, 9, 2, seed=1)
    low, high = "[1, 0, 0, 0, 0]", "[3, 3, 3, 3, 2]"
    check(
        f"""kernel conv(W: f32[2,1,3,3], X: f32[1,9,9,2]) -> (Y: f32[2,5,5,2]) {{
          space co < 2, y < 5, x < 5, n < 2
          stage {{
            reduce ky in {low}[y] .. {high}[y], kx in {low}[x] .. {high}[x]
            acc = sum(W[co, 0, ky, kx] * X[0, 2*y+2*ky-2, 2*x+2*kx-2, n])
            Y[co, y, x, n] = acc
          }} }}""",
        {"W": w, "X": x},
        Y=convolve(w, x, 2, stride=2, dilation=2),
    )


def test_clipped_space() -> None:
    x = normal(4, 4)
    check("kernel k(x: f32[4,4]) -> (y: f32[4,4] init 0) { space i < 4, j in i .. 4 stage { y[i, j] = x[i, j] } }",
          {"x": x}, y=np.triu(x))  # fmt: skip


def test_max_pool_with_its_gradient() -> None:
    x, g = normal(6, 6), normal(3, 3, seed=1)
    x[0, 0] = x[1, 1] = 9  # a tie: the first wins
    check(
        """kernel pool(x: f32[6,6]) -> (y: f32[3,3], at: i64[3,3]) {
          space i < 3, j < 3
          stage { reduce a < 2, b < 2 m, k = argmax(x[2*i+a, 2*j+b], a * 2 + b) y[i, j] = m at[i, j] = k } }""",
        {"x": x},
        y=x.reshape(3, 2, 3, 2).max((1, 3)),
        at=x.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(3, 3, 4).argmax(-1),
    )
    at = x.reshape(3, 2, 3, 2).transpose(0, 2, 1, 3).reshape(3, 3, 4).argmax(-1)
    expected = np.zeros((6, 6))
    for i, j in np.ndindex(3, 3):
        expected[2 * i + at[i, j] // 2, 2 * j + at[i, j] % 2] = g[i, j]
    check(
        """kernel unpool(g: f32[3,3], at: i64[3,3]) -> (x: f32[6,6]) {
          space i < 3, j < 3
          stage { space a < 2, b < 2 x[2*i+a, 2*j+b] = where(at[i, j] == a * 2 + b, g[i, j], 0.0) } }""",
        {"g": g, "at": at},
        x=expected,
    )


def test_injective_output_with_initial_values() -> None:
    x = normal(3)
    expected = np.zeros(7)
    expected[1:7:2] = x
    check("kernel k(x: f32[3]) -> (y: f32[7] init 0) { space i < 3 stage { y[2*i+1] = x[i] } }", {"x": x}, y=expected)


def test_concatenation() -> None:
    a, b = normal(2, 3), normal(2, 2, seed=1)
    check(
        "kernel k(a: f32[2,3], b: f32[2,2]) -> (y: f32[2,5]) { space n < 2 stage { space i < 3 y[n, i] = a[n, i] }"
        " stage { space i < 2 y[n, i+3] = b[n, i] } }",
        {"a": a, "b": b},
        y=np.concatenate([a, b], 1),
    )


# Tuple accumulators and stages


def test_welford_variance() -> None:
    x = normal(5, 3) + 1000
    check(
        """kernel moments(x: f32[N,3]) -> (mean: f32[3], variance: f32[3]) where N <= 8 {
          space c < 3
          stage { reduce n < N u, m2, count = welford(x[n, c], 0.0, 1.0) mean[c] = u variance[c] = m2 / count } }""",
        {"x": x},
        mean=x.mean(0, dtype=np.float64),
        variance=x.astype(np.float64).var(0),
    )


def test_logsumexp() -> None:
    x = normal(5, 3)
    x[1], x[2, 0] = -np.inf, 1e4
    with np.errstate(divide="ignore"):
        expected = np.logaddexp.reduce(x.astype(np.float64), 1)
    check("kernel k(x: f32[5,3]) -> (y: f32[5]) { space n < 5 stage { reduce c < 3 m, s = logsumexp(x[n, c], 1.0)"
          " y[n] = m + log(s) } }", {"x": x}, y=expected)  # fmt: skip


def test_softmax_cross_entropy_with_its_gradient() -> None:
    x, t = normal(5, 4) * 50, np.array([0, 3, 1, 1, 2], np.int32)
    p = softmax(x.astype(np.float64))
    check(
        """kernel cross_entropy(x: f32[N,4], t: i32[N])
            -> (loss: f32[N], g: f32[N,4], mean: f32[] init 0) where N <= 8 {
          space n < N
          stage {
            reduce c < 4
            m, s = logsumexp(x[n, c], 1.0)
            let row: f32 = m + log(s) - x[n, i64(t[n]) in 0 .. 4]
            loss[n] = row
            mean[] += row / f32(extent(N)) through 2 partials
          }
          stage {
            space c < 4
            g[n, c] = (exp(x[n, c] - m) / s - where(c == i64(t[n]), 1.0, 0.0)) / f32(extent(N))
          } }""",
        {"x": x, "t": t},
        loss=-np.log(p[np.arange(5), t]),
        mean=-np.log(p[np.arange(5), t]).mean(),
        g=(p - np.eye(4)[t]) / 5,
    )


def test_results_after_the_reduction_see_names_of_earlier_stages() -> None:
    x = normal(4, 3)
    check(
        """kernel normalise(x: f32[4,3]) -> (y: f32[4,3]) {
          space n < 4
          stage { reduce c < 3 let d = x[n, c] s = sum(d) let mean = s / 3.0 }
          stage { reduce c < 3 let d = x[n, c] - mean q = sum(d * d) let scale = rsqrt(q / 3.0 + 0.01) }
          stage { space c < 3 let d = x[n, c] - mean y[n, c] = d * scale } }""",
        {"x": x},
        y=(x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 0.01),
    )


def test_a_stage_reads_what_an_earlier_one_stored() -> None:
    x = normal(4, 3)
    check("kernel k(x: f32[4,3]) -> (e: f32[4,3], y: f32[4,3]) { space n < 4"
          " stage { space c < 3 e[n, c] = exp(x[n, c]) } stage { reduce c < 3 s = sum(e[n, c]) }"
          " stage { space c < 3 y[n, c] = e[n, c] / s } }",
          {"x": x}, e=np.exp(x), y=softmax(x))  # fmt: skip


def test_every_combiner_reduces() -> None:
    x = normal(4, 3)
    check(
        "kernel k(x: f32[4,3]) -> (p: f32[4], a: f32[4], b: f32[4], i: i64[4]) { space n < 4 stage { reduce c < 3"
        " p_ = prod(x[n, c]) a_ = max(x[n, c]) b_ = min(x[n, c]) v, i_ = argmin(x[n, c], c)"
        " p[n] = p_ a[n] = a_ b[n] = b_ i[n] = i_ } }",
        {"x": x},
        p=x.prod(1),
        a=x.max(1),
        b=x.min(1),
        i=x.argmin(1),
    )


# Stores that combine


def test_by_product_bias_gradient() -> None:
    g, y = normal(3, 4, 5), normal(3, 4, 5, seed=1)
    masked = np.where(y > 0, g, 0)
    for partials in (1, 2, 3, 7):
        check(
            f"""kernel relu_gradient(g: f32[3,4,N], y: f32[3,4,N]) -> (d: f32[3,4,N], db: f32[4] init 0) where N <= 8 {{
              space r < 3, c < 4, n < N
              stage {{
                let v = where(y[r, c, n] > 0.0, g[r, c, n], 0.0)
                d[r, c, n] = v
                db[c] += v through {partials} partials
              }} }}""",
            {"g": g, "y": y},
            d=masked,
            db=masked.sum((0, 2)),
        )


def test_partials_are_added_in_the_documented_order() -> None:
    """Chunks of ceil(7 / 3) = 3 points, each from zero, then one after the other onto the initial value: bit by bit."""
    x = np.array([1e8, 1, -1e8, 1, 1, 1, 1], np.float32)  # in float32 1e8 + 1 is 1e8: chunks of 0, 3, 1
    signature, body = "(x: f32[7]) -> (y: f32[] init 1)", "space {}i < 7 stage {{ y[] += x[i]{} }}"
    kernel = parse_kernel(f"kernel k{signature} {{ {body.format('', ' through 3 partials')} }}")
    assert run(kernel, {"x": x})["y"] == 5
    kernel = parse_kernel(f"kernel k{signature} {{ {body.format('sequential ', '')} }}")
    assert run(kernel, {"x": x})["y"] == 4


def test_reductions_add_in_loop_order() -> None:
    x = (normal(50) * 10.0 ** (np.arange(50) % 7)).astype(np.float32)
    kernel = parse_kernel("kernel k(x: f32[50]) -> (y: f32[]) { stage { reduce i < 50 s = sum(x[i]) y[] = s } }")
    expected = np.float32(0)
    for value in x:
        expected = expected + value
    assert run(kernel, {"x": x})["y"] == expected


def test_combining_stores_of_other_modes() -> None:
    x = normal(6, 3)
    check("kernel k(x: f32[6,3]) -> (a: f32[3] init -inf, p: f32[3] init 1) { space sequential n < 6, c < 3 stage {"
          " a[c] max= x[n, c] p[c] prod= x[n, c] if x[n, c] > 0.0 } }",
          {"x": x}, a=x.max(0), p=np.where(x > 0, x, 1).prod(0))  # fmt: skip


def test_embedding_gradient() -> None:
    tokens, g = np.array([3, 1, 3, 3, 0], np.int32), normal(5, 2)
    expected = np.zeros((4, 2))
    np.add.at(expected, tokens, g)
    check("kernel k(t: i32[N], g: f32[N,2]) -> (dE: f32[4,2] init 0) where N <= 8 {"
          " space sequential n < N, c < 2 stage { dE[i64(t[n]) in 0 .. 4, c] += g[n, c] } }",
          {"t": tokens, "g": g}, dE=expected)  # fmt: skip


def test_scatter_keeps_the_last_value() -> None:
    check("kernel k(t: i64[4], x: f32[4]) -> (y: f32[3] init 0) { space sequential n < 4 stage {"
          " y[t[n] in 0 .. 3] = x[n] } }",
          {"t": np.array([1, 0, 1, 1]), "x": np.array([1, 2, 3, 4], np.float32)}, y=[2, 4, 0])  # fmt: skip


def test_accumulation_in_place() -> None:
    w, v, h = normal(3, 2), normal(5, 3, seed=1), normal(5, 2, seed=2)
    check("kernel k(inout w: f32[3,2], v: f32[N,3], h: f32[N,2]) -> () where N <= 8 { space i < 3, j < 2 stage {"
          " reduce n < N s = sum(v[n, i] * h[n, j]) w[i, j] += 0.1 * s } }",
          {"w": w, "v": v, "h": h}, w=w + 0.1 * v.T @ h)  # fmt: skip


# Read and written operands


def test_weight_update_in_the_epilogue() -> None:
    w, m, x, g = normal(3, 4), normal(3, 4, seed=1), normal(5, 3, seed=2), normal(5, 4, seed=3)
    velocity = 0.9 * m + x.T @ g
    check(
        """kernel momentum(inout w: f32[3,4], inout m: f32[3,4], x: f32[N,3], g: f32[N,4]) -> () where N <= 8 {
          space i < 3, j < 4
          stage {
            reduce n < N
            d = sum(x[n, i] * g[n, j])
            let v = 0.9 * m[i, j] + d
            m[i, j] = v
            w[i, j] = w[i, j] - 0.1 * v
          } }""",
        {"w": w, "m": m, "x": x, "g": g},
        m=velocity,
        w=w - 0.1 * velocity,
    )


def test_updates_of_a_stage_see_old_values() -> None:
    a, b = normal(3), normal(3, seed=1)
    check("kernel swap(inout a: f32[3], inout b: f32[3]) -> () { space i < 3 stage { a[i] = b[i] b[i] = a[i] } }",
          {"a": a, "b": b}, a=b, b=a)  # fmt: skip


def test_softmax_in_place() -> None:
    x = normal(4, 3)
    check("kernel k(inout x: f32[4,3]) -> () { space n < 4 stage { reduce c < 3 m, s = logsumexp(x[n, c], 1.0) }"
          " stage { space c < 3 x[n, c] = exp(x[n, c] - m) / s } }", {"x": x}, x=softmax(x))  # fmt: skip


# Computed indices, random numbers


def test_gather() -> None:
    x, i = normal(5, 4), np.array([2, 0, 3, 3, 1])
    check("kernel k(x: f32[N,4], i: i64[N]) -> (y: f32[N]) where N <= 8 { space n < N stage {"
          " y[n] = x[n, i[n] in 0 .. 4] } }", {"x": x, "i": i}, y=x[np.arange(5), i])  # fmt: skip


def test_indirect_crop() -> None:
    x, at = normal(5, 6), np.array([1, 3])
    check("kernel k(x: f32[5,6], at: i64[2]) -> (y: f32[2,2]) { space i < 2, j < 2 stage {"
          " y[i, j] = x[at[0] + i in 0 .. 5, min(at[1] + j, 5) in 0 .. 6] } }",
          {"x": x, "at": at}, y=x[1:3, 3:5])  # fmt: skip


def test_computed_index_beyond_its_bounds() -> None:
    text = "kernel k(x: f32[9], i: i64[2]) -> (y: f32[2]) { space n < 2 stage { y[n] = x[i[n] in 0 .. 5] } }"
    kernel = parse_kernel(text)
    with pytest.raises(InputError, match="an index of 'x' is 5, not in 0 .. 5"):
        run(kernel, {"x": np.zeros(9, np.float32), "i": np.array([4, 5])})


def test_random_keys_with_a_loop_extent() -> None:
    text = """kernel dropout(rng: i64[2]) -> (y: f32[N,3]) where N <= 8, t <= 100 {
      space n < N, c < 3
      stage { y[n, c] = uniform(rng[0], rng[1], 5, extent(t), n * 3 + c) } }"""
    rng = np.array([2**40 + 3, 17])
    for turn in (0, 6):
        expected = philox.uniform(2**40 + 3, 5, 17, turn, np.arange(12).reshape(4, 3))
        found = check(text, {"rng": rng}, {"N": 4, "t": turn}, y=expected)
        np.testing.assert_array_equal(found["y"], expected)


# Precision and errors


def test_float64_is_computed_throughout() -> None:
    x = normal(1000)
    text = "kernel k(x: f32[1000]) -> (y: f32[]) { stage { reduce i < 1000 s = sum(exp(x[i] * 0.1)) y[] = s } }"
    kernel = parse_kernel(text)
    assert run(kernel, {"x": x}, float64=True)["y"] == pytest.approx(np.exp(x.astype(float) * 0.1).sum(), rel=1e-13)
    wide = run(kernel, {"x": x.astype(np.float64)}, float64=True)["y"]
    assert wide == run(kernel, {"x": x}, float64=True)["y"]
    assert run(kernel, {"x": x})["y"].dtype == np.float32


def test_many_points_in_blocks() -> None:
    x, w = normal(300, 20), normal(20, 100, seed=1)
    exact = x.astype(np.float64) @ w
    found = check("kernel k(x: f32[N,20], w: f32[20,100]) -> (y: f32[N,100], s: f32[] init 0) where N <= 512 {"
          " space n < N, m < 100 stage { reduce k < 20 a = sum(x[n, k] * w[k, m]) y[n, m] = a"
          " s[] += a / 1000.0 through 4 partials } }", {"x": x, "w": w}, y=exact, s=exact.sum() / 1000)  # fmt: skip
    assert found["y"].shape == (300, 100)


COPY = "kernel k(x: f32[N]) -> (y: f32[N]) where N <= 4 { space n < N stage { y[n] = x[n] } }"


@pytest.mark.parametrize(
    ("inputs", "extents", "message"),
    [
        ({}, {"N": 2}, "input 'x' is missing"),
        ({"x": np.zeros(3, np.float32)}, {"N": 2}, r"is float32\[3\], not f32\[2\]"),
        ({"x": np.zeros(3)}, None, "is float64"),
        ({"x": np.zeros(5, np.float32)}, None, "N = 5 is not in 0 .. 4"),
        ({}, None, "no input's shape tells 'N'"),
        ({"x": np.zeros(3, np.float32), "z": np.zeros(3)}, None, "reads no operand 'z'"),
        ({"x": np.zeros(3, np.float32)}, {"N": 3, "M": 3}, "no extent 'M'"),
    ],
)
def test_wrong_inputs(inputs: Arrays, extents: Mapping[str, int] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(parse_kernel(COPY), inputs, extents)


def test_invalid_kernels_do_not_run() -> None:
    with pytest.raises(VerifyError, match="not seen to stay"):
        run(parse_kernel(COPY.replace("x[n]", "x[n+1]")), {"x": np.zeros(3, np.float32)})
