"""The parts of a program while its memory is planned: regions of kernels and blocks, and the order within a region.

    Region = Item*, one after the other
    Item   = Kernel | Block
    Block  = branch (then, orelse) | loop (body) | while (test, body), each a Region

Kernels name their operands by values. A block makes the outputs of its node and needs the node's operands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeAlias

from graphc.codegen.storage import Storage
from graphc.ir.graph import Graph
from graphc.kernel.expr import Load, loads
from graphc.kernel.form import Kernel


@dataclass(eq=False)
class Block:
    """A branch or a loop, under its name: `kind` is `branch`, `loop` or `while`.

    `count` is the number of turns of a loop, and the bound of a `while`.
    """

    name: str
    kind: str
    makes: tuple[str, ...]
    needs: tuple[str, ...]
    regions: tuple[Region, ...] = ()
    predicate: str = ""
    count: int = 0


Item: TypeAlias = Kernel | Block


@dataclass(eq=False)
class Region:
    """Items that run in order. `name` is what names in it begin with, `loops` those around it, outermost first.

    `conditional` tells that it may not run at all.
    """

    graph: Graph
    name: str = ""
    loops: tuple[str, ...] = ()
    conditional: bool = False
    items: list[Item] = field(default_factory=list)

    def maker(self, name: str) -> Item | None:
        """The item that makes a value, if it is one of this region itself."""
        return next((item for item in self.items if name in makes(item)), None)


def makes(item: Item) -> tuple[str, ...]:
    """The values that an item makes."""
    return item.makes if isinstance(item, Block) else tuple(o.name for o in item.outputs)


def reads(item: Item) -> tuple[str, ...]:
    """The values that an item reads: for a block, those of the region around it."""
    return item.needs if isinstance(item, Block) else tuple(o.name for o in item.inputs)


def all_reads(item: Item) -> Iterator[str]:
    """The values that an item reads, those within a block too."""
    yield from reads(item)
    if isinstance(item, Block):
        yield from [item.predicate] if item.predicate else []
        for part in item.regions:
            yield from predicates_within(part)
            yield from (o.name for kernel in kernels_within(part) for o in kernel.inputs)


def all_writes(item: Item) -> Iterator[str]:
    """The values that an item makes, those within a block too."""
    yield from makes(item)
    if isinstance(item, Block):
        yield from (o.name for part in item.regions for kernel in kernels_within(part) for o in kernel.outputs)


def memories(names: Iterable[str], storage: Storage) -> set[str]:
    """The owners of the memory of values."""
    return {storage.owner(name) for name in names}


def is_elementwise(kernel: Kernel) -> bool:
    """True for a kernel without reductions: a map, or several at the same points."""
    return not any(stage.reduce or stage.accumulates for stage in kernel.stages)


def regions_within(region: Region) -> Iterator[Region]:
    """The region and all within it, in order."""
    yield region
    for item in region.items:
        for inner in item.regions if isinstance(item, Block) else ():
            yield from regions_within(inner)


def kernels_within(region: Region) -> Iterator[Kernel]:
    """All kernels of a region and those within it, in the order of the table."""
    for item in region.items:
        if isinstance(item, Kernel):
            yield item
        else:
            for inner in item.regions:
                yield from kernels_within(inner)


def predicates_within(region: Region) -> Iterator[str]:
    """What branches and loops within a region ask."""
    for inner in regions_within(region):
        yield from (item.predicate for item in inner.items if isinstance(item, Block) and item.predicate)


def in_order(region: Region, storage: Storage, extra: Mapping[str, str] | None = None) -> list[Item] | None:
    """The items so that each follows those whose values it reads, and readers of a value precede what overwrites it.

    `extra` are updates in place beside those of `storage`. None if no order does that.
    """
    return _stable_topological(region.items, dependencies(region, storage, extra))


def dependencies(region: Region, storage: Storage, extra: Mapping[str, str] | None = None) -> list[set[int]]:
    """For each item of a region the positions of those that come ahead of it; see `in_order`."""
    overwriter = {storage.value(old): new for new, old in (storage.written | dict(extra or {})).items()}
    maker = {name: i for i, item in enumerate(region.items) for name in makes(item)}
    before: list[set[int]] = [set() for _ in region.items]
    for i, item in enumerate(region.items):
        for name in reads(item):
            value = storage.value(name)
            if value in maker:
                before[i].add(maker[value])
            if (new := overwriter.get(value)) in maker:
                before[maker[new]].add(i)
    return [needed - {i} for i, needed in enumerate(before)]


def _stable_topological(items: Sequence[Item], before: list[set[int]]) -> list[Item] | None:
    """Items so that `before[i]` come ahead of item i, else in the given order; None for a cycle."""
    waits_for = [len(needed) for needed in before]
    behind: list[list[int]] = [[] for _ in items]
    for i, needed in enumerate(before):
        for ahead in needed:
            behind[ahead].append(i)
    ready = [i for i, count in enumerate(waits_for) if not count]  # a heap: ascending
    done: list[Item] = []
    while ready:
        first = heappop(ready)
        done.append(items[first])
        for i in behind[first]:
            waits_for[i] -= 1
            if not waits_for[i]:
                heappush(ready, i)
    return done if len(done) == len(items) else None


def overwrite(storage: Storage, region: Region, new: str, old: str) -> bool:
    """Let the kernel of `region` that makes `new` write it over `old`, if that is safe; else return False.

    It is safe if the kernel reads the memory only at the point that it writes, and if all other readers of the old
    value can run before it.
    """
    kernel = region.maker(new)
    if not isinstance(kernel, Kernel) or storage.scratch(new, region) != new or old in storage.written.values():
        return False
    if not _touches_own_point_only(kernel, new, storage.sharing(old)):
        return False
    if in_order(region, storage, {new: old}) is None:
        return False
    storage.written[new] = old
    return True


def _touches_own_point_only(kernel: Kernel, new: str, old: set[str]) -> bool:
    """True if `kernel` reads the values `old` (one memory) only at the point, and in the stage, that stores `new`."""
    place = [(stage, store) for stage in kernel.stages for store in stage.stores if store.operand == new]
    if len(place) != 1 or place[0][1].mode != "=" or kernel.operand(new).init is not None:
        return False
    stage, store = place[0]
    covered = {t[0] for i in store.index if hasattr(i, "terms") for t in i.terms}
    inside_reduction = [e for a in stage.accumulates for e in a.exprs]
    inside_reduction += [let.expr for let in stage.lets] if stage.reduce else []
    if {a.name for a in (*kernel.space, *stage.space) if a.extent != 1} - covered:
        return False
    for other in kernel.stages:
        for expr in other.expressions():
            for load in loads(expr):
                if load.operand in old and (other is not stage or load.index != store.index):
                    return False
    return not any(_reads(e, old) for e in inside_reduction)


def _reads(expr: object, names: set[str]) -> bool:
    return any(isinstance(load, Load) and load.operand in names for load in loads(expr))  # type: ignore[arg-type]
