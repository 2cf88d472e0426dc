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
from functools import cached_property
from typing import TypeAlias

from graphc.errors import VerifyError
from graphc.ir.dims import Dim, substitute
from graphc.ir.literals import float_text
from graphc.ir.types import DType, i64
from graphc.kernel.primitives import primitive


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
    """A typed constant. Equal constants have equal bits in their dtype: 0.0 is not -0.0, NaN is NaN, and an f32 0.1 is
    the float32 nearest to 0.1, however many digits of it are given."""

    value: float | int | bool
    dtype: DType

    def __post_init__(self) -> None:
        python_type = {"f": float, "b": bool}.get(self.dtype.kind, int)
        object.__setattr__(self, "value", python_type(self.value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @cached_property
    def _key(self) -> tuple[str, str]:
        return (self.dtype.name, self.text)

    @cached_property
    def text(self) -> str:
        """The shortest number that has these bits, without the dtype."""
        return float_text(float(self.value), self.dtype) if self.dtype.is_float else repr(self.value)


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
        if isinstance(e, Load):  # what a computed index holds has been replaced by now: twice would mix axes up
            return Load(e.operand, tuple(i if isinstance(i, Computed) else replace_index(i, axes) for i in e.index))
        return None

    return transform(expr, change)


def replace_index(index: Index, axes: Mapping[str, Index]) -> Index:
    """An index with axes replaced. An affine index of a computed axis becomes computed if it is not that axis alone."""
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
            raise VerifyError(f"index {index} mixes a computed axis with {axis!r}, whose bounds are not known here")
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
    """The dtype of an expression.

    Raises VerifyError for unknown names, operands and primitives, a wrong number of operands of a primitive, mixed
    dtypes, and a computed index that is no i64.
    """
    known: dict[Expr, DType] = {}
    for e in walk(expr):
        if isinstance(e, Apply):
            known[e] = primitive(e.primitive).result([known[a] for a in e.args])
        elif isinstance(e, Name):
            known[e] = _declared("name", e.id, names)
        elif isinstance(e, Load):
            known[e] = _declared("operand", e.operand, operands)
            for child in children(e):
                if known[child] != i64:
                    raise VerifyError(f"a computed index of {e.operand!r} is {known[child]}; cast it to i64")
        else:
            known[e] = e.dtype if isinstance(e, Const | Cast) else i64
    return known[expr]


def _declared(what: str, name: str, known: Mapping[str, DType]) -> DType:
    if name not in known:
        raise VerifyError(f"{what} {name!r} is not defined here; defined: {', '.join(known) or 'none'}")
    return known[name]


def affine_of(expr: Expr) -> Affine | None:
    """An i64 expression as an affine function of axes, or None if it is none."""
    if isinstance(expr, AxisIndex):
        return Affine.axis(expr.axis)
    if isinstance(expr, Extent):
        return Affine((), expr.dim)
    if isinstance(expr, Const) and expr.dtype == i64:
        return Affine((), int(expr.value))
    if isinstance(expr, Cast) and expr.dtype == i64:
        return affine_of(expr.arg)
    if not isinstance(expr, Apply) or expr.primitive not in ("add", "sub", "mul", "neg"):
        return None
    parts = [part for part in map(affine_of, expr.args) if part is not None]
    if len(parts) != len(expr.args):
        return None
    if expr.primitive == "neg":
        return parts[0].scale(-1)
    if expr.primitive != "mul":
        return parts[0] + (parts[1] if expr.primitive == "add" else parts[1].scale(-1))
    for factor, other in (parts, parts[::-1]):
        if not factor.terms and isinstance(factor.const, int):
            return other.scale(factor.const)
    return None
