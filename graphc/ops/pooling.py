"""Max pooling over windows along the last axes, and the two linear ops of its derivatives.

`max_pool` gives the greatest element of each window and which tap of the window it is, the first of equal ones. The
gradient goes to that tap (`max_unpool`); the derivative of that takes from that tap (`max_pick`). Taps are numbered in
row-major order in u8, or in i32 for windows of more than 255; a window without an element has the number -1, in u8 255,
and takes part in nothing. Average pooling is a contraction with a constant window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, format_shape
from graphc.ir.graph import Node, Value
from graphc.ir.op import Attribute, Attributes, Op, Sample, define
from graphc.ir.types import DType, TensorType, i32, i64, u8
from graphc.kernel.expr import Affine, Apply, Cast, Computed, Const, Expr, Index, Name, as_expr
from graphc.kernel.form import Accumulate, Kernel, Let, Stage, Store
from graphc.ops import forms
from graphc.ops.index_maps import IndexMap, positions
from graphc.ops.rules import NUMBERS, expect_dtype, expect_operands
from graphc.ops.window_forms import conjunction, solve, window_kernel

WINDOW = {
    "kernel": Attribute("ints", "taps of the window along each of the last axes"),
    "stride": Attribute("ints", "distance between windows"),
    "padding": Attribute("ints", "how far the first window begins before the first element"),
    "dilation": Attribute("ints", "distance between taps"),
}


@dataclass(frozen=True)
class Pool:
    """The windows of a node: `[n, c, y, x]` names one, `[n, c, stride*y + dilation*ky - padding, ...]` its elements."""

    taps: tuple[str, ...]
    windows: IndexMap
    elements: IndexMap
    kernel: tuple[int, ...]

    @staticmethod
    def of(attributes: Attributes, rank: int) -> Pool:
        """For tensors of `rank` axes."""
        slides = list(zip(*(attributes[name] for name in WINDOW), strict=True))
        outer = rank - len(slides)
        leading = ("n", "c") if outer == 2 else tuple(f"i{k}" for k in range(outer))
        last = "zyx"[-len(slides) :] if len(slides) <= 3 else [f"y{k}" for k in range(len(slides))]
        plain = [Affine.axis(name) for name in (*leading, *last)]
        read = [
            Affine.of({name: stride, f"k{name}": dilation}, -before)
            for name, (_, stride, before, dilation) in zip(last, slides, strict=True)
        ]
        taps = tuple(f"k{name}" for name in last)
        return Pool(taps, tuple(plain), (*plain[:outer], *read), tuple(attributes["kernel"]))

    def sizes(self, shape: Sequence[Dim]) -> dict[str, Dim]:
        """The extent of every axis, for windows of `shape`."""
        found: dict[str, Dim] = {i.terms[0][0]: dim for i, dim in zip(self.windows, shape, strict=True)}
        return found | dict(zip(self.taps, self.kernel, strict=True))

    @property
    def number(self) -> Affine:
        """The number of a tap in its window."""
        return Affine.of({tap: math.prod(self.kernel[k + 1 :]) for k, tap in enumerate(self.taps)})

    @property
    def dtype(self) -> DType:
        """The dtype of tap numbers."""
        return u8 if math.prod(self.kernel) <= 255 else i32

    @property
    def none(self) -> int:
        """The number of a window that has no element: -1, in u8 255."""
        return 255 if self.dtype == u8 else -1


def _check_window(attributes: Attributes, element: Sequence[Dim], window: Sequence[Dim]) -> None:
    """Raise for windows of shape `window` over elements of shape `element` that make no sense."""
    counts = {len(attributes[name]) for name in WINDOW}
    (count,) = counts if len(counts) == 1 else (0,)
    if not 0 < count <= len(element) or len(element) != len(window):
        shapes = f"{format_shape(tuple(element))} and {format_shape(tuple(window))}"
        raise ShapeError(f"kernel, stride, padding and dilation need an entry for each of the last axes of {shapes}")
    for name, least in (("kernel", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
        if min(attributes[name]) < least:
            raise AttributeValueError(f"{name}={tuple(attributes[name])} must be at least {least} along each axis")
    if tuple(element[:-count]) != tuple(window[:-count]):
        shapes = f"{format_shape(tuple(element))} and {format_shape(tuple(window))}"
        raise ShapeError(f"elements and windows of shapes {shapes} differ in the axes along which no window slides")
    if any(dim == 0 for dim in element[-count:]):
        raise ShapeError(f"a window slides over an axis of size 0 of {format_shape(tuple(element))}")


def _tap_type(attributes: Attributes, shape: Sequence[Dim]) -> TensorType:
    return TensorType(Pool.of(attributes, len(shape)).dtype, tuple(shape))


def _expect_taps(type_: TensorType, attributes: Attributes) -> None:
    expect_dtype(type_, (_tap_type(attributes, type_.shape).dtype,), "the number of the tap")


# ---- max_pool -------------------------------------------------------------------------------------------------------


def _infer_max_pool(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    expect_dtype(types[0], NUMBERS)
    shape = tuple(attributes["shape"])
    _check_window(attributes, types[0].shape, shape)
    return TensorType(types[0].dtype, shape), _tap_type(attributes, shape)


def _spread(pool: Pool, array: Any, shape: Sequence[int]) -> tuple[Any, Any, Any]:
    """Elements at every tap of every window `[..., taps]`, where they are inside, and their positions."""
    sizes: Mapping[str, Any] = pool.sizes(shape)
    at, inside = positions(pool.elements, list(sizes), sizes, np.shape(array))
    flat = (*shape, -1)
    return np.asarray(array)[at].reshape(flat), inside.reshape(flat), [p.reshape(flat) for p in at]


def _max_pool_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    x, shape = np.asarray(arrays[0]), tuple(attributes["shape"])
    pool = Pool.of(attributes, x.ndim)
    values, inside, _ = _spread(pool, x, shape)
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    best = np.where(inside, values, np.asarray(lowest, x.dtype)).max(-1, initial=lowest, keepdims=True)
    is_best = inside & ((values == best) | ((values != values) & (best != best)))
    tap = np.where(inside.any(-1), np.argmax(is_best, -1), pool.none)
    return best[..., 0].astype(x.dtype), tap.astype(pool.dtype.numpy)


def _max_pool_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    g, (x,) = cotangents[0], node.inputs
    if g is None:
        return [None]
    window = {name: node.attributes[name] for name in WINDOW}
    return [b.max_unpool(g, node.outputs[1], shape=x.type.shape, **window)]


def _lower_max_pool(node: Node) -> Kernel:
    pool, (x,) = Pool.of(node.attributes, node.output_types[0].rank), node.inputs
    shape = node.output_types[0].shape
    window = solve(pool.windows, shape, [(pool.elements, x.type.shape)], pool.sizes(shape))
    value: Expr = forms.load(node, 0, window.indices(pool.elements, x.type.shape))
    tap: Expr = Cast(as_expr(pool.number), i32)
    held = window.held()
    if held is not None:  # the neutral element of the combiner where there is none
        lowest = -math.inf if x.type.dtype.is_float else int(np.iinfo(x.type.dtype.numpy).min)
        value = Apply("where", (held, value, Const(lowest, x.type.dtype)))
        tap = Apply("where", (held, tap, Const(-1, i32)))
    index = tuple(window.store)
    stage = Stage(
        reduce=window.axes(window.reduce),
        accumulates=(Accumulate(("best", "tap"), "firstmax", (value, tap)),),
        stores=(Store("out0", index, Name("best")), Store("out1", index, _number(Name("tap"), pool.dtype))),
    )
    return Kernel(forms.kernel_name(node), forms.operands(node), window.axes(window.space), (stage,))


def _number(tap: Expr, dtype: DType) -> Expr:
    return tap if dtype == i32 else Cast(tap, dtype)


def _wave(*shape: int, step: float = 1.7) -> Any:
    return np.sin(np.arange(float(math.prod(shape))) * step).reshape(shape)


_GEOMETRIES: list[tuple[tuple[int, ...], ...]] = [  # shapes of elements and windows; kernel, stride, padding, dilation
    ((2, 3, 4, 6), (2, 3, 2, 3), (2, 2), (2, 2), (0, 0), (1, 1)),
    ((2, 1, 5, 7), (2, 1, 2, 3), (2, 2), (2, 2), (0, 0), (1, 1)),
    ((1, 2, 6, 5), (1, 2, 6, 3), (3, 3), (1, 2), (1, 1), (1, 1)),
    ((2, 9), (2, 4), (3,), (2,), (1,), (2,)),
    ((2, 9), (2, 3), (2,), (4,), (1,), (2,)),
    ((2, 8), (2, 4), (3,), (2,), (0,), (1,)),
    ((3, 3, 4, 3), (3, 2, 3, 1), (2, 2, 2), (1, 1, 2), (0, 0, 0), (1, 1, 1)),
]  # fmt: skip


def _window_attributes(row: Sequence[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return dict(zip(WINDOW, row, strict=True))


def _max_pool_samples() -> Sequence[Sample]:
    found = [
        Sample((_wave(*elements),), {**_window_attributes(row), "shape": windows}, (0,))
        for elements, windows, *row in _GEOMETRIES
    ]
    rows = np.array([[1.0, 1.0, 3.0, 3.0, 0.0, np.nan, np.nan, 2.0], [-np.inf] * 4 + [0.0, -0.0, -np.inf, 1.0]])
    pairs = {"kernel": (2,), "stride": (2,), "padding": (1,), "dilation": (1,), "shape": (2, 5)}
    last = {"kernel": (3,), "stride": (2,), "padding": (0,), "dilation": (1,), "shape": (2, 4)}
    wide = {"kernel": (300,), "stride": (1,), "padding": (0,), "dilation": (1,), "shape": (2,)}
    return [
        *found,
        Sample((rows,), pairs),
        Sample((rows,), last),
        Sample((np.array([[3, 9, 9, 1, 5, 5, 2, 2]] * 2, np.int32),), pairs),
        Sample((_wave(301).astype(np.float32),), wide),
    ]


MAX_POOL = define(
    Op(
        "max_pool",
        "The greatest element of each window, NaN the greatest, and the number of its tap, the first of equal ones.",
        latex=r"y_i = \max_k x_{s i + d k - p}",
        attributes=WINDOW | {"shape": Attribute("shape", "the shape of the result")},
        infer=_infer_max_pool,
        reference=_max_pool_reference,
        gradient=_max_pool_gradient,
        lower=_lower_max_pool,
        samples=_max_pool_samples,
    )
)

# ---- max_unpool ------------------------------------------------------------------------------------------------------


def _infer_max_unpool(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    g, tap = types
    expect_dtype(g, NUMBERS, "operand 0")
    shape = tuple(attributes["shape"])
    _check_window(attributes, shape, g.shape)
    if tap.shape != g.shape:
        raise ShapeError(f"operands have shapes {format_shape(g.shape)} and {format_shape(tap.shape)}, not equal ones")
    _expect_taps(tap, attributes)
    return (TensorType(g.dtype, shape),)


def _max_unpool_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    g, tap = np.asarray(arrays[0]), np.asarray(arrays[1])
    result = np.zeros(tuple(attributes["shape"]), g.dtype)
    pool = Pool.of(attributes, g.ndim)
    _, inside, at = _spread(pool, result, g.shape)
    chosen = inside & (np.arange(inside.shape[-1]) == tap[..., None])
    np.add.at(result, tuple(p[chosen] for p in at), np.broadcast_to(g[..., None], chosen.shape)[chosen])
    return (result,)


def _max_unpool_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (c,), (_, tap) = cotangents, node.inputs
    return [None if c is None else b.max_pick(c, tap, **{name: node.attributes[name] for name in WINDOW}), None]


def _lower_max_unpool(node: Node) -> Kernel:
    """Windows that do not overlap store to their own elements; else each element sums over the windows it is in."""
    attributes = node.attributes
    rows = [*zip(*(attributes[name] for name in WINDOW), strict=True)]
    if all(stride > dilation * (taps - 1) for taps, stride, _, dilation in rows):
        return _scattered(node, rows)
    return _gathered(node)


def _scattered(node: Node, rows: Sequence[tuple[int, ...]]) -> Kernel:
    pool, shape, windows = Pool.of(node.attributes, node.type.rank), node.type.shape, node.inputs[0].type.shape
    window = solve(pool.windows, windows, [(pool.elements, shape)], pool.sizes(windows))
    if window.conditions:
        return _gathered(node)
    g, tap = (forms.load(node, k, window.store) for k in (0, 1))
    here = Apply("eq", (Cast(tap, i32), Cast(as_expr(pool.number), i32)))
    value = Apply("where", (here, g, Const(0, node.type.dtype)))
    stage = Stage(space=window.axes(window.reduce), stores=(Store("out0", pool.elements, value),))
    whole = all(
        stride == taps and dilation == 1 and before == 0 and size == count * stride
        for (taps, stride, before, dilation), size, count in zip(
            rows, shape[-len(rows) :], windows[-len(rows) :], strict=True
        )
    )
    operands = forms.operands(node)
    if not whole:
        operands = tuple(replace(o, init=0.0) if o.role == "out" else o for o in operands)
    return Kernel(forms.kernel_name(node), operands, window.axes(window.space), (stage,))


def _gathered(node: Node) -> Kernel:
    pool, windows = Pool.of(node.attributes, node.type.rank), node.inputs[0].type.shape
    window = solve(pool.elements, node.type.shape, [(pool.windows, windows)], pool.sizes(windows))
    g, tap = (forms.load(node, k, window.indices(pool.windows, windows)) for k in (0, 1))
    number = window.expr(window.affine(pool.number))
    here: Expr = Apply("eq", (Cast(tap, i32), Cast(number, i32)))
    held = window.held()
    test = here if held is None else conjunction([held, here])
    assert test is not None
    return window_kernel(node, window, Apply("where", (test, g, Const(0, node.type.dtype))))


def _tap_samples(unpool: bool) -> Sequence[Sample]:
    found = []
    for elements, windows, *row in _GEOMETRIES:
        attributes = _window_attributes(row)
        tap = _max_pool_reference([_wave(*elements)], {**attributes, "shape": windows})[1]
        if unpool:
            found.append(Sample((_wave(*windows, step=0.6), tap), {**attributes, "shape": elements}, (0,)))
        else:
            found.append(Sample((_wave(*elements, step=0.6), tap), attributes, (0,)))
    return found


MAX_UNPOOL = define(
    Op(
        "max_unpool",
        "The sum over windows of each one's value at its tap, 0 elsewhere: the gradient of max_pool.",
        latex=r"x_j = \sum_{i :\, s i + d t_i - p = j} g_i",
        attributes=WINDOW | {"shape": Attribute("shape", "the shape of the result")},
        infer=_infer_max_unpool,
        reference=_max_unpool_reference,
        gradient=_max_unpool_gradient,
        lower=_lower_max_unpool,
        samples=lambda: _tap_samples(unpool=True),
    )
)

# ---- max_pick --------------------------------------------------------------------------------------------------------


def _infer_max_pick(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 2)
    x, tap = types
    expect_dtype(x, NUMBERS, "operand 0")
    _check_window(attributes, x.shape, tap.shape)
    _expect_taps(tap, attributes)
    return (TensorType(x.dtype, tap.shape),)


def _max_pick_reference(arrays: Sequence[Any], attributes: Attributes) -> tuple[Any, ...]:
    x, tap = np.asarray(arrays[0]), np.asarray(arrays[1])
    values, inside, _ = _spread(Pool.of(attributes, x.ndim), x, tap.shape)
    chosen = inside & (np.arange(inside.shape[-1]) == tap[..., None])
    return (np.where(chosen, values, 0).sum(-1, dtype=x.dtype),)


def _max_pick_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (c,), (x, tap) = cotangents, node.inputs
    if c is None:
        return [None, None]
    window = {name: node.attributes[name] for name in WINDOW}
    return [b.max_unpool(c, tap, shape=x.type.shape, **window), None]


def _lower_max_pick(node: Node) -> Kernel:
    """One load for each window, at an index computed from its tap."""
    x, pool = node.inputs[0].type, Pool.of(node.attributes, node.type.rank)
    outer = x.rank - len(pool.taps)
    tap = Let("tap", Cast(forms.load(node, 1), i64))
    index: list[Index] = list(forms.identity(outer))
    for k, (size, stride, before, dilation) in enumerate(
        zip(pool.kernel, *(node.attributes[name] for name in ("stride", "padding", "dilation")), strict=True)
    ):
        inner = math.prod(pool.kernel[k + 1 :])
        own = Apply("mod", (Apply("floordiv", (Name("tap"), Const(inner, i64))), Const(size, i64)))
        step = Apply("mul", (own, Const(dilation, i64)))
        start = as_expr(Affine.of({f"i{outer + k}": stride}, -before))
        limit = as_expr(Affine((), x.shape[outer + k] - 1))
        inside = Apply("min", (Apply("max", (Apply("add", (step, start)), Const(0, i64))), limit))
        index.append(Computed(inside, 0, x.shape[outer + k]))
    exists = Apply("ne", (Name("tap"), Const(pool.none, i64)))
    value = Apply("where", (exists, forms.load(node, 0, index), Const(0, node.type.dtype)))
    return forms.map_kernel(node, value, (tap,))


MAX_PICK = define(
    Op(
        "max_pick",
        "The element at the given tap of each window, 0 for a window that has none: the derivative of max_pool.",
        latex=r"y_i = x_{s i + d t_i - p}",
        attributes=WINDOW,
        infer=_infer_max_pick,
        reference=_max_pick_reference,
        gradient=_max_pick_gradient,
        lower=_lower_max_pick,
        samples=lambda: _tap_samples(unpool=False),
    )
)
