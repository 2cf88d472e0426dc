"""The scalar language of kernels: what happens at one point of a kernel's iteration space.

    Expr   = Const(value, dtype) | Name(id) | AxisIndex(axis) | Extent(dim)
           | Load(operand, Index*) | Apply(primitive, Expr*) | Cast(Expr, dtype)
    Index  = Affine | Computed(Expr, lower, upper)          # Computed: lower <= value < upper is declared
    Affine = const + sum of coefficient * axis

Operands of a primitive have one dtype; nothing is promoted silently. Expressions are trees of frozen
dataclasses: equal sub-trees are one value to the emitters, which name what is used twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from graphc.errors import VerifyError
from graphc.ir.dims import Dim, substitute
from graphc.ir.types import DType, bool_, f32, i64


@dataclass(frozen=True)
class Affine:
    """`const + sum(coefficient * axis)`; `const` may hold runtime extents. Terms are sorted, coefficients non-zero."""

    terms: tuple[tuple[str, int], ...] = ()
    const: Dim = 0

    @staticmethod
    def of(axes: Mapping[str, int], const: Dim = 0) -> Affine:
        """From a mapping axis -> coefficient."""
        return Affine(tuple(sorted((a, c) for a, c in axes.items() if c)), const)

    @staticmethod
    def axis(name: str) -> Affine:
        """The axis itself."""
        return Affine(((name, 1),))

    @property
    def coefficients(self) -> dict[str, int]:
        """Axis -> coefficient."""
        return dict(self.terms)

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.const + other)
        total = self.coefficients
        for axis, coefficient in other.terms:
            total[axis] = total.get(axis, 0) + coefficient
        return Affine.of(total, self.const + other.const)

    def scale(self, factor: int) -> Affine:
        """Every coefficient and the constant times `factor`."""
        return Affine.of({a: c * factor for a, c in self.terms}, self.const * factor)

    def replace(self, axes: Mapping[str, Affine]) -> Affine:
        """Axes named in `axes` replaced by affine expressions."""
        total = Affine((), self.const)
        for axis, coefficient in self.terms:
            total = total + axes.get(axis, Affine.axis(axis)).scale(coefficient)
        return total


def _remembered_hash(self: object) -> int:
    """A structural hash computed once an object: shared sub-trees would make it exponential otherwise."""
    known = self.__dict__.get("_hash")
    if known is None:
        known = hash((type(self).__name__, *(v for k, v in self.__dict__.items() if k != "_hash")))
        object.__setattr__(self, "_hash", known)
    return int(known)


@dataclass(frozen=True)
class Const:
    """A typed constant."""

    value: float | int | bool
    dtype: DType


@dataclass(frozen=True)
class Name:
    """The value of a `let` or an accumulator in scope."""

    id: str


@dataclass(frozen=True)
class AxisIndex:
    """An axis index as an i64 scalar (one-hot, ties, random counters, masks)."""

    axis: str


@dataclass(frozen=True)
class Extent:
    """A dimension as an i64 scalar; a runtime extent when the dimension has symbols."""

    dim: Dim


@dataclass(frozen=True)
class Load:
    """An element of an operand."""

    operand: str
    index: tuple[Index, ...]
    __hash__ = _remembered_hash


@dataclass(frozen=True)
class Apply:
    """A primitive (see `graphc.kernel.primitives`) of expressions of equal dtype."""

    primitive: str
    args: tuple[Expr, ...]
    __hash__ = _remembered_hash


@dataclass(frozen=True)
class Cast:
    """Conversion with C semantics: floats to integers truncate, bool is 0 or 1, non-zero is true."""

    arg: Expr
    dtype: DType
    __hash__ = _remembered_hash


@dataclass(frozen=True)
class Computed:
    """An index that is no affine function of the axes, with declared bounds `lower <= value < upper`."""

    expr: Expr
    lower: Dim
    upper: Dim


Expr: TypeAlias = Const | Name | AxisIndex | Extent | Load | Apply | Cast
Index: TypeAlias = Affine | Computed


def children(expr: Expr) -> tuple[Expr, ...]:
    """Direct sub-expressions, those inside computed indices included."""
    if isinstance(expr, Apply):
        return expr.args
    if isinstance(expr, Cast):
        return (expr.arg,)
    if isinstance(expr, Load):
        return tuple(i.expr for i in expr.index if isinstance(i, Computed))
    return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """Every sub-expression, operands before users, each distinct one once."""
    seen: set[Expr] = set()

    def visit(e: Expr) -> Iterator[Expr]:
        if e in seen:
            return
        seen.add(e)
        for child in children(e):
            yield from visit(child)
        yield e

    yield from visit(expr)


def loads(expr: Expr) -> tuple[Load, ...]:
    """All distinct loads in `expr`, in evaluation order."""
    return tuple(e for e in walk(expr) if isinstance(e, Load))


def transform(expr: Expr, change: Callable[[Expr], Expr | None]) -> Expr:
    """Rebuild `expr` from the leaves up; `change` returns a replacement for a rebuilt node, or None to keep it."""
    done: dict[Expr, Expr] = {}

    def visit(e: Expr) -> Expr:
        if e not in done:
            new: Expr = e
            if isinstance(e, Apply):
                new = Apply(e.primitive, tuple(visit(a) for a in e.args))
            elif isinstance(e, Cast):
                new = Cast(visit(e.arg), e.dtype)
            elif isinstance(e, Load):
                new = Load(e.operand, tuple(_visit_index(i) for i in e.index))
            replaced = change(new)
            done[e] = new if replaced is None else replaced
        return done[e]

    def _visit_index(index: Index) -> Index:
        return Computed(visit(index.expr), index.lower, index.upper) if isinstance(index, Computed) else index

    return visit(expr)


def replace_axes(expr: Expr, axes: Mapping[str, Index]) -> Expr:
    """`expr` with axes replaced by indices, in loads' index maps and where an axis is used as a scalar."""

    def change(e: Expr) -> Expr | None:
        if isinstance(e, AxisIndex) and e.axis in axes:
            return as_expr(axes[e.axis])
        if isinstance(e, Load):
            return Load(e.operand, tuple(replace_index(i, axes) for i in e.index))
        return None

    return transform(expr, change)


def replace_index(index: Index, axes: Mapping[str, Index]) -> Index:
    """An index with axes replaced. An affine index of a computed axis becomes computed when it is not that axis alone."""
    if isinstance(index, Computed):
        return Computed(replace_axes(index.expr, axes), index.lower, index.upper)
    computed = {a: axes[a] for a, _ in index.terms if isinstance(axes.get(a), Computed)}
    if not computed:
        return index.replace({a: i for a, i in axes.items() if isinstance(i, Affine)})
    if len(index.terms) == 1 and index.terms[0][1] == 1 and index.const == 0:
        return next(iter(computed.values()))
    return _computed_affine(index, axes)


def _computed_affine(index: Affine, axes: Mapping[str, Index]) -> Computed:
    """An affine function of computed indices, with the interval that their declared bounds imply."""
    lower: Dim = index.const
    upper: Dim = index.const
    total: Expr = Extent(index.const)
    for axis, coefficient in index.terms:
        part = axes.get(axis)
        if not isinstance(part, Computed):
            raise VerifyError(f"index {index} mixes the computed axis with {axis!r}; bounds of {axis!r} are not known here")
        low, high = part.lower * coefficient, (part.upper - 1) * coefficient
        lower, upper = lower + (low if coefficient > 0 else high), upper + (high if coefficient > 0 else low)
        total = Apply("add", (total, Apply("mul", (Const(coefficient, i64), as_expr(part)))))
    return Computed(total, lower, upper + 1)


def as_expr(index: Index) -> Expr:
    """An index as an i64 expression."""
    if isinstance(index, Computed):
        return index.expr
    total: Expr | None = None
    for axis, coefficient in index.terms:
        term: Expr = AxisIndex(axis) if coefficient == 1 else Apply("mul", (AxisIndex(axis), Const(coefficient, i64)))
        total = term if total is None else Apply("add", (total, term))
    if total is None:
        return Extent(index.const)
    return total if index.const == 0 else Apply("add", (total, Extent(index.const)))


def bind_extents(expr: Expr, sizes: Mapping[str, Dim]) -> Expr:
    """`expr` with dimension symbols replaced by sizes."""

    def index(i: Index) -> Index:
        if isinstance(i, Computed):
            return Computed(i.expr, substitute(i.lower, sizes), substitute(i.upper, sizes))
        return Affine(i.terms, substitute(i.const, sizes))

    def change(e: Expr) -> Expr | None:
        if isinstance(e, Extent):
            return Extent(substitute(e.dim, sizes))
        return Load(e.operand, tuple(index(i) for i in e.index)) if isinstance(e, Load) else None

    return transform(expr, change)


def dtype_of(expr: Expr, operands: Mapping[str, DType], names: Mapping[str, DType]) -> DType:
    """The dtype of an expression. Raises VerifyError for unknown names and operands, and for mixed dtypes."""
    if isinstance(expr, Const | Cast):
        return expr.dtype
    if isinstance(expr, AxisIndex | Extent):
        return i64
    if isinstance(expr, Name):
        if expr.id not in names:
            raise VerifyError(f"name {expr.id!r} is not defined here; defined: {', '.join(names) or 'none'}")
        return names[expr.id]
    if isinstance(expr, Load):
        if expr.operand not in operands:
            raise VerifyError(f"operand {expr.operand!r} is not declared; declared: {', '.join(operands)}")
        return operands[expr.operand]
    return _dtype_of_apply(expr, tuple(dtype_of(a, operands, names) for a in expr.args))


COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})


def _dtype_of_apply(expr: Apply, dtypes: tuple[DType, ...]) -> DType:
    if expr.primitive == "where":
        condition, *dtypes_list = dtypes
        if condition != bool_:
            raise VerifyError(f"where: the condition must be bool, it is {condition}")
        dtypes = tuple(dtypes_list)
    if expr.primitive == "uniform":  # (seed, step, stream, loop, element) -> f32 in [0, 1)
        return f32
    if len(set(dtypes)) > 1:
        raise VerifyError(f"{expr.primitive}: operands have different dtypes {', '.join(map(str, dtypes))}; cast them")
    return bool_ if expr.primitive in COMPARISONS or expr.primitive.startswith("is") else dtypes[0]
