"""What the register tiles of a contraction read: how much of it, and from which level of the caches it comes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.codegen.analysis import coefficient, largest_extent
from graphc.codegen.host import Host
from graphc.ir.dims import evaluate
from graphc.kernel.compose import bind_kernel
from graphc.kernel.counts import points
from graphc.kernel.expr import Index
from graphc.kernel.form import Bound, Kernel, Table

KEPT = 0.9  # share of a cache that a loop can count on
LINE_BYTES, FIRST_SETS, SECOND_SETS = 64, 64, 1024  # of the caches of the processors that this was measured on


@dataclass(frozen=True)
class Side:
    """A factor of a contraction: the loops around its tiles that move it, and the elements between steps of the
    reduction (0: contiguous vectors)."""

    moved_by: frozenset[str]
    stride: int = 0


@dataclass(frozen=True)
class Traffic:
    """What the tiles of a contraction fetch into the caches, given the loops around them (innermost first).

    units: elements along the tile's two axes to a unit of its sizes.
    """

    loops: Sequence[tuple[str, int]]
    units: Mapping[str, int]
    sides: Sequence[Side]
    host: Host

    def fetched(self, tile: tuple[int, int], vectors: tuple[float, float]) -> tuple[float, float]:
        """Vectors that a tile fetches from beyond the first and from beyond the second level, on average.

        `vectors` are those of each factor that it reads. A loop that does not move a factor finds it in a cache that
        holds it beside what a turn of the loop reads.
        """
        sizes = {name: size * unit for (name, unit), size in zip(self.units.items(), tile, strict=True)}
        trips = [(name, -(-max(1, extent) // sizes.get(name, 1))) for name, extent in self.loops]
        near, far = (self._fetched(trips, vectors, bytes_, sets) for bytes_, sets in (
            (self.host.first_level, FIRST_SETS), (self.host.second_level, SECOND_SETS)))  # fmt: skip
        tiles = math.prod(count for _, count in trips)
        return near / tiles, min(near, far) / tiles

    def _fetched(self, trips: Sequence[tuple[str, int]], vectors: tuple[float, float], size: int, sets: int) -> float:
        """What all tiles fetch into a cache of so many bytes; nothing if it holds all that they read."""
        room = KEPT * size / (4 * self.host.lanes)
        feet, fetched = list(vectors), list(vectors)
        for name, count in trips:
            lost = sum(feet) > room
            for i, side in enumerate(self.sides):
                if name in side.moved_by or lost or feet[i] > room * self._share(side, sets):
                    fetched[i] *= count
            moved = [name in side.moved_by for side in self.sides]
            feet = [foot * count if moves else foot for foot, moves in zip(feet, moved, strict=True)]
        return 0.0 if sum(feet) <= room else sum(fetched)

    @staticmethod
    def _share(side: Side, sets: int) -> float:
        """The share of a cache that steps of a stride reach: those of large powers of two meet in few of its sets."""
        lines = side.stride * 4 / LINE_BYTES
        if lines < 1 or lines != int(lines):
            return 1.0
        return 1 / math.gcd(sets, int(lines))


# ---- indices and extents --------------------------------------------------------------------------------------------


def reduced_points(kernel: Kernel, column: str) -> float:
    """Points of the reduction for each point of the space, on average where windows stick out.

    Along the columns of a tile nothing is saved at the edges: lanes without a point are masked.
    """
    (stage,) = kernel.stages
    sizes = dict(kernel.capacities)

    def bounds(side: tuple[Bound, ...]) -> tuple[Bound, ...]:
        kept = tuple(b for b in side if column not in ({b.axis} if isinstance(b, Table) else b.coefficients))
        return kept or side

    bound = bind_kernel(kernel, sizes, {})
    reduce = tuple(replace(a, lower=bounds(a.lower), upper=bounds(a.upper)) for a in bound.stages[0].reduce)
    if all(a.extent is not None for a in reduce):
        return math.prod(evaluate(a.extent or 0, {}) for a in reduce)
    space = math.prod(largest_extent(a, sizes) for a in kernel.space)
    return evaluate(points((*bound.space, *reduce), bound), {}) / max(1, space)


def aligned(kernel: Kernel, index: Index, vector: str, lanes: int) -> bool:
    """True if vectors along an axis start at multiples of their length wherever the other axes are."""
    axes = (*kernel.space, *kernel.stages[0].reduce)
    return all((coefficient(index, a.name) or 0) % lanes == 0 for a in axes if a.name != vector)


def axis_points(kernel: Kernel, axis: str) -> int:
    """The greatest extent of an axis of the space, by its name."""
    return next(largest_extent(a, kernel.capacities) for a in kernel.space if a.name == axis)


def moved_by(kernel: Kernel, index: Index) -> frozenset[str]:
    """Axes of the space that move an operand. One that runs in order, such as the pieces of a reduction, moves all."""
    return frozenset(a.name for a in kernel.space if a.sequential or coefficient(index, a.name) != 0)


def slides(kernel: Kernel, index: Index) -> bool:
    """True for a window: an index that moves just as far along an axis of the space as along one of the reduction."""
    inner = {coefficient(index, a.name) for a in kernel.stages[0].reduce} - {0}
    return any(coefficient(index, a.name) in inner for a in kernel.space)
