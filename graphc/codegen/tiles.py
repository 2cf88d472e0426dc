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
LINE, STREAM = 1.0, 0.1  # cycles that fetching a vector from the second-level cache takes, and for each beside it
FAR_LINE, FAR_STREAM = 2.0, 0.03  # the same from the third level
BESIDE = 0.15  # share of the shorter of fetching and arithmetic that shows beside the longer
LOAD, CROSSING = 0.55, 1.9  # cycles of loading a vector, and how many it counts as where most cross a cache line
NEAR_PANEL, FAR_PANEL = 1.6, 3.3  # the same for lines of outer products, which mostly lie a stride apart
WINDOW = 400  # instructions that a core looks ahead
LANE_SUM, TILE_END = 0.8, 8.0  # cycles of a fold of lanes, and of starting a tile
ROW_STORE, SCATTERED_SUM = 6.0, 3.0  # cycles of storing a row of sums, and of each sum that is stored by itself
LOADS = 1.7  # vectors and broadcast factors that are loaded in a cycle
OUTER_END, ROW_END = 12.0, 1.5  # cycles of starting and storing a tile, and of each of its rows in an operand
WIDE = {1: 1.0, 2: 1.0, 3: 0.99, 4: 0.98, 5: 0.95, 6: 0.92}  # share of the peak by vectors of a row
ROW_REUSE = {1: 0.6, 2: 0.93, 3: 0.98}  # share of the peak when a loaded row is used so often


@dataclass(frozen=True)
class Stream:
    """How the operands of a dot product reach its tiles.

    steps: vectors of the reduction that a tile sums up in one of `pieces`. lines: vectors that one step fetches from
    beyond the first level, on average; far: those from beyond the second. masked: loads are masked, for a runtime
    extent or a window's edge; clipped: for an edge, which has code of its own. scattered: columns are no neighbours
    where they are stored. loads: what loading a vector of each operand counts, more where its rows are not aligned.
    """

    steps: float
    lines: float
    far: float = 0.0
    masked: bool = False
    clipped: bool = False
    scattered: bool = False
    pieces: float = 1.0
    loads: tuple[float, float] = (1.0, 1.0)


def unknown_memory(rows: int, vectors: int) -> float:
    """The cycles of fetching operands where nothing is known of them: as if they were in the first-level cache."""
    return 0.0


@dataclass(frozen=True)
class Feed:
    """How the operands of an outer product reach its tiles.

    steps: products that a tile adds up for each of its sums, of so many `products` at a point. accesses: operands that
    are loaded and stored where the sums are done. memory: cycles that fetching what one step reads takes for a tile
    of rows and vectors. masks: cycles of each step, and of each of its vectors, that masks take.
    """

    steps: float
    products: int = 1
    accesses: int = 1
    memory: Callable[[int, int], float] = unknown_memory
    masks: float = 0.0


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


def outer_speed(rows: int, vectors: int) -> float:
    """Share of the peak of an outer product's tile whose operands are in the first-level cache."""
    return rows * vectors / 2 / outer_step(rows, vectors, Feed(1.0))


def outer_step(rows: int, vectors: int, feed: Feed) -> float:
    """Cycles of one product of an outer product's tile: multiply-adds, loads, or lines from farther caches.

    Eight independent sums hide the latency of the multiply-adds. The columns of several products compete for the
    first-level cache, so they want more rows to each (measured).
    """
    crowded = 1.0 if feed.products == 1 else min(1.0, 0.5 + rows / 16)
    share = crowded * WIDE.get(vectors, 0.88) * ROW_REUSE.get(rows, 1.0)
    issue = max(rows * vectors / 2, LATENCY / 2, (rows + vectors) / LOADS) / share
    return max(issue + feed.masks * (1 + vectors), feed.memory(rows, vectors))


def outer_cost(rows: int, vectors: int, feed: Feed) -> float:
    """Cycles of one tile of an outer product."""
    end = OUTER_END + feed.accesses * rows * (ROW_END + vectors / 2)
    return feed.steps * outer_step(rows, vectors, feed) + end


def outer_tiles(rows: Cover, columns: Cover, most: tuple[int, int], registers: int, feed: Feed) -> Iterator[Choice]:
    """The tiles worth looking at; costs are cycles of all rows and columns.

    `most` is how many rows and vectors a tile may have.
    """
    highest, widest = most
    by_row = {r: list(rows(r)) for r in range(1, highest + 1)}
    by_column = {v: list(columns(v)) for v in range(1, widest + 1)}
    for r, v in itertools.product(by_row, by_column):
        small = r * v < registers // 4 and r < highest and v < widest
        if small or not fits_outer(r, v, registers):
            continue
        cost = sum(n * m * outer_cost(i, j, feed) for n, i in by_row[r] for m, j in by_column[v])
        yield Choice(round(cost, 3), (abs(r * v - 16), abs(v - 2), r), r, v)


def dot_step(rows: int, columns: int, stream: Stream) -> float:
    """Cycles of one vector of the reduction in a tile of sums: multiply-adds, loads, or lines from farther caches."""
    sums = rows * columns
    overlapping = max(1.0, WINDOW / (stream.steps * (sums + rows + columns)))  # tiles that are under way at once
    issue = max(sums, rows + columns, LATENCY / overlapping) / 2
    fed = sums / (rows + columns)
    # Loads show the less the more sums they feed; masked ones are no part of a multiply-add, and show more (measured).
    plain = (0.97 if sums <= 16 else 0.92) if fed >= 1.5 else min(0.86, 0.87 * fed)
    share = (min(0.97, 0.75 + 0.09 * fed) if stream.masked else plain) * (0.96 if stream.clipped else 1.0)
    work = max(issue / share, LOAD * (rows * stream.loads[0] + columns * stream.loads[1]))
    near = stream.lines - stream.far
    fetched = near * (LINE + STREAM * near) + stream.far * (FAR_LINE + FAR_STREAM * stream.far)
    return max(work, fetched) + BESIDE * min(work, fetched)


def dot_cost(rows: int, columns: int, stream: Stream) -> float:
    """Cycles of one tile of sums, all pieces of its reduction together."""
    sums = rows * columns
    end = LANE_SUM * sum(_folds(min(16, sums - first)) for first in range(0, sums, 16)) + TILE_END
    stored = SCATTERED_SUM * sums if stream.scattered else ROW_STORE * rows
    end += stored * (1 if stream.pieces == 1 else 2)  # sums of pieces are loaded, too
    return stream.pieces * (stream.steps * dot_step(rows, columns, stream) + end)


def _folds(vectors: int) -> int:
    """Vectors folded in half on the way from up to 16 vectors to one vector of the sums of their lanes."""
    return sum(min(vectors, half) for half in (8, 4, 2, 1))


def dot_tiles(rows: Cover, columns: Cover, most: tuple[int, int], registers: int,
              stream: Callable[[int, int], Iterator[Stream]]) -> Iterator[Choice]:  # fmt: skip
    """The tiles worth looking at, each with the ways to stream operands through it; costs are cycles of all rows and
    columns.

    `most` is how many rows and columns there are to make tiles of.
    """
    highest, widest = min(8, most[0]), min(12, most[1])
    by_row = {r: list(rows(r)) for r in range(1, highest + 1)}
    by_column = {c: list(columns(c)) for c in range(1, widest + 1)}
    for r, c in itertools.product(by_row, by_column):
        small = r * c < registers * 3 // 8 and r < highest and c < widest
        if small or not fits_dot(r, c, registers):
            continue
        for option in stream(r, c):
            cost = sum(n * m * dot_cost(i, j, option) for n, i in by_row[r] for m, j in by_column[c])
            yield Choice(round(cost, 3), (abs(r * c - 16), abs(r - 4), c), r, c, option)
