"""Register tiles of contractions: which sizes fit the registers, and what they cost.

Costs are cycles of a core that starts two multiply-adds of a vector, and two loads, in a cycle. Where a core starts one
of each, all costs double and nothing changes. Constants are measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

Cover = Callable[[int], Iterable[tuple[int, int]]]  # tile size -> (number, size) of the tiles that cover an axis

LATENCY = 8.0  # independent sums that keep both multiply-add units busy
LINE = 1.6  # cycles that fetching a cache line from the second-level cache takes, behind the arithmetic
FAR_LINE = 2.2  # the same from the third level
LANE_SUM, TILE_END = 0.8, 8.0  # cycles of adding up the lanes of one sum, and of starting and storing a tile
WIDE = {1: 1.0, 2: 1.0, 3: 0.98, 4: 0.96}  # share of the peak by vectors of a row: wide rows fill the first level
ROW_REUSE = {1: 0.48, 2: 0.9, 3: 0.97}  # share of the peak when a loaded row is used so often


@dataclass(frozen=True)
class Stream:
    """How the operands of a dot product reach its tiles.

    steps: vectors of the reduction that a tile sums up in one of `pieces`. lines: cache lines that one step fetches
    from beyond the first level, on average; far: from beyond the second. masked: loads are masked, for a runtime extent
    or a window's edge; clipped: for an edge, which has code of its own.
    """

    steps: float
    lines: float
    far: bool = False
    masked: bool = False
    clipped: bool = False
    pieces: float = 1.0


class Choice(NamedTuple):
    """A register tile with its estimated cost. columns: vectors of an outer product, elements of a dot product.

    rank: the better of two choices has the smaller one; among tiles of one cost a matter of taste.
    """

    cost: float
    taste: tuple[int, int, int]
    rows: int
    columns: int
    stream: Stream | None = None

    @property
    def rank(self) -> tuple[float, tuple[int, int, int]]:
        return self.cost, self.taste


def fits_outer(rows: int, vectors: int, registers: int) -> bool:
    """True if the sums, a row of columns and a factor fit the registers without spilling."""
    return rows * vectors <= registers * 3 // 4 and rows * vectors + vectors + 2 <= registers


def fits_dot(rows: int, columns: int, registers: int) -> bool:
    """True if the sums, the vectors of the shorter side and one of the longer side fit the registers."""
    return rows * columns <= registers * 3 // 4 and rows * columns + min(rows, columns) + 1 <= registers


def outer_speed(rows: int, vectors: int, products: int = 1) -> float:
    """Share of the peak: eight independent sums hide the latency of the multiply-adds, and loads keep up with them.

    The columns of several products compete for the first-level cache, so they want more rows to each (measured).
    """
    crowded = 1.0 if products == 1 else min(1.0, 0.5 + rows / 16)
    sums = rows * vectors
    crowded *= WIDE.get(vectors, 0.93)
    return crowded * min(1.0, sums / LATENCY) * min(1.0, sums / (rows + vectors)) * ROW_REUSE.get(rows, 1.0)


def outer_tiles(rows: Cover, columns: Cover, most: tuple[int, int], registers: int, products: int) -> Iterator[Choice]:
    """The tiles worth looking at; costs are cycles of one step of the reduction over all rows and columns.

    `most` is how many rows and vectors a tile may have.
    """
    highest, widest = most
    by_row = {r: list(rows(r)) for r in range(1, highest + 1)}
    by_column = {v: list(columns(v)) for v in range(1, widest + 1)}
    for r, v in itertools.product(by_row, by_column):
        small = r * v < registers // 4 and r < highest and v < widest
        if small or not fits_outer(r, v, registers):
            continue
        cost = sum(n * m * i * j / outer_speed(i, j, products) / 2 for n, i in by_row[r] for m, j in by_column[v])
        yield Choice(round(cost, 6), (abs(r * v - 16), abs(v - 2), r), r, v)


def dot_step(rows: int, columns: int, stream: Stream) -> float:
    """Cycles of one vector of the reduction in a tile of sums: multiply-adds, loads, or lines from farther caches."""
    sums = rows * columns
    issue = max(sums, rows + columns, LATENCY) / 2
    fed = sums / (rows + columns)
    # Loads show the less the more sums they feed; masked ones are no part of a multiply-add, and show more (measured).
    plain = (0.97 if sums <= 16 else 0.92) if fed >= 1.5 else min(0.93, 0.87 * fed)
    share = (min(0.97, 0.75 + 0.09 * fed) if stream.masked else plain) * (0.96 if stream.clipped else 1.0)
    return max(issue / share, stream.lines * (FAR_LINE if stream.far else LINE))


def dot_cost(rows: int, columns: int, stream: Stream) -> float:
    """Cycles of one tile of sums, all pieces of its reduction together."""
    sums = rows * columns
    packed = 1.0 if columns & (columns - 1) == 0 else 1.01
    piece = stream.steps * dot_step(rows, columns, stream) * packed + LANE_SUM * sums + TILE_END
    return stream.pieces * piece


def dot_tiles(rows: Cover, columns: Cover, most: tuple[int, int], registers: int,
              stream: Callable[[int, int], Iterator[Stream]]) -> Iterator[Choice]:  # fmt: skip
    """The tiles worth looking at, each with the ways to stream operands through it; costs are cycles of all rows and
    columns.

    `most` is how many rows and columns there are to make tiles of.
    """
    highest, widest = (min(8, size) for size in most)
    by_row = {r: list(rows(r)) for r in range(1, highest + 1)}
    by_column = {c: list(columns(c)) for c in range(1, widest + 1)}
    for r, c in itertools.product(by_row, by_column):
        small = r * c < registers * 3 // 8 and r < highest and c < widest
        if small or not fits_dot(r, c, registers):
            continue
        for option in stream(r, c):
            cost = sum(n * m * dot_cost(i, j, option) for n, i in by_row[r] for m, j in by_column[c])
            yield Choice(round(cost, 3), (abs(r * c - 16), abs(r - 4), c), r, c, option)
