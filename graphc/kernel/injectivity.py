"""Which axes an index determines, and which elements of an operand the points of a kernel reach."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from graphc.ir.dims import Dim
from graphc.kernel.expr import Affine, Index
from graphc.kernel.form import Axis, Operand
from graphc.kernel.ranges import Box

COUNT_LIMIT = 1 << 22  # elements that coverage is decided for by marking each


def determined_axes(index: Iterable[Index], box: Box) -> set[str]:
    """Axes whose value follows from the values of affine indices; axes with a single point always do.

    An index determines all its axes when they are like digits of a number: sorted by coefficient, each coefficient is
    greater than what the smaller ones can add up to (`2*y+a` with a < 2). Axes known from one index count as
    constants in the others. The rule is conservative: `x+y, x-y` is not seen to determine both.
    """
    spans = {axis.name: box.span(axis.name) for axis in box.axes}
    known = {name for name, (low, high) in spans.items() if high <= low}
    waiting = [i.terms for i in index if isinstance(i, Affine)]
    while True:
        found = {name for terms in waiting for name in _digits(terms, known, spans)}
        if found <= known:
            return known
        known |= found


def _digits(terms: Sequence[tuple[str, int]], known: set[str], spans: Mapping[str, tuple[int, int]]) -> set[str]:
    """The axes of `terms` if they are digits of a number, else none."""
    reach = 0
    free = sorted((abs(coefficient), name) for name, coefficient in terms if name not in known)
    for coefficient, name in free:
        if coefficient <= reach:
            return set()
        low, high = spans[name]
        reach += coefficient * (high - low)
    return {name for _, name in free}


def left_out(index: Iterable[Index], box: Box) -> tuple[Axis, ...]:
    """Axes that affine indices do not determine, outermost first."""
    known = determined_axes(index, box)
    return tuple(axis for axis in box.axes if axis.name not in known)


def disjoint(first: Sequence[Index], first_box: Box, second: Sequence[Index], second_box: Box) -> bool:
    """True if two indices are seen never to meet: ranges apart, or remainders that differ (`2*y` and `2*y+1`)."""
    if first_box.is_empty or second_box.is_empty:
        return True
    for a, b in zip(first, second, strict=False):
        if not (isinstance(a, Affine) and isinstance(b, Affine)):
            continue
        difference: Dim = a.const - b.const
        step = int(np.gcd.reduce([c for _, c in (*a.terms, *b.terms)] or [0]))
        if isinstance(difference, int) and (difference % step if step else difference):
            return True
        if _below(a, first_box, b, second_box) or _below(b, second_box, a, first_box):
            return True
    return False


def _below(a: Affine, a_box: Box, b: Affine, b_box: Box) -> bool:
    """True if every value of `a` is below every value of `b`; the axes of the two are independent of each other."""
    renamed = {axis.name: Affine.axis(f"{axis.name}'") for axis in b_box.axes}

    def apart(axis: Axis) -> Axis:
        bounds = [
            tuple(b.replace(renamed) if isinstance(b, Affine) else type(b)(f"{b.axis}'", b.values) for b in side)
            for side in (axis.lower, axis.upper)
        ]
        return Axis(f"{axis.name}'", bounds[0], bounds[1])

    both = Box((*a_box.axes, *map(apart, b_box.axes)), a_box.capacities)
    return both.never_negative(b.replace(renamed) + a.scale(-1) + -1)


def covers(operand: Operand, stores: Sequence[tuple[Sequence[Index], Box]]) -> bool:
    """True if the indices of plain stores are seen to reach every element of an operand.

    Positions that each store walks exactly once from end to end are set aside; the elements of the others are marked
    one by one, if there are not too many and nothing but fixed sizes is involved.
    """
    usable = [(tuple(i for i in index if isinstance(i, Affine)), box) for index, box in stores]
    usable = [(index, box) for index, box in usable if len(index) == len(operand.shape)]
    if any(dim == 0 for dim in operand.shape):
        return True
    if not usable:
        return False
    open_positions = [
        k for k, dim in enumerate(operand.shape) if not all(_walks(index, k, dim, box) for index, box in usable)
    ]
    shape = [operand.shape[k] for k in open_positions]
    if len(shape) == 1 and _follow_each_other([(index[open_positions[0]], box) for index, box in usable], shape[0]):
        return True
    if not all(isinstance(dim, int) for dim in shape):
        return False
    marks = np.zeros(tuple(int(dim) for dim in shape if isinstance(dim, int)), bool)
    if marks.size > COUNT_LIMIT:
        return False
    return all(_mark(marks, [index[k] for k in open_positions], box) for index, box in usable) and bool(marks.all())


def _follow_each_other(stores: Sequence[tuple[Affine, Box]], dim: Dim) -> bool:
    """True if indices `axis + offset` over whole axes are runs that fill 0 .. dim-1 one after the other."""
    runs: dict[Dim, Dim] = {}
    for index, box in stores:
        extents = {axis.name: axis.extent for axis in box.axes}
        axes = [(name, c) for name, c in index.terms if extents.get(name) != 1]
        size = 1 if not axes else extents.get(axes[0][0])
        if len(axes) > 1 or any(c != 1 for _, c in axes) or size is None:
            return False
        if size != 0:
            runs[index.const] = size
    reached: Dim = 0
    while reached != dim and reached in runs:
        reached = reached + runs.pop(reached)
    return reached == dim


def _walks(index: Sequence[Affine], position: int, dim: Dim, box: Box) -> bool:
    """True if position `position` runs through 0 .. dim-1 whatever the other positions are: digits in mixed radix."""
    extents = {axis.name: axis.extent for axis in box.axes}
    terms = sorted(((c, name) for name, c in index[position].terms if extents.get(name) != 1), key=lambda term: term[0])
    shared = {name for k, other in enumerate(index) if k != position for name, _ in other.terms}
    clipped_by = {
        name
        for axis in box.axes
        for bound in (*axis.lower, *axis.upper)
        for name in ([n for n, _ in bound.terms] if isinstance(bound, Affine) else [bound.axis])
    }
    reach: Dim = 1
    for coefficient, name in terms:
        extent = extents.get(name)
        if extent is None or coefficient != reach or name in shared | clipped_by:
            return False
        reach = reach * extent
    return index[position].const == 0 and reach == dim


def _mark(marks: np.ndarray, index: Sequence[Affine], box: Box) -> bool:
    """Mark the elements that the indices reach; False if that is not a matter of fixed, unclipped sizes."""
    extents = {axis.name: axis.extent for axis in box.axes}
    names = sorted({name for i in index for name, _ in i.terms})
    sizes = [size for name in names if isinstance(size := extents[name], int)]
    fixed = len(sizes) == len(names) and None not in extents.values() and all(isinstance(i.const, int) for i in index)
    points = math.prod(sizes)
    if not fixed or points > COUNT_LIMIT:
        return False
    values = dict(zip(names, np.indices(tuple(sizes)).reshape(len(names), points), strict=True))
    reached = []
    for i in index:
        total = np.full(points, i.const)
        for name, coefficient in i.terms:
            total = total + coefficient * values[name]
        reached.append(total)
    marks[tuple(reached)] = True
    return True
