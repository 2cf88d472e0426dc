"""The kernel form: a map-reduce over an affine box. Its grammar, before any class:

    Kernel   = name, Operand*, space Axis*, Stage*
    Operand  = name : dtype [shape], role in | out | inout, init?      # init: fill before the kernel runs
    Axis     = name, lower Bound*, upper Bound*, sequential?           # max(lower) <= axis < min(upper)
    Bound    = Affine over outer axes | Table(outer axis, integers)
    Stage    = space Axis*, reduce Axis*, Let*, Accumulate*, Let*, Store*
    Let      = name = Expr                                             # the first lets run inside the reduction
    Accumulate = names (combiner) Exprs                                # one Expr for each component of the combiner
    Store    = operand[Index*] = Expr, mode, guard?, partials

Meaning, as the interpreter in `graphc.kernel.interpret` executes it: fill operands that have an `init`;
for every point of the kernel's space run the stages in order; a stage loops over its own space, and at each
point over its reduce axes, evaluating lets and combining accumulators; then its results and its stores.
Names of a stage with no space of its own stay visible to the later stages. Clipped bounds are what padding
means. A store's mode is "=" or the name of a combiner with one component: then it combines into the element
("+=" is `sum`), which must be safe: either each point has its own element, or the axes that the index leaves
out are `sequential`, or the store goes through a fixed number of `partials`, that is a by-product output:
the outermost left-out axis is cut into that many chunks, each summed in order, the chunks in order after
that, so that bits never depend on the number of threads. Stored elements that no point covers keep `init`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from graphc.ir.dims import Dim, symbols
from graphc.ir.types import DType
from graphc.kernel.expr import Affine, Apply, Computed, Const, Expr, Index, Load, Name, loads


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
    """A tensor that the kernel reads (`in`), writes (`out`) or both (`inout`)."""

    name: str
    dtype: DType
    shape: tuple[Dim, ...]
    role: str = "in"
    init: float | None = None


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
        found: set[str] = set()
        for operand in self.operands:
            for dim in operand.shape:
                found |= symbols(dim)
        return tuple(sorted(found))

    @property
    def is_map(self) -> bool:
        """True if the kernel is one plain map: one stage, no reduction, one unguarded "=" store at the identity index."""
        if len(self.stages) != 1 or len(self.stages[0].stores) != 1:
            return False
        (stage,), (store,) = self.stages, self.stages[0].stores
        identity = tuple(Affine.axis(axis.name) for axis in self.space)
        plain = store.mode == "=" and store.guard is None and store.index == identity
        return plain and not (stage.reduce or stage.space or stage.accumulates)

    def with_name(self, name: str) -> Kernel:
        """The same kernel under another name."""
        return replace(self, name=name)


def _less(a: str, b: str) -> Expr:
    return Apply("lt", (Name(a), Name(b)))


def _pick(condition: Expr, a: str, b: str) -> Expr:
    return Apply("where", (condition, Name(a), Name(b)))


def _binary(primitive: str) -> tuple[Expr, ...]:
    return (Apply(primitive, (Name("a0"), Name("b0"))),)


def _takes_right(comparison: str) -> Expr:
    """The right pair wins if strictly better, or equal (or both NaN) with the smaller index; a NaN beats a number."""
    a_nan, b_nan = (Apply("isnan", (Name(n),)) for n in ("a0", "b0"))
    better = Apply(comparison, (Name("b0"), Name("a0")))
    only_b_nan = Apply("and", (b_nan, Apply("not", (a_nan,))))
    tie = Apply("or", (Apply("eq", (Name("a0"), Name("b0"))), Apply("and", (a_nan, b_nan))))
    earlier = Apply("and", (tie, _less("b1", "a1")))
    return Apply("or", (Apply("and", (better, Apply("not", (a_nan,)))), Apply("or", (only_b_nan, earlier))))


def _extremum(name: str, comparison: str, identity: str) -> Combiner:
    right = _takes_right(comparison)
    doc = f"{name}: the extreme value and its first index; NaN wins, as in NumPy"
    return Combiner(name, (identity, "max"), (_pick(right, "b0", "a0"), _pick(right, "b1", "a1")), doc)


COMBINERS: dict[str, Combiner] = {
    combiner.name: combiner
    for combiner in (
        Combiner("sum", (0,), _binary("add"), "sum"),
        Combiner("prod", (1,), _binary("mul"), "product"),
        Combiner("max", ("min",), _binary("max"), "maximum; NaN wins"),
        Combiner("min", ("max",), _binary("min"), "minimum; NaN wins"),
        _extremum("argmax", "gt", "min"),
        _extremum("argmin", "lt", "max"),
    )
}


def operand_reads(kernel: Kernel) -> dict[str, list[Load]]:
    """Operand name -> all loads from it, in order of stages."""
    found: dict[str, list[Load]] = {}
    for stage in kernel.stages:
        for expr in stage.expressions():
            for load in loads(expr):
                found.setdefault(load.operand, []).append(load)
    return found


__all__ = [
    "COMBINERS",
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
    "operand_reads",
]
