"""All sensible schedules of a contraction, the chooser's first: what a tuner measures, and a search goes through."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from graphc.codegen.choose import parallel_axis
from graphc.codegen.contraction import Dot, Outer, ways
from graphc.codegen.cpu.emit import schedulable
from graphc.codegen.host import Host
from graphc.kernel.form import Kernel
from graphc.kernel.schedule import Schedule


@dataclass(frozen=True)
class Candidate:
    """A complete schedule with its estimated cycles at capacity.

    The model knows one order of the loops around a tile; the tile's other orders carry the same cost.
    """

    schedule: Schedule
    cost: float


def candidates(kernel: Kernel, host: Host) -> list[Candidate]:
    """The schedules of a kernel that is a contraction, the cheapest first; none for other kernels.

    They are all that differ in which axes are rows and columns, in where the vector lanes are (`outer`, `dot`), in the
    register tile (of those that fit the registers) and in the order of the loops. The first is that of `choose`.
    """
    flat = schedulable(kernel)
    found = [
        ((round(plan.cost, 3), number, *choice.rank, place), plan)
        for number, way in enumerate(ways(flat, host, cut=False))
        for choice in way.tiles()
        for place, order in enumerate(orders(way))
        for plan in (way.plan(choice, order),)
    ]
    plans = [plan for _, plan in sorted(found, key=lambda entry: entry[0])]
    return [
        Candidate(replace(plan.schedule, parallel=parallel_axis(flat, kernel, plan.schedule)), plan.cost)
        for plan in plans
    ]


def orders(way: Outer | Dot) -> Iterator[tuple[str, ...]]:
    """Orders of the loops around a tile, the chooser's first: rows around columns or within them, and each of the
    other axes around both or within both."""
    first = way.order()
    yield first
    kernel, tile = way.kernel, (way.contraction.rows.name, way.contraction.columns.name)
    if any(axis.sequential for axis in kernel.space):
        return  # the form says in which order it wants to run
    others = [axis.name for axis in kernel.space if axis.name not in tile]
    for count in range(len(others) + 1):
        for inner in itertools.combinations(others, count):
            around = [name for name in others if name not in inner]
            for pair in (tile, tile[::-1]):
                order = (*around, *pair, *inner)
                if order != first:
                    yield order
