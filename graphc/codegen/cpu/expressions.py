"""Scalar expressions of a kernel form as source text, for one point or for a register tile of points.

A *tile* computes `rows` points along one axis times `vectors * lanes` points along another at once. A value that
does not change inside the tile stays a scalar; one that changes along one of the two axes is a tile of one row or
of one vector, which the vocabulary's operators broadcast. So the same expression needs no rewriting.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from graphc.codegen.analysis import affine_of, coefficient
from graphc.codegen.cpu.writer import Names, Source
from graphc.errors import CompileError
from graphc.ir.dims import Dim, Poly
from graphc.ir.types import DType, bool_, f32, i32, i64, u8
from graphc.kernel.expr import (
    Affine,
    Apply,
    AxisIndex,
    Cast,
    Const,
    Expr,
    Extent,
    Index,
    Load,
    Name,
    children,
)
from graphc.kernel.primitives import COMPARISONS

LONGEST = 72  # characters of an expression before a part of it gets a name
INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=", "and": "&", "or": "|",
}  # fmt: skip
FUNCTIONS = {
    "exp": "exp", "log": "log", "log1p": "log1p", "expm1": "expm1", "tanh": "tanh", "sigmoid": "sigmoid",
    "softplus": "softplus", "erf": "erf", "sqrt": "sqrt", "abs": "abs", "floor": "floor", "ceil": "ceil",
    "round": "round", "pow": "pow", "sin": "sin", "cos": "cos", "max": "maximum", "min": "minimum", "fma": "fma",
}  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """The points that a piece of code computes at once.

    The first point is where the variables of `row_axis` and `vector_axis` stand. `count` is how many elements along
    the vector axis exist (None: all of them). `packed`: a small matrix in one row of vectors, rows x columns, as the
    lane sums of a dot product give it.
    """

    vector_axis: str | None = None
    vectors: int = 0
    row_axis: str | None = None
    rows: int = 1
    count: str | None = None
    packed: bool = False

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
    uses: Counter[Expr] = field(default_factory=Counter)
    hoisted: dict[Expr, Value] = field(default_factory=dict)
    tables: dict[tuple[int, ...], str] = field(default_factory=dict)  # module-level constants

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


class Scope:
    """Writes expressions at one place of the source; names found in outer scopes stay known."""

    def __init__(self, context: Context, tile: Tile, outer: Scope | None = None) -> None:
        self.context = context
        self.tile = tile
        same = outer is not None and outer.tile == tile
        self.values: dict[Expr, Value] = dict(outer.values) if same and outer else {}
        self.lets: dict[str, Value] = dict(outer.lets) if outer else {}

    def inner(self, tile: Tile | None = None) -> Scope:
        """A scope for a block inside this one."""
        return Scope(self.context, tile or self.tile, self)

    # ---- writing

    def define(self, hint: str, value: Value) -> Value:
        """Give a value a name."""
        name = self.context.names.fresh(hint)
        self.context.source.line(f"{name} = {value.text}")
        return Value(name, value.dtype, value.rows, value.lanes)

    def value(self, expr: Expr) -> Value:
        """The value of an expression; parts that are used twice, or long, are named in the lines before."""
        if isinstance(expr, Name):
            return self.lets[expr.id]
        for known in (self.values, self.context.hoisted):
            if expr in known:
                return known[expr]
        result = self._write(expr)
        shared = self.context.uses[expr] > 1 and isinstance(expr, Load | Apply | Cast)
        if shared or (not result.atom and len(result.text) > LONGEST):
            result = self.define(_hint(expr, result), result)
        self.values[expr] = result
        return result

    def assigned(self, expr: Expr) -> Value:
        """As `value`, for an expression that gets a name from the caller in any case."""
        known = isinstance(expr, Name) or expr in self.values or expr in self.context.hoisted
        return self.value(expr) if known else self._write(expr)

    def _write(self, expr: Expr) -> Value:
        if isinstance(expr, Const):
            return constant(expr)
        if isinstance(expr, Extent):
            text = self.context.dim(expr.dim)
            return Value(text, i64, atom=text.isidentifier() or text.isdigit())
        if isinstance(expr, Load):
            return self.load(expr)
        if isinstance(expr, Cast):
            return self._cast(self.value(expr.arg), expr.dtype)
        affine = affine_of(expr)
        if affine is not None:
            return self._index(affine)
        assert isinstance(expr, Apply)
        return self._apply(expr)

    def _index(self, affine: Affine) -> Value:
        """An affine function of the axes as a value: along the lanes it is the vector start, start + 1, ..."""
        text, tile = self.context.affine(affine), self.tile
        start = Value(text, i64, atom=text.isidentifier() or text.isdigit())
        factors = affine.coefficients
        row, lane = factors.get(tile.row_axis or "", 0), factors.get(tile.vector_axis or "", 0)
        if not row and not lane:
            return start
        if tile.packed:
            return self._packed_index(start, row, lane)
        if row:
            raise CompileError(f"the index of the row axis {tile.row_axis!r} has no tile; take the rows one by one")
        if lane == 1:
            return Value(f"tile_iota({text}, 1, {tile.vectors})", i64, lanes=True)
        return Value(f"tile_iota(0, 1, {tile.vectors}) * {lane} + {start.inner}", i64, lanes=True, atom=False)

    def _packed_index(self, start: Value, row: int, lane: int) -> Value:
        """start + row * r + lane * c at element r * columns + c of a packed tile; LLVM folds all but the start."""
        iota = f"tile_iota(0, {self.tile.registers(self.context.lanes)})"
        terms = [(f"{iota} // {self.tile.vectors}", row), (f"{iota} % {self.tile.vectors}", lane)]
        parts = [term if factor == 1 else f"{term} * {factor}" for term, factor in terms if factor]
        return Value(" + ".join([*parts, start.inner]), i64, True, True, atom=False)

    # ---- loads

    def offset(self, index: Index) -> str:
        """The offset of a flat index at the first point of the tile."""
        return self.context.affine(index) if isinstance(index, Affine) else self.value(index.expr).text

    def load(self, load: Load) -> Value:
        """An element, or the elements of the tile."""
        dtype, tile, (index,) = self.context.dtypes[load.operand], self.tile, load.index
        ptr = self.context.operand(load.operand)
        if not isinstance(index, Affine):
            return self._gather(ptr, self.value(index.expr), dtype)
        row = coefficient(index, tile.row_axis) if tile.row_axis else 0
        lane = coefficient(index, tile.vector_axis) if tile.vector_axis else 0
        if tile.packed and (row or lane) and not dtype.is_float:
            return self._gather(ptr, self._index(index), dtype)
        text = _load_text(ptr, self.context.affine(index), row or 0, lane or 0, tile)
        packed = tile.packed and bool(row or lane)
        return Value(text, dtype, bool(row) or packed, bool(lane) or packed)

    def _gather(self, ptr: str, at: Value, dtype: DType) -> Value:
        if not at.is_tile:
            return Value(f"load_scalar({ptr}, {at.text})", dtype)
        tile = self.tile
        count = str(tile.rows * tile.vectors) if tile.packed else tile.count if at.lanes else None
        return Value(f"tile_gather({ptr}, {at.text}{f', {count}' if count else ''})", dtype, at.rows, at.lanes)

    # ---- operations

    def _cast(self, arg: Value, dtype: DType) -> Value:
        if arg.dtype == dtype:
            return arg
        if not arg.is_tile:
            return _scalar_cast(arg, dtype)
        if dtype == bool_:
            return Value(f"{arg.inner} != 0", dtype, arg.rows, arg.lanes, atom=False)
        register = i32 if dtype == u8 else dtype
        held = i32 if arg.dtype == u8 else arg.dtype
        text = arg.text if register == held else f"tile_cast_{register}({arg.text})"
        if dtype == u8 and arg.dtype != bool_:
            return Value(f"{text if register != held else arg.inner} & 255", dtype, arg.rows, arg.lanes, atom=False)
        return Value(text, dtype, arg.rows, arg.lanes, atom=arg.atom if register == held else True)

    def _apply(self, expr: Apply) -> Value:
        if expr.primitive in ("sign", "isinf", "isfinite", "isnan", "rsqrt") or _is_float_mod(self, expr):
            return self._composed(expr.primitive, [self._named(a) for a in expr.args])
        args = [self.value(a) for a in expr.args]
        rows, lanes = any(a.rows for a in args), any(a.lanes for a in args)
        dtype = _result_dtype(expr, args)
        text, atom = _operation(expr.primitive, args)
        if dtype in (i32, u8) and expr.primitive not in ("where", "max", "min"):
            text, atom = _wrap(text, dtype, rows or lanes)
        return Value(text, dtype, rows, lanes, atom)

    def _named(self, expr: Expr) -> Value:
        """A value that stands for itself more than once: an identifier or a literal."""
        value = self.value(expr)
        if value.text.isidentifier() or value.literal:
            return value
        value = self.define("x", value)
        self.values[expr] = value
        return value

    def _composed(self, primitive: str, args: list[Value]) -> Value:
        x = args[0]

        def typed(number: float) -> str:
            return repr(number) if x.is_tile else constant(Const(number, x.dtype)).text

        if primitive == "isnan":
            return Value(f"{x.text} != {x.text}", bool_, x.rows, x.lanes, atom=False)
        if primitive in ("isinf", "isfinite"):
            infinity = "inf" if x.is_tile else f"{x.dtype}(inf)"
            operator = "==" if primitive == "isinf" else "<"
            return Value(f"tile_abs({x.text}) {operator} {infinity}", bool_, x.rows, x.lanes, atom=False)
        if primitive == "rsqrt":
            return Value(f"{typed(1.0)} / tile_sqrt({x.text})", x.dtype, x.rows, x.lanes, atom=False)
        if primitive == "sign":
            one, minus = (typed(1), typed(-1)) if not x.dtype.is_float else (typed(1.0), typed(-1.0))
            zero = typed(0.0 if x.dtype.is_float else 0)
            inner = f"tile_select({x.text} < {zero}, {minus}, {x.text})"
            return Value(f"tile_select({x.text} > {zero}, {one}, {inner})", x.dtype, x.rows, x.lanes)
        y = args[1]
        rows, lanes = x.rows or y.rows, x.lanes or y.lanes
        return Value(f"{x.text} - tile_floor({x.text} / {y.text}) * {y.text}", x.dtype, rows, lanes, atom=False)

    # ---- shapes

    def spread(self, value: Value) -> str:
        """The text of a tile of full shape with `value` in it: what a store needs."""
        tile = self.tile
        if not value.is_tile:
            return f"tile_broadcast({register(value)}, {tile.registers(self.context.lanes)})"
        if tile.packed or (value.lanes and (value.rows or tile.rows == 1)):
            return value.text
        full = f"tile_broadcast(True, {tile.shape})"
        return f"tile_select({full}, {value.text}, {value.text})"


HINTS = {
    "add": "total", "sub": "difference", "mul": "product", "div": "ratio", "where": "chosen", "max": "larger",
    "min": "smaller", "and": "both", "or": "either", "not": "unless", "uniform": "draw", "neg": "negative",
}  # fmt: skip


def _hint(expr: Expr, value: Value) -> str:
    """A name for a part of an expression."""
    if isinstance(expr, Load):
        return f"{expr.operand}_{'tile' if value.is_tile else 'value'}"
    if isinstance(expr, Apply) and value.dtype == i64 and expr.primitive in INFIX:
        return "position"
    if isinstance(expr, Apply):
        return HINTS.get(expr.primitive, f"{expr.primitive}_{'tile' if value.is_tile else 'value'}")
    return f"as_{value.dtype}"


def _is_float_mod(scope: Scope, expr: Apply) -> bool:
    return expr.primitive == "mod" and scope.value(expr.args[0]).dtype.is_float


def _result_dtype(expr: Apply, args: list[Value]) -> DType:
    if expr.primitive == "uniform":
        return f32
    if expr.primitive in COMPARISONS:
        return bool_
    return args[-1].dtype


def constant(expr: Const) -> Value:
    """A typed constant; beside a tile its bare literal serves."""
    value, dtype = expr.value, expr.dtype
    if dtype == bool_:
        return Value(str(bool(value)), dtype, literal=str(bool(value)))
    if dtype.is_float:
        number = float(value)
        literal = ("nan" if math.isnan(number) else "inf" if number > 0 else "-inf") if not math.isfinite(
            number) else repr(number)  # fmt: skip
        return Value(f"{dtype}({literal})", dtype, literal=literal)
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


def _load_text(ptr: str, offset: str, row: int, lane: int, tile: Tile) -> str:
    if not row and not lane:
        return f"load_scalar({ptr}, {offset})"
    if tile.packed:
        return f"tile_load_packed({ptr}, {offset}, {row}, {lane}, {tile.shape})"
    if not lane:
        return f"tile_broadcast_column({ptr}, {offset}, {row}, {tile.rows}, 1)"
    shape = f"{tile.rows if row else 1}, {tile.vectors}"
    count = f", {tile.count}" if tile.count else ""
    if lane == 1:
        return f"tile_load{'_masked' if count else ''}({ptr}, {offset}, {row}, {shape}{count})"
    return f"tile_load_strided({ptr}, {offset}, {row}, {lane}, {shape}{count})"


def _scalar_cast(arg: Value, dtype: DType) -> Value:
    if dtype == bool_:
        zero = constant(Const(0, arg.dtype)).text
        return Value(f"{arg.inner} != {zero}", dtype, atom=False)
    if dtype == u8:
        return Value(f"i64({arg.text}) & 255", dtype, atom=False)
    if arg.dtype == bool_ and dtype.is_float:
        return Value(f"{dtype}(i64({arg.text}))", dtype)
    return Value(f"{dtype}({arg.text})", dtype)


def _wrap(text: str, dtype: DType, is_tile: bool) -> tuple[str, bool]:
    """Keep integer arithmetic in its dtype: scalars compute in 64 bits, uint8 tiles in 32."""
    if dtype == u8:
        return f"({text}) & 255", False
    return (text, False) if is_tile else (f"i32({text})", True)


def _operation(primitive: str, args: list[Value]) -> tuple[str, bool]:
    """Source of a primitive of scalars and tiles, and whether it needs no parentheses."""
    is_tile = any(a.is_tile for a in args)
    plain = [a.literal if is_tile and a.literal else a.text for a in args]
    inner = [a.literal if is_tile and a.literal else a.inner for a in args]
    masks = args[0].dtype == bool_
    if primitive == "neg":
        return f"-{inner[0]}", False
    if primitive == "not":
        return (f"~{inner[0]}" if is_tile else f"not {inner[0]}"), False
    if primitive in ("eq", "ne") and masks:
        differ = f"{inner[0]} ^ {inner[1]}"
        return (f"~({differ})" if is_tile else f"not ({differ})") if primitive == "eq" else differ, False
    if primitive in ("max", "min") and masks:
        return f"{inner[0]} {'|' if primitive == 'max' else '&'} {inner[1]}", False
    if primitive in INFIX:
        return f"{inner[0]} {INFIX[primitive]} {inner[1]}", False
    if primitive == "where":
        return _select(args, plain), True
    if primitive == "uniform":
        seed, step, stream, loop, element = plain
        return f"tile_philox_uniform_f32({seed}, {stream}, {step}, {loop}, {element})", True
    if primitive in ("max", "min") and is_tile and not args[0].is_tile:
        plain.reverse()
    if primitive not in FUNCTIONS:
        raise CompileError(f"primitive {primitive!r} has no CPU code; known: {', '.join(sorted({*INFIX, *FUNCTIONS}))}")
    return f"tile_{FUNCTIONS[primitive]}({', '.join(plain)})", True


def register(value: Value) -> str:
    """A scalar as a tile holds it: uint8 in int32."""
    return f"i32({value.text})" if value.dtype == u8 else value.text


def _select(args: list[Value], plain: list[str]) -> str:
    condition, left, right = args
    if condition.is_tile and not left.is_tile and not right.is_tile:
        return f"tile_select({condition.text}, {register(left)}, {register(right)})"
    return f"tile_select({', '.join(plain)})"


__all__ = ["Context", "Scope", "Tile", "Value", "constant", "identity_value", "register"]
