"""Functions of symbols: `gc.exp(x)`, `gc.sum(x, axis=1)`, `gc.where(c, x, y)`.

Arguments are symbols, Python numbers (weakly typed) and arrays (constants); the rules are those of
`graphc.dsl.declare`. Every function records the module and the line of its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dsl import declare
from graphc.dsl.declare import Operand
from graphc.dsl.origin import here
from graphc.dsl.symbol import Axis, Symbol, elementwise, unwrap, where
from graphc.errors import DTypeError
from graphc.ir.builder import explain
from graphc.ir.dims import Poly
from graphc.ir.graph import Value
from graphc.ir.types import DType, as_dtype

__all__ = [
    "abs", "amax", "amin", "argmax", "astype", "broadcast_to", "clip", "constant", "equal", "exp", "expm1", "flatten",
    "gather", "log", "log1p", "log_softmax", "logical_and", "logical_not", "logical_or", "logsumexp", "matmul", "max",
    "maximum", "mean", "min", "minimum", "not_equal", "one_hot", "relu", "reshape", "sigmoid", "sign", "softmax",
    "softplus", "sqrt", "square", "stop_gradient", "sum", "tanh", "transpose", "where",
]  # fmt: skip


def constant(value: Any, dtype: str | DType | type | np.dtype[Any] | None = None) -> Symbol:
    """A constant tensor of an array-like. Python floats become float32; NumPy arrays keep their dtype."""
    return Symbol(declare.constant(value, None if dtype is None else as_dtype(dtype)))


def stop_gradient(x: Operand) -> Symbol:
    """`x` itself; gradients treat it as a constant."""
    return Symbol(declare.apply("stop_gradient", declare.as_value(unwrap(x))))


# Elementwise.


def exp(x: Operand) -> Symbol:
    """e to the power x."""
    return elementwise("exp", _operand(x))


def expm1(x: Operand) -> Symbol:
    """exp(x) - 1, exact for small x."""
    return elementwise("expm1", _operand(x))


def log(x: Operand) -> Symbol:
    """The natural logarithm; -inf at 0, NaN below."""
    return elementwise("log", _operand(x))


def log1p(x: Operand) -> Symbol:
    """log(1 + x), exact for small x."""
    return elementwise("log1p", _operand(x))


def sqrt(x: Operand) -> Symbol:
    """The square root; NaN for negative x."""
    return elementwise("sqrt", _operand(x))


def square(x: Operand) -> Symbol:
    """x * x."""
    value = _operand(x)
    return elementwise("mul", value, value)


def tanh(x: Operand) -> Symbol:
    """The hyperbolic tangent."""
    return elementwise("tanh", _operand(x))


def sigmoid(x: Operand) -> Symbol:
    """1 / (1 + exp(-x)), without overflow."""
    return elementwise("sigmoid", _operand(x))


def relu(x: Operand) -> Symbol:
    """max(x, 0); the gradient at 0 is 0, as in PyTorch."""
    return elementwise("relu", _operand(x))


def softplus(x: Operand) -> Symbol:
    """log(1 + exp(x)), without overflow."""
    return elementwise("softplus", _operand(x))


def abs(x: Operand) -> Symbol:
    """The absolute value; the gradient at 0 is 0."""
    return elementwise("abs", _operand(x))


def sign(x: Operand) -> Symbol:
    """-1, 0 or 1."""
    return elementwise("sign", _operand(x))


def maximum(x: Operand, y: Operand) -> Symbol:
    """The larger of two; where they are equal each gets half of the gradient, as in PyTorch."""
    return elementwise("maximum", *_operands(x, y))


def minimum(x: Operand, y: Operand) -> Symbol:
    """The smaller of two; where they are equal each gets half of the gradient, as in PyTorch."""
    return elementwise("minimum", *_operands(x, y))


def clip(x: Operand, lower: Operand, upper: Operand) -> Symbol:
    """`minimum(maximum(x, lower), upper)`."""
    return minimum(maximum(x, lower), upper)


def equal(x: Operand, y: Operand) -> Symbol:
    """Elementwise x == y, bool. (The operator `==` compares symbols by identity.)"""
    return elementwise("eq", *_operands(x, y))


def not_equal(x: Operand, y: Operand) -> Symbol:
    """Elementwise x != y, bool."""
    return elementwise("ne", *_operands(x, y))


def logical_and(x: Operand, y: Operand) -> Symbol:
    """Elementwise `and` of bools."""
    return elementwise("logical_and", unwrap(x), unwrap(y))


def logical_or(x: Operand, y: Operand) -> Symbol:
    """Elementwise `or` of bools."""
    return elementwise("logical_or", unwrap(x), unwrap(y))


def logical_not(x: Operand) -> Symbol:
    """Elementwise `not` of bools."""
    return elementwise("logical_not", unwrap(x))


def astype(x: Operand, dtype: str | DType | type | np.dtype[Any]) -> Symbol:
    """The elements of x in another dtype."""
    return Symbol(declare.cast(unwrap(x), dtype))


# Reductions. `axis` is an axis, several, or None for all; negative axes count from the end.


def sum(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The sum over `axis`; bools are counted in int64."""
    return Symbol(declare.reduce("sum", unwrap(x), axis, keepdims))


def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The mean over `axis`; float32 for integers and bools."""
    return Symbol(declare.reduce("mean", unwrap(x), axis, keepdims))


def max(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The largest element over `axis`. Along one axis the first of equal elements has the gradient, as in
    `torch.max(x, dim)`; over all (None) or several axes they share it evenly, as in `torch.max(x)`.
    """
    return Symbol(declare.extremum("max", unwrap(x), axis, keepdims))


def min(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The smallest element over `axis`. Along one axis the first of equal elements has the gradient, as in
    `torch.min(x, dim)`; over all (None) or several axes they share it evenly, as in `torch.min(x)`.
    """
    return Symbol(declare.extremum("min", unwrap(x), axis, keepdims))


def amax(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The largest element over `axis`; equal elements share the gradient evenly, as in `torch.amax`."""
    return Symbol(declare.reduce("max", unwrap(x), axis, keepdims, ties="even"))


def amin(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The smallest element over `axis`; equal elements share the gradient evenly, as in `torch.amin`."""
    return Symbol(declare.reduce("min", unwrap(x), axis, keepdims, ties="even"))


def argmax(x: Operand, axis: int | None = None) -> Symbol:
    """The position of the first largest element along `axis` (None: when flattened), int64; it has no gradient."""
    return Symbol(declare.argmax(unwrap(x), axis))


def logsumexp(x: Operand, axis: Axis = -1, keepdims: bool = False) -> Symbol:
    """log(sum(exp(x))) over `axis`, without overflow."""
    value = Symbol(declare.as_value(unwrap(x)))
    # The shift cancels in value and gradient, so it need not be differentiated.
    shift = stop_gradient(value.amax(axis, keepdims=True))
    total = log(sum(exp(value - shift), axis, keepdims=True)) + shift
    return total if keepdims else _drop_axes(total, declare.normalise_axes("logsumexp", value.ir, axis))


def log_softmax(x: Operand, axis: int = -1) -> Symbol:
    """x - log(sum(exp(x))) along `axis`, without overflow."""
    value = declare.as_value(unwrap(x))
    if not value.type.dtype.is_float:
        value = declare.cast(value, "float32")
    (position,) = declare.normalise_axes("log_softmax", value, axis)
    moved = declare.apply("log_softmax", declare.move_axis(value, position, -1))
    return Symbol(declare.move_axis(moved, -1, position))


def softmax(x: Operand, axis: int = -1) -> Symbol:
    """exp(x) / sum(exp(x)) along `axis`, as exp(log_softmax(x))."""
    return exp(log_softmax(x, axis))


# Shapes and indices.


def matmul(x: Operand, y: Operand, *, transpose_a: bool = False, transpose_b: bool = False) -> Symbol:
    """The matrix product over the last two axes; leading axes broadcast. The flags swap an operand's last two axes."""
    return Symbol(declare.matmul(unwrap(x), unwrap(y), transpose_a, transpose_b))


def reshape(x: Operand, shape: Sequence[int | str | Poly]) -> Symbol:
    """The elements in another shape; one dimension may be -1."""
    return Symbol(declare.reshape(unwrap(x), shape))


def flatten(x: Operand, start_axis: int = 0) -> Symbol:
    """The axes from `start_axis` on as one."""
    value = declare.as_value(unwrap(x))
    if not value.type.rank:
        return Symbol(declare.reshape(value, (1,)))
    (start,) = declare.normalise_axes("flatten", value, start_axis)
    return Symbol(declare.reshape(value, (*value.type.shape[:start], -1)))


def transpose(x: Operand, permutation: Sequence[int] | None = None) -> Symbol:
    """Axes in the order `permutation`, reversed for None."""
    return Symbol(declare.transpose(unwrap(x), permutation))


def broadcast_to(x: Operand, shape: Sequence[int | str | Poly]) -> Symbol:
    """x repeated along axes of size 1 and new leading axes until it has `shape`."""
    return Symbol(declare.broadcast_to(unwrap(x), shape))


def gather(x: Operand, indices: Operand) -> Symbol:
    """`x[i, indices[i]]` for every row i: one element of each row of x `[N,C]`, for integer indices `[N]` -> `[N]`."""
    values = declare.as_value(unwrap(x)), integer_indices("gather", unwrap(indices))
    return Symbol(declare.apply("gather", *values))


def one_hot(indices: Operand, depth: int, dtype: str | DType = "float32") -> Symbol:
    """1 at position `indices[i]` of row i, else 0: integer indices `[N]` -> `[N, depth]`."""
    value = integer_indices("one_hot", unwrap(indices))
    return Symbol(declare.apply("one_hot", value, depth=depth, dtype=as_dtype(dtype)))


def integer_indices(op: str, operand: Operand) -> Value:
    """The operand as a value of an integer dtype. Raises DTypeError for others."""
    value = declare.as_value(operand)
    if not value.type.dtype.is_integer:
        reason = f"indices must be integers, got {value.type}; convert them with .astype('int32')"
        raise DTypeError(explain(op, [value.type], reason, here()))
    return value


def _drop_axes(x: Symbol, axes: Sequence[int]) -> Symbol:
    return x.reshape([d for i, d in enumerate(x.shape) if i not in axes])


def _operand(x: Operand) -> Value:
    """The only operand of a function; a bare Python bool is more often a mistaken `==` than meant."""
    return declare.as_value(unwrap(x))


def _operands(x: Operand, y: Operand) -> tuple[Operand, Operand]:
    """Two operands; when neither is a symbol the first becomes a constant."""
    first, second = unwrap(x), unwrap(y)
    if not isinstance(first, Value) and not isinstance(second, Value):
        first = declare.as_value(first)
    return first, second
