"""The text of kernels: `parse_kernel(print_kernel(k)) == k` for every valid kernel.

    kernel conv1(W: f32[6,1,5,5], X: f32[1,28,28,N], b: f32[6]) -> (Y: f32[6,28,28,N]) where N <= 64 {
      space co < 6, y < 28, x < 28, n < N
      stage {
        reduce ci < 1, ky in max(0, 2-y) .. min(5, 30-y), kx in max(0, 2-x) .. min(5, 30-x)
        acc: f32 = sum(W[co, ci, ky, kx] * X[ci, y+ky-2, x+kx-2, n])
        let z: f32 = acc + b[co]
        Y[co, y, x, n] = max(z, 0.0)
      }
    }

Lets before the accumulators run inside the reduction, lets after them are results (a line `then` parts them when
there is no accumulator). Literals: `0.5` is f32, `3` is i64, others carry their dtype (`0.5f64`, `3i32`, `inf_f64`),
`true` and `false` are bool. `f32(e)` casts, `extent(N)` is a dimension as a scalar, `[2, 1, 0][y]` a table bound,
`X[e in 0 .. 10]` a computed index with its bounds. `inout` stands before operands that are read and written;
`f32[6,N]+11` has rows with 11 unused elements behind each.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from graphc.errors import VerifyError
from graphc.ir.dims import Dim, Poly, format_shape
from graphc.ir.types import DType, f32, i64
from graphc.kernel.expr import Affine, Apply, AxisIndex, Cast, Const, Expr, Extent, Index, Load, Name
from graphc.kernel.form import Accumulate, Axis, Bound, Kernel, Let, Operand, Stage, Store, Table
from graphc.kernel.parser import parse_kernel
from graphc.kernel.primitives import PRIMITIVES
from graphc.kernel.scope import StageScope, stage_scopes

_ATOM = 9  # binds tighter than every operator


def print_kernel(kernel: Kernel) -> str:
    """The text of a kernel, its origins as comments in front. Invalid kernels print too, as well as they can be."""
    scopes: Sequence[StageScope | None]
    try:
        scopes = stage_scopes(kernel)
    except VerifyError:  # dtypes of names are left out then
        scopes = [None] * len(kernel.stages)
    lines = [f"# {origin}" for origin in kernel.origins]
    lines.append(_head(kernel))
    if kernel.space:
        lines.append("  space " + _axes(kernel.space, ()))
    for stage, scope in zip(kernel.stages, scopes, strict=True):
        lines += ["  stage {", *("    " + line for line in _stage(kernel, stage, scope)), "  }"]
    return "\n".join([*lines, "}"]) + "\n"


def print_expr(expr: Expr, axes: Sequence[str] = ()) -> str:
    """The text of an expression; affine indices name axes in the order given."""
    return _Expressions(axes).text(expr, 0)


def print_affine(affine: Affine, axes: Sequence[str] = ()) -> str:
    """The text of an affine index such as `2*y+a-1`: positive terms first, axes in the order given."""
    order = {name: position for position, name in enumerate(axes)}
    terms = sorted(affine.terms, key=lambda term: order.get(term[0], len(order)))
    parts = [(c, [name]) for name, c in terms]
    if isinstance(affine.const, Poly):
        parts += [(c, list(names)) for names, c in affine.const.terms]
    elif affine.const:
        parts.append((affine.const, []))
    text = ""
    for coefficient, names in sorted(parts, key=lambda part: part[0] < 0):
        sign = "-" if coefficient < 0 else ("+" if text else "")
        factors = [] if abs(coefficient) == 1 and names else [str(abs(coefficient))]
        text += sign + "*".join([*factors, *names])
    return text or "0"


def _head(kernel: Kernel) -> str:
    split = len(kernel.operands)
    while split and kernel.operands[split - 1].role == "out":
        split -= 1
    given = ", ".join(_operand(o, "" if o.role == "in" else f"{o.role} ") for o in kernel.operands[:split])
    results = ", ".join(_operand(o, "") for o in kernel.operands[split:])
    capacities = ", ".join(f"{name} <= {size}" for name, size in sorted(kernel.capacities.items()))
    where = f" where {capacities}" if capacities else ""
    return f"kernel {kernel.name}({given}) -> ({results}){where} {{"


def _operand(operand: Operand, role: str) -> str:
    init = "" if operand.init is None else f" init {_number(operand.init)}"
    return f"{role}{operand.name}: {operand.dtype}{format_shape(operand.shape)}{_padding(operand)}{init}"


def _padding(operand: Operand) -> str:
    """`+11` after each row, `+[0,16,32,0]` after all indices of each axis."""
    if not any(operand.padding):
        return ""
    *outer, row = operand.padding
    return f"+[{','.join(map(str, operand.padding))}]" if any(outer) else f"+{row}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and math.copysign(1, value) == 1 else repr(float(value))


def _axes(axes: Sequence[Axis], outer: Sequence[str]) -> str:
    names, texts = list(outer), []
    for axis in axes:
        sequential = "sequential " if axis.sequential else ""
        if axis.lower == (Affine(),) and len(axis.upper) == 1:
            texts.append(f"{sequential}{axis.name} < {_bound(axis.upper[0], names)}")
        else:
            lower, upper = _bounds("max", axis.lower, names), _bounds("min", axis.upper, names)
            texts.append(f"{sequential}{axis.name} in {lower} .. {upper}")
        names.append(axis.name)
    return ", ".join(texts)


def _bounds(function: str, bounds: Sequence[Bound], names: Sequence[str]) -> str:
    joined = ", ".join(_bound(b, names) for b in bounds)
    return joined if len(bounds) == 1 else f"{function}({joined})"


def _bound(bound: Bound, names: Sequence[str]) -> str:
    if isinstance(bound, Table):
        return f"[{', '.join(map(str, bound.values))}][{bound.axis}]"
    return print_affine(bound, names)


def _stage(kernel: Kernel, stage: Stage, scope: StageScope | None) -> Iterable[str]:
    names = [axis.name for axis in kernel.space]
    if stage.space:
        yield "space " + _axes(stage.space, names)
        names += [axis.name for axis in stage.space]
    outer = list(names)
    if stage.reduce:
        yield "reduce " + _axes(stage.reduce, names)
        names += [axis.name for axis in stage.reduce]
    inside, outside = _Expressions(names), _Expressions(outer)
    yield from (_let(let, inside, scope.inner if scope else {}) for let in stage.lets)
    for accumulate in stage.accumulates:
        yield _accumulate(accumulate, inside, scope.names if scope else {})
    if stage.results and not stage.accumulates:
        yield "then"
    yield from (_let(let, outside, scope.names if scope else {}) for let in stage.results)
    yield from (_store(store, outside) for store in stage.stores)


class _Expressions:
    """Prints expressions; `axes` orders the terms of affine indices."""

    def __init__(self, axes: Sequence[str]) -> None:
        self.axes = axes

    def text(self, expr: Expr, around: int) -> str:
        """The text, in parentheses if it binds less tightly than `around` asks for."""
        text, precedence = self._with_precedence(expr)
        return text if precedence >= around else f"({text})"

    def index(self, index: Sequence[Index]) -> str:
        """The indices in brackets."""
        return "[" + ", ".join(self._one_index(i) for i in index) + "]"

    def _one_index(self, index: Index) -> str:
        if isinstance(index, Affine):
            return print_affine(index, self.axes)
        return f"{self.text(index.expr, 0)} in {_dim(index.lower)} .. {_dim(index.upper)}"

    def _with_precedence(self, expr: Expr) -> tuple[str, int]:
        if isinstance(expr, Const):
            return print_const(expr), _ATOM
        if isinstance(expr, Name):
            return expr.id, _ATOM
        if isinstance(expr, AxisIndex):
            return expr.axis, _ATOM
        if isinstance(expr, Extent):
            return f"extent({_dim(expr.dim)})", _ATOM
        if isinstance(expr, Load):
            return expr.operand + self.index(expr.index), _ATOM
        if isinstance(expr, Cast):
            return f"{expr.dtype}({self.text(expr.arg, 0)})", _ATOM
        return self._apply(expr)

    def _apply(self, expr: Apply) -> tuple[str, int]:
        row = PRIMITIVES.get(expr.primitive)
        if row is None or not row.infix or len(expr.args) != row.arity:
            return f"{expr.primitive}({', '.join(self.text(a, 0) for a in expr.args)})", _ATOM
        level = row.precedence
        if row.arity == 2:
            chains = row.rule not in ("compare", "equate")  # `a < b < c` is no chain of operators
            left, right = self.text(expr.args[0], level if chains else level + 1), self.text(expr.args[1], level + 1)
            return f"{left} {row.infix} {right}", level
        (arg,) = expr.args
        if row.infix == "not":
            return f"not {self.text(arg, level)}", level
        negated = self.text(arg, level)  # `-2.0` is a constant, so the negative of the constant 2.0 is `-(2.0)`
        return (f"-({negated})" if isinstance(arg, Const) else f"-{negated}"), level


def _dim(dim: Dim) -> str:
    return str(dim)


def print_const(const: Const) -> str:
    """A literal with its dtype; none is written for f32, i64 and bool."""
    if const.dtype.kind == "b":
        return "true" if const.value else "false"
    if not const.dtype.is_float:
        return f"{const.value}{_suffix(const.dtype, i64)}"
    underscore = "" if const.dtype == f32 or math.isfinite(const.value) else "_"
    return f"{const.text}{underscore}{_suffix(const.dtype, f32)}"


def _suffix(dtype: DType, default: DType) -> str:
    return "" if dtype == default else dtype.name


def _let(let: Let, expressions: _Expressions, dtypes: object) -> str:
    return f"let {_typed(let.name, dtypes)} = {expressions.text(let.expr, 0)}"


def _typed(name: str, dtypes: object) -> str:
    dtype = dtypes.get(name) if isinstance(dtypes, dict) else None
    return f"{name}: {dtype}" if dtype else name


def _accumulate(accumulate: Accumulate, expressions: _Expressions, dtypes: object) -> str:
    names = ", ".join(_typed(name, dtypes) for name in accumulate.names)
    exprs = ", ".join(expressions.text(e, 0) for e in accumulate.exprs)
    return f"{names} = {accumulate.combiner}({exprs})"


def _store(store: Store, expressions: _Expressions) -> str:
    mode = {"=": "=", "sum": "+="}.get(store.mode, f"{store.mode}=")
    guard = "" if store.guard is None else f" if {expressions.text(store.guard, 0)}"
    partials = f" through {store.partials} partials" if store.partials else ""
    target = store.operand + expressions.index(store.index)
    return f"{target} {mode} {expressions.text(store.value, 0)}{guard}{partials}"


__all__ = ["parse_kernel", "print_affine", "print_const", "print_expr", "print_kernel"]
