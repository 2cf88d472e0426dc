"""Sums of products over windows: convolutions of any stride, padding, dilation and groups, and all their derivatives.

One op, closed under differentiation: the three tensors of an equation change places. With

    Y:  [n, c, 2*y+ky-1, x+kx] [o, c, ky, kx] -> [n, o, y, x]

the gradient with respect to the first operand is `[n, o, y, x] [o, c, ky, kx] -> [n, c, 2*y+ky-1, x+kx]` of dY and W,
and that with respect to the second is `[n, c, 2*y+ky-1, x+kx] [n, o, y, x] -> [o, c, ky, kx]` of X and dY. See
`graphc.ops.index_maps` for the text and `graphc.ops.window_forms` for the kernels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import DTypeError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import TensorType
from graphc.kernel.expr import Apply, Const, Expr
from graphc.kernel.form import Kernel
from graphc.ops import forms
from graphc.ops.index_maps import Equation, axes_of, axis_sizes, normalised, parse_equation, plain_axis, positions
from graphc.ops.rules import NUMBERS, expect_dtype, expect_operands
from graphc.ops.window_forms import solve, window_kernel


def _infer_contract(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    for position, type_ in enumerate(types):
        expect_dtype(type_, NUMBERS, f"operand {position}")
    first, second = types
    if first.dtype != second.dtype:
        raise DTypeError(f"operands have dtypes {first.dtype} and {second.dtype}; cast one to the other's dtype")
    result = TensorType(first.dtype, tuple(attributes["shape"]))
    equation = parse_equation(attributes["equation"])
    sizes = axis_sizes(equation, [first.shape, second.shape, result.shape])
    _check_axes(equation, sizes)
    for type_, indices in zip((*types, result), equation.maps, strict=True):
        for index, dim in zip(indices, type_.shape, strict=True):
            if dim == 0 and plain_axis(index) is None:
                raise ShapeError(f"a window slides over an axis of size 0 of {format_shape(type_.shape)}")
    return (result,)


def _check_axes(equation: Equation, sizes: Mapping[str, Dim]) -> None:
    used = [axes_of(indices) for indices in equation.maps]
    for name in equation.axes:
        if sum(name in axes for axes in used) < 2 and sizes[name] != 1:
            raise ShapeError(f"axis {name!r} is in one tensor alone; sum it, or broadcast it, in a node of its own")


# ---- reference ------------------------------------------------------------------------------------------------------


def _contract_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    """Every operand spread over its axes, 0 outside; the products summed; the sums added where the result has them."""
    equation, shape = parse_equation(attributes["equation"]), tuple(attributes["shape"])
    sizes = axis_sizes(equation, [np.shape(arrays[0]), np.shape(arrays[1]), shape])
    static = {name: int(str(size)) for name, size in sizes.items()}
    number = {name: k for k, name in enumerate(static)}
    spread: list[Any] = []
    for array, indices in zip(arrays, equation.maps, strict=False):
        axes = [name for name in static if name in axes_of(indices)]
        at, inside = positions(indices, axes, static, np.shape(array))
        spread += [np.where(inside, np.asarray(array)[at], 0), [number[name] for name in axes]]
    kept = [name for name in static if name in axes_of(equation.maps[2])]
    summed = [name for name in kept if number[name] in spread[1] + spread[3]]
    with np.errstate(all="ignore"):
        total = np.einsum(*spread, [number[name] for name in summed], optimize=True)
    total = np.reshape(total, [static[name] for name in kept])  # an axis of the result alone has one point
    at, inside = positions(equation.maps[2], kept, static, shape)
    result = np.zeros(shape, np.asarray(arrays[0]).dtype)
    if not shape:
        return (result + total[inside].sum(dtype=result.dtype),)
    np.add.at(result, tuple(p[inside] for p in at), total[inside])
    return (result,)


# ---- gradient, kernel ------------------------------------------------------------------------------------------------


def _contract_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), (x, w) = cotangents, node.inputs
    if g is None:
        return [None, None]
    maps, _, rest = node.attributes["equation"].partition("->")
    (first, _, second), (result, where, given) = maps.partition("]"), rest.partition("where")
    first, second, result, tail = first.strip() + "]", second.strip(), result.strip(), f" {where}{given}".rstrip()
    return [
        b.contract(g, w, equation=f"{result} {second} -> {first}{tail}", shape=x.type.shape),
        b.contract(x, g, equation=f"{first} {result} -> {second}{tail}", shape=w.type.shape),
    ]


def _lower_contract(node: Node) -> Kernel:
    equation = parse_equation(node.attributes["equation"])
    shapes = [*(v.type.shape for v in node.inputs), node.type.shape]
    sizes = axis_sizes(equation, shapes)
    *read, result = normalised(equation, sizes)
    window = solve(result, node.type.shape, list(zip(read, shapes, strict=False)), sizes)
    factors = tuple(
        forms.load(node, k, window.indices(indices, shapes[k])) for k, indices in enumerate(read)
    )
    product: Expr = Apply("mul", factors)
    held = window.held()
    if held is not None:
        product = Apply("where", (held, product, Const(0, node.type.dtype)))
    return window_kernel(node, window, product)


# ---- samples ---------------------------------------------------------------------------------------------------------


def _wave(*shape: int, step: float = 1.7) -> Any:
    return np.sin(np.arange(float(np.prod(shape))) * step).reshape(shape)


def _contract_samples() -> Sequence[Sample]:
    def sample(equation: str, x: Any, w: Any, *shape: int, smooth: bool = True) -> Sample:
        return Sample((x, w), {"equation": equation, "shape": shape}, (0, 1) if smooth else ())

    x, w = _wave(2, 3, 5, 4), _wave(2, 3, 3, 2, step=0.9)
    line, taps = _wave(1, 1, 9), _wave(1, 1, 3, step=0.7)
    groups, transposed = _wave(2, 4, 5), "[n, c, y] [c, o, k] -> [n, o, 2*y+k-1]"
    return [
        sample("[n, c, y+ky-1, x+kx-1] [o, c, ky, kx] -> [n, o, y, x]", x, w, 2, 2, 5, 5),
        sample("[n, c, y+ky, x+kx] [o, c, ky, kx] -> [n, o, y, x]", x, w, 2, 2, 3, 3),
        sample("[n, c, 2*y+ky-1, 3*x+kx-1] [o, c, ky, kx] -> [n, o, y, x]", x, w, 2, 2, 3, 2),
        sample("[n, c, y+k-1] [o, c, k] -> [n, o, y]", line, taps, 1, 1, 9),
        sample("[n, c, y+2*k-2] [o, c, k] -> [n, o, y]", line, taps, 1, 1, 9),
        sample("[n, c, 2*y+2*k-1] [o, c, k] -> [n, o, y]", line, taps, 1, 1, 4),
        sample("[n, c, 2*y+3*k-4] [o, c, k] -> [n, o, y]", line, taps, 1, 1, 6),
        sample("[n, c, 3*y+2*k-4] [o, c, k] -> [n, o, y]", line, taps, 1, 1, 5),
        sample(transposed, _wave(2, 2, 4), _wave(2, 3, 3), 2, 3, 8),
        sample("[n, c, y] [c, o, k] -> [n, o, 2*y+k]", _wave(2, 2, 4), _wave(2, 3, 2), 2, 3, 8),
        sample("[n, c, y] [c, o, k] -> [n, o, 2*y+3*k-1]", _wave(2, 2, 3), _wave(2, 1, 3), 2, 1, 11),
        sample("[n, g, y+k-1] [g, o, k] -> [n, g, y]", groups, _wave(4, 1, 3), 2, 4, 5),
        sample("[n, 2*g+c, y+k] [3*g+o, c, k] -> [n, 3*g+o, y] where g < 2, o < 3", groups, _wave(6, 2, 2), 2, 6, 4),
        sample("[n, c, y] [o, c] -> [n, o, y]", groups, _wave(3, 4), 2, 3, 5),
        sample("[i+j-1] [j] -> [i, j]", _wave(6), _wave(3), 5, 3),
        sample("[i, j] [j] -> [i, j-1, 0, i]", _wave(3, 4), _wave(4), 3, 5, 2, 3),
        sample("[y+k-1] [k] -> [y]", np.arange(7, dtype=np.int32), np.arange(3, dtype=np.int32), 7, smooth=False),
    ]


CONTRACT = define(
    Op(
        "contract",
        "The sum of products of two tensors over affine indices, without the points outside them: a convolution.",
        latex=r"Y_{\gamma(p)} = \sum_p A_{\alpha(p)} B_{\beta(p)}",
        attributes={
            "equation": Attribute("str", "index maps: '[n, c, 2*y+k-1] [o, c, k] -> [n, o, y]'"),
            "shape": Attribute("shape", "the shape of the result"),
        },
        infer=_infer_contract,
        reference=_contract_reference,
        gradient=_contract_gradient,
        lower=_lower_contract,
        samples=_contract_samples,
    )
)
