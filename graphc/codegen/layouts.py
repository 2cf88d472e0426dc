"""Where the elements of scratch values lie: layouts chosen by the estimated cost of a whole step.

Convolutions, pooling and their gradients vectorise over the images of a batch, whatever the window, if the batch is the
innermost axis; a weight gradient of a dense layer wants features innermost. So each scratch value may have one of its
axes innermost, views of one value together; and any value, inputs and parameters too, may have a copy in another layout
for the kernels that read it. Inputs, variables and results themselves are row-major, as users see them. Last, what lies
at strides that crowd caches gets padding, see `graphc.codegen.crowding`.

The search starts from two points, all row-major and all batch-innermost, changes one value or copy at a time as long
as the sum of the estimates falls, and keeps the better end: a start that lacks one copy may look dear. The result of a
contraction and a copy of its weights, if that need not be made in every call, change together. It is left out
where row-major suits every contraction: a training perceptron stays as it is, but for copies that
pay for themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from graphc.codegen.crowding import spreading
from graphc.codegen.estimates import Estimate, strides_in
from graphc.codegen.host import Host
from graphc.codegen.regions import Block, Region, kernels_within, predicates_within
from graphc.codegen.relayout import conversion, innermost, laid_out
from graphc.codegen.storage import Storage
from graphc.ir.dims import evaluate, product, symbols
from graphc.kernel.compose import rename_operands
from graphc.kernel.form import Kernel, Operand
from graphc.kernel.layout import Layout

UNSUITED = 1.3  # a contraction is worth a search if row-major costs so many times as much as its best layout
WORTH = 0.8  # share of the estimated cost of row-major that other layouts must stay below
CALL = 100.0  # cycles that one more kernel costs
LEAST_GAIN = 1e-3  # share of the whole below which a change is not taken
LEAST_COPIED = 20_000.0  # cycles that a copy must save where all else stays row-major
LEAST_SPREAD = 8e-3  # the same for padding, which other kernels lose by: their axes merge no more
ROUNDS = 6
PREPARED = 0.05  # what work that need not be done in each call counts
STREAMED = 24.0  # bytes in a cycle that come from beyond the second-level cache
COPIED = 16.0  # bytes that a copy reads or writes there in a cycle (measured)

Axis: TypeAlias = int | None  # the axis that is innermost; None: row-major


def assign_layouts(
    region: Region,
    storage: Storage,
    fixed: set[str],
    host: Host,
    steady: Collection[str] = (),
    prepared: Collection[str] = (),
    pad: bool = True,
) -> tuple[str, ...]:
    """Choose layouts for the values of a program, rewrite the region's kernels, add conversions. Returns remarks.

    `fixed` names values that must stay row-major beside leaves and what branches and loops touch: results, updates.
    The kernels `prepared` do not run in every call, and neither do conversions of what they make and of `steady`.
    `pad`: strides may be spread by padding, which takes memory.
    """
    search = _Search(region, storage, fixed, host, steady, prepared)
    before, best = search.total(_State()), _State()
    if search.worth_while():
        best = min((search.improved(start) for start in search.starts()), key=search.total)
    if search.total(best) > WORTH * before:
        best = search.with_copies(_State())
    best = search.spread(best) if pad else best
    if best in (_State(), _State(crowds=True)):
        return ()
    return _Applied(search, best).remarks(search.total(_State(crowds=best.crowds)))


@dataclass(frozen=True)
class _State:
    """The innermost axis of classes of values, where it is not the last; copies, by value and innermost axis; and the
    classes and copies whose strides are spread by padding.

    crowds: whether costs count lines that compete for few places of the caches. Padding is decided by them, last; what
    they cost is known too roughly to copy a value for (measured).
    """

    axes: dict[str, int] = field(default_factory=dict)
    copies: frozenset[tuple[str, Axis]] = frozenset()
    spread: frozenset[tuple[str, Axis]] = frozenset()
    crowds: bool = False

    def with_axis(self, name: str, axis: Axis) -> _State:
        axes = {n: a for n, a in self.axes.items() if n != name}
        return replace(self, axes=axes if axis is None else axes | {name: axis})

    def toggled(self, copy: tuple[str, Axis]) -> _State:
        return replace(self, copies=self.copies ^ {copy})


class _Search:
    """The kernels of a region, the values that they may read and write in other layouts, and what that costs."""

    def __init__(
        self,
        region: Region,
        storage: Storage,
        fixed: set[str],
        host: Host,
        steady: Collection[str],
        prepared: Collection[str],
    ) -> None:
        self.region, self.storage, self.host = region, storage, host
        self.prepared, self.steady = prepared, set(steady)
        self.kernels = [item for item in region.items if isinstance(item, Kernel)]
        self.estimates = {kernel.name: Estimate(kernel, host) for kernel in self.kernels}
        self.operands: dict[str, Operand] = {}
        self.users: dict[str, list[Kernel]] = {}
        for kernel in self.kernels:
            if kernel.name in prepared:
                self.steady |= {storage.owner(o.name) for o in kernel.outputs}
            for operand in kernel.operands:
                self.operands.setdefault(operand.name, operand)
                self.users.setdefault(operand.name, []).append(kernel)
        self.candidates = self._candidates(self._bound(fixed))
        self._costs: dict[tuple[str, tuple[Axis, ...], tuple[bool, ...], bool], float] = {}
        self._strides: dict[tuple[str, Axis, bool], tuple[int, ...]] = {}
        self._conversions: dict[str, Estimate] = {}

    def _bound(self, fixed: set[str]) -> set[str]:
        """The owners of all memory that must stay row-major."""
        names = set(fixed) | set(predicates_within(self.region))
        for item in self.region.items:
            if isinstance(item, Block):
                names |= {*item.makes, *item.needs}
                names |= {o.name for inner in item.regions for k in kernels_within(inner) for o in k.operands}
        return {self.storage.owner(name) for name in names}

    def _candidates(self, bound: set[str]) -> dict[str, list[int]]:
        """For each class of values in one memory: the axes that may be innermost instead of the last one."""
        members: dict[str, list[str]] = {}
        for name in self.operands:
            members.setdefault(self.storage.value(name), []).append(name)
        found = {}
        for owner, names in members.items():
            home = self.storage.home.get(owner)
            if home is not self.region or self.storage.owner(owner) != owner or owner in bound:
                continue
            shapes = {self.storage.values[n].type.shape for n in (*names, owner)}
            ranks = [len(shape) for shape in shapes]
            if min(ranks) < 2:
                continue
            if len(shapes) == 1:
                found[owner] = list(range(ranks[0] - 1))
            elif len({shape[0] for shape in shapes}) == 1:
                found[owner] = [0]  # [C,H,W,N] and [C*H*W,N] are the same memory
        return found

    # -- costs -----------------------------------------------------------------------------------------------

    def worth_while(self) -> bool:
        """True if row-major costs contractions much more than the layout that suits them.

        Less is enough where weights are laid out once, so that more layouts are within reach.
        """
        total, excess = 0.0, 0.0
        least = (1 - WORTH) * (0.5 if self.steady else 1.0)
        for kernel in self.kernels:
            cost = self._cost(kernel, (None,) * len(kernel.operands), _State())
            ideal = self.estimates[kernel.name].ideal
            share = PREPARED if kernel.name in self.prepared else 1.0
            total += cost
            excess += cost - share * ideal if ideal is not None and cost > UNSUITED * share * ideal else 0.0
        return bool(self.candidates) and excess > least * total

    def total(self, state: _State) -> float:
        """Estimated cycles of all kernels and conversions."""
        return sum(self.cheapest(kernel, state)[0] for kernel in self.kernels) + sum(
            self._conversion_cost(copy, state) for copy in state.copies
        )

    def cheapest(self, kernel: Kernel, state: _State) -> tuple[float, tuple[Axis, ...]]:
        """The cost of a kernel that reads the best versions of its operands, and their innermost axes."""
        versions = [self._versions(o, state) for o in kernel.operands]
        costs = ((self._cost(kernel, axes, state), axes) for axes in itertools.product(*versions))
        return min(costs, key=lambda found: found[0])

    def _versions(self, operand: Operand, state: _State) -> list[Axis]:
        own = self.axis(operand.name, state)
        if operand.role != "in":
            return [own]
        return [own, *(axis for name, axis in state.copies if name == operand.name and axis != own)]

    def axis(self, name: str, state: _State) -> Axis:
        """The innermost axis of a value, None if that is its last."""
        return state.axes.get(self.storage.value(name))

    def _cost(self, kernel: Kernel, axes: tuple[Axis, ...], state: _State) -> float:
        spread = tuple(self.is_spread(o.name, a, state) for o, a in zip(kernel.operands, axes, strict=True))
        key = (kernel.name, axes, spread, state.crowds)
        if key not in self._costs:
            operands = zip(kernel.operands, axes, spread, strict=True)
            strides = {o.name: self.strides(o, axis, wide) for o, axis, wide in operands}
            share = PREPARED if kernel.name in self.prepared else 1.0
            estimate = self.estimates[kernel.name].cycles(strides, crowds=state.crowds)
            cycles = max(estimate, self._streaming(kernel))
            self._costs[key] = share * cycles
        return self._costs[key]

    def _streaming(self, kernel: Kernel) -> float:
        """The least cycles of a contraction whose operands do not fit the second-level cache, as with one image."""
        moved = sum(evaluate(product(o.shape), self.storage.capacities) * o.dtype.itemsize for o in kernel.operands)
        beyond = self.estimates[kernel.name].contractions and moved > self.host.second_level
        return moved / STREAMED if beyond else 0.0

    def is_spread(self, name: str, axis: Axis, state: _State) -> bool:
        """True if the version of a value that has an axis innermost, its own or a copy, has its strides spread."""
        own = axis == self.axis(name, state)
        return ((self.storage.value(name) if own else name), axis) in state.spread

    def strides(self, operand: Operand, axis: Axis, spread: bool) -> tuple[int, ...]:
        """Elements between neighbours along each axis of an operand in a layout."""
        key = (operand.name, axis, spread)
        if key not in self._strides:
            layout = self.layout(operand.name, axis, spread)
            self._strides[key] = strides_in(operand, layout, self.storage.capacities)
        return self._strides[key]

    def layout(self, name: str, axis: Axis, spread: bool) -> Layout | None:
        """The layout of a value with an axis innermost; None for row-major."""
        type_, capacities = self.storage.values[name].type, self.storage.capacities
        layout = None if axis is None else innermost(type_.shape, axis, capacities, self.host.lanes)
        if not spread:
            return layout
        sizes = [evaluate(dim, capacities) for dim in type_.shape]
        return spreading(layout or Layout.row_major(len(sizes)), sizes, type_.dtype.itemsize)

    def _conversion_cost(self, copy: tuple[str, Axis], state: _State) -> float:
        name, axis = copy
        if name not in self._conversions:
            kernel = conversion("copy", self.operands[name], f"{name}_copy", {}, self.storage.capacities)
            self._conversions[name] = Estimate(kernel, self.host)
        operand = self.operands[name]
        own, wide = self.axis(name, state), self.is_spread(name, axis, state)
        strides = {name: self.strides(operand, own, self.is_spread(name, own, state)),
                   f"{name}_copy": self.strides(operand, axis, wide)}
        share = PREPARED if self.storage.owner(name) in self.steady else 1.0
        moved = 2 * self.storage.nbytes(name)
        streamed = moved / COPIED if moved > self.host.second_level else 0.0
        return share * (CALL + self._conversions[name].cycles(strides) + streamed)

    # -- search ----------------------------------------------------------------------------------------------

    def starts(self) -> Iterator[_State]:
        """All row-major, and all values of a runtime batch with the batch innermost."""
        yield _State()
        first = {name: self.storage.values[name].type.shape[0] for name in self.candidates}
        yield _State({n: 0 for n, axes in self.candidates.items() if 0 in axes and symbols(first[n])})

    def improved(self, state: _State) -> _State:
        """The state after changes of one value or copy at a time, each taken if it lowers the cost."""
        total = self.total(state)
        for _ in range(ROUNDS):
            before = total
            for name in self.candidates:
                for axis in (None, *self.candidates[name]):
                    state, total = self._better(state, total, state.with_axis(name, axis), self._members(name))
            for name, operand in self.operands.items():
                for axis in (None, *range(len(operand.shape) - 1)) if self._is_read(name) else ():
                    if self._may_gain((name, axis), state):
                        state, total = self._better(state, total, state.toggled((name, axis)), [name])
            for kernel in self.kernels:
                for changed, names in self._together(kernel, state):
                    state, total = self._better(state, total, changed, names)
            if total > (1 - LEAST_GAIN) * before:
                break
        return state

    def _together(self, kernel: Kernel, state: _State) -> Iterator[tuple[_State, list[str]]]:
        """The state with another axis innermost in the result of a contraction and in a copy of its weights."""
        ideal = self.estimates[kernel.name].ideal
        if ideal is None or self.cheapest(kernel, state)[0] <= UNSUITED * ideal:
            return
        for owner in dict.fromkeys(self.storage.value(o.name) for o in kernel.outputs):
            for weights in kernel.inputs if owner in self.candidates else ():
                if self.storage.owner(weights.name) not in self.steady or not self._is_read(weights.name):
                    continue
                for own, axis in itertools.product(self.candidates[owner], range(len(weights.shape) - 1)):
                    if (weights.name, axis) not in state.copies:
                        changed = state.with_axis(owner, own).toggled((weights.name, axis))
                        yield changed, [*self._members(owner), weights.name]

    def with_copies(self, state: _State) -> _State:
        """A state and copies of what a contraction reads so badly that they pay for themselves at once.

        A short sum of products along both operands, say, whose columns had better be contiguous.
        """
        for kernel in self.kernels:
            cost, ideal = self.cheapest(kernel, state)[0], self.estimates[kernel.name].ideal
            if ideal is None or cost <= UNSUITED * ideal:
                continue
            read = [o for o in kernel.operands if o.role == "in" and self._is_read(o.name)]
            found = [state.toggled((o.name, axis)) for o in read for axis in range(len(o.shape) - 1)
                     if (o.name, axis) not in state.copies]  # fmt: skip
            best = min(found, key=self.total, default=state)
            gain = self.total(state) - self.total(best)
            if gain > max(LEAST_COPIED, (1 - 1 / UNSUITED) * cost):
                state = best
        return state

    def spread(self, state: _State) -> _State:
        """The state with padding where that lowers the cost: of values that no view sees with other axes, of copies."""
        state = replace(state, crowds=True)
        total = self.total(state)
        own = [(owner, self.axis(owner, state)) for owner in self.candidates if self._has_one_shape(owner)]
        for version in (*own, *sorted(state.copies, key=str)):
            changed = replace(state, spread=state.spread | {version})
            names = [version[0]] if version in state.copies else self._members(version[0])
            gain = self._part(state, names) - self._part(changed, names)
            state, total = (changed, total - gain) if gain > LEAST_SPREAD * total else (state, total)
        return state

    def _has_one_shape(self, owner: str) -> bool:
        values = self.storage.values
        return len({values[name].type.shape for name in values if self.storage.value(name) == owner}) == 1

    def _better(self, state: _State, total: float, changed: _State, names: list[str]) -> tuple[_State, float]:
        """The changed state and its cost if it is cheaper; only kernels and copies of `names` differ in cost."""
        if changed == state:
            return state, total
        gain = self._part(state, names) - self._part(changed, names)
        return (changed, total - gain) if gain > LEAST_GAIN * total else (state, total)

    def _may_gain(self, copy: tuple[str, Axis], state: _State) -> bool:
        """True if a copy can be given up, or if its readers would gain more than the call of a kernel."""
        name, axis = copy
        if copy in state.copies or axis == self.axis(name, state):
            return copy in state.copies
        changed = state.toggled(copy)
        return sum(self.cheapest(k, state)[0] - self.cheapest(k, changed)[0] for k in self.users[name]) > CALL

    def _part(self, state: _State, names: list[str]) -> float:
        kernels = {kernel.name: kernel for name in names for kernel in self.users[name]}
        cost = sum(self.cheapest(kernel, state)[0] for kernel in kernels.values())
        return cost + sum(self._conversion_cost(copy, state) for copy in state.copies if copy[0] in names)

    def _members(self, owner: str) -> list[str]:
        return [name for name in self.operands if self.storage.value(name) == owner]

    def _is_read(self, name: str) -> bool:
        readers = [k for k in self.users[name] if k.operand(name).role == "in"]
        return len(self.operands[name].shape) > 1 and bool(readers) and self.operands[name].dtype.itemsize <= 4


class _Applied:
    """A search's best state carried out: kernels rewritten, conversions added, layouts entered in the storage."""

    def __init__(self, search: _Search, state: _State) -> None:
        self.search, self.state, self.storage = search, state, search.storage
        self.copies: dict[tuple[str, Axis], str] = {}
        for owner in search.candidates:
            for name in self._names_of(owner):
                self._enter(name, search.axis(name, state))
        region = search.region
        items = [self._rewritten(item) if isinstance(item, Kernel) else item for item in region.items]
        region.items[:] = [*items, *map(self._conversion, list(self.copies))]

    def _names_of(self, owner: str) -> list[str]:
        return [name for name in self.storage.values if self.storage.value(name) == owner]

    def _enter(self, name: str, axis: Axis) -> None:
        layout = self.search.layout(name, axis, self.search.is_spread(name, axis, self.state))
        if layout is not None:
            self.storage.layouts[name] = layout

    def _rewritten(self, kernel: Kernel) -> Kernel:
        _, axes = self.search.cheapest(kernel, self.state)
        names, layouts = {}, {}
        for operand, axis in zip(kernel.operands, axes, strict=True):
            own = axis == self.search.axis(operand.name, self.state)
            names[operand.name] = operand.name if own else self._copy(operand.name, axis)
            layout = self.storage.layouts.get(names[operand.name])
            if layout is not None:
                layouts[names[operand.name]] = layout
        return laid_out(rename_operands(kernel, names), layouts)

    def _copy(self, name: str, axis: Axis) -> str:
        """The name of a copy of a value with an axis innermost."""
        if (name, axis) not in self.copies:
            target = self.storage.add(f"{name}_laid", self.storage.values[name].type)
            self.storage.home[target] = self.search.region
            layout = self.search.layout(name, axis, self.search.is_spread(name, axis, self.state))
            if layout is not None:
                self.storage.layouts[target] = layout
            self.copies[name, axis] = target
        return self.copies[name, axis]

    def _conversion(self, copy: tuple[str, Axis]) -> Kernel:
        source, target = self.search.operands[copy[0]], self.copies[copy]
        kernel = self.storage.names.kernel(f"lay_out_{source.name}")
        return conversion(kernel, source, target, self.storage.layouts, self.storage.capacities)

    def remarks(self, before: float) -> tuple[str, ...]:
        """What lies where, and why."""
        total = self.search.total(self.state)
        share = f"a step is estimated to take {total / before:.0%} of the time that row-major takes"
        groups: dict[str, list[str]] = {}
        for owner, axis in self.state.axes.items():
            shape = self.storage.values[owner].type.shape
            groups.setdefault(f"axis {axis} ({shape[axis]})", []).append(owner)
        told = [f"layout: {axis} innermost in {', '.join(names)}; {share}" for axis, names in groups.items()]
        for (name, inner), target in self.copies.items():
            where = "row-major" if inner is None else f"with axis {inner} innermost"
            told.append(f"layout: {target} is a copy of {name}, {where}, for kernels that read it so")
        return (*told, *self._told_of_padding())

    def _told_of_padding(self) -> Iterator[str]:
        """What is padded, and what it would cost not to."""
        for name, axis in sorted(self.state.spread, key=str):
            target = self.copies.get((name, axis), name)
            if target not in self.storage.layouts:
                continue  # a copy that no kernel reads in the end
            layout, dims = self.storage.layouts[target], [str(dim) for dim in self.storage.values[target].type.shape]
            without = replace(self.state, spread=self.state.spread - {(name, axis)})
            share = self.search.total(without) / self.search.total(self.state)
            yield (f"layout: {target} is padded, {layout.text(dims)}: without, tiles would wait for lines that compete "
                   f"for few places of the caches, and a step is estimated to take {share:.1%}")
