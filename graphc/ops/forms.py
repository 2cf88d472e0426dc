"""Kernel forms that several families share: operands, axes, loads, maps in pull form and reductions.

A node's kernel has the operands `in0 in1 ...` and `out0 out1 ...`, output axes `i0 i1 ...` and reduce axes
`r0 r1 ...`; its shapes are those of the node's types.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.dims import Dim
from graphc.ir.graph import Node
from graphc.ir.types import TensorType, i64
from graphc.kernel.expr import Affine, Apply, AxisIndex, Const, Expr, Extent, Index, Load, Name
from graphc.kernel.form import Accumulate, Axis, Kernel, Let, Operand, Stage, Store


def kernel_name(node: Node) -> str:
    """The name of a node's kernel: its op's, unless that is a word of the kernel text."""
    return "select" if node.op.name == "where" else node.op.name


def operands(node: Node) -> tuple[Operand, ...]:
    """The kernel operands of a node: inputs, then outputs."""
    read = [Operand(f"in{k}", v.type.dtype, v.type.shape) for k, v in enumerate(node.inputs)]
    written = [Operand(f"out{k}", t.dtype, t.shape, role="out") for k, t in enumerate(node.output_types)]
    return (*read, *written)


def axes(shape: Sequence[Dim], prefix: str = "i") -> tuple[Axis, ...]:
    """Axes `i0 i1 ...` over a shape."""
    return tuple(Axis.range(f"{prefix}{k}", dim) for k, dim in enumerate(shape))


def identity(rank: int) -> tuple[Affine, ...]:
    """The index `[i0, i1, ...]`."""
    return tuple(Affine.axis(f"i{k}") for k in range(rank))


def load(node: Node, position: int, index: Sequence[Index] | None = None) -> Load:
    """A load from operand `position`, at the identity index unless told otherwise."""
    return Load(f"in{position}", identity(node.inputs[position].type.rank) if index is None else tuple(index))


def map_kernel(node: Node, value: Expr, lets: tuple[Let, ...] = ()) -> Kernel:
    """The map `out0[i0, i1, ...] = value`."""
    store = Store("out0", identity(node.type.rank), value)
    return Kernel(kernel_name(node), operands(node), axes(node.type.shape), (Stage(lets=lets, stores=(store,)),))


def reduce_kernel(node: Node, reduced: Sequence[int], accumulate: Accumulate, results: tuple[Let, ...] = ()) -> Kernel:
    """Reduce axes `reduced` of operand 0; stores the last result, or else the last accumulator (see `reduce_load`)."""
    shape = node.inputs[0].type.shape
    value = results[-1].name if results else accumulate.names[-1]
    stage = Stage(
        reduce=axes([shape[a] for a in reduced], "r"),
        accumulates=(accumulate,),
        results=results,
        stores=(Store("out0", identity(node.type.rank), Name(value)),),
    )
    return Kernel(kernel_name(node), operands(node), axes(node.type.shape), (stage,))


def reduce_load(node: Node, reduced: Sequence[int], keepdims: bool) -> Load:
    """Operand 0 at `r0 r1 ...` on the reduced axes and at the output's axes on the others."""
    index: list[Index] = []
    for axis in range(node.inputs[0].type.rank):
        if axis in reduced:
            index.append(Affine.axis(f"r{tuple(reduced).index(axis)}"))
        else:
            position = axis if keepdims else axis - sum(a < axis for a in reduced)
            index.append(Affine.axis(f"i{position}"))
    return load(node, 0, index)


def row_major(shape: Sequence[Dim]) -> Expr:
    """The row-major number of the output element `[i0, i1, ...]`, an i64; sizes with symbols are runtime extents."""
    total: Expr = Const(0, i64)
    for k, dim in enumerate(shape):
        index = AxisIndex(f"i{k}")
        total = index if k == 0 else Apply("add", (Apply("mul", (total, Extent(dim))), index))
    return total


def copy_kernel(name: str, type_: TensorType) -> Kernel:
    """The map `out0[...] = in0[...]` of tensors of one type."""
    both = (Operand("in0", type_.dtype, type_.shape), Operand("out0", type_.dtype, type_.shape, role="out"))
    index = identity(type_.rank)
    return Kernel(name, both, axes(type_.shape), (Stage(stores=(Store("out0", index, Load("in0", index)),)),))


def along(node: Node, axis: int) -> Load:
    """The element of operand 0 that is number `r0` along `axis` and at the output's point on the others."""
    index = list(identity(node.inputs[0].type.rank))
    index[axis] = Affine.axis("r0")
    return load(node, 0, index)


def along_kernel(node: Node, axis: int, combiner: str, value: Expr) -> Kernel:
    """The kernel that combines `value` over all `r0` along an axis, for each element of a result of the same shape."""
    stage = Stage(
        reduce=(Axis.range("r0", node.inputs[0].type.shape[axis]),),
        accumulates=(Accumulate(("acc",), combiner, (value,)),),
        stores=(Store("out0", identity(node.type.rank), Name("acc")),),
    )
    return Kernel(kernel_name(node), operands(node), axes(node.type.shape), (stage,))
