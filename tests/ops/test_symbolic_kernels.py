"""Kernels of ops whose shapes hold symbols: sizes are read at run time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, symbol
from graphc.ir.graph import Graph, Value
from graphc.ir.types import TensorType, as_dtype
from graphc.kernel.interpret import run

N = symbol("N")
ROWS = np.sin(np.arange(30.0)).reshape(5, 6)
LABELS = np.array([0, 5, 2, 2, 1], np.int32)
TAPS = np.arange(15, dtype=np.uint8).reshape(5, 3) % 2
WINDOW = {"kernel": (2,), "stride": (2,), "padding": (0,), "dilation": (1,)}
STATE = np.array([3, 4], np.int64)

CASES: list[tuple[str, list[tuple[Any, tuple[Dim, ...]]], dict[str, Any]]] = [
    ("mean", [(ROWS, (N, 6))], {"axes": (0,)}),
    ("mean", [(ROWS, (N, 6))], {"axes": (0, 1)}),
    ("max", [(ROWS, (N, 6))], {"axes": (0,), "keepdims": True}),
    ("argmax", [(ROWS, (N, 6))], {"axis": 0}),
    ("log_softmax", [(ROWS, (N, 6))], {}),
    ("log_softmax", [(ROWS.T, (6, N))], {}),
    ("cross_entropy", [(ROWS, (N, 6)), (LABELS, (N,))], {}),
    ("gather", [(ROWS, (N, 6)), (LABELS, (N,))], {}),
    ("matmul", [(ROWS, (N, 6)), (ROWS, (N, 6))], {"transpose_a": True}),
    ("matmul", [(ROWS, (N, 6)), (ROWS, (N, 6))], {"transpose_b": True}),
    ("reshape", [(ROWS, (N, 6))], {"shape": (N, 2, 3)}),
    ("reshape", [(ROWS.reshape(5, 2, 3), (N, 2, 3))], {"shape": (N, 6)}),
    ("reshape", [(ROWS, (N, 6))], {"shape": (6 * N,)}),
    ("reshape", [(ROWS.reshape(-1), (6 * N,))], {"shape": (N, 6)}),
    ("reshape", [(ROWS.T, (6, N))], {"shape": (2, 3 * N)}),
    ("reshape", [(ROWS.T, (6, N))], {"shape": (6 * N,)}),
    ("reshape", [(ROWS.T, (6, N))], {"shape": (N, 6)}),
    ("transpose", [(ROWS, (N, 6))], {"permutation": (1, 0)}),
    ("broadcast_to", [(ROWS[0], (6,))], {"shape": (N, 6)}),
    ("one_hot", [(LABELS, (N,))], {"depth": 6, "dtype": as_dtype("float64")}),
    ("uniform", [(STATE, (2,))], {"shape": (N, 20), "stream": 1}),
    ("uniform", [(STATE, (2,))], {"shape": (20, N), "stream": 1}),
    ("size", [], {"dim": 2 * N + 1}),
    ("iota", [], {"size": 2 * N + 1}),
    ("prod", [(ROWS, (N, 6))], {"axes": (0,)}),
    ("var", [(ROWS, (N, 6))], {"axes": (0,)}),
    ("std", [(ROWS, (N, 6))], {"axes": (0, 1), "correction": 0}),
    ("norm", [(ROWS, (N, 6))], {"axes": (0,)}),
    ("logsumexp", [(ROWS, (N, 6))], {"axes": (0,), "keepdims": True}),
    ("any", [(ROWS > 0.9, (N, 6))], {"axes": (0,)}),
    ("argmin", [(ROWS, (N, 6))], {"axis": 0}),
    ("cumsum", [(ROWS, (N, 6))], {"axis": 0, "reverse": True}),
    ("cumprod", [(ROWS, (N, 6))], {"axis": 0}),
    ("ranks", [(ROWS, (N, 6))], {"axis": 0}),
    ("inverse_permutation", [(np.argsort(ROWS, 0), (N, 6))], {"axis": 0, "size": N}),
    ("slice", [(ROWS, (N, 6))], {"start": (1, 5), "shape": (N - 1, 3), "step": (1, -2)}),
    ("slice", [(ROWS, (N, 6))], {"start": (N - 1, 0), "shape": (N, 6), "step": (-1, 1)}),
    ("pad", [(ROWS, (N, 6))], {"start": (1, 0), "shape": (N + 3, 6), "step": (1, 1), "value": 2.0}),
    ("pad", [(ROWS, (N, 6))], {"start": (2 * N - 1, 0), "shape": (2 * N, 6), "step": (-2, 1)}),
    ("concatenate", [(ROWS, (N, 6)), (ROWS, (N, 6))], {"axis": 0}),
    ("concatenate", [(ROWS, (N, 6)), (ROWS[:, :2], (N, 2))], {"axis": 1}),
    ("roll", [(ROWS, (N, 6))], {"shifts": (-7, 2), "axes": (0, 1)}),
    ("take", [(ROWS, (N, 6)), (LABELS[1:], (4,))], {"axis": 1}),
    ("take", [(ROWS, (N, 6)), (LABELS % 5, (N,))], {"axis": 0}),
    ("scatter_add", [(ROWS, (N, 6)), (LABELS, (N,))], {"axis": 0, "size": 6}),
    ("scatter_add", [(ROWS, (N, 6)), (LABELS % 5, (N,))], {"axis": 0, "size": N}),
    ("take_along_axis", [(ROWS, (N, 6)), (np.argsort(ROWS, 0), (N, 6))], {"axis": 0}),
    ("scatter_along_axis", [(ROWS, (N, 6)), (np.argsort(ROWS, 0), (N, 6))], {"axis": 0, "size": N}),
    ("einsum", [(ROWS, (N, 6)), (ROWS, (N, 6))], {"equation": "ni,nj->ji"}),
    ("contract", [(ROWS, (N, 6)), (ROWS[0, :3], (3,))], {"equation": "[n, y+k-1] [k] -> [n, y]", "shape": (N, 6)}),
    ("contract", [(ROWS, (N, 6)), (ROWS[:, :3], (N, 3))], {"equation": "[n, 2*y+k-1] [n, y] -> [k]", "shape": (3,)}),
    ("contract", [(ROWS, (N, 6)), (ROWS[0, :3], (3,))], {"equation": "[y+k-1, i] [k] -> [y, i]", "shape": (N, 6)}),
    ("contract", [(ROWS, (N, 6)), (ROWS[0, :3], (3,))], {"equation": "[y, i] [k] -> [y+k-1, i]", "shape": (N, 6)}),
    ("contract", [(ROWS, (N, 6)), (ROWS[0, :3], (3,))], {"equation": "[y, i] [k] -> [2*y+k, i]", "shape": (2 * N, 6)}),
    ("contract", [(ROWS, (N, 6)), (ROWS[0, :2], (2,))], {"equation": "[y+2*k-1, i] [k] -> [y, i]", "shape": (N, 6)}),
    ("max_pool", [(ROWS, (N, 6))], {**WINDOW, "shape": (N, 3)}),
    ("max_unpool", [(ROWS[:, :3], (N, 3)), (TAPS, (N, 3))], {**WINDOW, "shape": (N, 6)}),
    ("max_pick", [(ROWS, (N, 6)), (TAPS, (N, 3))], WINDOW),
]


@pytest.mark.parametrize(("name", "operands", "attributes"), CASES)
def test_kernel_reads_sizes_at_run_time(
    name: str, operands: list[tuple[np.ndarray, tuple[Dim, ...]]], attributes: dict[str, Any]
) -> None:
    values = [Value(TensorType(as_dtype(a.dtype), s), name=f"in{k}") for k, (a, s) in enumerate(operands)]
    rows = Value(TensorType(as_dtype("f32"), (N,)), name="rows")  # tells the interpreter N where no operand does
    found = getattr(Builder(), name)(*values, **attributes)
    output = found[0] if isinstance(found, tuple) else found
    kernel = dataclasses.replace(output.producer.op.lower(output.producer), capacities={"N": 9})
    assert "N" in kernel.runtime_extents or not any("N" in str(v) for v in (*attributes.values(), *values))
    arrays = {f"in{k}": a for k, (a, _) in enumerate(operands)}
    graph = Graph(name, (*values, rows), (output,))
    expected = evaluate(graph, {**arrays, "rows": np.zeros(5)})[0]

    found = run(kernel, arrays, {"N": 5}, float64=True)["out0"]

    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


def test_flattening_stays_affine() -> None:
    """A flatten between layers must not cost a division for each element: rows pass, columns split by division only
    where one axis of the result runs over several of the operand."""
    x = Value(TensorType(as_dtype("f32"), (N, 6)), name="x")
    output = Builder().reshape(x, shape=(N, 2, 3))
    kernel = output.producer.op.lower(output.producer)
    assert "floordiv" not in str(kernel) and "Computed" not in str(kernel)


def shapes_of(size: int, rank: int) -> list[tuple[int, ...]]:
    if rank == 0:
        return [()] if size == 1 else []
    return [(d, *rest) for d in range(1, size + 1) if size % d == 0 for rest in shapes_of(size // d, rank - 1)]


def test_every_reshape_of_twelve_elements() -> None:
    """Axes that pass, split, join and regroup, with size-1 axes anywhere."""
    shapes = [shape for rank in (1, 2, 3) for shape in shapes_of(12, rank)]
    assert len(shapes) == 25
    for source in shapes:
        for target in shapes:
            array = np.arange(12, dtype=np.int32).reshape(source)
            output = Builder().reshape(Value(TensorType(as_dtype(array.dtype), source), name="x"), shape=target)
            found = run(output.producer.op.lower(output.producer), {"in0": array})["out0"]
            np.testing.assert_array_equal(found, array.reshape(target), f"{source} to {target}")
