"""Kernel source to LLVM IR: the front end for the part of Python that kernels are written in.

A kernel is one function of assignments to names, `for ... in range(...)`, `if`, calls of the tile vocabulary, and
arithmetic; constants may stand above it. Types follow from the tile functions' signatures and from the types of
constants, by Numba's rules, so Numba compiles the same source to the same results (`graphc.codegen.numba_front`), an
order of magnitude slower: its general machinery was most of a program's compile time.

Values are in static single assignment form from the start: a tile is the Python list of its LLVM vectors, and loops and
branches make one phi a vector, so LLVM has no stack slots or aggregates to take apart.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from graphc.codegen import tile
from graphc.codegen.tile.operators import constant_integer, converted, literal_value, scalar_operation
from graphc.codegen.tile.registry import OPERATORS
from graphc.codegen.tile.signatures import (
    F64,
    I64,
    MASK,
    NONE,
    Definition,
    Literal,
    Pointer,
    Scalar,
    Type,
    TypingError,
)
from graphc.codegen.tile.types import INDEX, TileType

ARGUMENTS = (Pointer(I64), I64, I64)
# Loops of known lengths are unrolled up to so many turns in all, and statements: a small window is quicker without.
UNROLLED_TURNS, UNROLLED_STATEMENTS = 9, 48
PYTHON_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_,
    ast.BitXor: operator.xor, ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.USub: operator.neg,
    ast.Not: operator.not_, ast.Invert: operator.invert, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge, ast.Eq: operator.eq, ast.NotEq: operator.ne,
}  # fmt: skip


class Unsupported(Exception):
    """Python that this front end does not know; Numba may."""


class KernelTypeError(Exception):
    """Kernel source that does not type; the message begins with the line's number."""


def translate(source: str, name: str, symbol: str) -> ir.Module:
    """A module with the kernel function `name` of `source` as the external function `symbol`.

    Raises SyntaxError, KernelTypeError where a call does not fit its function, Unsupported for any other Python.
    """
    tree = ast.parse(source)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if name not in functions or len(functions) != 1:
        raise Unsupported("a kernel's source defines one function")
    constants = dict(_constant(node) for node in tree.body if not isinstance(node, ast.FunctionDef))
    widened: dict[str, Scalar] = {}
    while True:  # a second time with wider types, if a name is first an int32 and then an int64
        try:
            return _Function(functions[name], constants, widened).module(symbol)
        except _Widen as found:
            widened[found.name] = found.ty


def _constant(node: ast.stmt) -> tuple[str, Any]:
    """A module-level `name = tuple`, `name = number` or `name = float("inf")`."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        value = node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "float":
            return node.targets[0].id, float(ast.literal_eval(value.args[0]))
        return node.targets[0].id, ast.literal_eval(value)
    raise Unsupported("beside the kernel, a source holds constants")


class _Widen(Exception):
    """The name is assigned values of two types: start again with `ty` for all of them."""

    def __init__(self, name: str, ty: Scalar) -> None:
        super().__init__(name)
        self.name, self.ty = name, ty


@dataclass(frozen=True)
class _Value:
    """A typed value: an LLVM value, a tile's list of vectors, or the number of a literal."""

    ty: Type
    llvm: Any


class _Function:
    """Translates one function; `known` holds what each name stands for at the place that is translated."""

    def __init__(self, node: ast.FunctionDef, constants: Mapping[str, Any], widened: Mapping[str, Scalar]) -> None:
        self.node = node
        self.constants = constants
        self.widened = widened
        self.vocabulary = tile.vocabulary()
        self.known: dict[str, _Value] = {}
        self.tables: dict[str, ir.GlobalVariable] = {}

    def module(self, symbol: str) -> ir.Module:
        """The module with the whole function in it."""
        module = ir.Module(name=self.node.name)
        arguments = [ir.IntType(64).as_pointer(), INDEX, INDEX]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), symbol)
        names = [a.arg for a in self.node.args.args]
        if len(names) != len(ARGUMENTS):
            raise Unsupported("a kernel has three arguments")
        for name, ty, argument in zip(names, ARGUMENTS, function.args, strict=True):
            self.known[name] = _Value(ty, argument)
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.body(self.node.body)
        if not self.builder.block.is_terminated:
            self.builder.ret_void()
        return module

    # ---- statements

    def body(self, statements: Sequence[ast.stmt]) -> None:
        """Statements one after the other; what follows a return is never reached."""
        for statement in statements:
            if self.builder.block.is_terminated:
                return
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        """One statement."""
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            self.assign(node.targets[0].id, self.expression(node.value), node)
        elif isinstance(node, ast.For):
            self.loop(node)
        elif isinstance(node, ast.If):
            self.branch(node)
        elif isinstance(node, ast.Expr):
            if not isinstance(node.value, ast.Constant):  # a docstring
                self.expression(node.value)
        elif isinstance(node, ast.Return) and node.value is None:
            self.builder.ret_void()
        elif not isinstance(node, ast.Pass):
            raise Unsupported(f"line {node.lineno}: {type(node).__name__}")

    def assign(self, name: str, value: _Value, node: ast.stmt) -> None:
        """Let a name stand for a value; an integer literal becomes an int64."""
        if value.ty == NONE:
            raise KernelTypeError(f"line {node.lineno}: the call assigned to {name!r} has no value")
        ty = I64 if isinstance(value.ty, Literal) else value.ty
        wide = self.widened.get(name, ty)
        self.known[name] = _Value(wide, self.convert(value, wide))

    def loop(self, node: ast.For) -> None:
        """`for name in range(...)`, tested at its end, with a test before it unless it is known to run."""
        start, stop, step = self.range(node)
        assert isinstance(node.target, ast.Name)
        name = node.target.id
        first, last, stride = (constant_integer(v) for v in (start, stop, step))
        if first is None or last is None or not stride:
            self._repeat(node, name, (start, stop, step), sure=False)
            return
        turns = range(first, last, stride)
        if len(turns) > 1 and not _is_small(len(turns), node.body):
            self._repeat(node, name, (start, stop, step), sure=True)
            return
        for turn in turns:
            self.known[name] = _Value(I64, INDEX(turn))
            self.body(node.body)
            if self.builder.block.is_terminated:
                raise Unsupported(f"line {node.lineno}: a loop that returns")

    def _repeat(self, node: ast.For, name: str, bounds: tuple[ir.Value, ir.Value, ir.Value], *, sure: bool) -> None:
        """A loop that runs more than once, or (unless `sure`) perhaps never."""
        builder, (start, stop, step) = self.builder, bounds
        before = builder.block
        block, after = builder.append_basic_block("loop"), builder.append_basic_block("after")
        if sure:
            builder.branch(block)
        else:
            builder.cbranch(self._goes_on(start, stop, step), block, after)
        outer = {n: v for n, v in self.known.items() if n != name}
        assigned = set(_targets(node.body))
        carried = [n for n in outer if n in assigned]
        builder.position_at_end(block)
        index = builder.phi(INDEX, name)
        phis = {n: self._phi(outer[n]) for n in carried}
        self.known |= {name: _Value(I64, index), **phis}
        self.body(node.body)
        if builder.block.is_terminated:
            raise Unsupported(f"line {node.lineno}: a loop that returns")
        following = builder.add(index, step, flags=("nsw",))
        builder.cbranch(self._goes_on(following, stop, step), block, after)
        latch = builder.block
        index.add_incoming(start, before)
        index.add_incoming(following, latch)
        ends = {n: self._same(n, phis[n].ty, self.known[n]) for n in carried}
        for n in carried:
            self._incoming(phis[n], (outer[n], before), (ends[n], latch))
        builder.position_at_end(after)
        self.known = outer  # names that the loop alone has assigned may never have been
        for n in carried:
            self.known[n] = ends[n] if sure else self._merged((outer[n], before), (ends[n], latch))

    def range(self, node: ast.For) -> tuple[ir.Value, ir.Value, ir.Value]:
        """Start, stop and step of a loop."""
        call = node.iter
        plain = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"
        if not plain or node.orelse or not isinstance(node.target, ast.Name):
            raise Unsupported(f"line {node.lineno}: loops are over range(...)")
        assert isinstance(call, ast.Call)
        values = [self.convert(self.expression(a), I64) for a in call.args]
        if not 1 <= len(values) <= 3 or call.keywords:
            raise Unsupported(f"line {node.lineno}: range takes one to three arguments")
        start, stop, step = {1: [INDEX(0), *values, INDEX(1)], 2: [*values, INDEX(1)]}.get(len(values), values)
        return start, stop, step

    def _goes_on(self, index: ir.Value, stop: ir.Value, step: ir.Value) -> ir.Value:
        builder, known = self.builder, constant_integer(step)
        if known is not None:
            return builder.icmp_signed("<" if known > 0 else ">", index, stop)
        up, down = builder.icmp_signed("<", index, stop), builder.icmp_signed(">", index, stop)
        return builder.select(builder.icmp_signed(">", step, INDEX(0)), up, down)

    def branch(self, node: ast.If) -> None:
        """`if`, with or without `else`; names get the value of the branch that was taken."""
        builder = self.builder
        test = self.convert(self.expression(node.test), MASK)
        before, known = builder.block, self.known
        then, after = builder.append_basic_block("then"), builder.append_basic_block("after")
        otherwise = builder.append_basic_block("otherwise") if node.orelse else after
        builder.cbranch(test, then, otherwise)
        ends = []
        for block, statements in ((then, node.body), (otherwise, node.orelse)):
            if block is after:
                ends.append((known, before))
                continue
            builder.position_at_end(block)
            self.known = dict(known)
            self.body(statements)
            if not builder.block.is_terminated:
                builder.branch(after)
                ends.append((self.known, builder.block))
        builder.position_at_end(after)
        if not ends:
            builder.unreachable()
        elif len(ends) == 1:
            self.known = ends[0][0]
        else:
            (left, one), (right, other) = ends
            both = [n for n in left if n in right]
            values = {n: (left[n], self._same(n, left[n].ty, right[n])) for n in both}
            self.known = {n: a if a is b else self._merged((a, one), (b, other)) for n, (a, b) in values.items()}

    # ---- joining values where blocks meet

    def _phi(self, like: _Value) -> _Value:
        if isinstance(like.ty, TileType):
            return _Value(like.ty, [self.builder.phi(vector.type) for vector in like.llvm])
        return _Value(like.ty, self.builder.phi(like.llvm.type))

    def _incoming(self, phi: _Value, *sources: tuple[_Value, ir.Block]) -> None:
        for value, block in sources:
            pairs = zip(_parts(phi), _parts(value), strict=True)
            for place, part in pairs:
                place.add_incoming(part, block)

    def _merged(self, *sources: tuple[_Value, ir.Block]) -> _Value:
        phi = self._phi(sources[0][0])
        self._incoming(phi, *sources)
        return phi

    def _same(self, name: str, ty: Type, value: _Value) -> _Value:
        """`value`, which joins another of type `ty` under one name; raises _Widen if both can be of a wider type."""
        if value.ty == ty:
            return value
        kinds = [t for t in (ty, value.ty) if isinstance(t, Scalar) and t.kind in ("i", "f")]
        if len(kinds) != 2 or self.widened.get(name) == F64:
            raise Unsupported(f"{name!r} is {ty} and {value.ty}")
        raise _Widen(name, F64 if any(t.kind == "f" for t in kinds) else I64)

    # ---- expressions

    def expression(self, node: ast.expr) -> _Value:
        """The value of an expression."""
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.Constant):
            return self.constant(node.value, node)
        if isinstance(node, ast.BinOp):
            return self.operation(node, type(node.op), node.left, node.right)
        if isinstance(node, ast.UnaryOp):
            return self.unary(node)
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            return self.operation(node, type(node.ops[0]), node.left, node.comparators[0])
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self.call(node, node.func.id)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            return self.element(node, node.value.id)
        raise Unsupported(f"line {node.lineno}: {type(node).__name__}")

    def name(self, node: ast.Name) -> _Value:
        """What a name stands for."""
        if node.id in self.known:
            return self.known[node.id]
        if node.id in self.constants:
            return self.constant(self.constants[node.id], node)
        raise Unsupported(f"line {node.lineno}: {node.id!r} has no value here")

    def constant(self, value: Any, node: ast.expr) -> _Value:
        """A number or truth value of the source."""
        if isinstance(value, bool):
            return _Value(MASK, literal_value(value, MASK))
        if isinstance(value, int):
            return _Value(Literal(value), value)
        if isinstance(value, float):
            return _Value(F64, literal_value(value, F64))
        raise Unsupported(f"line {node.lineno}: the constant {value!r}")

    def unary(self, node: ast.UnaryOp) -> _Value:
        """An operator with one operand; a sign belongs to its literal."""
        operand = self.expression(node.operand)
        if isinstance(node.op, ast.USub) and isinstance(operand.ty, Literal):
            return self.constant(-operand.llvm, node)
        if isinstance(node.op, ast.USub) and operand.ty == F64 and isinstance(operand.llvm, ir.Constant):
            return self.constant(-operand.llvm.constant, node)
        return self.operation(node, type(node.op), node.operand, values=[operand])

    def operation(self, node: ast.expr, kind: type[ast.AST], *operands: ast.expr,
                  values: list[_Value] | None = None) -> _Value:
        """An operator on tiles, else on scalars."""
        found = values or [self.expression(o) for o in operands]
        if kind not in PYTHON_OPERATORS:
            raise Unsupported(f"line {node.lineno}: the operator {kind.__name__}")
        function = PYTHON_OPERATORS[kind]

        def define(*types: Type) -> Definition:
            tiles = any(isinstance(t, TileType) for t in types) and function in OPERATORS
            return (tiles and OPERATORS[function](*types)) or scalar_operation(function, *types)

        return self.apply(node, define, found)

    def call(self, node: ast.Call, name: str) -> _Value:
        """A call of the vocabulary."""
        if name not in self.vocabulary:
            raise Unsupported(f"line {node.lineno}: {name} is no function of the kernel vocabulary")
        return self.apply(node, self.vocabulary[name].typed, [self.expression(a) for a in node.args])

    def apply(self, node: ast.expr, define: Callable[..., Definition], arguments: Sequence[_Value]) -> _Value:
        """The code of a definition on arguments, converted to the types that it asks for."""
        try:
            signature, code = define(*(a.ty for a in arguments))
            values = [self.convert(a, t) for a, t in zip(arguments, signature.arguments, strict=True)]
        except TypingError as error:
            raise KernelTypeError(f"line {node.lineno}: {error}") from None
        return _Value(signature.result, code(self.builder, values))

    def element(self, node: ast.Subscript, table: str) -> _Value:
        """An element of a constant table."""
        values = self.constants.get(table)
        if not isinstance(values, tuple) or not all(type(v) is int for v in values):
            raise Unsupported(f"line {node.lineno}: {table!r} is no table of integers")
        if table not in self.tables:
            content = ir.Constant(ir.ArrayType(INDEX, len(values)), list(values))
            variable = ir.GlobalVariable(self.builder.module, content.type, table)
            variable.linkage, variable.global_constant, variable.initializer = "internal", True, content
            self.tables[table] = variable
        index = self.convert(self.expression(node.slice), I64)
        address = self.builder.gep(self.tables[table], [INDEX(0), index], inbounds=True)
        return _Value(I64, self.builder.load(address))

    def convert(self, value: _Value, ty: Type) -> Any:
        """The LLVM value of a value as another type."""
        if isinstance(value.ty, Literal):
            if isinstance(ty, Scalar):
                return literal_value(value.llvm, ty)
            if value.ty == ty:
                return INDEX(value.llvm)
        elif value.ty == ty:
            return value.llvm
        elif isinstance(value.ty, Scalar) and isinstance(ty, Scalar) and NONE not in (value.ty, ty):
            return converted(self.builder, value.llvm, value.ty, ty)
        raise TypingError(f"{value.ty} is not {ty}")


def _parts(value: _Value) -> list[Any]:
    return value.llvm if isinstance(value.ty, TileType) else [value.llvm]


def _is_small(turns: int, body: Sequence[ast.stmt]) -> bool:
    """Whether a loop of so many turns, with all loops in it, is to be unrolled."""
    statements, inner = _unrolled(body)
    return turns * inner <= UNROLLED_TURNS and turns * statements <= UNROLLED_STATEMENTS


def _unrolled(body: Sequence[ast.stmt]) -> tuple[int, int]:
    """Statements of an unrolled body, and turns of the deepest loops in it; too many with branches and other loops."""
    statements, turns = 0, 1
    for node in body:
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Call):
            bounds = [a.value for a in node.iter.args if isinstance(a, ast.Constant) and isinstance(a.value, int)]
            if len(bounds) != len(node.iter.args) or not 1 <= len(bounds) <= 3 or bounds[2:] == [0]:
                return UNROLLED_STATEMENTS + 1, 1
            inner_statements, inner_turns = _unrolled(node.body)
            count = len(range(*bounds))
            statements, turns = statements + count * inner_statements, max(turns, count * inner_turns)
        else:
            statements += UNROLLED_STATEMENTS + 1 if isinstance(node, ast.If) else 1
    return statements, turns


def _targets(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """The names that statements assign."""
    for statement in statements:
        for child in ast.walk(statement):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                yield child.id
