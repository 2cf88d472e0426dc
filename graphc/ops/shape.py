"""Ops that move elements without computing: reshape, transpose, broadcast_to; and constants and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.errors import ShapeError
from graphc.ir.builder import Builder
from graphc.ir.dims import Dim, divide, format_shape, product
from graphc.ir.graph import Literal, Node, Value
from graphc.ir.op import Attribute, Attributes, NotDifferentiable, Op, Sample, define
from graphc.ir.types import TensorType, as_dtype, i64
from graphc.kernel.expr import Affine, Apply, AxisIndex, Computed, Const, Expr, Extent, Index, as_expr
from graphc.kernel.form import Kernel
from graphc.ops import forms
from graphc.ops.rules import expect_operands, normalise_axis

_NO_OPERANDS = NotDifferentiable("it has no operands")


def _infer_constant(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 0)
    literal: Literal = attributes["value"]
    return (TensorType(as_dtype(literal.dtype), tuple(literal.shape)),)


def _lower_constant(node: Node) -> Kernel:
    """One number fills a map; an array is read from the buffer of the literal itself, which is operand `in0` here."""
    array, dtype = node.attributes["value"].array, node.type.dtype
    flat = array.reshape(-1)
    if flat.size and (flat.view(f"V{dtype.itemsize}") == flat[:1].view(f"V{dtype.itemsize}")).all():
        return forms.map_kernel(node, Const(flat[0].item(), dtype))
    return forms.copy_kernel(node.op.name, node.type)


CONSTANT = define(
    Op(
        "constant",
        "A constant array.",
        latex=r"c",
        attributes={"value": Attribute("literal", "the array")},
        infer=_infer_constant,
        reference=lambda arrays, attributes: (attributes["value"].array,),
        gradient=_NO_OPERANDS,
        lower=_lower_constant,
        samples=lambda: [
            Sample((), {"value": Literal.of(a)})
            for a in (np.float32(0.1), np.arange(6).reshape(2, 3), np.full((2, 2), 7.5), np.array([True, False]))
        ],
    )
)


def _infer_size(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 0)
    return (TensorType(i64),)


SIZE = define(
    Op(
        "size",
        "The value of a dimension expression, such as the number of rows of a batch.",
        latex=r"\left|n\right|",
        attributes={"dim": Attribute("dim", "the dimension")},
        infer=_infer_size,
        reference=lambda arrays, attributes: (np.array(attributes["dim"], np.int64),),
        gradient=_NO_OPERANDS,
        lower=lambda node: forms.map_kernel(node, Extent(node.attributes["dim"])),
        samples=lambda: [Sample((), {"dim": 12})],
    )
)


def _infer_reshape(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    shape: tuple[Dim, ...] = attributes["shape"]
    if product(shape) != types[0].size:
        counts = f"{types[0].size} elements do not fill {format_shape(shape)}, which has {product(shape)}"
        raise ShapeError(f"{counts}; give a shape with as many elements, for every value of symbols")
    return (TensorType(types[0].dtype, shape),)


def _reshape_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    return [None if cotangents[0] is None else b.reshape(cotangents[0], shape=node.inputs[0].type.shape)]


def _groups(source: Sequence[Dim], target: Sequence[Dim]) -> list[tuple[list[int], list[int]]]:
    """The finest pairs of runs of axes (source, target) with equally many elements; a size-1 axis may stand alone."""
    found: list[tuple[list[int], list[int]]] = []
    if product(source) == 0:
        return [(list(range(len(source))), list(range(len(target))))]
    s = t = 0
    while s < len(source) or t < len(target):
        left: tuple[list[int], list[int]] = ([], [])
        sizes: list[Dim] = [1, 1]
        while not (left[0] or left[1]) or sizes[0] != sizes[1]:
            take_source = s < len(source) and (t == len(target) or _comes_first(sizes[0], sizes[1]))
            if take_source:
                left[0].append(s)
                sizes[0], s = sizes[0] * source[s], s + 1
            else:
                left[1].append(t)
                sizes[1], t = sizes[1] * target[t], t + 1
        found.append(left)
    return found


def _comes_first(source: Dim, target: Dim) -> bool:
    """Whether the source's run is to grow: it is the smaller, or a divisor of the other."""
    if isinstance(source, int) and isinstance(target, int):
        return source <= target
    return divide(target, source) is not None


def _linear(axes: Sequence[int], shape: Sequence[Dim]) -> Index:
    """The row-major number within axes `i<k>` of a shape: affine where all sizes but the first are integers."""
    affine, scale = Affine(), 1
    for k in reversed(axes):
        affine = affine + (Affine.axis(f"i{k}").scale(scale) if shape[k] != 1 else Affine())
        size = shape[k]
        if isinstance(size, int):
            scale *= size
        elif k != axes[0]:
            break
    else:
        return affine
    total: Expr = Const(0, i64)
    for k in axes:
        total = Apply("add", (Apply("mul", (total, Extent(shape[k]))), AxisIndex(f"i{k}")))
    return Computed(total, 0, product(shape[k] for k in axes))


def _unravel(number: Index, axes: Sequence[int], shape: Sequence[Dim]) -> dict[int, Index]:
    """Indices of axes from the row-major number within them; size-1 axes have index 0."""
    found: dict[int, Index] = {k: Affine() for k in axes}
    wide = [k for k in axes if shape[k] != 1]
    if len(wide) == 1:
        return found | {wide[0]: number}
    rest = as_expr(number)
    for position, k in enumerate(wide):
        inner = product(shape[m] for m in wide[position + 1 :])
        part = Apply("floordiv", (rest, Extent(inner))) if inner != 1 else rest
        rest = Apply("mod", (rest, Extent(inner)))
        found[k] = Computed(part, 0, shape[k])
    return found


def _lower_reshape(node: Node) -> Kernel:
    """Pull form: axes that pass unchanged, split or join affinely stay affine; other joins divide."""
    source, target = node.inputs[0].type.shape, node.type.shape
    index: dict[int, Index] = {}
    for read, written in _groups(source, target):
        index |= _unravel(_linear(written, target), read, source)
    return forms.map_kernel(node, forms.load(node, 0, [index[k] for k in range(len(source))]))


def _reshape_samples() -> Sequence[Sample]:
    a = np.arange(24, dtype=np.float64).reshape(2, 3, 4) / 7
    shapes = [(6, 4), (2, 12), (24,), (2, 3, 2, 2), (4, 6), (2, 1, 3, 4, 1), (3, 8)]
    found = [Sample((a,), {"shape": s}, differentiable=(0,)) for s in shapes]
    return [
        *found,
        Sample((np.arange(6, dtype=np.int32).reshape(1, 6, 1),), {"shape": (3, 1, 2)}),
        Sample((np.array([[1.5]], np.float32),), {"shape": ()}),
        Sample((np.array(True),), {"shape": (1, 1)}),
        Sample((np.zeros((0, 3)),), {"shape": (3, 0)}),
    ]


RESHAPE = define(
    Op(
        "reshape",
        "The same elements in row-major order, in another shape.",
        latex=r"\operatorname{reshape}\left(x\right)",
        attributes={"shape": Attribute("shape", "the shape of the result")},
        infer=_infer_reshape,
        reference=lambda arrays, attributes: (np.reshape(arrays[0], attributes["shape"]),),
        gradient=_reshape_gradient,
        lower=_lower_reshape,
        samples=_reshape_samples,
        view=True,
    )
)


def _permutation(attributes: Attributes, rank: int) -> tuple[int, ...]:
    given = attributes["permutation"]
    found = tuple(normalise_axis(axis, rank) for axis in given)
    if sorted(found) != list(range(rank)):
        raise ShapeError(f"permutation {tuple(given)} does not name each of the {rank} axes once")
    return found


def _infer_transpose(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    order = _permutation(attributes, types[0].rank)
    return (TensorType(types[0].dtype, tuple(types[0].shape[k] for k in order)),)


def _inverse(node: Node) -> tuple[int, ...]:
    order = _permutation(node.attributes, node.type.rank)
    return tuple(order.index(k) for k in range(len(order)))


def _transpose_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    return [None if cotangents[0] is None else b.transpose(cotangents[0], permutation=_inverse(node))]


def _transpose_samples() -> Sequence[Sample]:
    a = np.arange(24, dtype=np.float64).reshape(2, 3, 4) / 5
    return [
        Sample((a,), {"permutation": (2, 0, 1)}, differentiable=(0,)),
        Sample((a.astype(np.float32),), {"permutation": (-1, -2, 0)}),
        Sample((np.arange(6, dtype=np.int64).reshape(2, 3),), {"permutation": (1, 0)}),
        Sample((np.array(2.5),), {"permutation": ()}, differentiable=(0,)),
    ]


TRANSPOSE = define(
    Op(
        "transpose",
        "Axes in another order: axis k of the result is axis permutation[k] of the operand.",
        latex=r"x^{\top}",
        attributes={"permutation": Attribute("ints", "for each axis of the result, the operand's axis")},
        infer=_infer_transpose,
        reference=lambda arrays, attributes: (np.transpose(arrays[0], attributes["permutation"]),),
        gradient=_transpose_gradient,
        lower=lambda node: forms.map_kernel(node, forms.load(node, 0, [Affine.axis(f"i{k}") for k in _inverse(node)])),
        samples=_transpose_samples,
    )
)


def _infer_broadcast(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    expect_operands(types, 1)
    source, target = types[0].shape, tuple(attributes["shape"])
    extra = len(target) - len(source)
    if extra < 0 or any(d not in (1, target[extra + k]) for k, d in enumerate(source)):
        shapes = f"{format_shape(source)} does not broadcast to {format_shape(target)}"
        raise ShapeError(f"{shapes}: aligned at the right, each axis must be equal or 1 in the operand")
    return (TensorType(types[0].dtype, target),)


def _broadcast_gradient(node: Node, cotangents: Sequence[Value | None], b: Builder) -> Sequence[Value | None]:
    (g,), source = cotangents, node.inputs[0].type.shape
    if g is None:
        return [None]
    extra = node.type.rank - len(source)
    stretched = [extra + k for k, d in enumerate(source) if d == 1 and node.type.shape[extra + k] != 1]
    total = b.sum(g, axes=(*range(extra), *stretched), keepdims=False) if extra or stretched else g
    return [total if total.type.shape == source else b.reshape(total, shape=source)]


def _lower_broadcast(node: Node) -> Kernel:
    source = node.inputs[0].type.shape
    extra = node.type.rank - len(source)
    index = [Affine() if d == 1 else Affine.axis(f"i{extra + k}") for k, d in enumerate(source)]
    return forms.map_kernel(node, forms.load(node, 0, index))


def _broadcast_samples() -> Sequence[Sample]:
    row = np.array([0.5, -1.0, 2.0])
    return [
        Sample((row,), {"shape": (2, 3)}, differentiable=(0,)),
        Sample((row.reshape(3, 1),), {"shape": (2, 3, 4)}, differentiable=(0,)),
        Sample((row.reshape(1, 3, 1).astype(np.float32),), {"shape": (1, 3, 2)}),
        Sample((np.array(1.5),), {"shape": (2, 2)}, differentiable=(0,)),
        Sample((np.array([[7]], np.int32),), {"shape": (1, 1)}),
        Sample((np.array(True),), {"shape": (3,)}),
    ]


BROADCAST_TO = define(
    Op(
        "broadcast_to",
        "Repeat along new leading axes and along axes of size 1.",
        latex=r"\operatorname{broadcast}\left(x\right)",
        attributes={"shape": Attribute("shape", "the shape of the result")},
        infer=_infer_broadcast,
        reference=lambda arrays, attributes: (np.broadcast_to(arrays[0], attributes["shape"]),),
        gradient=_broadcast_gradient,
        lower=_lower_broadcast,
        samples=_broadcast_samples,
    )
)
