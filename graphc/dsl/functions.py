"""Functions of symbols over axes, shapes and indices: `gc.sum(x, axis=1)`, `gc.reshape(x, (2, 3))`.

Arguments are symbols, Python numbers (weakly typed) and arrays (constants); the rules are those of
`graphc.dsl.declare`. Every function records the module and the line of its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dsl import convolution, declare, indexing, pooling, products, reducing, shaping
from graphc.dsl.declare import Operand
from graphc.dsl.elementwise import exp
from graphc.dsl.lifting import on_symbols
from graphc.dsl.origin import here
from graphc.dsl.symbol import Axis, Symbol, unwrap
from graphc.errors import DTypeError
from graphc.ir.builder import explain
from graphc.ir.dims import Poly
from graphc.ir.graph import Value
from graphc.ir.types import DType, as_dtype

__all__ = [
    "all", "amax", "amin", "any", "arange", "argmax", "argmin", "argsort", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "broadcast_to", "concatenate", "constant", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "cumprod", "cumsum", "diagonal", "dot", "einsum", "expand_dims", "eye", "flatten", "flip",
    "full", "full_like", "gather", "linspace", "log_softmax", "logsumexp", "matmul", "max", "max_pool1d", "max_pool2d",
    "max_pool3d", "mean", "min", "moveaxis", "norm", "one_hot", "ones", "ones_like", "outer", "pad", "prod", "ravel",
    "repeat", "reshape", "roll", "scatter_add", "searchsorted", "softmax", "sort", "split", "squeeze", "stack", "std",
    "stop_gradient", "sum", "swapaxes", "take", "take_along_axis", "tensordot", "tile", "topk", "trace", "transpose",
    "tril", "triu", "var", "zeros", "zeros_like",
]  # fmt: skip


def constant(value: Any, dtype: str | DType | type | np.dtype[Any] | None = None) -> Symbol:
    """A constant tensor of an array-like. Python floats become float32; NumPy arrays keep their dtype."""
    return Symbol(declare.constant(value, None if dtype is None else as_dtype(dtype)))


def stop_gradient(x: Operand) -> Symbol:
    """`x` itself; gradients treat it as a constant."""
    return Symbol(declare.apply("stop_gradient", declare.as_value(unwrap(x))))


# Reductions. `axis` is an axis, several, or None for all; negative axes count from the end.


def sum(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The sum over `axis`; bools are counted in int64."""
    return Symbol(declare.reduce("sum", unwrap(x), axis, keepdims))


def mean(x: Operand, axis: Axis = None, keepdims: bool = False) -> Symbol:
    """The mean over `axis`; float32 for integers and bools."""
    return Symbol(declare.reduce("mean", unwrap(x), axis, keepdims))


prod = on_symbols(reducing.prod)
var = on_symbols(reducing.var)
std = on_symbols(reducing.std)
norm = on_symbols(reducing.norm)
logsumexp = on_symbols(reducing.logsumexp)
max = on_symbols(reducing.max)
min = on_symbols(reducing.min)
amax = on_symbols(reducing.amax)
amin = on_symbols(reducing.amin)
argmax = on_symbols(reducing.argmax)
argmin = on_symbols(reducing.argmin)
any = on_symbols(reducing.any)
all = on_symbols(reducing.all)
cumsum = on_symbols(reducing.cumsum)
cumprod = on_symbols(reducing.cumprod)
searchsorted = on_symbols(reducing.searchsorted)


def log_softmax(x: Operand, axis: int = -1) -> Symbol:
    """x - log(sum(exp(x))) along `axis`, without overflow."""
    value = declare.as_value(unwrap(x))
    if not value.type.dtype.is_float:
        value = declare.cast(value, "float32")
    position = declare.one_axis("log_softmax", value, axis)
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
    start = declare.one_axis("flatten", value, start_axis)
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


# Views, joins, triangles and creation.

expand_dims = on_symbols(shaping.expand_dims)
squeeze = on_symbols(shaping.squeeze)
swapaxes = on_symbols(shaping.swapaxes)
moveaxis = on_symbols(shaping.moveaxis)
ravel = on_symbols(shaping.ravel)
flip = on_symbols(shaping.flip)
roll = on_symbols(shaping.roll)
tile = on_symbols(shaping.tile)
repeat = on_symbols(shaping.repeat)
concatenate = on_symbols(shaping.concatenate)
stack = on_symbols(shaping.stack)
split = on_symbols(shaping.split)
pad = on_symbols(shaping.pad)
tril = on_symbols(shaping.tril)
triu = on_symbols(shaping.triu)
diagonal = on_symbols(shaping.diagonal)
zeros = on_symbols(shaping.zeros)
ones = on_symbols(shaping.ones)
full = on_symbols(shaping.full)
zeros_like = on_symbols(shaping.zeros_like)
ones_like = on_symbols(shaping.ones_like)
full_like = on_symbols(shaping.full_like)
arange = on_symbols(shaping.arange)
linspace = on_symbols(shaping.linspace)
eye = on_symbols(shaping.eye)

# Picking and sorting.

take = on_symbols(indexing.take)
take_along_axis = on_symbols(indexing.take_along_axis)
scatter_add = on_symbols(indexing.scatter_add)
sort = on_symbols(indexing.sort)
argsort = on_symbols(indexing.argsort)
topk = on_symbols(indexing.topk)

# Products.

einsum = on_symbols(products.einsum)
dot = on_symbols(products.dot)
tensordot = on_symbols(products.tensordot)
outer = on_symbols(products.outer)
trace = on_symbols(products.trace)

# Convolutions and pooling.

conv1d = on_symbols(convolution.conv1d)
conv2d = on_symbols(convolution.conv2d)
conv3d = on_symbols(convolution.conv3d)
conv_transpose1d = on_symbols(convolution.conv_transpose1d)
conv_transpose2d = on_symbols(convolution.conv_transpose2d)
conv_transpose3d = on_symbols(convolution.conv_transpose3d)
max_pool1d = on_symbols(pooling.max_pool1d)
max_pool2d = on_symbols(pooling.max_pool2d)
max_pool3d = on_symbols(pooling.max_pool3d)
avg_pool1d = on_symbols(pooling.avg_pool1d)
avg_pool2d = on_symbols(pooling.avg_pool2d)
avg_pool3d = on_symbols(pooling.avg_pool3d)
