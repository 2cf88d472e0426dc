"""The parser of kernel text; the grammar is shown in `graphc.kernel.text`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from graphc.errors import DTypeError, ParseError, VerifyError
from graphc.ir.dims import Dim, symbol
from graphc.ir.types import DTYPES, DType, as_dtype, bool_, f32, i64
from graphc.kernel.expr import (
    Affine,
    Apply,
    AxisIndex,
    Cast,
    Computed,
    Const,
    Expr,
    Extent,
    Index,
    Load,
    Name,
)
from graphc.kernel.form import Accumulate, Axis, Bound, Kernel, Let, Operand, Stage, Store, Table
from graphc.kernel.lexer import Cursor
from graphc.kernel.primitives import PRIMITIVES
from graphc.kernel.scope import stage_scopes

_SPECIAL = {
    f"{text}{'_' + dtype.name if dtype != f32 else ''}": Const(value, dtype)
    for text, value in (("inf", math.inf), ("nan", math.nan))
    for dtype in DTYPES
    if dtype.is_float
} | {"true": Const(True, bool_), "false": Const(False, bool_)}
_DTYPES = {dtype.name: dtype for dtype in DTYPES}
_BINARY = {row.infix: row for row in PRIMITIVES.values() if row.infix and row.arity == 2}
_NOT, _NEG = PRIMITIVES["not"], PRIMITIVES["neg"]

# Words that cannot name operands, axes or values, for they mean something else in the text.
_WORDS = """kernel where space stage reduce sequential let then in inout out init if through partials
    and or not extent"""
RESERVED = frozenset(_WORDS.split()) | frozenset(_SPECIAL) | frozenset(_DTYPES)


def parse_kernel(text: str) -> Kernel:
    """Read what `print_kernel` prints; comments start with `#`. Raises ParseError with line and column."""
    parser = _Parser(Cursor(text))
    kernel = parser.kernel()
    if parser.cursor.token.kind != "end":
        raise parser.cursor.expected("the end of the text")
    parser.check_annotations(kernel)
    return kernel


@dataclass(frozen=True)
class _Annotation:
    """A dtype written after a name in stage number `stage`; `inside` the reduction or after it."""

    stage: int
    inside: bool
    name: str
    dtype: DType
    offset: int


@dataclass
class _Parser:
    cursor: Cursor
    axes: list[str] = field(default_factory=list)
    stage_number: int = 0
    annotations: list[_Annotation] = field(default_factory=list)

    # Kernel and stages

    def kernel(self) -> Kernel:
        cursor = self.cursor
        cursor.expect("kernel")
        name = cursor.name("the kernel's name")
        operands = self.operands("in")
        cursor.expect("->")
        operands += self.operands("out")
        capacities = self.capacities() if cursor.accept("where") else {}
        cursor.expect("{")
        space = self.axis_list() if cursor.accept("space") else ()
        stages = []
        while cursor.accept("stage"):
            stages.append(self.stage())
            self.stage_number += 1
        cursor.expect("}")
        return Kernel(name, tuple(operands), space, tuple(stages), capacities)

    def operands(self, role: str) -> list[Operand]:
        cursor, found = self.cursor, []
        cursor.expect("(")
        while not cursor.at(")"):
            marked = next((r for r in ("inout", "out") if cursor.at(r) and not cursor.follows(":")), None)
            if marked:
                cursor.next()
            name = cursor.name("an operand's name")
            cursor.expect(":")
            dtype, shape = self.dtype(), self.shape()
            padding = self.padding(len(shape)) if cursor.accept("+") else ()
            init = self.number() if cursor.accept("init") else None
            found.append(Operand(name, dtype, shape, marked or role, init, padding))
            if not cursor.accept(","):
                break
        cursor.expect(")")
        return found

    def padding(self, rank: int) -> tuple[int, ...]:
        """Of rows (a number), or of each axis (a list of numbers)."""
        cursor, offset = self.cursor, self.cursor.token.offset
        if not cursor.accept("["):
            found = [0] * (rank - 1) + [cursor.integer()]
        else:
            found = [cursor.integer()]
            while cursor.accept(","):
                found.append(cursor.integer())
            cursor.expect("]")
        if len(found) != rank:
            raise cursor.error(f"there are {len(found)} numbers of padding for {rank} axes", offset)
        return tuple(found) if any(found) else ()

    def capacities(self) -> dict[str, int]:
        found: dict[str, int] = {}
        while True:
            offset = self.cursor.token.offset
            name = self.cursor.name("a runtime extent")
            if name in found:
                raise self.cursor.error(f"extent {name!r} has two capacities", offset)
            self.cursor.expect("<=")
            found[name] = self.cursor.integer()
            if not self.cursor.accept(","):
                return found

    def stage(self) -> Stage:
        cursor, outer = self.cursor, list(self.axes)
        cursor.expect("{")
        space = self.axis_list() if cursor.accept("space") else ()
        reduce = self.axis_list() if cursor.accept("reduce") else ()
        first: list[Let] = []
        second: list[Let] = []
        accumulates: list[Accumulate] = []
        stores: list[Store] = []
        then = False
        while not cursor.accept("}"):
            after = then or bool(accumulates)
            if cursor.at("then"):
                if after:
                    raise cursor.expected("a let or a store")
                cursor.next()
                then = True
            elif cursor.at("let"):
                if stores:
                    raise cursor.expected("a store or '}' (lets stand before the stores)")
                (second if after else first).append(self.let(inside=not after))
            elif cursor.follows("["):
                stores.append(self.store())
            else:
                if then or second or stores:
                    raise cursor.expected("a store or '}' (accumulators stand before results and stores)")
                accumulates.append(self.accumulate())
        self.axes = outer
        return Stage(space, reduce, tuple(first), tuple(accumulates), tuple(second), tuple(stores))

    def typed_name(self, inside: bool) -> str:
        offset = self.cursor.token.offset
        name = self.cursor.name("a name")
        if self.cursor.accept(":"):
            self.annotations.append(_Annotation(self.stage_number, inside, name, self.dtype(), offset))
        return name

    def let(self, inside: bool) -> Let:
        self.cursor.expect("let")
        name = self.typed_name(inside)
        self.cursor.expect("=")
        return Let(name, self.expr())

    def accumulate(self) -> Accumulate:
        names = [self.typed_name(inside=False)]
        while self.cursor.accept(","):
            names.append(self.typed_name(inside=False))
        self.cursor.expect("=")
        combiner = self.cursor.name("a combiner")
        self.cursor.expect("(")
        return Accumulate(tuple(names), combiner, self.arguments())

    def store(self) -> Store:
        cursor = self.cursor
        operand = cursor.name("an operand")
        index = self.index()
        if cursor.accept("+="):
            mode = "sum"
        else:
            mode = "=" if cursor.at("=") else cursor.name("'=', '+=' or a combiner and '='")
            cursor.expect("=")
        value = self.expr()
        guard = self.expr() if cursor.accept("if") else None
        partials = 0
        if cursor.accept("through"):
            partials = cursor.integer()
            cursor.expect("partials")
        return Store(operand, index, value, mode, guard, partials)

    # Axes, dimensions and affine expressions

    def axis_list(self) -> tuple[Axis, ...]:
        found = []
        while True:
            sequential = self.cursor.at("sequential") and not self.cursor.follows("<")
            if sequential:
                self.cursor.next()
            name = self.cursor.name("an axis")
            if self.cursor.accept("<"):
                found.append(Axis(name, (Affine(),), (self.bound(),), sequential))
            else:
                self.cursor.expect("in")
                lower = self.bounds("max")
                self.cursor.expect("..")
                found.append(Axis(name, lower, self.bounds("min"), sequential))
            self.axes.append(name)
            if not self.cursor.accept(","):
                return tuple(found)

    def bounds(self, function: str) -> tuple[Bound, ...]:
        if not (self.cursor.at(function) and self.cursor.follows("(")):
            return (self.bound(),)
        self.cursor.next()
        self.cursor.next()
        found = [self.bound()]
        while self.cursor.accept(","):
            found.append(self.bound())
        self.cursor.expect(")")
        return tuple(found)

    def bound(self) -> Bound:
        if not self.cursor.accept("["):
            return self.affine()
        values = [self.cursor.integer()]
        while self.cursor.accept(","):
            values.append(self.cursor.integer())
        self.cursor.expect("]")
        self.cursor.expect("[")
        axis = self.cursor.name("an axis")
        self.cursor.expect("]")
        return Table(axis, tuple(values))

    def affine(self) -> Affine:
        """Sums of products of integers, dimension symbols and at most one axis."""
        total = Affine()
        negative = self.cursor.accept("-")
        while True:
            term = self.affine_term()
            total = total + (term.scale(-1) if negative else term)
            if not self.cursor.at("+", "-"):
                return total
            negative = self.cursor.next().text == "-"

    def affine_term(self) -> Affine:
        start = self.cursor.token.offset
        axis: str | None = None
        factor: Dim = 1
        while True:
            token = self.cursor.next()
            if token.kind == "name" and token.text in self.axes and axis is None:
                axis = token.text
            elif token.kind == "name" and token.text not in self.axes and "." not in token.text:
                factor = factor * symbol(token.text)
            elif token.kind == "number" and token.text.isdigit():
                factor = factor * int(token.text)
            else:
                found = repr(token.text) if token.text else "the end of the text"
                raise self.cursor.error(f"expected an axis, a dimension or an integer, found {found}", token.offset)
            if not self.cursor.accept("*"):
                break
        if axis is None:
            return Affine((), factor)
        if not isinstance(factor, int):
            raise self.cursor.error("an axis has an integer as its coefficient", start)
        return Affine.of({axis: factor})

    def dim(self) -> Dim:
        start = self.cursor.token.offset
        affine = self.affine()
        if affine.terms:
            raise self.cursor.error(f"a dimension cannot depend on axis {affine.terms[0][0]!r}", start)
        return affine.const

    def shape(self) -> tuple[Dim, ...]:
        self.cursor.expect("[")
        found: list[Dim] = []
        while not self.cursor.at("]"):
            found.append(self.dim())
            if not self.cursor.accept(","):
                break
        self.cursor.expect("]")
        return tuple(found)

    def dtype(self) -> DType:
        token = self.cursor.token
        try:
            return as_dtype(self.cursor.name("a dtype"))
        except DTypeError as error:
            raise self.cursor.error(str(error), token.offset) from None

    def index(self) -> tuple[Index, ...]:
        self.cursor.expect("[")
        found: list[Index] = []
        while not self.cursor.at("]"):
            found.append(self.one_index())
            if not self.cursor.accept(","):
                break
        self.cursor.expect("]")
        return tuple(found)

    def one_index(self) -> Index:
        start = self.cursor.position
        try:
            affine = self.affine()
            if self.cursor.at(",", "]"):
                return affine
        except ParseError:
            pass  # then it has to be a computed index, whose grammar contains that of affine ones
        self.cursor.position = start
        expr = self.expr()
        if not self.cursor.at("in"):
            raise self.cursor.expected("',', ']' or the bounds `in lower .. upper` of a computed index")
        self.cursor.next()
        lower = self.dim()
        self.cursor.expect("..")
        return Computed(expr, lower, self.dim())

    # Scalar expressions

    def expr(self, level: int = 0) -> Expr:
        """Operator precedence climbing: binary operators that bind at least as tightly as `level`."""
        left = self.unary()
        while self.cursor.token.text in _BINARY and self.cursor.token.kind != "number":
            row = _BINARY[self.cursor.token.text]
            if row.precedence < level:
                break
            self.cursor.next()
            left = Apply(row.name, (left, self.expr(row.precedence + 1)))
        return left

    def unary(self) -> Expr:
        if self.cursor.accept("not"):
            return Apply("not", (self.expr(_NOT.precedence),))
        if not self.cursor.accept("-"):
            return self.atom()
        token = self.cursor.token
        if token.kind == "number" or (token.text in _SPECIAL and _SPECIAL[token.text].dtype.is_float):
            const = self.const()
            return Const(-const.value, const.dtype)
        return Apply("neg", (self.expr(_NEG.precedence),))

    def atom(self) -> Expr:
        cursor = self.cursor
        if cursor.accept("("):
            inner = self.expr()
            cursor.expect(")")
            return inner
        if cursor.token.kind == "number" or cursor.token.text in _SPECIAL:
            return self.const()
        token = cursor.token
        name = cursor.name("an expression")
        if cursor.at("["):
            return Load(name, self.index())
        if not cursor.accept("("):
            return AxisIndex(name) if name in self.axes else Name(name)
        if name == "extent":
            dim = self.dim()
            cursor.expect(")")
            return Extent(dim)
        args = self.arguments()
        if name not in _DTYPES:
            if name not in PRIMITIVES:
                raise cursor.error(f"there is no primitive {name!r}", token.offset)
            return Apply(name, args)
        if len(args) != 1:
            raise cursor.error(f"a cast takes one expression, not {len(args)}", token.offset)
        return Cast(args[0], _DTYPES[name])

    def arguments(self) -> tuple[Expr, ...]:
        found: list[Expr] = []
        while not self.cursor.at(")"):
            found.append(self.expr())
            if not self.cursor.accept(","):
                break
        self.cursor.expect(")")
        return tuple(found)

    def const(self) -> Const:
        token = self.cursor.next()
        if token.text in _SPECIAL:
            return _SPECIAL[token.text]
        match = re.fullmatch(r"(.*?)(f32|f64|i32|i64|u8)?", token.text)
        assert match is not None
        digits, suffix = match.groups()
        dtype = _DTYPES[suffix] if suffix else (i64 if digits.isdigit() else f32)
        if not dtype.is_float and not digits.isdigit():
            raise self.cursor.error(f"{token.text!r} is no integer", token.offset)
        return Const(float(digits) if dtype.is_float else int(digits), dtype)

    def number(self) -> float:
        """The initial value of an operand."""
        negative = self.cursor.accept("-")
        if self.cursor.token.kind != "number" and self.cursor.token.text not in _SPECIAL:
            raise self.cursor.expected("a number")
        value = float(self.const().value)
        return -value if negative else value

    # Annotated dtypes

    def check_annotations(self, kernel: Kernel) -> None:
        """Raise ParseError where a written dtype is not the one that follows. An ill-typed kernel is the verifier's."""
        try:
            scopes = stage_scopes(kernel)
        except VerifyError:
            return
        for note in self.annotations:
            scope = scopes[note.stage]
            dtype = (scope.inner if note.inside else scope.names)[note.name]
            if dtype != note.dtype:
                raise self.cursor.error(f"{note.name!r} is written as {note.dtype} and is {dtype}", note.offset)
