"""Sizes that are 0 or too large, and input arrays in every memory layout, through whole programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.errors import CompileError, MemoryLimitError


@pytest.mark.parametrize(("rows", "reduced", "columns"), [("N", 0, 3), ("N", 3, 0), (0, 3, 2), (0, 0, 0)])
def test_contractions_with_an_axis_of_size_0(rows: Any, reduced: int, columns: int) -> None:
    x, w = gc.input("x", (rows, reduced)), gc.param("w", (reduced, columns))
    y = gc.relu(x @ w + 1.0)
    step = gc.compile([x], [y, gc.grad(gc.sum(y * y), w)], {w: w + 1.0}, dims={"N": 4} if rows == "N" else {})
    for n in (4, 1, 0) if rows == "N" else (rows,):
        value, gradient = step(np.ones((n, reduced), "f4"))
        np.testing.assert_array_equal(value, np.ones((n, columns)))
        assert gradient.shape == (reduced, columns) and not gradient.any()


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        (2**40, 2**30, r"needs 4096 EiB, more than 64-bit indices .* largest values are x: f32\[N,1073741824\]"),
        (2**62, 1, "needs 16 EiB, more than 64-bit indices count"),
        (2**30, 2**20, r"needs 4 PiB, which this machine does not give; .* x: f32\[N,1048576\] \(4 PiB\)"),
    ],
)
def test_sizes_beyond_the_index_type_and_the_machine(rows: int, columns: int, message: str) -> None:
    x = gc.input("x", ("N", columns))
    with pytest.raises(MemoryLimitError, match=message) as raised:
        gc.compile([x], [gc.sum(gc.exp(x))], dims={"N": rows})
    assert isinstance(raised.value, MemoryError)


def test_points_and_draws_beyond_what_indices_count() -> None:
    x, y = gc.input("x", ("N",)), gc.input("y", ("M",))
    with pytest.raises(CompileError, match=f"has {2**66} points, more than 64-bit indices count"):
        gc.compile([x, y], [gc.sum(gc.reshape(x, ("N", 1)) * y)], dims={"N": 2**33, "M": 2**33})
    with pytest.raises(CompileError, match="draws 34359738368 random numbers at once, of which only 17179869184"):
        gc.compile([], [gc.sum(gc.random.uniform((2**35,)))])


def test_a_variable_that_no_memory_holds() -> None:
    w = gc.param("w", (2**40, 2**30))
    with pytest.raises(MemoryLimitError, match=r"Param 'w': there is no room for f32\[.*\], 4096 EiB"):
        gc.compile([], [gc.sum(w)])


def _variants(base: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays of the elements of `base` in other memory layouts."""
    wide = np.zeros((2 * base.shape[0], 3 * base.shape[1]), base.dtype)
    wide[::2, ::3] = base
    read_only = base.copy()
    read_only.flags.writeable = False
    return {
        "strided": wide[::2, ::3],
        "fortran": np.asfortranarray(base),
        "reversed": base[::-1, ::-1].copy()[::-1, ::-1],
        "read-only": read_only,
        "other byte order": base.astype(base.dtype.newbyteorder(">")),
        "unaligned": np.frombuffer(b"-" + base.tobytes(), np.uint8)[1:].view(base.dtype).reshape(base.shape),
    }


def test_the_memory_layout_of_inputs_does_not_matter() -> None:
    x, t, w = gc.input("x", ("N", 6)), gc.input("t", ("N", 2), dtype="int32"), gc.param("w", (6, 2))
    step = gc.compile([x, t], [gc.tanh(x @ w) + t.astype("float32")], dims={"N": 8})
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((8, 6)).astype("f4"), rng.integers(0, 9, (8, 2)).astype("i4")
    (wanted,) = step(a, b)
    layouts = _variants(a), _variants(b)
    for name in layouts[0]:
        given = layouts[0][name], layouts[1][name]
        before = [array.copy() for array in given]
        np.testing.assert_array_equal(step(*given)[0], wanted, err_msg=name)
        for array, old in zip(given, before, strict=True):
            np.testing.assert_array_equal(array, old)


def test_overlapping_inputs_are_read_before_anything_is_written() -> None:
    x, y, w = gc.input("x", ("N", 6)), gc.input("y", ("N", 6)), gc.param("w", (6, 6), init=gc.init.normal())
    step = gc.compile([x, y], [x - y, x @ w], {w: w + x.T @ y}, dims={"N": 6})
    series = np.arange(11, dtype="f4")
    windows = np.lib.stride_tricks.sliding_window_view(series, 6)  # every element is in several rows
    same = np.broadcast_to(series[:6], (6, 6))
    old = w.value
    difference, product = step(windows, same)
    np.testing.assert_allclose(difference, windows - same)
    np.testing.assert_allclose(product, windows @ old, rtol=1e-4, atol=1e-5)
    old = w.value
    difference, product = step(w.array, w.array.T)  # the variable's own memory, which the step overwrites
    np.testing.assert_allclose(difference, old - old.T, atol=1e-4)
    np.testing.assert_allclose(product, old @ old, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(w.value, old + old.T @ old.T, rtol=1e-3, atol=1e-2)


def test_shapes_seen_before_are_remembered_and_new_ones_still_grow() -> None:
    x, y = gc.input("x", ("N", 2)), gc.input("y", ("M", 2))
    add = gc.compile([x, y], [gc.sum(x) - gc.sum(y)])
    ones = np.ones((9, 2), "f4")
    for n, m in ((2, 3), (2, 3), (3, 2), (9, 3), (2, 3), (9, 9), (1, 0)):
        for found in (add(ones[:n], ones[:m]), add(y=ones[:m], x=ones[:n]), add(ones[:n].tolist(), y=ones[:m])):
            assert found[0] == 2 * (n - m)
