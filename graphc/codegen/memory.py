"""The memory plan: where every value lives, in which order kernels run, and what is updated in place.

Scratch values share one arena by lifetime. A new value of a variable is written straight into the variable when
that is safe: its kernel reads the old value only at the point that it writes, and every other reader of the old
value runs before it (a write-after-read edge). Otherwise the new value is copied in after the last kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from graphc.codegen.blocks import copied, region_of
from graphc.codegen.host import Host
from graphc.codegen.layouts import assign_layouts
from graphc.codegen.lifetimes import ALIGNMENT, assign_offsets, lifetimes
from graphc.codegen.lower import LoweredNode, Names, NestedNode, clamp_indices, index_readers, label_sources
from graphc.codegen.prepare import Prepared, kept_memories, prepared_kernels, separate, told
from graphc.codegen.regions import (
    Block,
    Region,
    in_order,
    kernels_within,
    overwrite,
    predicates_within,
    regions_within,
)
from graphc.codegen.relayout import ascending
from graphc.codegen.rematerialise import recompute_one
from graphc.codegen.reuse import order_for_memory, overwrite_dead_operands
from graphc.codegen.split import split_reductions
from graphc.codegen.storage import Storage
from graphc.errors import MemoryLimitError
from graphc.ir.buffers import format_bytes
from graphc.ir.dims import evaluate, format_shape
from graphc.ir.graph import Graph, Value
from graphc.kernel.compose import rename_operands
from graphc.kernel.form import Kernel
from graphc.kernel.plan import Branch, Buffer, Call, Check, Entry, Loop, Peak, Plan, Preparation, Update, While
from graphc.kernel.plan_text import largest
from graphc.kernel.schedule import Schedule


@dataclass(frozen=True)
class Signature:
    """What the graph's inputs and outputs are: names of variables and rng among the inputs, and the updates.

    `outputs` of the graph are the results, then one new value for each variable in `updated`.
    """

    variables: frozenset[str]
    updated: tuple[str, ...]
    rng: str | None = None


@dataclass(frozen=True)
class PlannedProgram:
    """The plan and its kernels, in table order; constants by buffer name."""

    plan: Plan
    kernels: tuple[Kernel, ...]
    constants: Mapping[str, Value]
    variables: Mapping[str, str]  # buffer name -> name of the declared variable
    schedules: Mapping[str, Schedule]  # of kernels that were made with one
    remarks: tuple[str, ...] = ()


class Planner:
    """Builds a plan step by step; `plan_program` is the way in."""

    def __init__(
        self,
        graph: Graph,
        lowered: Sequence[LoweredNode | NestedNode],
        names: Names,
        signature: Signature,
        capacities: dict[str, int],
    ) -> None:
        self.graph, self.names, self.signature, self.capacities = graph, names, signature, capacities
        self.storage = Storage(names, capacities)
        self.region = region_of(graph, lowered, self.storage)
        self.index_readers = index_readers(lowered)
        self.leaves = {names.of(v) for v in graph.inputs}
        self.updates: list[Update] = []
        self.preparations: tuple[Prepared, ...] = ()
        self.prepared: list[str] = []  # memories that keep prepared values between calls
        self.schedules: dict[str, Schedule] = {}
        count = len(graph.outputs) - len(signature.updated)
        self.results = [names.of(v) for v in graph.outputs[:count]]
        self.news = [names.of(v) for v in graph.outputs[count:]]
        self.variable_names = {v.name: names.of(v) for v in graph.inputs if v.name in signature.variables}

    def arrange(self, machine: Host, without: Sequence[str], prepare: bool, pad: bool) -> tuple[str, ...]:
        """Choose layouts, then cut long reductions in pieces, unless switched off. Returns remarks."""
        remarks: tuple[str, ...] = ()
        if "layouts" not in without:
            fixed, steady = {*self.results, *self.news}, {*self.read_only(), *self.storage.constants}
            rarely = prepared_kernels(self.region, self.storage, steady) if prepare else set()
            remarks = assign_layouts(self.region, self.storage, fixed, machine, steady if prepare else (), rarely, pad)
            items = self.region.items
            items[:] = [ascending(item) if isinstance(item, Kernel) else item for item in items]
        if "split" not in without:
            self.schedules = split_reductions(self.region, self.storage, machine)
        return remarks

    # -- updates ---------------------------------------------------------------------------------------------

    def place_updates(self) -> None:
        """Write each update in place where that is safe, else by a copy at the end."""
        for variable, new in zip(self.signature.updated, self.news, strict=True):
            target = self.variable_names[variable]
            if self.storage.value(new) == target:
                continue  # the variable keeps its value
            if not self._write_in_place(new, target):
                self.updates.append(Update(target, self._own_copy(new)))
        self.results = [self._result(name) for name in self.results]

    def _result(self, name: str) -> str:
        """A result that is an old value of a variable gets a copy; the runtime reads results after the updates."""
        value = self.storage.value(name)
        if value in self.variable_names.values() and value not in self.storage.written and self._is_updated(value):
            return self._own_copy(name)
        return name

    def _is_updated(self, variable: str) -> bool:
        return variable in self.storage.written.values() or any(u.target == variable for u in self.updates)

    def _own_copy(self, name: str) -> str:
        """`name` itself if its memory is scratch that nothing else writes, else a copy of it made by a kernel."""
        owner = self.storage.owner(name)
        if owner not in self.leaves and owner not in self.storage.constants:
            return name
        return copied(self.storage, self.region, name)

    def _write_in_place(self, new: str, target: str) -> bool:
        old_is_kept = any(self.storage.value(n) == target for n in (*self.results, *self.news))
        if old_is_kept or self.news.count(new) > 1:
            return False
        return overwrite(self.storage, self.region, new, target)

    def read_only(self) -> set[str]:
        """The variables that the program does not write."""
        return {name for variable, name in self.variable_names.items() if variable not in self.signature.updated}

    def prepare(self) -> None:
        """Take what need not run in every call out of the step."""
        self.preparations = separate(self.region, self.storage, self.read_only())
        self.prepared = kept_memories(self.region, self.preparations, self.storage, self._outlive())

    def order_items(self) -> None:
        """Put the items of all regions into the order of the table."""
        for region in self._regions():
            ordered = in_order(region, self.storage)
            assert ordered is not None, "every accepted in-place update kept the order possible"
            region.items = ordered
        order_for_memory(self.region, self.storage, [*self._inputs(), *self.prepared], self._kept())

    def recompute(self, targets: Sequence[int]) -> bool:
        """Compute a value again, instead of keeping it, for each of `targets`; False if that helps no more."""
        return all(recompute_one(self.region, self.storage, self._inputs(), self._kept(), t) for t in targets)

    def reuse_operands(self) -> None:
        """Let maps write over what they read last."""
        overwrite_dead_operands(self.region, self.storage, self._kept())

    def _kept(self) -> list[str]:
        return [*self._outlive(), *predicates_within(self.region), *self.prepared]

    def _outlive(self) -> tuple[str, ...]:
        """Values that are read after the last kernel."""
        return (*self.results, *(u.source for u in self.updates))

    def _whole(self) -> Region:
        """All items, those of the preparations first."""
        ahead = [item for preparation in self.preparations for item in preparation.region.items]
        return Region(self.graph, items=[*ahead, *self.region.items])

    def _regions(self) -> Iterator[Region]:
        """All regions, those of the preparations first."""
        for region in (*(p.region for p in self.preparations), self.region):
            yield from regions_within(region)

    def _inputs(self) -> list[str]:
        special = {*self.signature.variables, self.signature.rng}
        return [self.names.of(v) for v in self.graph.inputs if v.name not in special]

    # -- the plan --------------------------------------------------------------------------------------------

    def plan(self) -> PlannedProgram:
        """The finished plan."""
        storage = self.storage
        inputs, whole = self._inputs(), self._whole()
        kernels = {kernel.name: self._in_place(kernel) for kernel in kernels_within(whole)}
        checked = {k.name for region in self._regions() if not region.conditional
                   for k in region.items if isinstance(k, Kernel)}  # fmt: skip
        used = self._used_names(kernels.values(), predicates_within(whole))
        lives = lifetimes(whole, storage, [*inputs, *self.prepared], [*self._outlive(), *self.prepared])
        lives = lives.of({n for n in lives.spans if n in inputs or n not in self.leaves | storage.constants.keys()})
        sizes = {name: storage.nbytes(name) for name in lives.spans}
        offsets, arena = assign_offsets(sizes, lives.spans)
        alive, at, values = lives.peak(sizes)
        variables = list(self.variable_names.values())
        owners = {buffer: name for name, buffer in self.variable_names.items()}
        constants = {n: storage.constants[n] for n in used if n in storage.constants}
        plan = Plan(
            name=self.graph.name,
            buffers=tuple(self._buffer(name, offsets, variables, list(constants)) for name in used),
            entries=self._entries(self.region, kernels),
            arena_bytes=arena,
            inputs=tuple(inputs),
            results=tuple(map(self._result_name, self.results)),
            variables=tuple(variables),
            constants=tuple(constants),
            extents=dict(self.capacities),
            updates=tuple(self.updates),
            written=tuple(dict.fromkeys(t for t in storage.written.values() if t in variables)),
            checks=tuple(self._checks(kernels[name] for name in kernels if name in checked)),
            peak=Peak(alive, lives.entries[at] if 0 <= at < len(lives.entries) else "", values, self._total(used)),
            preparations=tuple(Preparation(p.variables, self._entries(p.region, kernels)) for p in self.preparations),
        )
        clamped = tuple(self._clamped(kernel, name in checked) for name, kernel in kernels.items())
        remarks = told(self.preparations, storage, self.prepared)
        return PlannedProgram(plan, clamped, constants, owners, self.schedules, remarks)

    def _total(self, used: Iterable[str]) -> int:
        """Bytes of the values of the arena if each had memory of its own, those written in place too."""
        storage, outside = self.storage, {*self.variable_names.values(), *self.storage.constants}
        own = {storage.value(name) for name in used if storage.value(name) not in storage.places}
        inside = (name for name in own if storage.owner(name) not in outside)
        return sum(storage.nbytes(name) for name in inside if self.storage.values[name].name != self.signature.rng)

    def _in_place(self, kernel: Kernel) -> Kernel:
        """The kernel with one operand for a value that it overwrites and the new one."""
        written = {o.name: self._own_name(o.name) for o in kernel.outputs if o.name in self.storage.written}
        return rename_operands(kernel, written) if written else kernel

    def _own_name(self, name: str) -> str:
        """The value at the begin of a chain of updates in place; `name` itself if it is no update."""
        while name in self.storage.written:
            name = self.storage.value(self.storage.written[name])
        return name

    def _result_name(self, name: str) -> str:
        """A result that is written over a variable has the variable's name."""
        own = self._own_name(name)
        return own if own in self.leaves else name

    def _entries(self, region: Region, kernels: Mapping[str, Kernel]) -> tuple[Entry, ...]:
        items = (item if isinstance(item, Block) else kernels[item.name] for item in region.items)
        return tuple(self._entry(item, kernels) for item in items)

    def _entry(self, item: Kernel | Block, kernels: Mapping[str, Kernel]) -> Entry:
        if isinstance(item, Kernel):
            written = {self.storage.owner(o.name) for o in item.operands if o.role != "in"}
            updates = not written.isdisjoint(self.variable_names.values())
            return Call(item.name, tuple(o.name for o in item.operands), item.runtime_extents, updates=updates)
        inner = [self._entries(region, kernels) for region in item.regions]
        if item.kind == "branch":
            return Branch(item.predicate, *inner)
        if item.kind == "while":
            return While(item.name, inner[0], item.predicate, inner[1], item.count)
        return Loop(item.name, item.count, inner[0], tuple(self._strides(item, kernels)))

    def _strides(self, loop: Block, kernels: Mapping[str, Kernel]) -> Iterator[tuple[str, int]]:
        (body,) = loop.regions
        operands = (o.name for k in kernels_within(body) for o in kernels[k.name].operands)
        for name in dict.fromkeys((*operands, *predicates_within(body))):
            if stride := self.storage.spot(name).strides.get(loop.name):
                yield name, stride

    def _used_names(self, kernels: Iterable[Kernel], predicates: Iterable[str]) -> list[str]:
        names = dict.fromkeys(self.names.of(v) for v in self.graph.inputs)
        names.update(dict.fromkeys(o.name for k in kernels for o in k.operands))
        names.update(dict.fromkeys(predicates))
        names.update(dict.fromkeys(map(self._result_name, self.results)))
        names.update(dict.fromkeys(n for u in self.updates for n in (u.target, u.source)))
        for name in list(names):
            names.setdefault(self.storage.owner(name))
        return list(names)

    def _buffer(self, name: str, offsets: Mapping[str, int], variables: list[str], constants: list[str]) -> Buffer:
        spot, type_ = self.storage.spot(name), self.storage.values[name].type
        owner, start = spot.owner, spot.start
        shape = tuple(evaluate(d, self.capacities) for d in type_.shape)
        if owner in variables:
            region, offset = "variable", variables.index(owner)
        elif owner in constants:
            region, offset = "constant", constants.index(owner)
        elif owner in self.leaves and self.storage.values[owner].name == self.signature.rng:
            region, offset = "rng", 0
        else:
            region = "input" if owner in self.leaves else "prepared" if owner in self.prepared else "scratch"
            offset, start = offsets[owner] + start, 0
        dims, layout = format_shape(type_.shape)[1:-1], self.storage.layouts.get(name)
        lies = "" if layout is None else layout.text([str(dim) for dim in type_.shape])
        return Buffer(name, type_.dtype.name, shape, region, offset, self.storage.nbytes(name), dims, start, lies)

    # -- checks of indices -----------------------------------------------------------------------------------

    def _clamped(self, kernel: Kernel, checked: bool) -> Kernel:
        """Indices that no check covers are clamped; a kernel that may not run has no checks before the first one."""
        covered = {o.name for o in kernel.operands if checked and self.checked_input(o.name)}
        return clamp_indices(kernel, frozenset(covered))

    def _checks(self, kernels: Iterable[Kernel]) -> list[Check]:
        """Bounds of program inputs that kernels use as indices: checked at every call, before the first kernel."""
        found: dict[Check, None] = {}
        for kernel in kernels:
            for operand, offset, index in label_sources(kernel):
                if (leaf := self.checked_input(operand)) is not None:
                    bounds = (evaluate(index.lower, self.capacities), evaluate(index.upper, self.capacities))
                    reader = self.index_readers.get(kernel.name, kernel.name)
                    found[Check(leaf, bounds[0] - offset, bounds[1] - offset, reader)] = None
        return list(found)

    def checked_input(self, operand: str) -> str | None:
        """The program input, whose elements are checked at the call, that the operand is or lies in; else None."""
        owner = self.storage.owner(operand)
        if owner not in self.leaves:
            return None
        name = self.storage.values[owner].name
        return owner if name not in self.signature.variables and name != self.signature.rng else None


Planning: TypeAlias = Callable[[Sequence[int]], PlannedProgram | None]


def fit(limit: int, found: PlannedProgram, planned: Planning) -> PlannedProgram:
    """The first plan within `limit` bytes: `planned` computes one more value again for each target it is given."""
    least, targets, target = found, list[int](), limit
    while found.plan.arena_bytes > limit:
        if found.plan.peak.nbytes <= target:  # what is alive would fit, but for the holes between
            target -= max(ALIGNMENT, found.plan.arena_bytes - limit)
        targets.append(target)
        after = planned(targets)
        if after is None:
            break
        found = after
    if found.plan.arena_bytes > limit:
        found = _smallest(least, planned)
    if found.plan.arena_bytes <= limit:
        return found
    plan = found.plan
    raise MemoryLimitError(
        f"program {plan.name!r} needs {plan.arena_bytes} bytes ({format_bytes(plan.arena_bytes)}) at least, more than "
        f"memory_limit={limit} ({format_bytes(limit)}); where most is alive, at {plan.peak.entry}, the largest are "
        f"{', '.join(largest(map(plan.buffer, plan.peak.values)))}: raise the limit, or make dims smaller"
    )


def _smallest(found: PlannedProgram, planned: Planning) -> PlannedProgram:
    """The plan of the smallest arena: values are computed again while that lowers the peak."""
    least, targets = found, list[int]()
    while True:
        targets.append(found.plan.peak.nbytes - ALIGNMENT)
        after = planned(targets)
        if after is None:
            return least
        found = after
        least = min(least, found, key=lambda p: p.plan.arena_bytes)


def plan_program(
    graph: Graph,
    lowered: Sequence[LoweredNode | NestedNode],
    names: Names,
    signature: Signature,
    capacities: dict[str, int],
    memory_limit: int | None = None,
    *,
    machine: Host | None = None,
    without: Sequence[str] = (),
) -> PlannedProgram:
    """Order the kernels, place every value and return the plan; see the module docstring.

    Layouts are chosen, and reductions split, for `machine` (None: not at all). Where the arena would exceed
    `memory_limit` bytes, nothing is prepared ahead of the step and no strides are padded, and then maps are computed
    again instead of being kept. Raises MemoryLimitError, naming the largest values and the least that would do, if that
    is not enough.
    """

    def planned(targets: Sequence[int], ample: bool = False) -> PlannedProgram | None:
        prepare = ample and "prepare" not in without
        planner = Planner(graph, lowered, names.copy(), signature, capacities)
        remarks = () if machine is None else planner.arrange(machine, without, prepare, pad=ample)
        planner.place_updates()
        if prepare:
            planner.prepare()
        planner.order_items()
        if not planner.recompute(targets):
            return None
        planner.reuse_operands()
        found = planner.plan()
        return replace(found, remarks=(*remarks, *found.remarks))

    found = planned((), ample=True)
    assert found is not None
    if memory_limit is None or found.plan.arena_bytes <= memory_limit:
        return found
    needed, prepared = found.plan.arena_bytes, bool(found.plan.preparations)
    found = planned(())
    assert found is not None
    found = fit(memory_limit, found, planned)
    given_up = f"nothing is prepared ahead of the step: that needs {format_bytes(needed)}, more than memory_limit"
    return replace(found, remarks=(*found.remarks, given_up)) if prepared else found
