"""The memory plan: where every value lives, in which order kernels run, and what is updated in place.

Scratch values share one arena by lifetime. A new value of a variable is written straight into the variable when
that is safe: its kernel reads the old value only at the point that it writes, and every other reader of the old
value runs before it (a write-after-read edge). Otherwise the new value is copied in after the last kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graphc.codegen.lower import (
    LoweredNode,
    Names,
    clamp_indices,
    copy_kernel,
    is_array_constant,
    is_view,
    label_sources,
)
from graphc.ir.dims import evaluate, format_shape
from graphc.ir.graph import Graph, Value
from graphc.kernel.compose import rename_operands
from graphc.kernel.expr import Load, loads
from graphc.kernel.form import Kernel, Operand
from graphc.kernel.plan import Buffer, Call, Check, Plan, Update

ALIGNMENT = 64  # bytes: one cache line, one AVX-512 vector


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


class Planner:
    """Builds a plan step by step; `plan_program` is the way in."""

    def __init__(
        self,
        graph: Graph,
        lowered: Sequence[LoweredNode],
        names: Names,
        signature: Signature,
        capacities: dict[str, int],
    ) -> None:
        self.graph, self.names, self.signature, self.capacities = graph, names, signature, capacities
        self.kernels = [item.kernel for item in lowered]
        self.index_readers = {item.kernel.name: item.index_reader for item in lowered if item.index_reader}
        self.values: dict[str, Value] = {names.of(v): v for v in graph.inputs}
        for node in graph.nodes:
            self.values.update({names.of(v): v for v in node.outputs})
        self.leaves = {names.of(v) for v in graph.inputs}
        self.constants = {names.of(n.output): n.output for n in graph.nodes if is_array_constant(n)}
        self.base: dict[str, str] = {}  # name of a view -> name of the value whose memory it is
        for node in graph.nodes:
            if is_view(node):
                self.base[names.of(node.output)] = names.of(node.inputs[0])
        self.written: dict[str, str] = {}  # name of a value written in place -> its variable
        self.updates: list[Update] = []
        count = len(graph.outputs) - len(signature.updated)
        self.results = [names.of(v) for v in graph.outputs[:count]]
        self.news = [names.of(v) for v in graph.outputs[count:]]
        self.variable_names = {v.name: names.of(v) for v in graph.inputs if v.name in signature.variables}

    def root(self, name: str) -> str:
        """The value that owns the memory of `name`: views followed, in-place updates not."""
        while name in self.base:
            name = self.base[name]
        return name

    # -- updates ---------------------------------------------------------------------------------------------

    def place_updates(self) -> None:
        """Write each update in place where that is safe, else by a copy at the end."""
        for variable, new in zip(self.signature.updated, self.news, strict=True):
            target = self.variable_names[variable]
            if self.root(new) == target:
                continue  # the variable keeps its value
            if self._in_place_is_safe(new, target):
                self._write_in_place(new, target)
            else:
                self.updates.append(Update(target, self._own_copy(new)))
        self.results = [self._result(name) for name in self.results]

    def _result(self, name: str) -> str:
        """A result that is an old value of a variable gets a copy; the runtime reads results after the updates."""
        root = self.root(name)
        if root in self.variable_names.values() and root not in self.written and self._is_updated(root):
            return self._own_copy(name)
        return name

    def _is_updated(self, variable: str) -> bool:
        return variable in self.written.values() or any(u.target == variable for u in self.updates)

    def _own_copy(self, name: str) -> str:
        """`name` itself if its memory is scratch that nothing else writes, else a copy of it made by a kernel."""
        root = self.root(name)
        if root not in self.leaves and root not in self.written and root not in self.constants:
            return name
        value = self.values[name]
        target = self.names.unique(f"{name}_copy")
        source = Operand(name, value.type.dtype, value.type.shape)
        copy = copy_kernel(self.names.kernel(f"copy_{name}"), source, target, self.capacities)
        self.values[target] = value
        self.kernels.append(copy)
        return target

    def _in_place_is_safe(self, new: str, target: str) -> bool:
        makers = [k for k in self.kernels if any(o.name == new for o in k.outputs)]
        taken = new in self.written or target in self.written.values()
        if len(makers) != 1 or new in self.base or taken or self.news.count(new) > 1:
            return False
        old_is_kept = any(self.root(n) == target for n in (*self.results, *self.news))
        if old_is_kept or not _touches_own_point_only(makers[0], new, self._aliases(target)):
            return False
        return self._order(extra={new: target}) is not None

    def _aliases(self, target: str) -> set[str]:
        return {name for name in self.values if self.root(name) == target}

    def _write_in_place(self, new: str, target: str) -> None:
        self.written[new] = target
        for position, kernel in enumerate(self.kernels):
            if any(o.name == new for o in kernel.outputs):
                self.kernels[position] = rename_operands(kernel, {new: target})

    # -- order -----------------------------------------------------------------------------------------------

    def _order(self, extra: Mapping[str, str] | None = None) -> list[Kernel] | None:
        """Kernels so that dependencies hold and readers of old values precede writers; None if no order does that."""
        extra = extra or {}
        before: list[set[int]] = [set() for _ in self.kernels]
        maker = {o.name: i for i, k in enumerate(self.kernels) for o in k.outputs}
        targets = {t: n for n, t in (self.written | dict(extra)).items()}
        writer = {t: maker.get(n, maker.get(t, -1)) for t, n in targets.items()}
        fresh = {n: t for t, n in targets.items()}
        for i, kernel in enumerate(self.kernels):
            for operand in kernel.inputs:
                root = self.root(operand.name)
                if root in fresh:  # reads a new value that lives in a variable
                    before[i].add(writer[fresh[root]])
                elif root in writer and writer[root] != i:
                    before[writer[root]].add(i)
                elif root in maker and root not in writer:
                    before[i].add(maker[root])
            before[i].discard(i)
        return _stable_topological(self.kernels, before)

    def order_kernels(self) -> None:
        """Put the kernels into the order of the table."""
        ordered = self._order()
        assert ordered is not None, "every accepted in-place update kept the order possible"
        self.kernels = ordered

    # -- buffers ---------------------------------------------------------------------------------------------

    def nbytes(self, name: str) -> int:
        """Bytes of a value at the capacities of its dimensions."""
        return evaluate(self.values[name].type.nbytes, self.capacities)

    def storage(self, name: str) -> str:
        """The name whose buffer holds `name`: the root of a view, the variable of an in-place update."""
        root = self.root(name)
        return self.written.get(root, root)

    def lifetimes(self) -> dict[str, tuple[int, int]]:
        """First and last kernel position of each scratch value; results and copied updates live to the end."""
        end = len(self.kernels)
        spans: dict[str, tuple[int, int]] = {}
        for position, kernel in enumerate(self.kernels):
            for operand in kernel.operands:
                name = self.storage(operand.name)
                first, last = spans.get(name, (position, position))
                spans[name] = (min(first, position), max(last, position))
        for name in (*self.results, *(u.source for u in self.updates)):
            if (root := self.storage(name)) in spans:
                spans[root] = (spans[root][0], end)
        return {n: s for n, s in spans.items() if n not in self.leaves and n not in self.constants}

    def plan(self) -> PlannedProgram:
        """The finished plan."""
        special = {*self.signature.variables, self.signature.rng}
        inputs = [v for v in self.graph.inputs if v.name not in special]
        sizes = {self.names.of(v): self.nbytes(self.names.of(v)) for v in inputs}
        always = {name: (-1, len(self.kernels)) for name in sizes}
        spans = self.lifetimes()
        sizes |= {name: self.nbytes(name) for name in spans}
        offsets, arena = assign_offsets(sizes, always | spans)
        variables = list(self.variable_names.values())
        owners = {buffer: name for name, buffer in self.variable_names.items()}
        used = self._used_names()
        constants = {n: self.constants[n] for n in used if n in self.constants}
        buffers = [self._buffer(name, offsets, variables, list(constants)) for name in used]
        plan = Plan(
            name=self.graph.name,
            buffers=tuple(buffers),
            entries=tuple(self._call(k) for k in self.kernels),
            arena_bytes=arena,
            inputs=tuple(self.names.of(v) for v in inputs),
            results=tuple(self.storage(n) if n in self.written else n for n in self.results),
            variables=tuple(variables),
            constants=tuple(constants),
            extents=dict(self.capacities),
            updates=tuple(self.updates),
            written=tuple(dict.fromkeys(self.written.values())),
            checks=tuple(self._checks()),
        )
        operands = {o.name for k in self.kernels for o in k.operands}
        checked = frozenset(name for name in operands if self.is_checked(name))
        kernels = tuple(clamp_indices(k, checked) for k in self.kernels)
        return PlannedProgram(plan, kernels, constants, owners)

    def _used_names(self) -> list[str]:
        names = dict.fromkeys(self.names.of(v) for v in self.graph.inputs)
        names.update(dict.fromkeys(o.name for k in self.kernels for o in k.operands))
        names.update(dict.fromkeys(self.results))
        names.update(dict.fromkeys(n for u in self.updates for n in (u.target, u.source)))
        for name in list(names):
            names.setdefault(self.storage(name))
        return list(names)

    def _buffer(self, name: str, offsets: Mapping[str, int], variables: list[str], constants: list[str]) -> Buffer:
        owner, type_ = self.storage(name), self.values[name].type
        shape = tuple(evaluate(d, self.capacities) for d in type_.shape)
        if owner in variables:
            region, offset = "variable", variables.index(owner)
        elif owner in constants:
            region, offset = "constant", constants.index(owner)
        elif owner in self.leaves and self.values[owner].name == self.signature.rng:
            region, offset = "rng", 0
        else:
            region, offset = ("input" if owner in self.leaves else "arena"), offsets[owner]
        dims = format_shape(type_.shape)[1:-1]
        return Buffer(name, type_.dtype.name, shape, region, offset, self.nbytes(name), dims)

    def _call(self, kernel: Kernel) -> Call:
        return Call(kernel.name, tuple(o.name for o in kernel.operands), kernel.runtime_extents)

    def _checks(self) -> list[Check]:
        """Bounds of program inputs that kernels use as indices: checked at every call, before the first kernel."""
        found: dict[Check, None] = {}
        for kernel in self.kernels:
            for operand, offset, index in label_sources(kernel):
                if self.is_checked(operand):
                    bounds = (evaluate(index.lower, self.capacities), evaluate(index.upper, self.capacities))
                    reader = self.index_readers.get(kernel.name, kernel.name)
                    found[Check(self.root(operand), bounds[0] - offset, bounds[1] - offset, reader)] = None
        return list(found)

    def is_checked(self, operand: str) -> bool:
        """True if `operand` is a program input, whose elements are checked at the call."""
        root = self.root(operand)
        if root not in self.leaves:
            return False
        name = self.values[root].name
        return name not in self.signature.variables and name != self.signature.rng


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


def _stable_topological(kernels: Sequence[Kernel], before: list[set[int]]) -> list[Kernel] | None:
    """Kernels so that `before[i]` come ahead of kernel i, else in the given order; None for a cycle."""
    done: list[int] = []
    placed: set[int] = set()
    while len(done) < len(kernels):
        ready = next((i for i in range(len(kernels)) if i not in placed and before[i] <= placed), None)
        if ready is None:
            return None
        done.append(ready)
        placed.add(ready)
    return [kernels[i] for i in done]


def assign_offsets(sizes: Mapping[str, int], spans: Mapping[str, tuple[int, int]]) -> tuple[dict[str, int], int]:
    """Byte offsets in one arena so that values alive together never overlap, and the arena's size.

    Greedy by size, first fit (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net Inference").
    """
    offsets: dict[str, int] = {}
    end = 0
    for name in sorted(sizes, key=lambda n: (-sizes[n], spans[n], n)):
        first, last = spans[name]
        size = max(sizes[name], 1)
        neighbours = sorted(
            (offsets[o], offsets[o] + max(sizes[o], 1))
            for o in offsets
            if spans[o][0] <= last and first <= spans[o][1]
        )
        offset = 0
        for start, stop in neighbours:
            if offset + size <= start:
                break
            offset = max(offset, -(-stop // ALIGNMENT) * ALIGNMENT)
        offsets[name] = offset
        end = max(end, offset + size)
    return offsets, -(-end // ALIGNMENT) * ALIGNMENT


def plan_program(
    graph: Graph, lowered: Sequence[LoweredNode], names: Names, signature: Signature, capacities: dict[str, int]
) -> PlannedProgram:
    """Order the kernels, place every value and return the plan; see the module docstring."""
    planner = Planner(graph, lowered, names, signature, capacities)
    planner.place_updates()
    planner.order_kernels()
    return planner.plan()
