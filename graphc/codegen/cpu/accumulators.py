"""What happens to an accumulator: its first value, one more term, the combination of two."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.analysis import coefficient
from graphc.codegen.cpu.expressions import Scope
from graphc.codegen.cpu.values import Tile, Value, constant, identity_value
from graphc.kernel.combiners import COMBINERS
from graphc.kernel.expr import Affine, Apply, Expr, Load


def same_size(a: Tile, b: Tile) -> bool:
    """True if tiles have the same shape, so that one set of accumulators serves both."""
    return (a.vectors, a.rows, a.count) == (b.vectors, b.rows, b.count)


def identities(kinds: Sequence[float | str], elements: Sequence[Value]) -> list[Value]:
    """The neutral components of a combiner, in the dtypes of `elements`."""
    return [constant(identity_value(kind, e.dtype)) for kind, e in zip(kinds, elements, strict=True)]


def bind(scope: Scope, left: Sequence[Value], right: Sequence[Value]) -> Scope:
    """A scope in which `a0 a1 ...` and `b0 b1 ...` stand for values."""
    bound = Scope(scope.context, scope.tile)
    for letter, values in (("a", left), ("b", right)):
        bound.lets |= {f"{letter}{i}": value for i, value in enumerate(values)}
    return bound


def combined(mode: str, old: Value, value: Value, scope: Scope) -> Value:
    """`old` and `value` under the combiner called `mode`, which has one component."""
    (expr,) = COMBINERS[mode].combine
    return bind(scope, [old], [value]).value(expr)


def zero_behind(expr: Expr, tile: Tile) -> bool:
    """True if the lanes behind the count are 0: masked loads, and products of two of them."""
    if isinstance(expr, Apply) and expr.primitive == "mul":
        return all(zero_behind(a, tile) for a in expr.args)
    if not isinstance(expr, Load) or tile.vector_axis is None:
        return False
    return bool(coefficient(expr.index[0], tile.vector_axis))


def rows_first(product: Apply, row_axis: str | None) -> tuple[Expr, ...]:
    """The factors of a product, that which moves along the rows first."""
    left = product.args[0]
    is_row = isinstance(left, Load) and bool(coefficient(left.index[0], row_axis or ""))
    return product.args if is_row else product.args[::-1]


def multiply_add(accumulator: Value, product: Apply, minus: bool, scope: Scope) -> str:
    """acc + a * b, or acc - a * b, for tiles; a column of an operand times a row of another has its own function."""
    tile, sign = scope.tile, "-" if minus else ""
    for left, right in (product.args, product.args[::-1]):
        if not (isinstance(left, Load) and isinstance(left.index[0], Affine) and tile.row_axis):
            continue
        factors = left.index[0].coefficients
        if factors.get(tile.vector_axis or "", 0) or not factors.get(tile.row_axis, 0):
            continue
        row = scope.value(right)
        if row.lanes and not row.rows:
            ptr, offset = scope.context.operand(left.operand), scope.context.affine(left.index[0])
            stride = factors[tile.row_axis]
            return f"tile_fma_outer({accumulator.text}, {ptr}, {offset}, {stride}, {sign}{row.inner})"
    a, b = (scope.value(arg) for arg in product.args)
    if b.is_tile and not a.is_tile:
        a, b = b, a
    factor = f"{sign}{b.inner}" if sign else b.literal or b.text
    return f"tile_fma({a.text}, {factor}, {accumulator.text})"
