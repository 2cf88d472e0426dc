"""Computing again instead of keeping: maps are run a second time before late readers, so that less is alive at once.

A value can be computed again if a map makes it, with no reduction, and if all that the map reads still stands when its
first late reader runs. Where most is alive, the value whose second computation leaves least alive is taken; and so on.
(Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016, for chains.)
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from graphc.codegen.lifetimes import Lifetimes, lifetimes
from graphc.codegen.regions import Block, Item, Region, is_elementwise, makes, reads
from graphc.codegen.storage import Storage
from graphc.kernel.compose import keep_stores, rename_operands
from graphc.kernel.form import Kernel


@dataclass(frozen=True)
class _Again:
    """Running `kernel` again, for `value` alone, before the item at `place`, which is the first that reads the copy."""

    value: str
    kernel: Kernel
    place: int
    first: int  # position in the table where the value's first life now ends


def recompute_one(
    region: Region, storage: Storage, inputs: Iterable[str], kept: Collection[str], target: int
) -> bool:
    """Compute one more value of the program's outermost region again, the one that helps most; False if none does.

    What helps leaves less above `target` bytes, summed over the table.
    """
    lives = _lives(region, storage, inputs, kept)
    sizes = {name: storage.nbytes(name) for name in lives.spans}
    _, at, alive = lives.peak(sizes)
    positions = _positions(region, lives)
    best: tuple[int, _Again] | None = None
    for value in alive:
        again = _again(region, storage, positions, value, at, kept)
        if again is not None:
            spans = _with(again, storage, lives, positions)
            left = _above(spans, {**sizes, again.kernel.name: sizes[value]}, target)
            if best is None or left < best[0]:
                best = left, again
    if best is None or best[0] >= _above(lives, sizes, target):
        return False
    _apply(region, storage, best[1])
    return True


def _above(lives: Lifetimes, sizes: Mapping[str, int], target: int) -> int:
    return sum(max(0, alive - target) for alive in lives.alive(sizes).values())


def _lives(region: Region, storage: Storage, inputs: Iterable[str], kept: Collection[str]) -> Lifetimes:
    lives = lifetimes(region, storage, inputs, kept)
    return lives.of({*storage.home, *inputs})


def _positions(region: Region, lives: Lifetimes) -> list[int]:
    """Where each item of the region begins in the table."""
    found, at = [], 0
    for item in region.items:
        found.append(at)
        at += _length(item)
    assert at == len(lives.entries)
    return found


def _length(item: Item) -> int:
    """Positions of an item in the table; see `lifetimes`."""
    if isinstance(item, Kernel):
        return 1
    inner = sum(_length(i) for part in item.regions for i in part.items)
    return inner + {"branch": 1, "loop": 2, "while": 3}[item.kind]


def _again(
    region: Region,
    storage: Storage,
    positions: list[int],
    value: str,
    at: int,
    kept: Collection[str],
) -> _Again | None:
    """How `value` can be computed again after position `at`, if it can, and if that ends its life before it."""
    maker = region.maker(value)
    if not isinstance(maker, Kernel) or not is_elementwise(maker) or storage.scratch(value, region) != value:
        return None
    if [item for item in region.items if value in map(storage.owner, makes(item))] != [maker]:
        return None
    users = [i for i, item in enumerate(region.items) if value in map(storage.owner, (*reads(item), *makes(item)))]
    late = [i for i in users if positions[i] > at]
    early = [i for i in users if positions[i] <= at]
    if not late or any(positions[i] == at for i in users) or value in map(storage.owner, kept):
        return None
    if any(isinstance(region.items[i], Block) for i in late) or maker.operand(value).role != "out":
        return None
    start = region.items.index(maker)
    if _written_between(region, storage, maker, start, late[0]):
        return None
    kernel = keep_stores(maker, [value])
    name = storage.names.kernel(f"{maker.name}_again")
    return _Again(value, replace(kernel, name=name), late[0], positions[early[-1]])


def _written_between(region: Region, storage: Storage, maker: Kernel, start: int, end: int) -> bool:
    """True if the map itself, or an item between two positions, writes memory that the map reads."""
    read = {storage.owner(operand.name) for operand in maker.inputs}
    own = {storage.owner(name) for item in region.items[start:end] if isinstance(item, Block) for name in reads(item)}
    written = {storage.owner(name) for item in region.items[start:end] for name in makes(item)}
    return bool(read & (written | own))


def _with(again: _Again, storage: Storage, lives: Lifetimes, positions: list[int]) -> Lifetimes:
    """Lifetimes as they are with a value computed again (just before its first late reader)."""
    place = positions[again.place]
    spans = {name: (first + (first >= place), last + (last >= place)) for name, (first, last) in lives.spans.items()}
    first, last = spans[again.value]
    spans[again.value] = (first, again.first)
    spans[again.kernel.name] = (place, last)
    for operand in again.kernel.inputs:
        owner = storage.owner(operand.name)
        if owner in spans:
            spans[owner] = (spans[owner][0], max(spans[owner][1], place))
    return Lifetimes(spans, (*lives.entries[:place], again.kernel.name, *lives.entries[place:]))


def _apply(region: Region, storage: Storage, again: _Again) -> None:
    """Put the second computation into the region, and let late readers read it."""
    names: dict[str, str] = {}
    for old in sorted(storage.sharing(again.value)):
        new = storage.add(f"{old}_again", storage.values[old].type)
        names[old] = new
    for old, new in names.items():
        if old in storage.base:
            storage.base[new] = names[storage.base[old]]
        if old in storage.layouts:
            storage.layouts[new] = storage.layouts[old]
    storage.home[names[again.value]] = region
    late: list[Item] = [
        rename_operands(item, names) if isinstance(item, Kernel) else item for item in region.items[again.place :]
    ]
    region.items[again.place :] = [rename_operands(again.kernel, names), *late]
