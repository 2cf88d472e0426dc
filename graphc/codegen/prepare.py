"""What need not run in every call: what reads only constants and variables that the program does not write.

Such items of the program's outermost region, and those that read what they make, become preparations: one for each set
of variables, which runs ahead of a step in which one of these variables is new. What the step reads of it keeps memory
of its own between calls. Everything in the outermost region runs in each step, so that nothing is computed that the
step itself would not have computed; what a branch or loop of the step holds stays there.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from graphc.codegen.regions import (
    Block,
    Item,
    Region,
    all_reads,
    all_writes,
    in_order,
    kernels_within,
    memories,
    predicates_within,
    regions_within,
)
from graphc.codegen.storage import Storage
from graphc.ir.buffers import format_bytes
from graphc.kernel.form import Kernel


@dataclass(frozen=True)
class Prepared:
    """Items that run when one of `variables` (names of buffers) is new."""

    variables: tuple[str, ...]
    region: Region


class _Touched:
    """The memories that each item of a region reads and writes, and who writes and touches each memory."""

    def __init__(self, region: Region, storage: Storage) -> None:
        self.region, self.storage = region, storage
        self.read = [memories(all_reads(item), storage) for item in region.items]
        self.written = [memories(all_writes(item), storage) for item in region.items]
        self.writers: dict[str, set[int]] = {}
        self.touchers: dict[str, set[int]] = {}
        for i, (read, written) in enumerate(zip(self.read, self.written, strict=True)):
            for name in written:
                self.writers.setdefault(name, set()).add(i)
            for name in read | written:
                self.touchers.setdefault(name, set()).add(i)

    def preparable(self, steady: Collection[str]) -> set[int]:
        """The positions of the items that depend on the memories `steady` alone."""
        found = {i for i, item in enumerate(self.region.items) if self._alike_in_all_calls(item)}
        while True:
            made = {name for i in found for name in self.written[i]}
            left = {i for i in found if self.read[i] <= made.union(steady) and self._keeps(i, found)}
            if left == found:
                return found
            found = left

    def _alike_in_all_calls(self, item: Item) -> bool:
        """False for what depends on the counts of a call, or writes what it does not own."""
        if any(self.storage.home.get(name) is None for name in memories(all_writes(item), self.storage)):
            return False
        kernels = [item] if isinstance(item, Kernel) else [k for part in item.regions for k in kernels_within(part)]
        return all(set(kernel.runtime_extents) <= _loops(item) for kernel in kernels)

    def _keeps(self, i: int, found: set[int]) -> bool:
        """True if nothing but other items of `found` writes the memories that item i writes.

        Where several write one, none else may read it either: what the first wrote would be gone.
        """
        for name in self.written[i]:
            writers = self.writers[name]
            if not writers <= found or (len(writers) > 1 and not self.touchers[name] <= found):
                return False
        return True

    def sources(self, found: set[int], variables: Collection[str]) -> dict[int, frozenset[str]]:
        """For each of the items `found` the variables that it depends on."""
        sources = {i: frozenset(self.read[i].intersection(variables)) for i in found}
        while True:
            after = {
                i: own.union(*(sources[j] for name in self.read[i] | self.written[i]
                               for j in self.writers.get(name, ())))
                for i, own in sources.items()
            }  # fmt: skip
            if after == sources:
                return sources
            sources = after


def _loops(item: Item) -> set[str]:
    """The names of the loops that an item holds."""
    if isinstance(item, Kernel):
        return set()
    blocks = [item, *(i for part in item.regions for r in regions_within(part) for i in r.items)]
    return {block.name for block in blocks if isinstance(block, Block)}


def prepared_kernels(region: Region, storage: Storage, steady: Collection[str]) -> set[str]:
    """The names of those kernels of a region itself that need not run in every call; see `separate`."""
    touched = _Touched(region, storage)
    items = (region.items[i] for i in touched.preparable(steady))
    return {item.name for item in items if isinstance(item, Kernel)}


def separate(region: Region, storage: Storage, variables: Collection[str]) -> tuple[Prepared, ...]:
    """Take what need not run in every call out of a region; `variables` are those that the program does not write.

    A preparation may read what those before it make.
    """
    ordered = in_order(region, storage)
    assert ordered is not None, "every accepted in-place update kept the order possible"
    region.items = ordered
    touched = _Touched(region, storage)
    found = touched.preparable({*variables, *storage.constants})
    groups: dict[frozenset[str], Region] = {}
    for i, sources in sorted(touched.sources(found, variables).items()):
        home = groups.setdefault(sources, Region(region.graph))
        home.items.append(region.items[i])
        storage.home |= {name: home for name in touched.written[i] if storage.home[name] is region}
    region.items = [item for i, item in enumerate(region.items) if i not in found]
    order = [name for name in storage.values if name in variables]
    return tuple(
        Prepared(tuple(sorted(sources, key=order.index)), groups[sources]) for sources in sorted(groups, key=len)
    )


def kept_memories(
    region: Region, preparations: Sequence[Prepared], storage: Storage, outlive: Collection[str]
) -> list[str]:
    """The memories that hold prepared values between calls: read by the step, after it, or by another preparation."""
    readers = [memories(_read_within(part), storage) for part in (region, *(p.region for p in preparations))]
    after = memories(outlive, storage)
    kept: dict[str, None] = {}
    for number, preparation in enumerate(preparations, start=1):
        others = after.union(*(read for k, read in enumerate(readers) if k != number))
        for item in preparation.region.items:
            kept |= dict.fromkeys(sorted(memories(all_writes(item), storage) & others))
    return list(kept)


def _read_within(region: Region) -> list[str]:
    return [*(name for item in region.items for name in all_reads(item)), *predicates_within(region)]


def told(preparations: Sequence[Prepared], storage: Storage, kept: Collection[str]) -> tuple[str, ...]:
    """What is prepared, and when: remarks."""
    remarks = []
    for preparation in preparations:
        written = {name for item in preparation.region.items for name in memories(all_writes(item), storage)}
        names = [name for name in kept if name in written]
        size = format_bytes(sum(map(storage.nbytes, names)))
        when = f"after {' or '.join(preparation.variables)} was written" if preparation.variables else "once"
        remarks.append(f"prepared: {', '.join(names)} ({size}), kept between calls, computed {when}")
    return tuple(remarks)
