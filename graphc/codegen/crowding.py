"""Memory strides that caches suffer from: lines that compete for few of a cache's places.

A cache of `bytes` has `bytes / (64 * ways)` sets of `ways` lines, and the address of a line says which set it goes to.
The rows of a matrix that is 1024 float32 elements wide start 4096 bytes apart, so that a column of it falls into one
set of a first-level cache and into 16 of a second-level one: a tile that reads columns again and again fetches them
again and again from farther away. A few unused elements after each row spread them over all sets.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from graphc.codegen.host import Host
from graphc.kernel.layout import Layout

LINE_BYTES = 64
# Cycles that each run of neighbouring lines in crowded sets takes, from the second-level cache and from the third
# (measured with products of 1024 x 1024 matrices).
NEAR, FAR = 6.0, 15.0
SPREAD = 16  # lines; strides that are multiples of it use a quarter of the sets of a usual first-level cache, or fewer
Steps = tuple[tuple[int, int], ...]  # (bytes from a point to the next, points) along each axis


@functools.lru_cache(4096)
def fetched_again(steps: Steps, host: Host) -> float:
    """Cycles of fetching the lines at these points that do not stay where they fit, for strides alone, once."""
    steps = tuple(_by_line(*axis) for axis in steps)
    if math.prod(points for _, points in steps) > host.second_level // LINE_BYTES * 4:
        return 0.0  # more than a cache holds in any layout
    lines = _lines(steps)
    if far := crowded(lines, host.second_level, host.second_ways):
        return FAR * far
    return NEAR * crowded(lines, host.first_level, host.first_ways)


def crowded(lines: NDArray[np.int64], size: int, ways: int) -> int:
    """How many runs of these lines go to sets of a cache that get more than `ways` lines; 0 if it is too small."""
    if len(lines) * LINE_BYTES > size:
        return 0
    sets = lines % max(1, size // (LINE_BYTES * ways))
    found = lines[np.bincount(sets)[sets] > ways]
    return len(found) and 1 + int(np.count_nonzero(np.diff(found) > 1))


def longer(arithmetic: float, fetching: float) -> float:
    """Cycles by which fetching prolongs arithmetic that runs at the same time: a smooth maximum, as measured."""
    return float((arithmetic**4 + fetching**4) ** 0.25 - arithmetic)


def spreading(layout: Layout, shape: Sequence[int], itemsize: int) -> Layout:
    """A layout with a line left unused after each part whose neighbour would start at a multiple of 16 lines, so that
    strides are odd numbers of lines."""
    line = LINE_BYTES // itemsize
    rows = layout.padding[-1] if layout.padding else 0
    sizes, padding, step = layout.part_sizes(shape), [0] * len(layout.permutation), 1
    for k in range(len(sizes) - 1, 0, -1):
        whole = sizes[k] * step + (rows if k == len(sizes) - 1 else 0)
        spread = line if whole and whole % (SPREAD * line) == 0 else 0
        padding[k] = whole - sizes[k] * step + spread
        step = whole + spread
    return Layout(layout.permutation, layout.splits, tuple(padding))


def _by_line(step: int, points: int) -> tuple[int, int]:
    """An axis with steps of at least a line."""
    if abs(step) >= LINE_BYTES:
        return step, points
    return LINE_BYTES, -(-abs(step) * points // LINE_BYTES)


def _lines(steps: Steps) -> NDArray[np.int64]:
    """The numbers of the cache lines at all points."""
    places = np.zeros(1, np.int64)
    for step, points in steps:
        places = np.unique(np.add.outer(places, np.arange(points, dtype=np.int64) * step))
    return np.unique((places - places.min()) // LINE_BYTES)
