"""Interval analysis of affine indices over clipped boxes, with runtime extents anywhere in 1 .. capacity.

An affine function is least where its axes are at their bounds. Bounds of inner axes are affine in outer ones, so
axes are eliminated innermost first; where an axis has several bounds each choice is valid, and the best one counts.
`y+ky-2` with `ky in max(0, 2-y) .. min(5, 30-y)` is thus found to lie in 0 .. 27. Tables are split by cases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.ir.dims import Dim, Poly, substitute, symbol
from graphc.kernel.expr import Affine, Apply, Expr, affine_of
from graphc.kernel.form import Axis, Bound, Table


@dataclass(frozen=True)
class Box:
    """The points over which something is analysed: axes, outermost first, and the capacities of runtime extents."""

    axes: tuple[Axis, ...]
    capacities: Mapping[str, int]

    @property
    def is_empty(self) -> bool:
        """True if an axis is known to have no points, so that anything holds at all of them."""
        return any(isinstance(a.extent, int) and a.extent <= 0 for a in self.axes)

    def never_negative(self, affine: Affine, given: Iterable[Affine] = ()) -> bool:
        """True if `affine >= 0` at every point where each affine function in `given` is >= 0, as far as can be told."""
        if self.is_empty:
            return True
        hypotheses = (Affine(), *given)
        return all(
            any(
                never_negative(bound, box.capacities)
                for fact in hypotheses
                for bound in _lower_bounds(_at(affine, values) + _at(fact, values).scale(-1), box.axes)
            )
            for values, box in _cases(self, [affine, *hypotheses])
        )

    def contains(self, lower: Affine, affine: Affine, upper: Affine, given: Sequence[Affine] = ()) -> bool:
        """True if `lower <= affine < upper` at every point."""
        below, above = affine + lower.scale(-1), upper + affine.scale(-1) + -1
        return self.never_negative(below, given) and self.never_negative(above, given)

    def least(self, affine: Affine) -> int:
        """A number not above any value of `affine`: the greatest one that the analysis finds."""
        return min(
            (
                max(least_value(bound, box.capacities) for bound in _lower_bounds(_at(affine, values), box.axes))
                for values, box in _cases(self, [affine])
            ),
            default=0,  # no points: any number is right
        )

    def span(self, axis: str) -> tuple[int, int]:
        """The least and greatest value of an axis over the whole box; the greatest is below the least if empty."""
        return self.least(Affine.axis(axis)), -self.least(Affine.axis(axis).scale(-1))


def never_negative(dim: Dim, capacities: Mapping[str, int]) -> bool:
    """True if a dimension is >= 0 for all extents in 1 .. capacity, as far as can be told."""
    return least_value(dim, capacities) >= 0


def least_value(dim: Dim, capacities: Mapping[str, int]) -> int:
    """A number not above any value of `dim` with extents in 1 .. capacity (at least 1); exact if `dim` is linear."""
    shifted = substitute(dim, {name: symbol(name) + 1 for name in capacities})  # each symbol is in 0 .. capacity-1 now
    if not isinstance(shifted, Poly):
        return shifted
    total = 0
    for names, coefficient in shifted.terms:
        if not names:
            total += coefficient
        elif coefficient < 0:
            for name in names:
                coefficient *= max(capacities.get(name, 1), 1) - 1
            total += coefficient
    return total


def guard_facts(guard: Expr | None) -> tuple[Affine, ...]:
    """Affine functions that are >= 0 where a guard holds: its affine comparisons, joined by `and`."""
    if not isinstance(guard, Apply):
        return ()
    if guard.primitive == "and":
        return tuple(fact for arg in guard.args for fact in guard_facts(arg))
    if guard.primitive not in ("lt", "le", "gt", "ge", "eq"):
        return ()
    left, right = (affine_of(arg) for arg in guard.args)
    if left is None or right is None:
        return ()
    up, down = right + left.scale(-1), left + right.scale(-1)
    return {"lt": (up + -1,), "le": (up,), "gt": (down + -1,), "ge": (down,), "eq": (up, down)}[guard.primitive]


def _lower_bounds(affine: Affine, axes: Sequence[Axis]) -> Iterator[Dim]:
    """Dimensions not above `affine`, one for each choice of bounds of the axes it depends on."""
    if not axes:
        if not affine.terms:
            yield affine.const
        return
    axis, coefficient = axes[-1], affine.coefficients.get(axes[-1].name, 0)
    if not coefficient:
        yield from _lower_bounds(affine, axes[:-1])
        return
    for bound in axis.lower if coefficient > 0 else axis.upper:
        assert isinstance(bound, Affine), "tables are split by cases before"
        extreme = bound if coefficient > 0 else bound + -1
        yield from _lower_bounds(affine.replace({axis.name: extreme}), axes[:-1])


def _at(affine: Affine, values: Mapping[str, int]) -> Affine:
    return affine.replace({axis: Affine((), value) for axis, value in values.items()})


def _cases(box: Box, affines: Sequence[Affine]) -> Iterator[tuple[dict[str, int], Box]]:
    """Boxes without tables, one for each value of the axes whose tables matter for `affines`, and these values."""
    needed = {name for affine in affines for name, _ in affine.terms}
    table_axes: list[str] = []
    for axis in reversed(box.axes):  # inner bounds depend on outer axes
        if axis.name in needed:
            for bound in (*axis.lower, *axis.upper):
                needed |= {bound.axis} if isinstance(bound, Table) else {name for name, _ in bound.terms}
                if isinstance(bound, Table) and bound.axis not in table_axes:
                    table_axes.append(bound.axis)
    kept = replace(box, axes=tuple(axis for axis in box.axes if axis.name in needed))
    outer_first = [axis.name for axis in box.axes if axis.name in table_axes]  # fixing an axis forgets its bounds
    yield from _split(kept, outer_first, {})


def _split(box: Box, table_axes: Sequence[str], values: dict[str, int]) -> Iterator[tuple[dict[str, int], Box]]:
    if not table_axes:
        yield values, box
        return
    axis, *others = table_axes
    length = min(
        len(bound.values)
        for a in box.axes
        for bound in (*a.lower, *a.upper)
        if isinstance(bound, Table) and bound.axis == axis
    )
    (own,) = (a for a in box.axes if a.name == axis)
    for value in range(length):
        if not _allows(own, value):
            continue
        axes = tuple(_fix(a, axis, value) for a in box.axes)
        yield from _split(replace(box, axes=axes), others, {**values, axis: value})


def _allows(axis: Axis, value: int) -> bool:
    """False if a fixed bound of an axis excludes a value."""
    lower = [b.const for b in axis.lower if isinstance(b, Affine) and not b.terms and isinstance(b.const, int)]
    upper = [b.const for b in axis.upper if isinstance(b, Affine) and not b.terms and isinstance(b.const, int)]
    return all(value >= bound for bound in lower) and all(value < bound for bound in upper)


def _fix(axis: Axis, name: str, value: int) -> Axis:
    """`axis` with the outer axis `name` at `value`."""

    def fix(bound: Bound) -> Bound:
        if isinstance(bound, Table):
            return Affine((), bound.values[value]) if bound.axis == name else bound
        return bound.replace({name: Affine((), value)})

    if axis.name == name:
        return Axis(name, (Affine((), value),), (Affine((), value + 1),))
    return replace(axis, lower=tuple(map(fix, axis.lower)), upper=tuple(map(fix, axis.upper)))
