"""The interpreter of kernel forms: the oracle of code generation.

Points of a loop nest are held as flat lists in loop order, and every expression is evaluated at all points of a list
at once; nothing else is done for speed. Reductions and combining stores take their operands one after the other in
loop order, as the form says, so results in float32 are those of the plainest loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import InputError
from graphc.ir.dims import Poly, evaluate, format_shape, symbols
from graphc.ir.types import DType, as_dtype
from graphc.kernel.combiners import combiner, identity_values
from graphc.kernel.expr import Affine, Apply, AxisIndex, Cast, Const, Expr, Extent, Index, Load, Name, walk
from graphc.kernel.form import Accumulate, Combiner, Kernel, Operand, Stage, Store, partial_axis
from graphc.kernel.points import Integers, Points
from graphc.kernel.primitives import PRIMITIVES
from graphc.kernel.verify import verify

Array = NDArray[Any]
BLOCK = 2048  # points of the kernel's space that are held at once


def run(
    kernel: Kernel, inputs: Mapping[str, Any], extents: Mapping[str, int] | None = None, *, float64: bool = False
) -> dict[str, Array]:
    """Run a kernel on arrays and return new arrays for its `out` and `inout` operands, by name.

    inputs: an array for each `in` and `inout` operand, of its exact shape (runtime counts, not capacities) and dtype;
    extents: runtime extents by name, which are otherwise read off the inputs' shapes; float64: hold and compute every
    float in float64. Raises VerifyError for an invalid kernel, InputError for missing or unknown inputs, shapes and
    dtypes that do not fit, unknown extents, and computed indices beyond their declared bounds.
    """
    verify(kernel)
    sizes = _sizes(kernel, inputs, extents or {})
    arrays = {operand.name: _array(kernel, operand, inputs, sizes, float64) for operand in kernel.operands}
    unknown = [name for name in inputs if name not in {operand.name for operand in kernel.inputs}]
    if unknown:
        raise InputError(f"kernel {kernel.name!r} reads no operand {unknown[0]!r}")
    with np.errstate(all="ignore"):
        _Run(kernel, arrays, sizes, float64).run()
    return {operand.name: arrays[operand.name] for operand in kernel.outputs}


# Operands


def _sizes(kernel: Kernel, inputs: Mapping[str, Any], extents: Mapping[str, int]) -> dict[str, int]:
    """Runtime extents: those given, and those that are a dimension of an input by themselves."""
    sizes = dict(extents)
    for operand in kernel.inputs:
        shape = np.shape(inputs[operand.name]) if operand.name in inputs else ()
        for dim, size in zip(operand.shape, shape, strict=False):
            if isinstance(dim, Poly) and len(symbols(dim)) == 1 and str(dim) in symbols(dim):
                sizes.setdefault(str(dim), size)
    for name in extents:
        if name not in kernel.runtime_extents:
            raise InputError(f"kernel {kernel.name!r} has no extent {name!r}")
    for name in kernel.runtime_extents:
        if name not in sizes:
            raise InputError(f"kernel {kernel.name!r}: no input's shape tells {name!r}; give it in `extents`")
        if not 0 <= sizes[name] <= kernel.capacities[name]:
            raise InputError(f"kernel {kernel.name!r}: {name} = {sizes[name]} is not in 0 .. {kernel.capacities[name]}")
    return {name: int(sizes[name]) for name in kernel.runtime_extents}


def _array(
    kernel: Kernel, operand: Operand, inputs: Mapping[str, Any], sizes: Mapping[str, int], float64: bool
) -> Array:
    """A copy of an input, or a new output: filled with `init`, else with NaN or the least integer, easily seen."""
    shape = tuple(evaluate(dim, sizes) for dim in operand.shape)
    dtype = _numpy(operand.dtype, float64)
    if operand.role == "out":
        rubbish = np.nan if operand.dtype.is_float else (False if operand.dtype.kind == "b" else np.iinfo(dtype).min)
        return np.full(shape, rubbish if operand.init is None else operand.init, dtype)
    if operand.name not in inputs:
        raise InputError(f"kernel {kernel.name!r}: input {operand.name!r} is missing")
    given = np.asarray(inputs[operand.name])
    is_wide = float64 and operand.dtype.is_float and given.dtype == np.float64
    if given.shape != shape or (given.dtype != operand.dtype.numpy and not is_wide):
        wanted = f"{operand.dtype}{format_shape(shape)}"
        raise InputError(
            f"kernel {kernel.name!r}: input {operand.name!r} is {given.dtype}{list(given.shape)}, not {wanted}"
        )
    return given.astype(dtype, copy=True)


def _numpy(dtype: DType, float64: bool) -> np.dtype[Any]:
    return np.dtype(np.float64) if float64 and dtype.is_float else dtype.numpy


# Execution


@dataclass
class _Values:
    """Evaluates expressions at a list of points; `names` holds an array for each name in scope."""

    run: _Run
    points: Points
    names: dict[str, Array]
    known: dict[Expr, Array] = field(default_factory=dict)

    def at(self, expr: Expr) -> Array:
        """The value at each point, an array of `points.count` elements."""
        for e in walk(expr):
            if e not in self.known:
                self.known[e] = np.broadcast_to(self._one(e), (self.points.count,))
        return self.known[expr]

    def _one(self, expr: Expr) -> Array:
        sizes, float64 = self.run.sizes, self.run.float64
        if isinstance(expr, Const):
            return np.asarray(expr.value, _numpy(expr.dtype, float64))
        if isinstance(expr, Name):
            return self.names[expr.id]
        if isinstance(expr, AxisIndex):
            return self.points.axes[expr.axis]
        if isinstance(expr, Extent):
            return np.asarray(evaluate(expr.dim, sizes), np.int64)
        if isinstance(expr, Cast):
            return self.known[expr.arg].astype(_numpy(expr.dtype, float64))
        if isinstance(expr, Load):
            return self.run.arrays[expr.operand].reshape(-1)[self.offset(expr.operand, expr.index)]
        value = PRIMITIVES[expr.primitive].numpy(*(self.known[a] for a in expr.args))
        return value.astype(np.float64) if float64 and value.dtype == np.float32 else value

    def offset(self, operand: str, index: tuple[Index, ...]) -> Integers:
        """The row-major element number at each point. Raises InputError for an index out of range."""
        total = np.zeros(self.points.count, np.int64)
        for i, size in zip(index, self.run.arrays[operand].shape, strict=True):
            total = total * size + self._one_index(operand, i, size)
        return total

    def where(self, mask: Array) -> _Values:
        """The same names at some of the points."""
        chosen = np.flatnonzero(mask)
        return _Values(self.run, self.points.take(chosen), {name: array[chosen] for name, array in self.names.items()})

    def _one_index(self, operand: str, index: Index, size: int) -> Integers:
        if isinstance(index, Affine):
            values, low, high = self.points.affine(index, self.run.sizes), 0, size
        else:
            values = self.at(index.expr)
            low, high = (evaluate(bound, self.run.sizes) for bound in (index.lower, index.upper))
        wrong = (values < low) | (values >= high)
        if wrong.any():
            value = values[int(np.argmax(wrong))]
            where = f"kernel {self.run.kernel.name!r}: an index of {operand!r}"
            raise InputError(f"{where} is {value}, not in {low} .. {high}")
        return values


@dataclass
class _Run:
    kernel: Kernel
    arrays: dict[str, Array]
    sizes: Mapping[str, int]
    float64: bool
    partials: dict[int, Array] = field(default_factory=dict)  # flat buffers, by the number of the store

    def run(self) -> None:
        """All stages for one block of points after the other, then the partial buffers in order."""
        stores = [store for stage in self.kernel.stages for store in stage.stores]
        self.partials = {number: self._identities(store) for number, store in enumerate(stores) if store.partials}
        space, _ = Points.single().expand(self.kernel.space, self.sizes)
        for start in range(0, space.count, BLOCK):
            points = space.take(slice(start, start + BLOCK))
            names: dict[str, Array] = {}
            first = 0
            for stage in self.kernel.stages:
                found = self._stage(stage, points, names, first)
                names = names if stage.space else found
                first += len(stage.stores)
        for number, buffer in self.partials.items():
            flat = self.arrays[stores[number].operand].reshape(-1)
            for chunk in buffer.reshape(stores[number].partials, flat.size):
                (flat[:],) = _combine(combiner(stores[number].mode), [flat], [chunk])

    def _stage(self, stage: Stage, outer: Points, outer_names: Mapping[str, Array], first: int) -> dict[str, Array]:
        """Run a stage, whose first store is number `first`, at the points of `outer`; returns what its stores see."""
        points, parent = outer.expand(stage.space, self.sizes)
        names = {name: array[parent] for name, array in outer_names.items()}
        reduced, segment = points.expand(stage.reduce, self.sizes)
        inner = _Values(self, reduced, {name: array[segment] for name, array in names.items()})
        for let in stage.lets:
            inner.names[let.name] = inner.at(let.expr)
        values = _Values(self, points, names if stage.reduce else dict(inner.names))
        for accumulate in stage.accumulates:
            values.names |= self._accumulate(accumulate, inner, segment, points.count)
        for let in stage.results:
            values.names[let.name] = values.at(let.expr)
        prepared = [self._prepare(stage, store, values) for store in stage.stores]  # all loads before all stores
        for number, (store, (target, value)) in enumerate(zip(stage.stores, prepared, strict=True), start=first):
            flat = self.partials.get(number, self.arrays[store.operand].reshape(-1))
            if store.mode == "=":
                flat[target] = value  # of several values for one element NumPy keeps the last
            else:
                _combine_into(combiner(store.mode), [flat], target, [value])
        return values.names

    def _accumulate(self, accumulate: Accumulate, values: _Values, segment: Integers, count: int) -> dict[str, Array]:
        rule = combiner(accumulate.combiner)
        elements = [values.at(expr) for expr in accumulate.exprs]
        identities = identity_values(rule, [as_dtype(e.dtype) for e in elements])
        results = [np.full(count, value, e.dtype) for value, e in zip(identities, elements, strict=True)]
        _combine_into(rule, results, segment, elements)
        return dict(zip(accumulate.names, results, strict=True))

    def _prepare(self, stage: Stage, store: Store, values: _Values) -> tuple[Integers, Array]:
        """Where a store goes and what it stores, one entry for each point where its guard holds."""
        value, kept = values.at(store.value), values
        if store.guard is not None:
            mask = values.at(store.guard)
            value, kept = value[mask], values.where(mask)
        target = kept.offset(store.operand, store.index)
        cut = partial_axis(self.kernel, stage, store)
        if store.partials and cut is not None and cut.extent is not None:
            chunk_size = max(1, -(-evaluate(cut.extent, self.sizes) // store.partials))
            target = target + kept.points.axes[cut.name] // chunk_size * self.arrays[store.operand].size
        return target, value

    def _identities(self, store: Store) -> Array:
        array = self.arrays[store.operand]
        (identity,) = identity_values(combiner(store.mode), [as_dtype(array.dtype)])
        return np.full(store.partials * array.size, identity, array.dtype)


def _combine_into(rule: Combiner, state: list[Array], target: Integers, elements: list[Array]) -> None:
    """`state[target[i]] = combine(state[target[i]], elements[i])` for each i in order; one array for each component."""
    whole = rule.combine[0]
    if rule.arity == 1 and isinstance(whole, Apply) and whole.args == (Name("a0"), Name("b0")):
        function = PRIMITIVES[whole.primitive].numpy
        if isinstance(function, np.ufunc):  # its `at` takes them in order, too
            function.at(state[0], target, elements[0])
            return
    order = np.argsort(target, kind="stable")
    counts = np.unique(target, return_counts=True)[1]
    turn = np.arange(len(target)) - np.repeat(np.cumsum(counts) - counts, counts)  # of order[i], within its element
    for number in range(int(counts.max(initial=0))):
        now = order[turn == number]
        into = target[now]
        combined = _combine(rule, [s[into] for s in state], [e[now] for e in elements])
        for s, value in zip(state, combined, strict=True):
            s[into] = value


def _combine(rule: Combiner, left: list[Array], right: list[Array]) -> list[Array]:
    """The components of the combination of two lists of tuples."""
    names = {f"{side}{k}": array for side, arrays in (("a", left), ("b", right)) for k, array in enumerate(arrays)}

    def value(expr: Expr) -> Array:
        if isinstance(expr, Name):
            return names[expr.id]
        if isinstance(expr, Const):
            return np.asarray(expr.value, expr.dtype.numpy)
        assert isinstance(expr, Apply), "combiners are made of names, constants and primitives"
        return PRIMITIVES[expr.primitive].numpy(*map(value, expr.args))

    return [value(expr) for expr in rule.combine]
