"""Scalar expressions of a kernel form as source text, for one point or for a register tile of points.

A *tile* computes `rows` points along one axis times `vectors * lanes` points along another at once. A value that
does not change inside the tile stays a scalar; one that changes along one of the two axes is a tile of one row or
of one vector, which the vocabulary's operators broadcast. So the same expression needs no rewriting.
"""

from __future__ import annotations

from collections.abc import Collection

from graphc.codegen.analysis import coefficient
from graphc.codegen.cpu.values import Context, Tile, Value, constant, register
from graphc.codegen.lanes import DRAWS, starts_blocks
from graphc.errors import CompileError
from graphc.ir.types import DType, bool_, f32, i32, i64, u8
from graphc.kernel.expr import Affine, Apply, Cast, Computed, Const, Expr, Extent, Index, Load, Name, affine_of, loads
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
    "log2": "log2", "tan": "tan", "asin": "asin", "acos": "acos", "atan": "atan", "sinh": "sinh", "cosh": "cosh",
}  # fmt: skip


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

    def forget(self, operands: Collection[str]) -> None:
        """Let values that were computed from these operands be computed anew: they have been stored to."""
        stale = [expr for expr in self.values if any(load.operand in operands for load in loads(expr))]
        for expr in stale:
            del self.values[expr]

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

    def steps(self, index: Index) -> tuple[int, int] | None:
        """Elements that an index moves by along the rows and along the lanes; None if it is irregular."""
        row, lane = (coefficient(index, axis) if axis else 0 for axis in (self.tile.row_axis, self.tile.vector_axis))
        return None if row is None or lane is None else (row, lane)

    def offset(self, index: Index) -> str:
        """A flat index at the first point of the tile."""
        if isinstance(index, Affine):
            return self.context.affine(index)
        if not self.tile.axes:
            return self.value(index.expr).text
        first = Scope(self.context, Tile())
        first.lets = self.lets
        return first.value(index.expr).text

    def load(self, load: Load) -> Value:
        """An element, or the elements of the tile."""
        dtype, tile, (index,) = self.context.dtypes[load.operand], self.tile, load.index
        ptr, steps = self.context.operand(load.operand), self.steps(index)
        if steps is None:
            assert isinstance(index, Computed)
            return self._gather(ptr, self.value(index.expr), dtype)
        row, lane = steps
        if tile.packed and (row or lane) and not dtype.is_float:
            at = self._index(index) if isinstance(index, Affine) else self.value(index.expr)
            return self._gather(ptr, at, dtype)
        text = _load_text(ptr, self.offset(index), row, lane, tile)
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
        if expr.primitive in ("sign", "isinf", "isfinite", "isnan", "rsqrt"):
            return self._composed(expr.primitive, [self._named(a) for a in expr.args])
        if expr.primitive == "uniform" and (start := self._block_of_draws(expr.args[4])):
            seed, step, stream, loop = (self.value(a).text for a in expr.args[:4])
            return Value(f"tile_philox_block_f32({seed}, {stream}, {step}, {loop}, {start})", f32, lanes=True)
        args = [self.value(a) for a in expr.args]
        rows, lanes = any(a.rows for a in args), any(a.lanes for a in args)
        dtype = _result_dtype(expr, args)
        divides = expr.primitive in ("floordiv", "mod") and not _is_plain_divisor(expr.args[1])
        text, atom = _operation(expr.primitive, args, divides)
        if dtype in (i32, u8) and expr.primitive not in ("where", "max", "min"):
            text, atom = _wrap(text, dtype, rows or lanes)
        return Value(text, dtype, rows, lanes, atom)

    def _block_of_draws(self, element: Expr) -> str | None:
        """The first element's number where the tile is one aligned block of draws, which are cheaper together."""
        affine, tile = affine_of(element), self.tile
        if affine is None or tile.packed or tile.vectors * self.context.lanes != DRAWS:
            return None
        aligned = starts_blocks(affine, tile.vector_axis or "") and tile.aligned % DRAWS == 0
        return self.context.affine(affine) if aligned else None

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
        one, minus = (typed(1), typed(-1)) if not x.dtype.is_float else (typed(1.0), typed(-1.0))
        zero = typed(0.0 if x.dtype.is_float else 0)
        inner = f"tile_select({x.text} < {zero}, {minus}, {x.text})"
        return Value(f"tile_select({x.text} > {zero}, {one}, {inner})", x.dtype, x.rows, x.lanes)

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


def _is_plain_divisor(expr: Expr) -> bool:
    """Whether `//` and `%` by it need no care: a size, or an integer that is neither 0 nor -1."""
    return isinstance(expr, Extent) or (isinstance(expr, Const) and expr.dtype.is_integer and expr.value > 0)


def _result_dtype(expr: Apply, args: list[Value]) -> DType:
    if expr.primitive == "uniform":
        return f32
    if expr.primitive in COMPARISONS:
        return bool_
    return args[-1].dtype


def _load_text(ptr: str, offset: str, row: int, lane: int, tile: Tile) -> str:
    if not row and not lane:
        return f"load_scalar({ptr}, {offset})"
    if tile.packed:
        return f"tile_load_packed({ptr}, {offset}, {row}, {lane}, {tile.shape})"
    if tile.square and row and (lane != 1 or tile.row_count):
        return _square_text(ptr, offset, row, lane, tile)
    if not lane:
        return f"tile_broadcast_column({ptr}, {offset}, {row}, {tile.rows}, 1)"
    shape = f"{tile.rows if row else 1}, {tile.vectors}"
    count = f", {tile.count}" if tile.count else ""
    if lane == 1 and tile.present:
        return f"tile_load_lanes({ptr}, {offset}, {row}, {shape}, {tile.present})"
    if lane == 1:
        return f"tile_load{'_masked' if count else ''}({ptr}, {offset}, {row}, {shape}{count})"
    return f"tile_load_strided({ptr}, {offset}, {row}, {lane}, {shape}{count})"


def _square_text(ptr: str, offset: str, row: int, lane: int, tile: Tile) -> str:
    """A square tile whose rows are not all there, or lie across: loaded row by row of memory, then transposed."""
    stride, rows, count = row, tile.row_count, tile.count
    if lane != 1:
        stride, rows, count = lane, tile.count, tile.row_count
    behind = f", {count}" if count else ""
    masked = "_rows" if rows else "_masked" if count else ""
    text = f"tile_load{masked}({ptr}, {offset}, {stride}, {tile.shape}{f', 0, {rows}' if rows else ''}{behind})"
    return text if lane == 1 else f"tile_transpose({text})"


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


def _operation(primitive: str, args: list[Value], divides: bool = False) -> tuple[str, bool]:
    """Source of a primitive of scalars and tiles, and whether it needs no parentheses.

    `divides`: a quotient whose divisor may be 0 or a float, which Python's operators treat otherwise for scalars.
    """
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
    if divides:
        return f"tile_{primitive}({', '.join(plain)})", True
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


def _select(args: list[Value], plain: list[str]) -> str:
    condition, left, right = args
    if condition.is_tile and not left.is_tile and not right.is_tile:
        return f"tile_select({condition.text}, {register(left)}, {register(right)})"
    return f"tile_select({', '.join(plain)})"
