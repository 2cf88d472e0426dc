"""FLOP, byte and point counts, symbolic and exact."""

from __future__ import annotations

import pytest

from graphc.ir.dims import parse_dim
from graphc.kernel.counts import bytes_moved, flops, points
from graphc.kernel.form import Kernel
from graphc.kernel.text import parse_kernel

GEMM = """kernel gemm(x: f32[N,784], w: f32[784,512], b: f32[512]) -> (y: f32[N,512]) where N <= 128 {
  space n < N, m < 512
  stage { reduce k < 784 acc = sum(x[n, k] * w[k, m]) y[n, m] = max(acc + b[m], 0.0) } }"""


def kernel(signature: str, body: str) -> Kernel:
    return parse_kernel(f"kernel k{signature} {{ {body} }}")


def test_contraction() -> None:
    gemm = parse_kernel(GEMM)
    n = parse_dim("N")
    assert flops(gemm) == n * (2 * 784 * 512 + 2 * 512)
    assert bytes_moved(gemm) == 4 * (n * 784 + 784 * 512 + 512 + n * 512)


def test_clipped_convolution_is_counted_exactly() -> None:
    conv = kernel(
        "(W: f32[6,1,5,5], X: f32[1,28,28,N]) -> (Y: f32[6,28,28,N]) where N <= 64",
        "space co < 6, y < 28, x < 28, n < N stage {"
        " reduce ci < 1, ky in max(0, 2-y) .. min(5, 30-y), kx in max(0, 2-x) .. min(5, 30-x)"
        " acc = sum(W[co, ci, ky, kx] * X[ci, y+ky-2, x+kx-2, n]) Y[co, y, x, n] = acc }",
    )
    taps = sum(min(5, 30 - y) - max(0, 2 - y) for y in range(28))
    assert flops(conv) == parse_dim("N") * (2 * 6 * taps * taps)


def test_tables_and_triangles() -> None:
    tabled = kernel("() -> (y: f32[3] init 0)", "space i < 3 stage { reduce k < [1, 4, 2][i] s = sum(1.0) y[i] = s }")
    assert points((*tabled.space, *tabled.stages[0].reduce), tabled) == 7
    triangle = kernel("() -> (y: f32[4,4] init 0)", "space i < 4, j in i .. 4 stage { y[i, j] = 1.0 }")
    assert points(triangle.space, triangle) == 10
    symbolic = kernel("() -> (y: f32[N,N] init 0) where N <= 5", "space i < N, j in i .. N stage { y[i, j] = 1.0 }")
    assert points(symbolic.space, symbolic) == 5 * parse_dim("N")  # the box, which is an upper bound


def test_what_counts_as_an_operation() -> None:
    body = "space i < 10 stage { let a = x[i] + x[i] y[i] = where(i < 3, exp(a), -a) z[i] = i * 2 + 1 }"
    assert flops(kernel("(x: f32[10]) -> (y: f32[10], z: i64[10])", body)) == 20
    assert flops(kernel("(x: f32[10]) -> (y: f32[10])", "space i < 10 stage { y[i] = fma(x[i], x[i], x[i]) }")) == 20
    once = "space i < 10 stage { y[i] = (x[i] + 1.0) * (x[i] + 1.0) }"
    assert flops(kernel("(x: f32[10]) -> (y: f32[10])", once)) == 20


def test_combining_stores_and_updates() -> None:
    by_product = kernel("(g: f32[N,4]) -> (db: f32[4] init 0) where N <= 8",
                        "space n < N, c < 4 stage { db[c] += g[n, c] through 2 partials }")  # fmt: skip
    assert flops(by_product) == 4 * parse_dim("N")
    update = kernel("(inout w: f32[5], g: f32[5]) -> ()", "space i < 5 stage { w[i] = w[i] - 0.1 * g[i] }")
    assert flops(update) == 10
    assert bytes_moved(update) == 3 * 20


@pytest.mark.parametrize(
    ("combiner", "args", "count"), [("sum", "x[i]", 1), ("max", "x[i]", 1), ("argmax", "x[i], i", 0)]
)
def test_combiners(combiner: str, args: str, count: int) -> None:
    names = "a, b" if combiner == "argmax" else "a"
    k = kernel("(x: f32[10]) -> (y: f32[])", f"stage {{ reduce i < 10 {names} = {combiner}({args}) y[] = a }}")
    assert flops(k) == 10 * count
