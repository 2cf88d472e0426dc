"""Windows that stick out: register tiles along an axis that bounds of reduce axes depend on.

With the taps `kx` of a window as the columns of a tile, `x in max(0, 2-kx) .. min(28, 30-kx)` is another range for each
column. The loop then runs over all that any column needs, and columns that have no such `x` are read as zeros.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.codegen.analysis import all_axes, bound_axes
from graphc.kernel.expr import Affine
from graphc.kernel.form import Axis, Bound, Kernel, Table


@dataclass(frozen=True)
class Clip:
    """Of a reduce axis: which columns of a tile, from its first one on, have a point. Bounds are affine."""

    axis: str
    first: tuple[Affine, ...]
    last: tuple[Affine, ...]


def clips(kernel: Kernel, column: str) -> tuple[Clip, ...] | None:
    """The clips of a tile along the axis `column`, none if no bound depends on it; None if a tile is not possible.

    It is possible if each reduce axis has at most one bound on each side that depends on `column`, and by steps of 1.
    """
    (stage,) = kernel.stages
    found = []
    for axis in all_axes(kernel):
        if column not in bound_axes(axis):
            continue
        if axis not in stage.reduce:
            return None
        clip = _clip(axis, column)
        if clip is None:
            return None
        found.append(clip)
    return tuple(found)


def _clip(axis: Axis, column: str) -> Clip | None:
    here, first, last = Affine.axis(axis.name), [], []
    for side, bounds in (("lower", axis.lower), ("upper", axis.upper)):
        moving = [b for b in bounds if _step(b, column)]
        if len(moving) > 1 or any(not isinstance(b, Affine) or abs(b.coefficients[column]) != 1 for b in moving):
            return None
        for bound in moving:
            assert isinstance(bound, Affine)
            rises = bound.coefficients[column] == 1
            if side == "lower":  # bound + c <= here, or bound - c <= here
                last += [here + bound.scale(-1) + 1] if rises else []
                first += [] if rises else [bound + here.scale(-1)]
            else:  # here < bound + c, or here < bound - c
                first += [here + bound.scale(-1) + 1] if rises else []
                last += [] if rises else [bound + here.scale(-1)]
    return Clip(axis.name, tuple(first), tuple(last))


def _step(bound: Bound, column: str) -> bool:
    return bound.axis == column if isinstance(bound, Table) else column in bound.coefficients


def widened(axis: Axis, column: str, size: int) -> Axis:
    """The axis with the points that any of `size` columns from the tile's first one needs."""

    def bound(b: Bound, side: int) -> Bound:
        if isinstance(b, Table) or column not in b.coefficients:
            return b
        return b + side * (size - 1) if b.coefficients[column] == side else b

    lower, upper = tuple(bound(b, -1) for b in axis.lower), tuple(bound(b, 1) for b in axis.upper)
    return replace(axis, lower=lower, upper=upper)
