"""Formulas and local derivatives of gates as text: from the ops' scalar expressions, or from their gradient rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sympy

from graphc.autodiff.reverse import pull_back
from graphc.errors import GraphcError
from graphc.ir.builder import Builder
from graphc.ir.graph import Node, Value
from graphc.ir.op import NotDifferentiable
from graphc.ir.text import format_attributes
from graphc.kernel.primitives import PRIMITIVES
from graphc.ops import scalar

Names = Mapping[Value, str]
Term = tuple[str, int]  # a text, and how tightly its outermost operator binds

ATOM = 9
LONGEST = 48  # a rule with more characters is shown as the op's name
STOPPED = "0, stopped"

_GLYPHS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "neg": "−", "matmul": "@", "sum": "Σ", "sigmoid": "σ",
           "maximum": "max", "minimum": "min"}  # fmt: skip
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


@dataclass(frozen=True)
class TextTarget(scalar.Target[Term]):
    """Writes scalar expressions as people do: `q · z`, `1 if f > 0 else 0`."""

    def constant(self, value: float) -> Term:
        """A number; integers without a decimal point."""
        text = constant_text(value)
        return (text, ATOM) if value >= 0 else (text, 0)

    def apply(self, primitive: str, args: Sequence[Term]) -> Term:
        """Infix where the kernel language has an operator, else `name(...)`."""
        if primitive == "where":
            condition, yes, no = (_text(a, 1) for a in args)
            return f"{yes} if {condition} else {no}", 0
        if primitive == "mul" and args[0] == args[1] and args[0][1] == ATOM:
            return args[0][0] + "²", ATOM
        if primitive == "mul" and args[0][0] == "1":
            return args[1]
        if primitive == "pow" and args[1][0].lstrip("-").isdigit():
            return _text(args[0], ATOM) + args[1][0].translate(_SUPERSCRIPTS), ATOM
        row = PRIMITIVES.get(primitive)
        if row is None or not row.infix:
            return f"{primitive}({', '.join(a[0] for a in args)})", ATOM
        sign = {"*": "·"}.get(row.infix, row.infix)
        if len(args) == 1:
            if sign == "-":  # as in `-f / u`: people read it without parentheses
                return f"-{_text(args[0], 6)}", 5
            return f"{sign} {_text(args[0], row.precedence)}", row.precedence
        return f"{_text(args[0], row.precedence)} {sign} {_text(args[1], row.precedence + 1)}", row.precedence

    def has(self, primitive: str) -> bool:
        """Functions are shown by their names, whatever the kernels expand them to."""
        return True


def _text(term: Term, around: int) -> str:
    return term[0] if term[1] >= around else f"({term[0]})"


def constant_text(value: float) -> str:
    """A constant as short as it is exact in float32 or, if it is none of those, in float64."""
    if float(value).is_integer() and abs(value) < 1e9:
        return str(int(value))
    single = np.float32(value)
    return str(single) if float(single) == value else repr(float(value))


def scalar_constant(value: Value) -> float | None:
    """The number that a value holds in every element by its declaration, or None."""
    node = value.producer
    while node is not None and node.op.name in ("broadcast_to", "reshape", "cast"):
        node = node.inputs[0].producer
    if node is None or node.op.name != "constant":
        return None
    array = node.attributes["value"].array
    return float(array.ravel()[0]) if array.size == 1 else None


def glyph(node: Node, constants: Sequence[str | None]) -> str:
    """What stands in the gate: `×`, `exp`, `+ 1`, `1 ÷ ·`; constants (None: a wire) are written in."""
    sign = _GLYPHS.get(node.op.name, _name(node))
    given = [c for c in constants if c is not None]
    if len(constants) != 2 or len(given) != 1:
        return f"{sign}({', '.join(c or '·' for c in constants)})" if given else sign
    if constants[0] is not None and not node.op.commutative:
        return f"{given[0]} {sign} ·"
    return f"{sign} {given[0]}"


def formula(node: Node, operands: Sequence[str]) -> str:
    """The gate's output in terms of its operands' names: `x + y`, `sum(h, axes=[0])`."""
    if (expr := _expression(node)) is not None and not any(arg.args for arg in expr.args):
        return _scalar_text(expr, dict(zip(scalar.operand_symbols(len(operands)), operands, strict=True)))
    if node.op.name == "matmul":
        return _product(node, *operands)
    if node.op.name == "sub":
        return f"{_operand(operands[0])} - {_operand(operands[1])}"
    attributes = [] if node.op.name == "scalar_function" else format_attributes(node, origins=False)
    whole = f"{_name(node)}({', '.join([*operands, *attributes])})"
    return whole if len(whole) <= LONGEST else f"{_name(node)}({', '.join(operands)})"


def _operand(name: str) -> str:
    return f"({name})" if name.startswith("-") else name


def _name(node: Node) -> str:
    """The op's name; that of the function for one of the user's own."""
    return str(node.attributes["name"]) if node.op.name == "scalar_function" else node.op.name


def _expression(node: Node) -> scalar.SymPy | None:
    """The scalar expression of an elementwise node over `operand_symbols`."""
    if node.op.scalar is None:
        return None
    return scalar.expression(scalar.bound(node.op.scalar, node.attributes), len(node.inputs))


def local_derivative(node: Node, position: int, operands: Sequence[str], output: str) -> str:
    """The derivative of an elementwise gate by one operand as text, in terms of operands' and output's names."""
    expr = _expression(node)
    assert expr is not None
    if isinstance(node.op.gradient, NotDifferentiable) or not node.inputs[position].type.dtype.is_float:
        return f"none: {node.op.gradient.reason}" if isinstance(node.op.gradient, NotDifferentiable) else "none"
    symbols, whole = scalar.operand_symbols(len(operands)), sympy.Symbol("graphc_output")
    slope = expr.diff(symbols[position]).xreplace({expr: whole})
    text = _scalar_text(slope, dict(zip(symbols, operands, strict=True)) | {whole: output})
    return text if len(text) <= LONGEST else f"{_name(node)}'({', '.join(operands)})"


def _scalar_text(expr: scalar.SymPy, names: Mapping[scalar.SymPy, str]) -> str:
    known = {symbol: (name, 0 if name.startswith("-") else ATOM) for symbol, name in names.items()}
    return scalar.fold(expr, TextTarget(), known)[0]


def gradient_rules(node: Node, operands: Sequence[str], outputs: Sequence[str]) -> list[str]:
    """For each operand of any gate the text of its gradient: `grad y @ Wᵀ`; `none` where nothing flows.

    The op's own rule is applied to a cotangent called `grad y`, and the nodes that it makes are written as one
    expression; a rule that is too long to read stands for itself as `rule of OP(grad y)`.
    """
    if isinstance(node.op.gradient, NotDifferentiable) or (node.op.gradient is None and node.op.nested is None):
        return [f"none: {getattr(node.op.gradient, 'reason', 'deferred')}"] * len(operands)
    if node.op.name == "stop_gradient":
        return [STOPPED]
    names = dict(zip(node.inputs, operands, strict=True)) | dict(zip(node.outputs, outputs, strict=True))
    cotangents = [Value(v.type, name=f"grad {n}") if v.type.dtype.is_float else None
                  for v, n in zip(node.outputs, outputs, strict=True)]  # fmt: skip
    names |= {c: c.name for c in cotangents if c is not None}
    fallback = f"rule of {node.op.name}({', '.join(c.name for c in cotangents if c is not None)})"
    try:
        found = pull_back(node, cotangents, Builder(node.origin))
    except GraphcError:
        return [fallback] * len(operands)
    texts = ["none" if value is None else _written(value, names) for value in found]
    return [text if len(text) <= LONGEST else fallback for text in texts]


def _written(value: Value, names: Names) -> str:
    """A value as one expression over `names`; equal sub-expressions are written again, so long ones are cut short."""
    done: dict[Value, Term] = {v: (name, ATOM) for v, name in names.items()}

    def visit(v: Value) -> Term:
        if v not in done:
            text, binding = _term(v, visit)
            done[v] = (text, binding) if len(text) <= LONGEST else ("…" * (LONGEST + 1), ATOM)
        return done[v]

    return visit(value)[0]


def _term(value: Value, visit: Callable[[Value], Term]) -> Term:
    number, node = scalar_constant(value), value.producer
    if number is not None:
        return TextTarget().constant(number)
    if node is None:
        return value.name, ATOM
    terms: list[Term] = [visit(v) for v in node.inputs]
    if (expr := _expression(node)) is not None:
        return scalar.fold(expr, TextTarget(), dict(zip(scalar.operand_symbols(len(terms)), terms, strict=True)))
    if node.op.name == "matmul":
        return _product(node, *(_text(t, 8) for t in terms)), 7
    if node.op.name in ("reshape", "broadcast_to"):
        shape = str(value.type).partition("[")[2]
        return f"{node.op.name}({terms[0][0]}, [{shape})", ATOM
    attributes = format_attributes(node, origins=False)
    return f"{node.op.name}({', '.join([*(t[0] for t in terms), *attributes])})", ATOM


def _product(node: Node, left: str, right: str) -> str:
    flags = (node.attributes["transpose_a"], node.attributes["transpose_b"])
    return " @ ".join(f"{name}ᵀ" if flag else name for name, flag in zip((left, right), flags, strict=True))
