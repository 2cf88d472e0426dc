"""Recognising contractions that a GPU computes by tiles: a sum of products of a row's factor and a column's factor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.codegen.analysis import bound_axes, coefficient, depends, is_runtime
from graphc.kernel.expr import Apply, AxisIndex, Expr, loads, walk
from graphc.kernel.form import Axis, Kernel
from graphc.kernel.scope import stage_scopes

LEAST_SIDE = 8  # below, a tile would be nearly empty


@dataclass(frozen=True)
class Product:
    """`left` does not change along the columns, `right` not along the rows.

    `shared`: the reduce axes that run through shared memory; the others, whose bounds depend on axes of the space,
    are loops around them.
    """

    rows: Axis
    columns: Axis
    left: Expr
    right: Expr
    shared: tuple[Axis, ...]
    around: tuple[Axis, ...]


def find_product(kernel: Kernel) -> Product | None:
    """A flat kernel as a tiled contraction: columns that memory is contiguous along first, else None."""
    found = list(_products(kernel))

    def strided(p: Product) -> tuple[bool, bool]:
        (store, *_) = kernel.stages[0].stores
        return coefficient(store.index[0], p.columns.name) != 1, p.around != ()

    return min(found, key=strided, default=None)


def _products(kernel: Kernel) -> Iterator[Product]:
    if len(kernel.stages) != 1 or any(axis.sequential or axis.extent is None for axis in kernel.space):
        return
    (stage,) = kernel.stages
    if stage.space or stage.lets or len(stage.accumulates) != 1 or not stage.stores:
        return
    (accumulate,) = stage.accumulates
    (scope,) = stage_scopes(kernel)
    product = accumulate.exprs[0]
    is_product = isinstance(product, Apply) and product.primitive == "mul"
    if accumulate.combiner != "sum" or not is_product or not scope.names[accumulate.names[0]].is_float:
        return
    shared = tuple(axis for axis in stage.reduce if axis.extent is not None)
    around = tuple(axis for axis in stage.reduce if axis.extent is None)
    needed = {name for axis in around for name in bound_axes(axis)}
    if not shared or any(isinstance(e, AxisIndex) for e in walk(product)) or needed & {a.name for a in shared}:
        return
    assert isinstance(product, Apply)
    for left, right in (product.args, product.args[::-1]):
        for rows in kernel.space:
            for columns in kernel.space:
                apart = rows != columns and not {rows.name, columns.name} & needed
                if apart and _fits(left, right, rows, columns) and _large(rows) and _large(columns):
                    yield Product(rows, columns, left, right, shared, around)


def _fits(left: Expr, right: Expr, rows: Axis, columns: Axis) -> bool:
    """True if a tile of rows x columns has a factor for each side."""
    separate = not depends(left, (columns.name,)) and not depends(right, (rows.name,))
    return separate and _moves(left, rows) and _moves(right, columns)


def _moves(expr: Expr, axis: Axis) -> bool:
    return any(coefficient(load.index[0], axis.name) != 0 for load in loads(expr))


def _large(axis: Axis) -> bool:
    return is_runtime(axis) or (isinstance(axis.extent, int) and axis.extent >= LEAST_SIDE)
