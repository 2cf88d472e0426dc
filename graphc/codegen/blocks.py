"""Branches and loops in the memory plan: what their graphs read and write, in whose memory, with the fewest copies.

* What a graph captures is the value around it. A slice of a sequence is a place in it that moves with the loop.
* A result of a branch is written by both graphs to one place, and a stacked output of a loop slice by slice.
* A carried value lives in one buffer, the first value too where nothing else needs that. A turn writes the new value
  over the old one where that is safe (`regions.overwrite`), else a copy ends the turn.
* A carried value that is stacked too lives in the stack alone, which has one row more: a turn reads one row and writes
  the next, so nothing is copied. The stack of the values at the start of each turn, which gradients need, is the same.
* A carried value that no turn changes is its first value.
"""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.lower import LoweredBody, LoweredNode, NestedNode, copy_kernel, is_array_constant, is_view
from graphc.codegen.regions import Block, Region, in_order, overwrite
from graphc.codegen.storage import Place, Storage
from graphc.ir.graph import Graph, Value
from graphc.ir.types import TensorType
from graphc.kernel.form import Kernel, Operand


def region_of(graph: Graph, items: Sequence[LoweredNode | NestedNode], storage: Storage) -> Region:
    """The region of a whole program: its kernels, and its branches and loops with their memory."""
    region = Region(graph)
    _fill(region, items, storage)
    return region


def copied(storage: Storage, region: Region, source: str, wanted: str = "") -> str:
    """A copy of `source`, made by a new kernel of `region`, under a new name."""
    target = storage.add(wanted or f"{source}_copy", storage.values[source].type)
    add_copy(storage, region, source, target)
    return target


def add_copy(storage: Storage, region: Region, source: str, target: str) -> None:
    """Let a new kernel of `region` copy `source` to `target`."""
    type_ = storage.values[source].type
    name = storage.names.kernel("_".join(part for part in (region.name, "copy", source) if part))
    kernel = copy_kernel(name, Operand(source, type_.dtype, type_.shape), target, storage.capacities)
    region.items.append(kernel)
    storage.home.setdefault(target, region)


def _fill(region: Region, items: Sequence[LoweredNode | NestedNode], storage: Storage) -> None:
    """Enter the values and items of a region's graph, then place what its blocks read and write."""
    names, blocks = storage.names, []
    for value in region.graph.inputs:
        storage.values.setdefault(names.of(value), value)
    for node in region.graph.nodes:
        storage.values |= {names.of(v): v for v in node.outputs}
        if is_array_constant(node):
            storage.constants[names.of(node.output)] = node.output
        elif is_view(node):
            storage.base[names.of(node.output)] = names.of(node.inputs[0])
    for item in items:
        if isinstance(item, LoweredNode):
            region.items.append(item.kernel)
            storage.home |= {o.name: region for o in item.kernel.outputs}
            continue
        outputs, operands = (tuple(map(names.of, values)) for values in (item.node.outputs, item.node.inputs))
        block = Block(item.name, "", outputs, operands)
        region.items.append(block)
        blocks.append((item, block))
    for item, block in blocks:
        _hand_on(storage, item, block)
    for item, block in blocks:
        _KINDS[item.node.op.name](storage, region, item, block)


def _hand_on(storage: Storage, item: NestedNode, block: Block) -> None:
    """Let carried values that no turn changes be their first values, before any block overwrites one of these."""
    attributes, body = item.node.attributes, item.bodies[-1].graph
    for i in range(attributes.get("carried", 0)):
        if attributes.get("length") == 0 or body.outputs[i] is body.inputs[i]:
            storage.base[block.makes[i]] = block.needs[i]


def _within(storage: Storage, body: LoweredBody, loops: tuple[str, ...], conditional: bool) -> Region:
    region = Region(body.graph, body.name, loops, conditional)
    _fill(region, body.items, storage)
    return region


def _put(storage: Storage, region: Region, name: str, place: Place) -> None:
    """Let the value `name` of `region` be at `place`: computed there if it can be, else copied."""
    owner = storage.scratch(name, region)
    if owner is None:
        target = copied(storage, region, name)
        storage.places[target] = place
    else:
        storage.places[owner] = place


# ---- branches -------------------------------------------------------------------------------------------------------


def _branch(storage: Storage, region: Region, item: NestedNode, block: Block) -> None:
    block.kind, block.predicate = "branch", block.needs[0]
    storage.home |= dict.fromkeys(block.makes, region)
    inner = []
    for body in item.bodies:
        side = _within(storage, body, region.loops, conditional=True)
        for value, outer in zip(body.graph.outputs, block.makes, strict=True):
            _put(storage, side, storage.names.of(value), Place(outer))
        inner.append(side)
    block.regions = tuple(inner)


# ---- loops ----------------------------------------------------------------------------------------------------------


def _while(storage: Storage, region: Region, item: NestedNode, block: Block) -> None:
    test, body = item.bodies
    k, of = item.node.attributes["carried"], storage.names.of
    block.kind, block.count = "while", item.node.attributes["bound"]
    loop = _Loop(storage, region, block, body.graph, k)
    loops = (*region.loops, block.name)
    asked = _within(storage, test, loops, region.conditional)
    block.predicate = of(test.graph.outputs[0])
    turn = _within(storage, body, loops, conditional=True)
    block.regions = (asked, turn)
    loop.carry(turn)


def _scan(storage: Storage, region: Region, item: NestedNode, block: Block) -> None:
    (body,) = item.bodies
    k, m, length, reverse = (item.node.attributes[name] for name in ("carried", "sequences", "length", "reverse"))
    block.kind, block.count = "loop", length
    if not length:
        region.items.remove(block)
        storage.home |= dict.fromkeys(block.makes[k:], region)
        return
    loop = _Loop(storage, region, block, body.graph, k)
    for value, sequence in zip(body.graph.inputs[k : k + m], block.needs[k : k + m], strict=True):
        name = storage.names.of(value)
        storage.places[name] = loop.slice_of(sequence, storage.nbytes_of(value.type), reverse)
    turn = _within(storage, body, (*region.loops, block.name), region.conditional)
    block.regions = (turn,)
    loop.stack(turn, reverse)
    loop.carry(turn)


class _Loop:
    """The carried values and stacked outputs of one loop."""

    def __init__(self, storage: Storage, region: Region, block: Block, body: Graph, carried: int) -> None:
        self.storage, self.region, self.block, self.body, self.carried = storage, region, block, body, carried
        self.in_stack: set[int] = set()  # carried values that live in a stack
        self.unchanged: set[int] = set()
        for i in range(carried):
            name = storage.names.of(body.inputs[i])
            if body.outputs[i] is body.inputs[i]:
                self.unchanged.add(i)
                storage.base[name] = block.needs[i]
            storage.values[name] = body.inputs[i]

    def slice_of(self, owner: str, row: int, reverse: bool, skip: int = 0) -> Place:
        """The slice of the turn in a stack of rows, of which the first `skip` are not walked."""
        if reverse:
            return Place(owner, (self.block.count - 1 + skip) * row, self.block.name, -row)
        return Place(owner, skip * row, self.block.name, row)

    def stack(self, turn: Region, reverse: bool) -> None:
        """Place the stacked outputs, those that are carried values too first."""
        storage, outputs = self.storage, self.body.outputs
        places: dict[int, Place] = {}  # of stacked outputs that lie in the stack of a carried value
        for i in range(self.carried):
            new = [j for j in range(self.carried, len(outputs)) if outputs[j] is outputs[i] and j not in places]
            old = [j for j in range(self.carried, len(outputs)) if outputs[j] is self.body.inputs[i]]
            owner = storage.scratch(storage.names.of(outputs[i]), turn)
            if i not in self.unchanged and (new or old) and owner is not None:
                places |= self._carry_in_stack(i, owner, new, old, reverse)
        seen: dict[Value, str] = {}
        for j in range(self.carried, len(outputs)):
            value, made = outputs[j], self.block.makes[j]
            if j in places:
                storage.places[made] = places[j]
            elif value in seen:
                storage.base[made] = seen[value]
            else:
                seen[value] = made
                storage.home[made] = self.region
                place = self.slice_of(made, storage.nbytes_of(value.type), reverse)
                _put(storage, turn, storage.names.of(value), place)

    def _carry_in_stack(self, i: int, owner: str, new: list[int], old: list[int], reverse: bool) -> dict[int, Place]:
        """Let carried value i live in a stack with a row more than turns; where the stacked outputs lie in it."""
        storage, value, count = self.storage, self.body.inputs[i], self.block.count
        name, row = storage.names.of(value), storage.nbytes_of(value.type)
        rows = storage.add(f"{name}_rows", TensorType(value.type.dtype, (count + 1, *value.type.shape)))
        storage.home[rows] = self.region
        storage.places[name] = self.slice_of(rows, row, reverse, skip=int(reverse))
        storage.places[owner] = self.slice_of(rows, row, reverse, skip=int(not reverse))
        first, last = (count * row, 0) if reverse else (0, count * row)
        storage.places[self.block.makes[i]] = Place(rows, last)
        self._put_first(i, Place(rows, first))
        self.in_stack.add(i)
        ahead = Place(rows, row)
        of_new, of_old = (Place(rows), ahead) if reverse else (ahead, Place(rows))
        return dict.fromkeys(new, of_new) | dict.fromkeys(old, of_old)

    def _put_first(self, i: int, place: Place) -> None:
        """Let the first value of carried value i be at `place`, which nothing overwrites."""
        first = self.block.needs[i]
        owner = self.storage.scratch(first, self.region)
        if owner is not None and self.storage.value(first) not in self.storage.written.values():
            self.storage.places[owner] = place
            return
        copy = copied(self.storage, self.region, first, f"{self.block.name}_first_{first}")
        self.storage.places[copy] = place
        self._replace_need(i, copy)

    def _replace_need(self, i: int, name: str) -> None:
        needs = list(self.block.needs)
        needs[i] = name
        self.block.needs = tuple(needs)

    def carry(self, turn: Region) -> None:
        """Place the carried values that live in one buffer each, and let the turns write them."""
        storage, of = self.storage, self.storage.names.of
        single = [i for i in range(self.carried) if i not in self.in_stack | self.unchanged]
        for i in single:
            self._place_single(i)
        news: dict[int, str] = {}
        for i in single:
            new = of(self.body.outputs[i])
            own = isinstance(turn.maker(new), Kernel) and storage.scratch(new, turn) == new
            news[i] = new if own and new not in news.values() else copied(storage, turn, new)
        for i, new in news.items():
            old = of(self.body.inputs[i])
            safe = overwrite(storage, turn, new, old) or overwrite(storage, turn, copied(storage, turn, new), old)
            assert safe, f"a copy of {new} at the end of a turn comes after all that reads {old}"

    def _place_single(self, i: int) -> None:
        """The buffer of a carried value: that of its first value if nothing else needs it, else one of its own."""
        storage, first, last = self.storage, self.block.needs[i], self.block.makes[i]
        name = storage.names.of(self.body.inputs[i])
        storage.home[name] = self.region
        value = storage.value(first)
        if self._may_overwrite(value):
            storage.written[last] = value
            storage.places[name] = Place(value)
            return
        add_copy(storage, self.region, first, name)
        storage.places[last] = Place(name)
        self._replace_need(i, name)

    def _may_overwrite(self, first: str) -> bool:
        storage, region = self.storage, self.region
        operands = [storage.value(name) for name in self.block.needs]
        kept = {storage.value(storage.names.of(v)) for v in region.graph.outputs}
        taken = kept | set(storage.written.values())
        if storage.scratch(first, region) is None or operands.count(first) > 1 or first in taken:
            return False
        last = self.block.makes[operands.index(first)]
        return in_order(region, storage, {last: first}) is not None


_KINDS = {"cond": _branch, "while_loop": _while, "scan": _scan}
