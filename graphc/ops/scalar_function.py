"""`scalar_function`: a user's elementwise function, one op whose expression is an attribute.

The expression is text in a small language, which the text of the graph and the program cache see: operand names
(`x`; `x y`; ...), numbers, `pi`, `E`, `+ - * / **`, and calls of the primitives of `graphc.ops.scalar` by the names
that their ops have. `expression_text` writes it, `parse_expression` reads it; neither runs it as Python.
"""

from __future__ import annotations

import ast
import dataclasses
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.errors import AttributeValueError, DefinitionError, ShapeError
from graphc.ir.graph import Node
from graphc.ir.op import Attribute, Attributes, Sample, define
from graphc.ir.types import TensorType
from graphc.kernel.form import Kernel
from graphc.ops import scalar
from graphc.ops.maps import lower_scalar, scalar_op
from graphc.ops.rules import FLOATS, elementwise_rule
from graphc.ops.scalar import OP_NAMES, Primitive, SymPy

_CONSTANTS = ("pi", "E")


@cache
def _primitives() -> dict[str, Primitive]:
    """The primitives by the names of their ops."""
    found = [value for value in vars(scalar).values() if isinstance(value, Primitive)]
    return {OP_NAMES.get(p.name, p.name): p for p in found}


def expression_text(expr: SymPy) -> str:
    """An expression over `scalar.operand_symbols` and stable primitives as text; numbers keep all their digits."""
    import sympy
    from sympy.printing.str import StrPrinter

    class Printer(StrPrinter):  # type: ignore[misc]  # SymPy has no type stubs
        def _print_Float(self, number: Any) -> str:
            return repr(float(number))

        def _print_Function(self, call: Any) -> str:
            name = type(call).__name__
            return f"{OP_NAMES.get(name, name)}({', '.join(map(self._print, call.args))})"

    return str(Printer().doprint(sympy.sympify(expr)))


@cache
def parse_expression(text: str, arity: int) -> SymPy:
    """The expression that `expression_text` wrote. Raises DefinitionError for any other text."""
    known = {symbol.name: symbol for symbol in scalar.operand_symbols(arity)}
    return _read(_syntax(text), known, text)


def _syntax(text: str) -> ast.expr:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError):
        raise DefinitionError(f"{text!r} is no scalar expression") from None


def _read(node: ast.expr, known: dict[str, SymPy], text: str) -> SymPy:
    import sympy

    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        if math.isfinite(node.value):
            return sympy.sympify(node.value)
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return getattr(sympy, node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_read(node.operand, known, text)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_read(node.left, known, text), _read(node.right, known, text))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _call(node.func.id, [_read(a, known, text) for a in node.args], text)
    raise DefinitionError(f"{ast.unparse(node)!r} is not allowed in the scalar expression {text!r}")


_OPERATORS: dict[type[ast.operator], Any] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.Pow: lambda a, b: a**b,
}


def _call(name: str, args: Sequence[SymPy], text: str) -> SymPy:
    import sympy

    primitive = _primitives().get(name)
    if primitive is None or len(args) != primitive.arity:
        raise DefinitionError(f"{name!r} of {len(args)} operands in the scalar expression {text!r} is no primitive")
    if name == "sqrt" and args[0].is_number:
        return sympy.sqrt(args[0])  # an exact constant such as sqrt(2)
    return primitive(*args)


def _infer(types: Sequence[TensorType], attributes: Attributes) -> tuple[TensorType, ...]:
    result = elementwise_rule(max(len(types), 1), FLOATS)(types, attributes)
    if not str(attributes["name"]).isidentifier():
        raise AttributeValueError(f"name={attributes['name']!r} is no identifier")
    text = attributes["expression"]
    try:
        tree = _syntax(text)
    except DefinitionError as error:
        raise AttributeValueError(str(error)) from None
    called = {id(call.func) for call in ast.walk(tree) if isinstance(call, ast.Call)}
    names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called}
    unknown = sorted(names - set(scalar.operand_names(len(types))) - set(_CONSTANTS))
    if unknown:
        raise ShapeError(f"the expression {text!r} reads {unknown[0]!r}, which {len(types)} operands do not give")
    return result


def _function(*operands: SymPy, name: str, expression: str) -> SymPy:
    parsed = parse_expression(expression, len(operands))
    return parsed.xreplace(dict(zip(scalar.operand_symbols(len(operands)), operands, strict=True)))


def _lower(node: Node) -> Kernel:
    kernel = lower_scalar(node, scalar.bound(_function, node.attributes))
    return dataclasses.replace(kernel, name=f"{node.attributes['name']}_function")


def _samples() -> Sequence[Sample]:
    x = np.linspace(-2, 2, 12).reshape(3, 4) + 0.01
    swish = {"name": "swish", "expression": "x*sigmoid(x)"}
    bent = {"name": "bent", "expression": "where(gt(x, 0), y*x, 0.1*expm1(x) + sqrt(2)/3)"}
    return [
        Sample((x,), swish, differentiable=(0,)),
        Sample((x.astype(np.float32).reshape(2, 1, 6),), swish),
        Sample((np.array(0.3),), {"name": "cube", "expression": "x**3/3 - pi*x"}, differentiable=(0,)),
        Sample((x, np.cos(x)), bent, differentiable=(0, 1)),
    ]


SCALAR_FUNCTION = define(
    dataclasses.replace(
        scalar_op(
            "scalar_function",
            "A user's elementwise function, given by its expression; see `gc.scalar_function`",
            _function,
            _infer,
            _samples,
            attributes={
                "name": Attribute("str", "what the user calls it"),
                "expression": Attribute("str", "its expression over the operands x; x, y; c, x, y; x0, x1, ..."),
            },
            latex=r"f\left(x\right)",
        ),
        lower=_lower,
    )
)
