"""Flat offsets, dependences and merged axes of kernel forms."""

from __future__ import annotations

from graphc.codegen.analysis import (
    affine_of,
    coefficient,
    collapse,
    flatten,
    is_idempotent,
    largest_extent,
    points,
    reads_own_element_only,
    with_unique_axes,
)
from graphc.ir.types import i64
from graphc.kernel.expr import Affine, Apply, AxisIndex, Computed, Const, Load
from graphc.kernel.form import Kernel
from graphc.kernel.parser import parse_kernel


def kernel(text: str) -> Kernel:
    return parse_kernel(f"kernel k {text}")


def test_flatten_gives_element_offsets_over_capacities() -> None:
    flat = flatten(kernel("(x: f32[3,N,5]) -> (y: f32[N]) where N <= 7 { space n < N stage { y[n] = x[2, n, 4] } }"))
    (load,) = (e for e in flat.stages[0].expressions() if isinstance(e, Load))
    assert load.index == (Affine.of({"n": 5}, 2 * 35 + 4),)
    assert flat.operand("x").shape == (105,)


def test_coefficient_of_computed_indices() -> None:
    row = Apply("mul", (Load("t", (Affine.axis("n"),)), Const(21, i64)))
    index = Computed(Apply("add", (row, AxisIndex("c"))), 0, 105)
    assert (coefficient(index, "c"), coefficient(index, "n"), coefficient(index, "k")) == (1, None, 0)


def test_affine_of_index_arithmetic() -> None:
    expr = Apply("add", (Apply("mul", (AxisIndex("n"), Const(50, i64))), Apply("neg", (AxisIndex("o"),))))
    assert affine_of(expr) == Affine.of({"n": 50, "o": -1})
    assert affine_of(Apply("mul", (AxisIndex("n"), AxisIndex("o")))) is None


def test_collapse_keeps_random_counters() -> None:
    flat = collapse(flatten(kernel(
        "(rng: i64[2]) -> (y: f32[N,6]) where N <= 4 { space n < N, c < 6 stage {"
        " y[n, c] = uniform(rng[0], rng[1], 0, 0, n * 6 + c) } }"
    )))  # fmt: skip
    assert [str(a.extent) for a in flat.space] == ["6*N"]


def test_collapse_stops_at_broadcasts_and_other_uses() -> None:
    for value in ("x[n, c] + b[c]", "x[n, c] * f32(c)", "x[c, n]"):
        shape = "6,4" if value == "x[c, n]" else "4,6"
        space = f"{{ space n < 4, c < 6 stage {{ y[n, c] = {value} }} }}"
        form = kernel(f"(x: f32[{shape}], b: f32[6]) -> (y: f32[4,6]) {space}")
        assert [a.name for a in collapse(flatten(form)).space] == ["n", "c"]


def test_axes_of_stages_get_names_of_their_own() -> None:
    form = kernel(
        "(x: f32[4,6]) -> (y: f32[4,6]) { space n < 4 stage { reduce c < 6 m: f32 = max(x[n, c]) }"
        " stage { space c < 6 y[n, c] = x[n, c] - m } }"
    )
    unique = with_unique_axes(form)
    assert [a.name for s in unique.stages for a in (*s.space, *s.reduce)] == ["c", "c2"]
    assert unique.stages[1].stores[0].index == (Affine.axis("n"), Affine.axis("c2"))


def test_hazards() -> None:
    copy = kernel("(x: f32[9]) -> (y: f32[9]) { space i < 9 stage { y[i] = x[i] } }")
    assert is_idempotent(copy) and reads_own_element_only(copy)
    decay = kernel("(inout x: f32[9]) -> () { space i < 9 stage { x[i] = 0.5 * x[i] } }")
    assert not is_idempotent(decay) and reads_own_element_only(decay)
    shift = kernel("(inout x: f32[9]) -> () { space sequential i < 8 stage { x[i+1] = x[i] } }")
    assert not reads_own_element_only(shift)


def test_points_count_clipped_axes() -> None:
    form = kernel(
        "(x: f32[9,9]) -> (y: f32[9]) { space i < 9 stage { reduce j in 0 .. min(5, i+1) s: f32 = sum(x[i, j])"
        " y[i] = s } }"
    )
    assert points(form) == 45


def test_bounds_that_move_together_tell_the_extent() -> None:
    kernel = parse_kernel(
        "kernel k (x: f32[N,40]) -> (y: f32[4] init 0) where N <= 30 { space p < 4 stage {"
        " reduce c in 10*p .. 10*p + 10, d in max(0, 10*p) .. min(25, 10*p + 10), n in max(0, p-1) .. min(3, p + 5)"
        " s: f32 = sum(x[n, c] * x[n, d]) y[p] = s } }"
    )
    found = {axis.name: largest_extent(axis, kernel.capacities) for axis in kernel.stages[0].reduce}
    assert found == {"c": 10, "d": 10, "n": 3}
