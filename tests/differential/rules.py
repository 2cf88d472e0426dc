"""How each op is drawn: operands from the values at hand, attributes that fit them.

A rule takes the growing graph (`generator.Growth`), makes nodes and returns the new value; GraphcError or `Unfit`
say that it did not work out this time. Elementwise ops need no rule. An op without one, such as one that is new,
is applied to what its samples hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.ir.dims import Dim, product, symbol
from graphc.ir.graph import Value
from graphc.ir.op import Op
from graphc.ir.types import DTYPES, TensorType, bool_, u8

from . import structures
from .noise import COUNT

if TYPE_CHECKING:
    from .generator import Growth

NUMBERS, ORDERED, FLOATS = "fi", "fiu", "f"  # kinds of dtypes
ROWS = symbol(COUNT)


class Unfit(Exception):
    """There is nothing at hand that the op could be applied to."""


# ------------------------------------------------------------------------------------------- elementwise ops


def positive(g: Growth, v: Value) -> Value:
    """A value of at least a half."""
    b = g.builder
    if not v.type.dtype.is_float:
        return b.elementwise("maximum", v, b.constant(1, v.type.dtype))
    return b.elementwise("add", b.abs(v), b.constant(0.5, v.type.dtype))


def within_one(g: Growth, v: Value) -> Value:
    """A value between -0.9 and 0.9."""
    return g.builder.elementwise("mul", g.builder.tanh(v), g.builder.constant(0.9, v.type.dtype))


DOMAINS: dict[str, dict[int, Callable[[Growth, Value], Value]]] = {
    **{name: {0: positive} for name in ("log", "log2", "log1p", "sqrt", "rsqrt", "reciprocal", "pow")},
    **{name: {1: positive} for name in ("div", "floordiv", "mod")},
    **{name: {0: within_one} for name in ("asin", "acos", "tan")},
}


def elementwise(g: Growth, op: Op) -> Value:
    """An elementwise op on operands that broadcast to one shape, of dtypes that one of its samples has."""
    sample = g.choose(op.samples())
    dtypes = [g.dtype_like(np.asarray(array).dtype.kind) for array in sample.inputs]
    first = next((d for d in dtypes if d.is_float), None)
    dtypes = [first if first is not None and d.is_float else d for d in dtypes]
    if op.name != "where":
        dtypes = [dtypes[0]] * len(dtypes)
    operands: list[Value] = []
    for position, dtype in enumerate(dtypes):
        beside = operands[0].type.shape if operands else None
        value = g.operand(dtype, beside)
        adapt = DOMAINS.get(op.name, {}).get(position)
        operands.append(adapt(g, value) if adapt and g.rng.random() < 0.9 else value)
    return g.builder.elementwise(op.name, *operands, **dict(sample.attributes))


def sampled(g: Growth, op: Op) -> Value:
    """An op on new inputs that hold what a sample of it holds, floats as float32."""
    sample = g.choose(op.samples())
    operands = []
    for given in sample.inputs:
        array = np.asarray(given)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        operands.append(g.leaf_of(array))
    result = g.builder.apply(op, operands, dict(sample.attributes))
    return result if isinstance(result, Value) else g.choose(result)


# ------------------------------------------------------------------------------------------- reductions


def some_axes(g: Growth, rank: int) -> tuple[int, ...]:
    """A few axes, some counted from the back; none of a scalar."""
    if rank == 0:
        return ()
    chosen = [k for k in range(rank) if g.rng.random() < 0.6] or [rank - 1]
    return tuple(k - rank if g.rng.random() < 0.3 else k for k in chosen)


def _axis(g: Growth, value: Value) -> int:
    rank = value.type.rank
    return int(g.rng.integers(-rank, rank))


def reduction(kinds: str, **extra: Callable[[Growth, tuple[int, ...]], Any]) -> Callable[[Growth, Op], Value]:
    def rule(g: Growth, op: Op) -> Value:
        value = g.pick(kinds, rank=1)
        axes = some_axes(g, value.type.rank)
        attributes = {name: choose(g, axes) for name, choose in extra.items()}
        return g.builder.apply(op, [value], {"axes": axes, "keepdims": g.flip(), **attributes})  # type: ignore[return-value]

    return rule


def _ties(g: Growth, axes: tuple[int, ...]) -> str:
    return "first" if len(axes) == 1 and g.flip() else "even"


def along(kinds: str, **extra: Callable[[Growth], Any]) -> Callable[[Growth, Op], Value]:
    """An op of one operand and an axis."""

    def rule(g: Growth, op: Op) -> Value:
        value = g.pick(kinds, rank=1)
        attributes = {name: choose(g) for name, choose in extra.items()}
        return g.builder.apply(op, [value], {"axis": _axis(g, value), **attributes})  # type: ignore[return-value]

    return rule


def inverse_permutation(g: Growth, op: Op) -> Value:
    value = g.pick(ORDERED, rank=1)
    axis = _axis(g, value)
    ranks = g.builder.ranks(value, axis=axis)
    length = value.type.shape[axis]
    size = int(g.rng.integers(1, length + 1)) if isinstance(length, int) and length else length
    return g.builder.inverse_permutation(ranks, axis=axis, size=size)


# ------------------------------------------------------------------------------------------- contractions


def matmul(g: Growth, op: Op) -> Value:
    a = g.pick(NUMBERS, rank=2)
    ta, tb = g.flip(), g.flip()
    *batch, rows, columns = a.type.shape
    inner = rows if ta else columns
    fitting = [
        v for v in g.pool
        if v.type.dtype == a.type.dtype and v.type.rank == a.type.rank and list(v.type.shape[:-2]) == batch
        and v.type.shape[-1 if tb else -2] == inner
    ]  # fmt: skip
    if fitting and g.rng.random() < 0.5:
        other = g.choose(fitting)
    else:
        width = g.size()
        other = g.leaf((*batch, width, inner) if tb else (*batch, inner, width), a.type.dtype)
    return g.builder.matmul(a, other, transpose_a=ta, transpose_b=tb)


EQUATIONS = ("ij,jk->ki", "ij,ij->i", "i,j->ji", "ij,i->j", "bij,bjk->bik", "bij,bj->ib", "ij,ij->", "ijk,kl->lij")


def einsum(g: Growth, op: Op) -> Value:
    value = g.pick(NUMBERS, rank=1)
    possible = [e for e in EQUATIONS if len(e.split(",")[0]) == value.type.rank]
    if not possible:
        raise Unfit
    equation = g.choose(possible)
    left, right = equation.split("->")[0].split(",")
    sizes = dict(zip(left, value.type.shape, strict=True))
    shape = tuple(sizes[label] if label in sizes else g.size() for label in right)
    return g.builder.einsum(value, g.operand_of(TensorType(value.type.dtype, shape)), equation=equation)


# ------------------------------------------------------------------------------------------- shapes


def reshape(g: Growth, op: Op) -> Value:
    value = g.pick(rank=0)
    shape = list(value.type.shape)
    how = g.choose(["flatten", "merge", "split", "one"])
    if how == "flatten":
        shape = [product(shape)]
    elif how == "merge" and len(shape) >= 2:
        k = int(g.rng.integers(len(shape) - 1))
        shape[k : k + 2] = [shape[k] * shape[k + 1]]
    elif how == "split" and shape:
        k = int(g.rng.integers(len(shape)))
        size = shape[k]
        factors = [f for f in range(2, size) if size % f == 0] if isinstance(size, int) else []
        if not factors:
            raise Unfit
        factor = g.choose(factors)
        shape[k : k + 1] = [factor, size // factor]  # type: ignore[operator]
    elif len(shape) < 5:
        shape.insert(int(g.rng.integers(len(shape) + 1)), 1)
    return g.builder.reshape(value, shape=tuple(shape))


def transpose(g: Growth, op: Op) -> Value:
    value = g.pick(rank=2)
    order = [int(k) for k in g.rng.permutation(value.type.rank)]
    return g.builder.transpose(value, permutation=tuple(order))


def broadcast_to(g: Growth, op: Op) -> Value:
    value = g.pick(rank=0)
    shape: list[Dim] = [g.size() if d == 1 and g.flip() else d for d in value.type.shape]
    if len(shape) < 4 and (g.flip() or tuple(shape) == value.type.shape):
        shape.insert(0, g.size())
    return g.builder.broadcast_to(value, shape=tuple(shape))


def slice_(g: Growth, op: Op) -> Value:
    value = g.pick(rank=1)
    start, shape, step = [], [], []
    for d in value.type.shape:
        if not isinstance(d, int):
            first, count, by = g.choose([(0, d, 1), (d - 1, d, -1)] + ([(1, d - 1, 1)] if 0 not in g.counts else []))
        else:
            by = int(g.choose([1, 1, 2, 3]))
            first = int(g.rng.integers(d)) if d and g.flip() else 0
            count = -(-(d - first) // by)
            count = int(g.rng.integers(1, count + 1)) if count and g.flip() else count
            if d and g.rng.random() < 0.25:
                first, by = first + (count - 1) * by, -by
        start.append(first), shape.append(count), step.append(by)
    return g.builder.slice(value, start=tuple(start), shape=tuple(shape), step=tuple(step))


def pad(g: Growth, op: Op) -> Value:
    value = g.pick(rank=1)
    start, shape, step = [], [], []
    for d in value.type.shape:
        before, after = (int(g.rng.integers(3)) for _ in range(2))
        by = int(g.choose([1, 1, 2])) if isinstance(d, int) and d else 1
        reach = (d - 1) * by + 1 if isinstance(d, int) and d else d
        turned = by * (-1 if isinstance(d, int) and d and g.rng.random() < 0.2 else 1)
        start.append(before + reach - 1 if turned < 0 else before)
        shape.append(before + reach + after)
        step.append(turned)
    fill = g.choose([0.0, 1.0]) if not value.type.dtype.is_float else g.choose([0.0, 1.5, -2.0])
    return g.builder.pad(value, start=tuple(start), shape=tuple(shape), step=tuple(step), value=fill)


def concatenate(g: Growth, op: Op) -> Value:
    value = g.pick(rank=1)
    axis = _axis(g, value)
    place = axis % value.type.rank

    def rest(v: Value) -> tuple[Dim, ...]:
        return tuple(d for k, d in enumerate(v.type.shape) if k != place)

    same = [v for v in g.pool if v.type.dtype == value.type.dtype and v.type.rank == value.type.rank]
    fitting = [v for v in same if rest(v) == rest(value)]
    return g.builder.concatenate(value, *(g.choose(fitting) for _ in range(int(g.rng.integers(1, 3)))), axis=axis)


def roll(g: Growth, op: Op) -> Value:
    value = g.pick(rank=1)
    axes = some_axes(g, value.type.rank)
    return g.builder.roll(value, shifts=tuple(int(g.rng.integers(-9, 9)) for _ in axes), axes=axes)


# ------------------------------------------------------------------------------------------- indices


def gather(g: Growth, op: Op) -> Value:
    value = g.pick(rank=2)
    return g.builder.gather(value, g.indices(value.type.shape[:-1], value.type.shape[-1]))


def cross_entropy(g: Growth, op: Op) -> Value:
    value = g.pick(FLOATS, rank=1)
    return g.builder.cross_entropy(value, g.indices(value.type.shape[:-1], value.type.shape[-1]))


def one_hot(g: Growth, op: Op) -> Value:
    depth = g.size()
    shape = g.shape(2)
    return g.builder.one_hot(g.indices(shape, depth), depth=depth, dtype=g.choose(DTYPES[:4] + (bool_,)))


def take(g: Growth, op: Op) -> Value:
    value = g.pick(rank=1)
    axis = _axis(g, value)
    return g.builder.take(value, g.indices(g.shape(2), value.type.shape[axis]), axis=axis)


def scatter_add(g: Growth, op: Op) -> Value:
    value = g.pick(NUMBERS, rank=1)
    axis = int(g.rng.integers(value.type.rank))
    count = int(g.rng.integers(0, value.type.rank - axis + 1))
    size = g.size()
    return g.builder.scatter_add(value, g.indices(value.type.shape[axis : axis + count], size), axis=axis, size=size)


def _beside(value: Value, axis: int, size: Dim) -> tuple[Dim, ...]:
    return tuple(size if k == axis % value.type.rank else d for k, d in enumerate(value.type.shape))


def take_along_axis(g: Growth, op: Op) -> Value:
    value = g.pick(rank=1)
    axis = _axis(g, value)
    return g.builder.take_along_axis(
        value, g.indices(_beside(value, axis, g.size()), value.type.shape[axis]), axis=axis
    )


def scatter_along_axis(g: Growth, op: Op) -> Value:
    value = g.pick(NUMBERS, rank=1)
    size = g.size()
    return g.builder.scatter_along_axis(value, g.indices(value.type.shape, size), axis=_axis(g, value), size=size)


# ------------------------------------------------------------------------------------------- the rest


def cast(g: Growth, op: Op) -> Value:
    value = g.pick(rank=0)
    dtype = g.choose(DTYPES)
    if dtype == u8 and value.type.dtype != bool_:
        value = g.builder.elementwise("mod", value, g.builder.constant(200, value.type.dtype))
    return g.builder.cast(value, dtype=dtype)


def constant(g: Growth, op: Op) -> Value:
    shape = tuple(d for d in g.shape(2) if isinstance(d, int))
    return g.builder.constant(g.array(shape, g.choose(DTYPES)))


def iota(g: Growth, op: Op) -> Value:
    return g.builder.iota(size=g.choose([g.size(), ROWS]), dtype=g.choose(DTYPES[:4]))


def uniform(g: Growth, op: Op) -> Value:
    return g.builder.uniform(g.random_state(), shape=g.shape(3), stream=g.stream())


def stop_gradient(g: Growth, op: Op) -> Value:
    return g.builder.stop_gradient(g.pick(rank=0))


RULES: Mapping[str, Callable[[Growth, Op], Value]] = {
    "argmax": along(ORDERED),
    "argmin": along(ORDERED),
    "broadcast_to": broadcast_to,
    "cast": cast,
    "concatenate": concatenate,
    "cond": structures.cond,
    "constant": constant,
    "contract": structures.contract,
    "cross_entropy": cross_entropy,
    "cumprod": along(NUMBERS, reverse=lambda g: g.flip()),
    "cumsum": along(NUMBERS, reverse=lambda g: g.flip()),
    "einsum": einsum,
    "gather": gather,
    "inverse_permutation": inverse_permutation,
    "iota": iota,
    "log_softmax": lambda g, op: g.builder.log_softmax(g.pick(FLOATS, rank=1)),
    "logsumexp": reduction(FLOATS),
    "matmul": matmul,
    "max_pool": structures.max_pool,
    "max": reduction(ORDERED, ties=_ties),
    "mean": reduction(FLOATS),
    "min": reduction(ORDERED, ties=_ties),
    "norm": reduction(FLOATS),
    "one_hot": one_hot,
    "pad": pad,
    "prod": reduction(NUMBERS),
    "ranks": along(ORDERED, descending=lambda g: g.flip()),
    "reshape": reshape,
    "roll": roll,
    "scan": structures.scan,
    "scatter_add": scatter_add,
    "scatter_along_axis": scatter_along_axis,
    "size": lambda g, op: g.builder.size(dim=g.choose([ROWS, ROWS * 2 + 1, ROWS * ROWS])),
    "slice": slice_,
    "std": reduction(FLOATS, correction=lambda g, axes: int(g.flip())),
    "stop_gradient": stop_gradient,
    "sum": reduction(NUMBERS),
    "take": take,
    "take_along_axis": take_along_axis,
    "transpose": transpose,
    "uniform": uniform,
    "while_loop": structures.while_loop,
    "var": reduction(FLOATS, correction=lambda g, axes: int(g.flip())),
    "any": reduction("b"),
    "all": reduction("b"),
}
