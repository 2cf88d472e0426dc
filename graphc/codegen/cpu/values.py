"""Values in the source of a kernel: register tiles, their text, constants, and what one kernel's source shares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphc.codegen.cpu.writer import Names, Source
from graphc.ir.dims import Dim, Poly
from graphc.ir.types import DType, bool_, i32, u8
from graphc.kernel.expr import Affine, Const, Expr, children
from graphc.kernel.form import Axis


@dataclass(frozen=True)
class Tile:
    """The points that a piece of code computes at once.

    The first point is where the variables of `row_axis` and `vector_axis` stand. `count` is how many elements along
    the vector axis exist (None: all of them), `row_count` how many rows. `packed`: a small matrix in one row of
    vectors, rows x columns, as the lane sums of a dot product give it. `square`: as many rows as lanes, so that
    operands that are contiguous along the rows can be transposed. `present`: `first, last`, the elements along the
    vector axis that have the point of a reduction, where windows stick out over an edge. `aligned`: the first point's
    number along the vector axis is a multiple of it.
    """

    vector_axis: str | None = None
    vectors: int = 0
    row_axis: str | None = None
    rows: int = 1
    count: str | None = None
    packed: bool = False
    square: bool = False
    row_count: str | None = None
    present: str = ""
    aligned: int = 1

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that change inside the tile."""
        return tuple(a for a in (self.row_axis, self.vector_axis) if a is not None)

    @property
    def shape(self) -> str:
        """Rows and vectors as arguments."""
        return f"{self.rows}, {self.vectors}"

    def registers(self, lanes: int) -> str:
        """Rows and vectors of the tile's LLVM value: a packed matrix is one row of as many vectors as it needs."""
        return f"1, {-(-self.rows * self.vectors // lanes)}" if self.packed else self.shape


@dataclass(frozen=True)
class Value:
    """Source text of a value. `rows`, `lanes`: it changes along the rows, along the lanes of the tile."""

    text: str
    dtype: DType
    rows: bool = False
    lanes: bool = False
    atom: bool = True
    literal: str = ""  # the bare literal, for a constant beside a tile

    @property
    def is_tile(self) -> bool:
        """True if the value is a tile, not a scalar."""
        return self.rows or self.lanes

    @property
    def inner(self) -> str:
        """The text where an operator stands beside it."""
        return self.text if self.atom else f"({self.text})"


@dataclass
class Context:
    """What the source of one kernel shares: names, dtypes, and how often each expression is used."""

    source: Source
    names: Names
    dtypes: Mapping[str, DType]
    capacities: Mapping[str, int]
    lanes: int
    registers: int = 32  # vector registers of the host
    uses: Counter[Expr] = field(default_factory=Counter)
    hoisted: dict[Expr, Value] = field(default_factory=dict)
    tables: dict[tuple[int, ...], str] = field(default_factory=dict)  # module-level constants
    rooms: Mapping[Axis, int] = field(default_factory=dict)  # how far the memory along axes reaches behind their counts

    def operand(self, name: str) -> str:
        """The variable of an operand's pointer."""
        return self.names.of("operand", name)

    def axis(self, name: str) -> str:
        """The variable of an axis."""
        return self.names.of("axis", name)

    def table(self, values: tuple[int, ...]) -> str:
        """The name of a constant table, which stands above the kernel function."""
        if values not in self.tables:
            self.tables[values] = self.names.fresh(f"BOUNDS{len(self.tables)}")
        return self.tables[values]

    def dim(self, dim: Dim) -> str:
        """A dimension as source."""
        if not isinstance(dim, Poly):
            return str(dim)
        text = ""
        for monomial, factor in dim.terms:
            names = [self.names.of("count", n) for n in monomial]
            factors = names if abs(factor) == 1 and names else [*names, str(abs(factor))]
            sign = "-" if factor < 0 else "+"
            text += (f" {sign} " if text else "-" if factor < 0 else "") + " * ".join(factors)
        return text

    def affine(self, index: Affine) -> str:
        """An affine index as source."""
        groups: dict[int, list[str]] = {}
        for axis, factor in sorted(index.terms, key=lambda t: -abs(t[1])):
            groups.setdefault(factor, []).append(self.axis(axis))
        text = ""
        for factor, axes in groups.items():
            whole = axes[0] if len(axes) == 1 else f"({' + '.join(axes)})" if factor != 1 else " + ".join(axes)
            term = whole if abs(factor) == 1 else f"{whole} * {abs(factor)}"
            text += (f" {'-' if factor < 0 else '+'} " if text else "-" if factor < 0 else "") + term
        if index.const == 0 and text:
            return text
        const = self.dim(index.const)
        if not text:
            return const
        return f"{text} - {const[1:]}" if isinstance(index.const, int) and index.const < 0 else f"{text} + {const}"

    def count_uses(self, exprs: Iterable[Expr]) -> None:
        """Note which expressions occur more than once: they are computed once and named."""
        seen: set[Expr] = set()

        def visit(expr: Expr) -> None:
            self.uses[expr] += 1
            if expr not in seen:
                seen.add(expr)
                for child in children(expr):
                    visit(child)

        for expr in exprs:
            visit(expr)


def constant(expr: Const) -> Value:
    """A typed constant; beside a tile its bare literal serves."""
    value, dtype = expr.value, expr.dtype
    if dtype == bool_:
        return Value(str(bool(value)), dtype, literal=str(bool(value)))
    if dtype.is_float:
        return Value(f"{dtype}({expr.text})", dtype, literal=expr.text)
    literal = str(int(value))
    if dtype == i32:
        return Value(f"i32({literal})", dtype, literal=literal)
    return Value(literal, dtype, atom=int(value) >= 0, literal=literal)


def identity_value(kind: float | str, dtype: DType) -> Const:
    """The neutral element of a combiner's component for a dtype."""
    if not isinstance(kind, str):
        return Const(bool(kind) if dtype == bool_ else kind, dtype)
    least = kind == "min"
    if dtype.is_float:
        return Const(-math.inf if least else math.inf, dtype)
    if dtype in (bool_, u8):
        return Const(not least, dtype) if dtype == bool_ else Const(0 if least else 255, dtype)
    bits = 8 * dtype.itemsize - 1
    return Const(-(2**bits) if least else 2**bits - 1, dtype)


def register(value: Value) -> str:
    """A scalar as a tile holds it: uint8 in int32."""
    return f"i32({value.text})" if value.dtype == u8 else value.text
