"""Loops of generated kernels: plain ones, and tiled ones that cover an extent with register tiles.

A tiled axis is covered by *segments*, each with one size of tile, so that each has one piece of code: full tiles,
then what is left. Where computing points twice is harmless the last tile moves back to fit instead (`clamp`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from graphc.codegen.analysis import capacity
from graphc.codegen.cpu.values import Context
from graphc.ir.dims import Dim, Poly
from graphc.kernel.form import Axis, Bound, Table


@dataclass(frozen=True)
class Segment:
    """A run of equal tiles of an axis: `for axis in range(start, stop, step)`, or once at `start` (step 0).

    size: elements of the tile along the axis. limit: the last allowed start, where tiles move back to fit.
    count: how many elements of the tile exist, None if all do. aligned: every start is a multiple of it.
    followed: another segment has what is left.
    """

    start: str
    stop: str
    step: int
    size: int
    limit: str | None = None
    count: str | None = None
    aligned: int = 1
    followed: bool = False


@dataclass(frozen=True)
class Freedom:
    """What the loops over a tiled axis may do.

    twice: compute points twice. garbage: compute points up to where the memory of all operands ends. masked: mask every
    tile rather than have code of its own for the last one, which is smaller and for few tiles as fast.
    """

    twice: bool = False
    garbage: bool = False
    masked: bool = False


def segments(axis: Axis, size: int, lanes: int, freedom: Freedom, context: Context) -> list[Segment]:
    """Cover an axis by tiles of `size` elements; `lanes` is 1 for a row axis, whose tiles need no masks."""
    extent, text = axis.extent, ""
    if extent is None:
        lower, upper = context.names.fresh(f"{axis.name}_first"), context.names.fresh(f"{axis.name}_last")
        for variable, text in zip((lower, upper), bounds(axis, context), strict=True):
            context.source.line(f"{variable} = {text}")
        return _dynamic(lower, upper, context.axis(axis.name), size, lanes)
    if isinstance(extent, int):
        return _static(extent, size, lanes, freedom)
    text = context.dim(extent)
    most = context.rooms.get(axis, 0) or capacity_of(axis, context)
    if _divides(extent, size) or (freedom.garbage and most % size == 0):
        return [Segment("0", text, size, size, aligned=size)]
    if freedom.garbage and freedom.twice and most >= size:
        return [Segment("0", text, size, size, limit=str(most - size), aligned=math.gcd(size, most))]
    if freedom.masked:
        inner = text if text.isidentifier() else f"({text})"
        return [Segment("0", text, size, size, count=f"{inner} - {context.axis(axis.name)}", aligned=size)]
    return _dynamic("0", text, context.axis(axis.name), size, lanes)


def capacity_of(axis: Axis, context: Context) -> int:
    """The capacity of an axis with a runtime extent."""
    most = capacity(axis, context.capacities)
    assert most is not None
    return most


def _divides(extent: Dim, size: int) -> bool:
    if isinstance(extent, Poly):
        return all(factor % size == 0 for _, factor in extent.terms)
    return extent % size == 0


def _static(extent: int, size: int, lanes: int, freedom: Freedom) -> list[Segment]:
    full, rest = extent // size * size, extent % size
    if rest and full and freedom.twice:
        return [Segment("0", str(extent), size, size, limit=str(extent - size), aligned=math.gcd(size, extent))]
    once = 0 if full == size else size
    found = [Segment("0", str(full), once, size, aligned=size, followed=rest > 0)] if full else []
    if rest:
        padded = -(-rest // lanes) * lanes
        count = str(rest) if padded != rest else None
        found.append(Segment(str(full), str(extent), 0, padded, count=count, aligned=size))
    return found


def _dynamic(lower: str, upper: str, axis: str, size: int, lanes: int) -> list[Segment]:
    """Full tiles, then single vectors (masked) or single rows."""
    if size == lanes == 1:
        return [Segment(lower, upper, 1, 1)]
    full = f"{upper} // {size} * {size}" if lower == "0" else f"{lower} + ({upper} - {lower}) // {size} * {size}"
    if " " in upper:
        full = full.replace(upper, f"({upper})")
    count = None if lanes == 1 else f"{upper} - {axis}"
    aligned = (size, lanes) if lower == "0" else (1, 1)
    rest = Segment(full, upper, lanes, lanes, count=count, aligned=aligned[1])
    return [Segment(lower, full, size, size, aligned=aligned[0], followed=True), rest]


def bounds(axis: Axis, context: Context) -> tuple[str, str]:
    """Lower and upper bound of an axis as source."""
    lower, upper = [_bound(b, context) for b in axis.lower], [_bound(b, context) for b in axis.upper]
    return extreme("tile_maximum", lower), extreme("tile_minimum", upper)


def extreme(function: str, texts: list[str]) -> str:
    """The least or the greatest of some numbers: `tile_minimum(tile_minimum(a, b), c)`."""
    first, *others = texts
    for text in others:
        first = f"{function}({first}, {text})"
    return first


def _bound(bound: Bound, context: Context) -> str:
    if isinstance(bound, Table):
        return f"{context.table(bound.values)}[{context.axis(bound.axis)}]"
    return context.affine(bound)


@contextmanager
def plain_loop(axis: Axis, shared: bool, context: Context, unit: int = 0) -> Iterator[None]:
    """`for axis in range(...)`; `shared`: each thread takes its share of the points, whole units if there are any."""
    name = context.axis(axis.name)
    if shared and axis.extent is not None:
        extent = context.dim(axis.extent)
        header = f"for {name} in range({share_units(axis, extent, unit, context) if unit else share(extent, 1)}):"
    else:
        lower, upper = bounds(axis, context)
        header = f"for {name} in range({upper if lower == '0' else f'{lower}, {upper}'}):"
    with context.source.block(header):
        yield


def share(tiles: str, step: int) -> str:
    """The thread's share of `tiles` tiles of `step` points: `start, stop`."""
    inner = tiles if tiles.isidentifier() or tiles.isdigit() else f"({tiles})"
    scale = f" * {step}" if step > 1 else ""
    return f"{inner} * thread // threads{scale}, {inner} * (thread + 1) // threads{scale}"


def share_beside_rest(tiles: str, step: int) -> str:
    """The same where what is left after the tiles is one more, which the last thread has."""
    all_of_them = str(int(tiles) + 1) if tiles.isdigit() else f"({tiles} + 1)"
    scale = f" * {step}" if step > 1 else ""
    stop = f"tile_minimum({all_of_them} * (thread + 1) // threads, {tiles}){scale}"
    return f"{all_of_them} * thread // threads{scale}, {stop}"


def share_units(axis: Axis, stop: str, unit: int, context: Context) -> str:
    """The thread's share of an axis in units of so many points, but no further than `stop`: `start, stop`."""
    assert axis.extent is not None
    if isinstance(axis.extent, int):
        units = str(-(-axis.extent // unit))
    else:
        units = context.names.fresh(f"{context.axis(axis.name)}_units")
        context.source.line(f"{units} = ({context.dim(axis.extent)} + {unit - 1}) // {unit}")
    scale = f" * {unit}" if unit > 1 else ""
    return f"{units} * thread // threads{scale}, tile_minimum({units} * (thread + 1) // threads{scale}, {stop})"


@contextmanager
def tiled_loop(axis: Axis, segment: Segment, shared: bool, context: Context, unit: int = 0) -> Iterator[None]:
    """The loop over the tiles of a segment; what is left after the full tiles is the last thread's.

    `unit`: threads share whole units of an axis, see `Schedule.unit`.
    """
    name, source = context.axis(axis.name), context.source
    if shared and segment.followed and segment.step == 0:
        segment = replace(segment, step=segment.size)  # one tile, which is the first thread's
    leftover = segment.step == 0 or segment.start != "0"
    with source.block("if thread == threads - 1:" if shared and leftover else None):
        if segment.step == 0:
            source.line(f"{name} = {segment.start}")
            yield
            return
        variable = name if segment.limit is None else context.names.fresh(f"{name}_tile")
        span = f"{segment.start}, {segment.stop}"
        if shared and not leftover and unit:
            span = share_units(axis, segment.stop, unit, context)
        elif shared and not leftover:
            shares = share_beside_rest if segment.followed else share
            span = shares(_named_tiles(segment, name, context), segment.step)
        step = f", {segment.step}" if segment.step > 1 else ""
        if not step and span.startswith("0, "):
            span = span[3:]
        with source.block(f"for {variable} in range({span}{step}):"):
            if segment.limit is not None:
                source.line(f"{name} = tile_minimum({variable}, {segment.limit})")
            yield


def _named_tiles(segment: Segment, axis: str, context: Context) -> str:
    tiles = _tiles(segment)
    if tiles.isdigit() or tiles.isidentifier():
        return tiles
    name = context.names.fresh(f"{axis}_tiles")
    context.source.line(f"{name} = {tiles}")
    return name


def _tiles(segment: Segment) -> str:
    """How many tiles a segment that starts at 0 has."""
    if segment.stop.isdigit():
        return str(-(-int(segment.stop) // segment.step))
    if segment.stop.endswith(f" // {segment.step} * {segment.step}"):
        return segment.stop.rsplit(" * ", 1)[0]
    return f"({segment.stop} + {segment.step - 1}) // {segment.step}"
