"""The kernel form: a map-reduce over an affine box. Its grammar, before any class:

    Kernel   = name, Operand*, space Axis*, Stage*
    Operand  = name : dtype [shape] + padding*, role in | out | inout, init?  # init: fill before the kernel runs
    Axis     = name, lower Bound*, upper Bound*, sequential?           # max(lower) <= axis < min(upper)
    Bound    = Affine over outer axes | Table(outer axis, integers)
    Stage    = space Axis*, reduce Axis*, Let*, Accumulate*, Let*, Store*
    Let      = name = Expr                                             # the first lets run inside the reduction
    Accumulate = names (combiner) Exprs                                # one Expr for each component of the combiner
    Store    = operand[Index*] = Expr, mode, guard?, partials

Meaning, as the interpreter in `graphc.kernel.interpret` executes it: fill operands that have an `init`;
for every point of the kernel's space run the stages in order; a stage loops over its own space, and at each
point over its reduce axes, evaluating lets and combining accumulators; then its results and its stores.
Names of a stage with no space of its own stay visible to the later stages, but for lets that run inside a
reduction. All loads of a stage at a point, those in its stores too, come before its stores: an update sees old
values. A guard protects its store alone; loads must be in range at every point. Clipped bounds are what padding
means. A store's mode is "=" or the name of a combiner with one component: then it combines into the element
("+=" is `sum`), which must be safe: either each point has its own element, or the axes that the index leaves
out are `sequential`, or the store goes through a fixed number of `partials`, that is a by-product output:
the outermost left-out axis (see `partial_axis`) is cut into that many chunks of `ceil(extent / partials)`
points, each summed in order from the combiner's identity, the chunks in order onto the element after that,
so that bits never depend on the number of threads. Stored elements that no point covers keep `init`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from graphc.ir.dims import Dim, symbols
from graphc.ir.types import DType
from graphc.kernel.expr import Affine, Computed, Const, Expr, Extent, Index, Load, walk


@dataclass(frozen=True)
class Table:
    """A bound read from a constant table by an outer axis: `values[axis]`."""

    axis: str
    values: tuple[int, ...]


Bound: TypeAlias = Affine | Table


@dataclass(frozen=True)
class Axis:
    """A loop index. `sequential` forbids running its points in parallel or out of order."""

    name: str
    lower: tuple[Bound, ...]
    upper: tuple[Bound, ...]
    sequential: bool = False

    @staticmethod
    def range(name: str, extent: Dim, sequential: bool = False) -> Axis:
        """`0 <= name < extent`."""
        return Axis(name, (Affine(),), (Affine((), extent),), sequential)

    @property
    def extent(self) -> Dim | None:
        """The extent of an unclipped axis that starts at 0, else None."""
        if self.lower == (Affine(),) and len(self.upper) == 1:
            (upper,) = self.upper
            if isinstance(upper, Affine) and not upper.terms:
                return upper.const
        return None


@dataclass(frozen=True)
class Operand:
    """A tensor that the kernel reads (`in`), writes (`out`) or both (`inout`).

    padding: elements of memory that are unused after all indices of an axis, for each axis; () stands for none. The
    last number is that after each row. A kernel may overwrite them with anything.
    """

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    role: str = "in"
    init: float | None = None
    padding: tuple[int, ...] = ()


@dataclass(frozen=True)
class Let:
    """A named scalar."""

    name: str
    expr: Expr


@dataclass(frozen=True)
class Combiner:
    """An associative combination of tuples, stated in the scalar language.

    `combine` gives each component of the result from the names `a0 a1 ...` (left) and `b0 b1 ...` (right);
    `identity` holds the neutral components: a number, "min" or "max" (the dtype's least or greatest value,
    for floats the infinities).
    """

    name: str
    identity: tuple[float | str, ...]
    combine: tuple[Expr, ...]
    doc: str

    @property
    def arity(self) -> int:
        """Number of components."""
        return len(self.identity)


@dataclass(frozen=True)
class Accumulate:
    """Accumulators `names` reduced over the stage's reduce axes with a combiner."""

    names: tuple[str, ...]
    combiner: str
    exprs: tuple[Expr, ...]


@dataclass(frozen=True)
class Store:
    """Write `value` to an element, or combine it in (see the module docstring for `mode` and `partials`)."""

    operand: str
    index: tuple[Index, ...]
    value: Expr
    mode: str = "="
    guard: Expr | None = None
    partials: int = 0


@dataclass(frozen=True)
class Stage:
    """One loop nest under the kernel's space."""

    space: tuple[Axis, ...] = ()
    reduce: tuple[Axis, ...] = ()
    lets: tuple[Let, ...] = ()
    accumulates: tuple[Accumulate, ...] = ()
    results: tuple[Let, ...] = ()
    stores: tuple[Store, ...] = ()

    def expressions(self) -> Iterator[Expr]:
        """Every expression of the stage, guards and indices of stores included."""
        yield from (let.expr for let in self.lets)
        for accumulate in self.accumulates:
            yield from accumulate.exprs
        yield from (let.expr for let in self.results)
        for store in self.stores:
            yield from (index.expr for index in store.index if isinstance(index, Computed))
            yield store.value
            if store.guard is not None:
                yield store.guard


@dataclass(frozen=True)
class Kernel:
    """A kernel form. `capacities` gives the greatest value of every runtime extent in its shapes and bounds."""

    name: str
    operands: tuple[Operand, ...]
    space: tuple[Axis, ...]
    stages: tuple[Stage, ...]
    capacities: Mapping[str, int] = field(default_factory=dict)
    origins: tuple[str, ...] = field(default=(), compare=False)

    @property
    def inputs(self) -> tuple[Operand, ...]:
        """Operands that are read (`inout` included)."""
        return tuple(o for o in self.operands if o.role != "out")

    @property
    def outputs(self) -> tuple[Operand, ...]:
        """Operands that are written (`inout` included)."""
        return tuple(o for o in self.operands if o.role != "in")

    def operand(self, name: str) -> Operand:
        """The operand called `name`. Raises KeyError if there is none."""
        return {o.name: o for o in self.operands}[name]

    @property
    def runtime_extents(self) -> tuple[str, ...]:
        """Names of dimension symbols used anywhere, sorted: the runtime counts a kernel is given after its operands."""
        dims: list[Dim] = [dim for operand in self.operands for dim in operand.shape]
        axes = [*self.space, *(axis for stage in self.stages for axis in (*stage.space, *stage.reduce))]
        dims += [bound.const for axis in axes for bound in (*axis.lower, *axis.upper) if isinstance(bound, Affine)]
        for stage in self.stages:
            dims += [dim for store in stage.stores for index in store.index for dim in _index_dims(index)]
            for expr in {e: None for top in stage.expressions() for e in walk(top)}:
                if isinstance(expr, Extent):
                    dims.append(expr.dim)
                elif isinstance(expr, Load):
                    dims += [dim for index in expr.index for dim in _index_dims(index)]
        return tuple(sorted({name for dim in dims for name in symbols(dim)}))

    @property
    def is_map(self) -> bool:
        """True if the kernel is one plain map: one stage, no reduction, one unguarded "=" store at the point itself.

        An output with an initial value is none: it may have elements beyond the points.
        """
        if len(self.stages) != 1 or len(self.stages[0].stores) != 1:
            return False
        (stage,), (store,) = self.stages, self.stages[0].stores
        identity = tuple(Affine.axis(axis.name) for axis in self.space)
        filled = any(o.init is not None for o in self.operands)
        plain = store.mode == "=" and store.guard is None and store.index == identity and not filled
        return plain and not (stage.reduce or stage.space or stage.accumulates)


def partial_axis(kernel: Kernel, stage: Stage, store: Store) -> Axis | None:
    """The axis that a store through partials cuts into chunks: the outermost one in no affine index of it, if any."""
    used = {name for index in store.index if isinstance(index, Affine) for name, _ in index.terms}
    return next((axis for axis in (*kernel.space, *stage.space) if axis.name not in used), None)


def _index_dims(index: Index) -> tuple[Dim, ...]:
    return (index.const,) if isinstance(index, Affine) else (index.lower, index.upper)


__all__ = [
    "Accumulate",
    "Axis",
    "Bound",
    "Combiner",
    "Const",
    "Kernel",
    "Let",
    "Operand",
    "Stage",
    "Store",
    "Table",
    "partial_axis",
]
