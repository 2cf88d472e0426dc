"""Kernel forms of windows: bounds, tables, phases and injective stores, as text and against the reference."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.errors import CompileError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, symbol
from graphc.ir.graph import Node, Value
from graphc.ir.types import TensorType, as_dtype
from graphc.kernel.compose import rename_axes
from graphc.kernel.counts import flops
from graphc.kernel.form import Kernel
from graphc.kernel.interpret import run
from graphc.kernel.text import print_kernel
from graphc.kernel.verify import verify

N = symbol("N")
Shape = tuple[Dim, ...]


def contraction(equation: str, first: Shape, second: Shape, result: Shape, dtype: str = "f32") -> Node:
    values = [Value(TensorType(as_dtype(dtype), s), name=n) for n, s in (("x", first), ("w", second))]
    node = Builder().contract(*values, equation=equation, shape=result).producer
    assert isinstance(node, Node)
    return node


def form(node: Node) -> Kernel:
    kernel: Kernel = node.op.lower(node)
    return dataclasses.replace(kernel, capacities={name: 8 for name in kernel.runtime_extents})


def body(kernel: Kernel) -> str:
    """Axes, sums and stores of a kernel's text."""
    lines = [line.strip() for line in print_kernel(kernel).splitlines()]
    return "\n".join(line for line in lines[1:] if line not in ("stage {", "}"))


FORMS: list[tuple[str, Shape, Shape, Shape, str]] = [
    (
        "[n, c, y+k-2] [o, c, k] -> [n, o, y]", (N, 1, 28), (6, 1, 5), (N, 6, 28),
        """space n < N, o < 6, y < 28
           reduce c < 1, k in max(0, 2-y) .. min(5, 30-y)
           acc: f32 = sum(in0[n, c, y+k-2] * in1[o, c, k])
           out0[n, o, y] = acc""",
    ),
    (  # no padding, no bounds
        "[n, c, y+k] [o, c, k] -> [n, o, y]", (N, 6, 14), (16, 6, 5), (N, 16, 10),
        """space n < N, o < 16, y < 10
           reduce c < 6, k < 5
           acc: f32 = sum(in0[n, c, y+k] * in1[o, c, k])
           out0[n, o, y] = acc""",
    ),
    (  # with respect to the weight
        "[n, c, y+k-2] [n, o, y] -> [o, c, k]", (N, 1, 28), (N, 6, 28), (6, 1, 5),
        """space o < 6, c < 1, k < 5
           reduce n < N, y in max(0, 2-k) .. min(28, 30-k)
           acc: f32 = sum(in0[n, c, k+y-2] * in1[n, o, y])
           out0[o, c, k] = acc""",
    ),
    (  # with respect to the input: solved for y
        "[n, o, y] [o, c, k] -> [n, c, y+k-2]", (N, 6, 28), (6, 1, 5), (N, 1, 28),
        """space n < N, c < 1, i2 < 28
           reduce o < 6, k in max(0, i2-25) .. min(5, i2+3)
           acc: f32 = sum(in0[n, o, i2+2-k] * in1[o, c, k])
           out0[n, c, i2] = acc""",
    ),
    (  # stride 2: solved for k; each element has the taps of its phase alone
        "[n, o, y] [o, c, k] -> [n, c, 2*y+k-1]", (N, 6, 4), (6, 3, 3), (N, 3, 8),
        """space n < N, c < 3, i2 < 8
           reduce o < 6, y in [0, 0, 1, 1, 2, 2, 3, 3][i2] .. [1, 2, 2, 3, 3, 4, 4, 4][i2]
           acc: f32 = sum(in0[n, o, y] * in1[o, c, i2+1-2*y])
           out0[n, c, i2] = acc""",
    ),
    (  # stride 2 and its weight: bounds as a table over the tap
        "[n, c, 2*y+k-1] [n, o, y] -> [o, c, k]", (N, 3, 8), (N, 6, 4), (6, 3, 3),
        """space o < 6, c < 3, k < 3
           reduce n < N, y in [1, 0, 0][k] .. 4
           acc: f32 = sum(in0[n, c, k+2*y-1] * in1[n, o, y])
           out0[o, c, k] = acc""",
    ),
    (  # dilation 2: bounds of taps as tables
        "[n, c, y+2*k-2] [o, c, k] -> [n, o, y]", (N, 1, 4), (2, 1, 3), (N, 2, 4),
        """space n < N, o < 2, y < 4
           reduce c < 1, k in [1, 1, 0, 0][y] .. [3, 3, 2, 2][y]
           acc: f32 = sum(in0[n, c, y+2*k-2] * in1[o, c, k])
           out0[n, o, y] = acc""",
    ),
    (  # dilation and padding that divide by one number: no table
        "[n, c, 2*y+2*k-2] [o, c, k] -> [n, o, y]", (N, 1, 7), (2, 1, 3), (N, 2, 4),
        """space n < N, o < 2, y < 4
           reduce c < 1, k in max(0, 1-y) .. min(3, 5-y)
           acc: f32 = sum(in0[n, c, 2*y+2*k-2] * in1[o, c, k])
           out0[n, o, y] = acc""",
    ),
    (  # a window as long as its stride: each element of the result has one tap, a digit of its index
        "[n, c, y] [c, o, k] -> [n, o, 2*y+k]", (N, 3, 4), (3, 5, 2), (N, 5, 8),
        """space n < N, o < 5, y < 4, k < 2
           reduce c < 3
           acc: f32 = sum(in0[n, c, y] * in1[c, o, k])
           out0[n, o, 2*y+k] = acc""",
    ),
    (  # groups
        "[n, 2*g+c, y] [3*g+o, c] -> [n, 3*g+o, y] where g < 4, o < 3", (N, 8, 5), (12, 2), (N, 12, 5),
        """space n < N, g < 4, o < 3, y < 5
           reduce c < 2
           acc: f32 = sum(in0[n, 2*g+c, y] * in1[3*g+o, c])
           out0[n, 3*g+o, y] = acc""",
    ),
    (  # every second element of the result; the others are 0
        "[n, o, y] [o, c] -> [n, c, 2*y]", (N, 6, 4), (6, 3), (N, 3, 8),
        """space n < N, c < 3, y < 4
           reduce o < 6
           acc: f32 = sum(in0[n, o, y] * in1[o, c])
           out0[n, c, 2*y] = acc""",
    ),
    (  # a symbolic size that no loop leaves
        "[n, c, y+k-1] [o, c, k] -> [n, o, y]", (1, 1, N), (1, 1, 3), (1, 1, N),
        """space n < 1, o < 1, y < N
           reduce c < 1, k in max(0, 1-y) .. min(3, N+1-y)
           acc: f32 = sum(in0[n, c, y+k-1] * in1[o, c, k])
           out0[n, o, y] = acc""",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("equation", "first", "second", "result", "expected"), FORMS, ids=lambda v: str(v)[:44])
def test_forms(equation: str, first: Shape, second: Shape, result: Shape, expected: str) -> None:
    kernel = form(contraction(equation, first, second, result))
    verify(kernel)
    assert body(kernel) == "\n".join(line.strip() for line in expected.splitlines())


def test_a_stride_and_a_dilation_test_divisibility_alone() -> None:
    kernel = form(contraction("[n, o, y] [o, c, k] -> [n, c, 2*y+3*k-1]", (N, 3, 8), (3, 6, 3), (N, 6, 21)))
    verify(kernel)
    text = print_kernel(kernel)
    assert "k in [" in text and text.count("where(") == 1 and "max(" not in text


def test_matrix_products_are_the_same_forms() -> None:
    """matmul and einsum are contractions of plain axes: the same kernel, but for the names of its axes."""
    values = [Value(TensorType(as_dtype("f32"), s), name=n) for n, s in (("x", (N, 4)), ("w", (3, 4)))]
    product = form(Builder().matmul(*values, transpose_b=True).producer)
    einsum = form(Builder().einsum(*values, equation="nk,ok->no").producer)
    named = {"n": "i0", "o": "i1", "k": "r0"}
    window = rename_axes(form(contraction("[n, k] [o, k] -> [n, o]", (N, 4), (3, 4), (N, 3))), named)
    assert body(window) == body(product) == body(einsum)


@pytest.mark.parametrize(
    ("equation", "first", "second", "result"),
    [
        ("[n, c, y+k-2] [o, c, k] -> [n, o, y]", (N, 3, 9), (4, 3, 5), (N, 4, 9)),
        ("[n, c, y+k-2] [n, o, y] -> [o, c, k]", (N, 3, 9), (N, 4, 9), (4, 3, 5)),
        ("[n, o, y] [o, c, k] -> [n, c, y+k-2]", (N, 4, 9), (4, 3, 5), (N, 3, 9)),
        ("[n, c, 2*y+k-2] [o, c, k] -> [n, o, y]", (N, 3, 9), (4, 3, 5), (N, 4, 5)),
        ("[n, o, y] [o, c, k] -> [n, c, 2*y+k-2]", (N, 4, 5), (4, 3, 5), (N, 3, 9)),
    ],
)
def test_taps_on_padding_cost_nothing(equation: str, first: Shape, second: Shape, result: Shape) -> None:
    """A convolution and both its gradients have the same points: those whose index is inside."""
    stride, positions = (2, 5) if "2*y" in equation else (1, 9)
    inside = sum(0 <= stride * y + k - 2 < 9 for y in range(positions) for k in range(5))
    kernel = form(contraction(equation, first, second, result))
    assert flops(kernel) == 2 * 3 * 4 * inside * N


def test_an_output_with_gaps_starts_at_zero() -> None:
    kernel = form(contraction("[n, o, y] [o, c] -> [n, c, 2*y]", (N, 6, 4), (6, 3), (N, 3, 8)))
    assert kernel.operand("out0").init == 0
    assert form(contraction("[i] [i] -> [i, i]", (3,), (3,), (3, 3))).operand("out0").init == 0


def test_what_no_order_of_axes_solves_is_refused() -> None:
    node = contraction("[a, b] [a, b] -> [2*a+2*b, 2*a-2*b]", (3, 3), (3, 3), (9, 9))
    with pytest.raises(CompileError, match="one after the other"):
        node.op.lower(node)


def random_equation(rng: random.Random) -> tuple[str, list[Shape]]:
    """Three index maps over one to four axes: strides, dilations, signs, offsets, and axes anywhere."""
    axes = list("abcd")[: rng.randint(1, 4)]
    sizes = {axis: rng.randint(1, 5) for axis in axes}

    def index() -> str:
        chosen = rng.sample(axes, min(rng.choice([0, 1, 1, 1, 2, 2, 3]), len(axes)))
        terms = [f"{rng.choice([1, 1, 1, 2, 3, -1, -2])}*{axis}" for axis in chosen]
        shift = rng.choice([0, 0, -1, -2, 1, 2])
        return "+".join([*terms, *([str(shift)] if shift or not terms else [])]).replace("+-", "-")

    maps, shapes = [], []
    for _ in range(3):
        indices = [rng.choice(axes) if rng.random() < 0.5 else index() for _ in range(rng.randint(0, 3))]
        maps.append(f"[{', '.join(indices)}]")
        shapes.append(tuple(sizes[i] if i in sizes else rng.randint(1, 9) for i in indices))
    where = ", ".join(f"{axis} < {size}" for axis, size in sizes.items() if axis in "".join(maps))
    return f"{maps[0]} {maps[1]} -> {maps[2]}" + (f" where {where}" if where else ""), shapes


def test_random_equations_equal_the_reference() -> None:
    rng, seen = random.Random(0), Counter[str]()
    while seen["equal"] < 250:
        equation, shapes = random_equation(rng)
        try:
            node = contraction(equation, *shapes, dtype="f64")
            kernel = form(node)
        except (ShapeError, CompileError) as error:
            seen[type(error).__name__] += 1
            continue
        verify(kernel)
        arrays = [np.cos(np.arange(float(np.prod(s))) + k).reshape(s) for k, s in enumerate(shapes[:2])]
        found = run(kernel, dict(zip(("in0", "in1"), arrays, strict=True)))["out0"]
        (expected,) = node.op.reference(arrays, node.attributes)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12, err_msg=equation)
        seen["equal"] += 1
    assert seen["CompileError"] < 10 < seen["ShapeError"]  # axes that one tensor alone has
