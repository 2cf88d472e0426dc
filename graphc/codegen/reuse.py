"""Less memory for the same kernels: what frees all that it allocates runs at once, maps write over dead operands."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from graphc.codegen.lifetimes import lifetimes
from graphc.codegen.regions import (
    Item,
    Region,
    all_reads,
    all_writes,
    dependencies,
    is_elementwise,
    memories,
    overwrite,
    regions_within,
)
from graphc.codegen.storage import Storage
from graphc.kernel.form import Kernel


def order_for_memory(region: Region, storage: Storage, inputs: Iterable[str], kept: Collection[str]) -> None:
    """Reorder the items of all regions if less is alive at once then: what frees all that it allocates runs first.

    In a training step these are above all the weight gradients with their updates, which free that of activations
    and of gradients, also where they are summed in pieces first. `kept` are the values that outlive the kernels.
    """
    given = {id(part): part.items for part in regions_within(region)}
    before = _peak(region, storage, inputs, kept)
    for part in list(regions_within(region)):
        part.items = _freeing_first(part, storage, {storage.owner(name) for name in kept})
    if _peak(region, storage, inputs, kept) >= before:
        for part in list(regions_within(region)):
            part.items = given[id(part)]


def _peak(region: Region, storage: Storage, inputs: Iterable[str], kept: Iterable[str]) -> int:
    lives = lifetimes(region, storage, inputs, kept)
    own = lives.of({*storage.home, *inputs})
    return own.peak({name: storage.nbytes(name) for name in own.spans})[0]


def _freeing_first(region: Region, storage: Storage, kept: Collection[str]) -> list[Item]:
    """The items in an order of their dependencies: of those that can run, the one that frees most beyond what it
    allocates, or the first if all allocate more than they free."""
    written = [memories(all_writes(item), storage) for item in region.items]
    touched = [memories((*all_reads(item), *all_writes(item)), storage) for item in region.items]
    before = dependencies(region, storage)
    for later in range(len(region.items)):  # what touches memory that another writes keeps its place before or after it
        before[later] |= {i for i in range(later) if written[i] & touched[later] or touched[i] & written[later]}
    own = {owner for names in touched for owner in names if storage.home.get(owner) is region}
    waiting = {owner: {i for i, names in enumerate(touched) if owner in names} for owner in own}
    allocated: set[str] = set()
    order: dict[int, None] = {}
    left = dict.fromkeys(range(len(region.items)))

    def freed(i: int) -> int:
        """Bytes that an item frees, less those that it allocates."""
        names = touched[i] & own
        gone = sum(storage.nbytes(o) for o in names if waiting[o] <= {i} and o not in kept)
        return gone - sum(map(storage.nbytes, names - allocated))

    while left:
        ready = [i for i in left if before[i] <= order.keys()]
        best = max(ready, key=lambda i: (freed(i), -i))
        chosen = best if freed(best) >= 0 else ready[0]
        order[chosen] = None
        del left[chosen]
        allocated |= touched[chosen] & own
        for owner in touched[chosen] & own:
            waiting[owner].discard(chosen)
    return [region.items[i] for i in order]


def overwrite_dead_operands(region: Region, storage: Storage, kept: Collection[str]) -> None:
    """Let maps write over an operand of the same type that nothing reads after them, in the order as it is now.

    Contractions keep memory of their own: their last tiles may then move back and compute points twice.
    """
    safe = {storage.owner(name) for name in kept}
    for part in regions_within(region):
        safe |= {storage.owner(storage.names.of(value)) for value in part.graph.outputs}
        last = _last_uses(part, storage)
        for position, item in enumerate(part.items):
            if not isinstance(item, Kernel) or not is_elementwise(item):
                continue
            for new in [o for o in item.outputs if o.role == "out" and storage.scratch(o.name, part) == o.name]:
                for old in item.inputs:
                    owner = storage.scratch(old.name, part)
                    dead = owner is not None and owner not in safe and last[owner] == position
                    alike = (old.dtype, old.shape, old.padding) == (new.dtype, new.shape, new.padding)
                    if dead and alike and overwrite(storage, part, new.name, old.name):
                        assert owner is not None
                        last[owner] = last[new.name]
                        safe |= {owner} if new.name in safe else set()
                        break


def _last_uses(region: Region, storage: Storage) -> dict[str, int]:
    last: dict[str, int] = {}
    for position, item in enumerate(region.items):
        last |= dict.fromkeys(memories((*all_reads(item), *all_writes(item)), storage), position)
    return last
