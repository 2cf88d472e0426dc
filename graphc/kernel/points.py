"""Lists of loop points: every point of a box, clipped bounds included, in the order in which nested loops run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from graphc.ir.dims import evaluate
from graphc.kernel.expr import Affine
from graphc.kernel.form import Axis, Bound, Table

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Points:
    """`count` points; `axes` holds the value of each axis at each point, int64[count]."""

    count: int
    axes: Mapping[str, Integers]

    @staticmethod
    def single() -> Points:
        """The one point of a space with no axes."""
        return Points(1, {})

    def expand(self, axes: Sequence[Axis], sizes: Mapping[str, int]) -> tuple[Points, Integers]:
        """The points of loops over `axes` inside each point, and for each of them the number of the point it is in."""
        points, parent = self, np.arange(self.count)
        for axis in axes:
            points, inside = points._expand_one(axis, sizes)
            parent = parent[inside]
        return points, parent

    def _expand_one(self, axis: Axis, sizes: Mapping[str, int]) -> tuple[Points, Integers]:
        lower = np.max([self._bound(b, sizes) for b in axis.lower], axis=0)
        upper = np.min([self._bound(b, sizes) for b in axis.upper], axis=0)
        counts = np.maximum(upper - lower, 0)
        parent = np.repeat(np.arange(self.count), counts)
        step = np.arange(len(parent)) - np.repeat(np.cumsum(counts) - counts, counts)
        values = {name: array[parent] for name, array in self.axes.items()}
        return Points(len(parent), {**values, axis.name: lower[parent] + step}), parent

    def take(self, chosen: Integers | slice) -> Points:
        """Some of the points."""
        axes = {name: array[chosen] for name, array in self.axes.items()}
        return Points(len(np.arange(self.count)[chosen]), axes)

    def affine(self, affine: Affine, sizes: Mapping[str, int]) -> Integers:
        """The value of an affine function at each point."""
        total = np.full(self.count, evaluate(affine.const, sizes))
        for name, coefficient in affine.terms:
            total = total + coefficient * self.axes[name]
        return total

    def _bound(self, bound: Bound, sizes: Mapping[str, int]) -> Integers:
        if isinstance(bound, Table):
            return np.array(bound.values, np.int64)[self.axes[bound.axis]]
        return self.affine(bound, sizes)
