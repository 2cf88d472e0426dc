"""Strides that crowd caches: what they cost by the model, and padding that spreads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.codegen.crowding import FAR, LINE_BYTES, NEAR, SPREAD, crowded, fetched_again, longer, spreading
from graphc.codegen.estimates import Estimate, strides_in
from graphc.codegen.host import Host, host
from graphc.codegen.relayout import laid_out
from graphc.errors import ParseError, VerifyError
from graphc.kernel.layout import Layout
from graphc.kernel.parser import parse_kernel
from graphc.kernel.text import print_kernel
from graphc.kernel.verify import verify

MACHINE = Host("", "", 16, 32, True, 48 << 10, 1 << 20, 12, 16)
GRADIENT = """kernel gradient(x: f32[128,1024]{p}, g: f32[128,1024]{p}) -> (w: f32[1024,1024]) {{
  space i < 1024, o < 1024
  stage {{
    reduce n < 128
    acc: f32 = sum(x[n, i] * g[n, o])
    w[i, o] = acc
  }}
}}
"""


def test_a_column_of_a_wide_matrix_crowds_a_set() -> None:
    assert crowded(np.arange(128) * 64, 48 << 10, 12) == 128  # 4096 bytes apart: one set of 64
    assert crowded(np.arange(12) * 64, 48 << 10, 12) == 0  # it has twelve places
    assert crowded(np.arange(128) * 65, 48 << 10, 12) == 0
    assert crowded(np.arange(1024) * 64, 48 << 10, 12) == 0  # more than the cache holds in any case
    assert fetched_again(((4096, 128),), MACHINE) == 128 * NEAR
    assert fetched_again(((4096, 1024), (4, 32)), MACHINE) == 1024 * FAR  # pairs of lines are fetched together
    assert fetched_again(((4160, 1024), (4, 32)), MACHINE) == 0.0
    assert fetched_again((), MACHINE) == 0.0


def test_fetching_shows_as_far_as_arithmetic_does_not_hide_it() -> None:
    assert longer(1000.0, 0.0) == 0.0
    assert 0 < longer(1000.0, 500.0) < 20 < 150 < longer(1000.0, 1000.0) < longer(1000.0, 2000.0) < 1100


def test_an_estimate_tells_conflicting_strides() -> None:
    estimate = Estimate(parse_kernel(GRADIENT.format(p="")), MACHINE)
    costs = []
    for padding in ((), (0, 16)):
        strides = {o.name: strides_in(o, Layout((0, 1), padding=padding), {}) for o in estimate.kernel.operands}
        costs.append(estimate.cycles(strides, crowds=True))
    assert costs[0] > 1.3 * costs[1] == pytest.approx(1.3 * estimate.ideal)


@given(st.lists(st.sampled_from([1, 2, 3, 8, 16, 32, 37, 64, 1024]), min_size=1, max_size=4), st.sampled_from([0, 11]))
def test_spread_strides_are_odd_numbers_of_lines(shape: list[int], rows: int) -> None:
    plain = Layout(tuple(range(len(shape))), padding=(*(0 for _ in shape[1:]), rows))
    spread = spreading(plain, shape, 4)
    line = LINE_BYTES // 4
    assert all(step % (SPREAD * line) for step in spread.strides(shape)[:-1])
    assert spread.permutation == plain.permutation
    if len(shape) > 1:
        assert spread.padding == () or spread.padding[0] == 0
        assert all(unused in (0, line, rows, rows + line) for unused in spread.padding)
        assert spread.size(shape) <= plain.size(shape) * (1 + 1 / SPREAD) ** (len(shape) - 1)


def test_padding_changes_no_more_than_the_operands() -> None:
    """Before and after: the row-major form with the padding, the loops as they were."""
    kernel = parse_kernel(GRADIENT.format(p=""))
    layout = spreading(Layout.row_major(2), (128, 1024), 4)
    assert print_kernel(laid_out(kernel, {"x": layout, "g": layout})) == GRADIENT.format(p="+16").replace("{{", "{")


@pytest.mark.parametrize("padding", ["+[16,0,0,0]", "+[0,16,32,5]", "+[0,0,0,3]", "+[1,2,3,4]"])
def test_kernels_with_padding_anywhere(build: Callable[..., Any], padding: str) -> None:
    """A convolution, a sum and an output that is filled first; nothing is written outside the operands."""
    text = (
        f"kernel conv(X: f32[3,6,5,N]{padding}, W: f32[4,3,3,3]) -> (Y: f32[4,6,5,N]{padding}) where N <= 27 {{"
        " space o < 4, y < 6, x < 5, n < N stage {"
        " reduce c < 3, ky in max(0, 1-y) .. min(3, 7-y), kx in max(0, 1-x) .. min(3, 6-x)"
        " acc: f32 = sum(X[c, y+ky-1, x+kx-1, n] * W[o, c, ky, kx]) Y[o, y, x, n] = max(acc, 0.0) } }"
    )
    kernel, rng = build(text), np.random.default_rng(0)
    assert parse_kernel(print_kernel(kernel.form)) == kernel.form and padding in print_kernel(kernel.form).replace(
        "+3", "+[0,0,0,3]"
    )
    for count in (1, 26, 27):
        x, w = (rng.standard_normal(s).astype("float32") for s in ((3, 6, 5, count), (4, 3, 3, 3)))
        kernel.check({"X": x, "W": w}, {"N": count}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", ["+[0,16]", "+[32,16]", "+[32,0]"])
def test_padded_outputs_are_filled_by_all_threads(build: Callable[..., Any], padding: str) -> None:
    text = (
        f"kernel up(x: f32[64,256]) -> (y: f32[128,512]{padding} init 3) {{"
        " space i < 64, j < 256 stage { y[2*i, 2*j] = x[i, j] } }"
    )
    kernel = build(text)
    kernel.check({"x": np.random.default_rng(0).standard_normal((64, 256)).astype("float32")}, threads=(1, 2, 3, 4))


@pytest.mark.parametrize("padding", [(1,), (0, -1), (0, 1, 2)])
def test_padding_that_fits_no_shape(padding: tuple[int, ...]) -> None:
    kernel = parse_kernel("kernel k(x: f32[2,3]) -> (y: f32[2,3]) { space i < 2, j < 3 stage { y[i, j] = x[i, j] } }")
    x, y = kernel.operands
    with pytest.raises(VerifyError, match="operand 'x' has the padding"):
        verify(replace(kernel, operands=(replace(x, padding=padding), y)))
    with pytest.raises(ParseError, match="3 numbers of padding for 2 axes"):
        parse_kernel("kernel k(x: f32[2,3]+[0,1,2]) -> () { space i < 2 stage { let a: f32 = x[i, 0] } }")


def wide(**options: Any) -> gc.Program:
    x, t = gc.input("x", ("N", 1024)), gc.input("t", ("N",), dtype="int32")
    first, second = gc.param("V", (1024, 1024)), gc.param("W", (1024, 10))
    loss = gc.mean(gc.cross_entropy(gc.relu(x @ first) @ second, t))
    updates = {p: p - 0.1 * g for p, g in zip((first, second), gc.grad(loss, [first, second]), strict=True)}
    return gc.compile([x, t], [loss], updates=updates, dims={"N": 128}, **options)


def test_programs_pad_and_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 4096 bytes are spread; results stay the same, and the plan counts the padding."""
    machine = replace(host(), first_level=48 << 10, second_level=1 << 20, first_ways=12, second_ways=16)
    monkeypatch.setattr("graphc.codegen.build.host", lambda: machine)
    program = wide()
    padded = [b for b in program.plan.buffers if "+16" in b.layout]
    assert padded and all(b.nbytes > 128 * 1024 * 4 for b in padded)
    assert any("is padded, [" in r and "compete for few places" in r for r in program.remarks)
    assert "+16" in program.memory
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((128, 1024)).astype("float32"), rng.integers(0, 10, 128)
    np.testing.assert_allclose(program(*batch), wide(without=["layouts"])(*batch), rtol=1e-4)
