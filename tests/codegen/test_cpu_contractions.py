"""Contractions of all sizes, operand layouts and epilogues against the kernel interpreter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.codegen.host import host
from graphc.errors import CompileError
from graphc.kernel.schedule import Schedule

LAYOUTS = {  # name -> shapes and indices of the factors of y[n, o] = sum over k
    "features_innermost": ("x: f32[N,{k}], W: f32[{k},{o}]", "x[n, k] * W[k, o]"),
    "reduction_innermost": ("x: f32[N,{k}], W: f32[{o},{k}]", "W[o, k] * x[n, k]"),
    "batch_reversed": ("x: f32[{k},N], W: f32[{k},{o}]", "x[k, n] * W[k, o]"),
    "strided": ("x: f32[{k},N], W: f32[{o},{k}]", "x[k, n] * W[o, k]"),
}
SIZES = st.sampled_from((0, 1, 2, 3, 5, 7, 10, 15, 16, 17, 31, 33, 47, 64, 65, 67, 129))


def array(rng: np.random.Generator, *shape: int, dtype: str = "float32") -> Any:
    return rng.standard_normal(shape).astype(dtype)


def product_kernel(layout: str, rows: int, reduced: int, columns: int, epilogue: str = "max(acc + b[o], 0.0)") -> str:
    shapes, expression = (text.format(k=reduced, o=columns) for text in LAYOUTS[layout])
    return (
        f"kernel product({shapes}, b: f32[{columns}]) -> (y: f32[N,{columns}]) where N <= {rows} {{"
        f" space n < N, o < {columns} stage {{ reduce k < {reduced} acc: f32 = sum({expression})"
        f" y[n, o] = {epilogue} }} }}"
    )


def check_product(build: Callable[..., Any], layout: str, rows: int, reduced: int, columns: int) -> None:
    kernel, rng = build(product_kernel(layout, rows, reduced, columns)), np.random.default_rng(0)
    for count in sorted({0, 1, rows // 2, rows - 1, rows} & set(range(rows + 1))):
        x = array(rng, count, reduced) if "x[n, k]" in LAYOUTS[layout][1] else array(rng, reduced, count)
        W = array(rng, reduced, columns) if "W[k, o]" in LAYOUTS[layout][1] else array(rng, columns, reduced)
        kernel.check({"x": x, "W": W, "b": array(rng, columns)}, {"N": count}, rtol=1e-4, atol=1e-4, threads=(1, 2, 5))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("rows", "reduced", "columns"), [(37, 45, 50), (5, 16, 10), (64, 7, 129), (1, 33, 100)])
def test_sizes(build: Callable[..., Any], layout: str, rows: int, reduced: int, columns: int) -> None:
    check_product(build, layout, rows, reduced, columns)


@settings(max_examples=15)
@given(st.sampled_from(sorted(LAYOUTS)), SIZES, SIZES, SIZES)
def test_any_sizes(build: Callable[..., Any], layout: str, rows: int, reduced: int, columns: int) -> None:
    check_product(build, layout, rows, reduced, columns)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from(sorted(LAYOUTS)), SIZES, SIZES, SIZES)
def test_many_sizes(build: Callable[..., Any], layout: str, rows: int, reduced: int, columns: int) -> None:
    check_product(build, layout, rows, reduced, columns)


@pytest.mark.parametrize(("outputs", "inputs"), [(51, 77), (64, 128), (10, 33), (3, 5), (130, 1)])
def test_weight_gradient_with_update(build: Callable[..., Any], outputs: int, inputs: int) -> None:
    """The epilogue reads and writes two operands: no point may be computed twice."""
    shape = f"{outputs},{inputs}"
    kernel = build(
        f"kernel update(g: f32[N,{outputs}], x: f32[N,{inputs}], inout V: f32[{shape}], inout W: f32[{shape}],"
        f" lr: f32[]) -> () where N <= 40 {{ space o < {outputs}, k < {inputs} stage {{ reduce n < N"
        " acc: f32 = sum(g[n, o] * x[n, k]) let v: f32 = 0.9 * V[o, k] + acc"
        " V[o, k] = v W[o, k] = W[o, k] - lr[] * v } }"
    )
    rng = np.random.default_rng(1)
    for n in (0, 1, 40):
        given_arrays = {"g": array(rng, n, outputs), "x": array(rng, n, inputs), "lr": array(rng)}
        state = {"V": array(rng, outputs, inputs), "W": array(rng, outputs, inputs)}
        kernel.check({**given_arrays, **state}, {"N": n}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", ["features_innermost", "reduction_innermost"])
def test_epilogue_with_indices_and_draws(build: Callable[..., Any], layout: str) -> None:
    """Dropout and one-hot in the epilogue need the index of the row, in register tiles and in packed ones."""
    shapes, expression = (text.format(k=33, o=50) for text in LAYOUTS[layout])
    kernel = build(
        f"kernel drop({shapes}, rng: i64[2], t: i64[N], c: f32[N]) -> (y: f32[N,50], z: f32[N,50]) where N <= 41 {{"
        f" space n < N, o < 50 stage {{ reduce k < 33 acc: f32 = sum({expression})"
        " let keep: bool = uniform(rng[0], rng[1], 3, 0, n * 50 + o) < 0.5"
        " y[n, o] = where(keep, acc * 2.0, 0.0) - f32(i64(t[n] == o)) z[n, o] = acc * c[n] + b[t[n] in 0 .. 50, o] } }"
        .replace("c: f32[N])", "c: f32[N], b: f32[50,50])")
    )  # fmt: skip
    assert kernel.schedule.kind == ("outer" if layout == "features_innermost" else "dot")
    rng = np.random.default_rng(1)
    for n in (0, 1, 7, 41):
        W = array(rng, 33, 50) if layout == "features_innermost" else array(rng, 50, 33)
        inputs = {"x": array(rng, n, 33), "W": W, "rng": np.array([5, 7]), "t": rng.integers(0, 50, n)}
        kernel.check({**inputs, "c": array(rng, n), "b": array(rng, 50, 50)}, {"N": n}, rtol=1e-4, atol=1e-4)


def test_factors_that_are_expressions(build: Callable[..., Any]) -> None:
    """A gradient masked by a ReLU, and data scaled from bytes, inlined into the product."""
    kernel = build(
        "kernel masked(g: f32[N,20], h: f32[N,20], u: u8[N,50]) -> (W: f32[20,50]) where N <= 9 { space o < 20, k < 50"
        " stage { reduce n < N acc: f32 = sum(where(h[n, o] > 0.0, g[n, o], 0.0) * (f32(u[n, k]) * 0.5))"
        " W[o, k] = acc } }"
    )
    assert kernel.schedule.kind == "outer"
    rng = np.random.default_rng(1)
    for n in (0, 3, 9):
        inputs = {"g": array(rng, n, 20), "h": array(rng, n, 20), "u": rng.integers(0, 256, (n, 50)).astype("uint8")}
        kernel.check(inputs, {"N": n}, rtol=1e-4, atol=1e-4)


def test_batched_and_convolution(build: Callable[..., Any]) -> None:
    rng = np.random.default_rng(2)
    batched = build(
        "kernel batched(a: f32[6,11,13], b: f32[6,13,35]) -> (y: f32[6,11,35]) { space i < 6, n < 11, o < 35"
        " stage { reduce k < 13 acc: f32 = sum(a[i, n, k] * b[i, k, o]) y[i, n, o] = acc } }"
    )
    batched.check({"a": array(rng, 6, 11, 13), "b": array(rng, 6, 13, 35)}, rtol=1e-4, atol=1e-4)
    convolution = build(
        "kernel convolution(W: f32[6,2,5,5], X: f32[2,8,8,N], b: f32[6]) -> (Y: f32[6,8,8,N]) where N <= 37 {"
        " space co < 6, y < 8, x < 8, n < N stage { reduce ci < 2, ky in max(0, 2-y) .. min(5, 10-y),"
        " kx in max(0, 2-x) .. min(5, 10-x) acc: f32 = sum(W[co, ci, ky, kx] * X[ci, y+ky-2, x+kx-2, n])"
        " Y[co, y, x, n] = max(acc + b[co], 0.0) } }"
    )
    assert convolution.schedule.kind == "outer"
    for n in (0, 1, 37):
        inputs = {"W": array(rng, 6, 2, 5, 5), "X": array(rng, 2, 8, 8, n), "b": array(rng, 6)}
        convolution.check(inputs, {"N": n}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", ["W[k, o]", "W[o, k]"])
def test_doubles(build: Callable[..., Any], weights: str) -> None:
    shape = (37, 45) if weights == "W[k, o]" else (45, 37)
    kernel = build(
        f"kernel doubles(x: f64[9,37], W: f64[{shape[0]},{shape[1]}]) -> (y: f64[9,45]) {{ space n < 9, o < 45"
        f" stage {{ reduce k < 37 acc: f64 = sum(x[n, k] * {weights}) y[n, o] = tanh(acc) }} }}"
    )
    rng = np.random.default_rng(3)
    kernel.check({"x": array(rng, 9, 37, dtype="f8"), "W": array(rng, *shape, dtype="f8")}, rtol=1e-12, atol=1e-12)


def test_nothing_is_reassociated_across_tiles(build: Callable[..., Any]) -> None:
    """A row of the result has the same bits whatever the number of rows."""
    kernel, rng = build(product_kernel("features_innermost", 40, 33, 50)), np.random.default_rng(4)
    inputs = {"x": array(rng, 40, 33), "W": array(rng, 33, 50), "b": array(rng, 50)}
    whole = kernel.run(inputs, {"N": 40})["y"]
    for n in (1, 3, 17):
        part = kernel.run({**inputs, "x": inputs["x"][:n]}, {"N": n})["y"]
        np.testing.assert_array_equal(part, whole[:n])


@pytest.mark.parametrize(("reduced", "index"), [(37, "{x}[k, i] * {h}[k, o]"), (16, "{h}[k, o] * {x}[k, i]")])
def test_several_products_in_one_sum(build: Callable[..., Any], reduced: int, index: str) -> None:
    parts = [index.format(x=f"x{i}", h=f"h{i}") for i in range(3)]
    shapes = ", ".join(f"x{i}: f32[K,70], h{i}: f32[K,90]" for i in range(3))
    kernel = build(
        f"kernel weights({shapes}, inout W: f32[70,90]) -> () where K <= {reduced} {{ space i < 70, o < 90"
        f" stage {{ reduce k < K acc: f32 = sum({parts[0]} - ({parts[1]} - {parts[2]})) W[i, o] = W[i, o] + acc }} }}"
    )
    assert kernel.schedule.kind == "outer"
    rng = np.random.default_rng(0)
    for count in (0, 1, reduced):
        inputs = {f"{n}{i}": array(rng, count, size) for i in range(3) for n, size in (("x", 70), ("h", 90))}
        kernel.check(inputs | {"W": array(rng, 70, 90)}, {"K": count}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "taps", "pad"), [(7, 5, 2), (6, 3, 1), (5, 3, 0), (3, 5, 2), (4, 4, 3)])
@pytest.mark.parametrize("column", ["ky", "kx"])
def test_taps_of_a_window_as_columns(build: Callable[..., Any], size: int, taps: int, pad: int, column: str) -> None:
    """Columns that stick out over the edge of the image add nothing, and memory beyond it is not read."""
    out = size + 2 * pad - taps + 1
    y, x = (f"{a} in max(0, {pad}-k{a}) .. min({out}, {size + pad}-k{a})" for a in "yx")
    text = (
        f"kernel taps(X: f32[{size},{size},N], G: f32[6,{out},{out},N]) -> (W: f32[6,{taps},{taps}]) where N <= 21 {{"
        f" space co < 6, ky < {taps}, kx < {taps} stage {{ reduce {y}, {x}, n < N"
        f" acc: f32 = sum(X[y+ky-{pad}, x+kx-{pad}, n] * G[co, y, x, n]) W[co, ky, kx] = acc }} }}"
    )
    rng = np.random.default_rng(5)
    for width in (taps, 2):
        schedule = Schedule("dot", "n", (("co", 4), (column, width), ("n", host().lanes)), ("co", "ky", "kx"))
        kernel = build(text, schedule)
        for n in (1, 16, 21):
            inputs = {"X": array(rng, size, size, n), "G": array(rng, 6, out, out, n)}
            kernel.check(inputs, {"N": n}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch", [5, 16, 37])
def test_padded_rows_are_computed_whole(build: Callable[..., Any], batch: int) -> None:
    """Behind the count lies padding: no masks are needed, and nothing beyond it is touched."""
    padding = -batch % 16
    text = (
        f"kernel hidden(x: f32[20,N]+{padding}, W: f32[9,20]) -> (y: f32[9,N]+{padding}) where N <= {batch} {{"
        " space o < 9, n < N stage { reduce k < 20 acc: f32 = sum(W[o, k] * x[k, n]) y[o, n] = max(acc, 0.0) } }"
    )
    kernel, rng = build(text.replace("+0", "")), np.random.default_rng(6)
    assert "masked" not in kernel.source
    for n in (1, batch - 1, batch):
        kernel.check({"x": array(rng, 20, n), "W": array(rng, 9, 20)}, {"N": n}, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("size", "taps", "pad"), [(28, 5, 2), (50, 3, 1), (7, 5, 3), (16, 3, 2)])
def test_lanes_along_an_image(build: Callable[..., Any], size: int, taps: int, pad: int) -> None:
    """One image, lanes along its rows: lanes whose window sticks out over the edge read zeros there."""
    out = size + 2 * pad - taps + 1
    y, x = (f"k{a} in max(0, {pad}-{a}) .. min({taps}, {size + pad}-{a})" for a in "yx")
    kernel = build(
        f"kernel image(W: f32[6,2,{taps},{taps}], X: f32[2,{size},{size}], b: f32[6]) -> (Y: f32[6,{out},{out}]) {{"
        f" space o < 6, y < {out}, x < {out} stage {{ reduce c < 2, {y}, {x}"
        f" acc: f32 = sum(W[o, c, ky, kx] * X[c, y+ky-{pad}, x+kx-{pad}]) Y[o, y, x] = max(acc + b[o], 0.0) }} }}"
    )
    assert (kernel.schedule.kind, kernel.schedule.vector_axis) == ("outer", "x") and "tile_load_lanes" in kernel.source
    rng = np.random.default_rng(7)
    inputs = {"W": array(rng, 6, 2, taps, taps), "X": array(rng, 2, size, size), "b": array(rng, 6)}
    kernel.check(inputs, rtol=1e-4, atol=1e-4)


def test_a_schedule_that_does_not_fit_is_refused(build: Callable[..., Any]) -> None:
    text = product_kernel("reduction_innermost", 4, 64, 5)
    lanes = host().lanes
    with pytest.raises(CompileError, match=f"reads {lanes} elements of 'k' at a time, its tile says {2 * lanes}"):
        build(text, Schedule("dot", "k", (("n", 2), ("o", 2), ("k", 2 * lanes)), ("o", "n")))


@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("kind", ["dot", "outer"])
def test_tiles_of_any_height_cover_rows_between_bounds(build: Callable[..., Any], kind: str, rows: int) -> None:
    """A phase of a strided convolution's input gradient, whose edge no tap reaches."""
    lanes = host().lanes
    kernel = (
        "kernel phase(g: f32[10,8], {shape}) -> (y: f32[17,3] init 0) {{ space x in 1 .. 9, c < 3"
        " stage {{ reduce o < 8 acc: f32 = sum(g[x, o] * {weight}) y[2*x-1, c] = acc }} }}"
    )
    shape, weight, tile = {
        "dot": ("W: f32[3,8]", "W[c, o]", (("x", rows), ("c", 2), ("o", lanes))),
        "outer": ("W: f32[8,3]", "W[o, c]", (("x", rows), ("c", lanes))),
    }[kind]
    rng = np.random.default_rng(4)
    arrays = {"g": array(rng, 10, 8), "W": array(rng, *((3, 8) if kind == "dot" else (8, 3)))}
    built = build(kernel.format(shape=shape, weight=weight), Schedule(kind, tile[-1][0], tile, ("c", "x")))
    built.check(arrays, rtol=1e-5, atol=1e-5)
