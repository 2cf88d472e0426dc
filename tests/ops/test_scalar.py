"""Scalar expressions: their derivatives, and what is printed from them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sympy

from graphc.errors import DefinitionError, GradientError
from graphc.ir.builder import Builder
from graphc.ir.graph import Value, topological
from graphc.ir.op import OPS
from graphc.ir.types import f32, f64, i32, tensor
from graphc.kernel.expr import Affine, Apply, Const, Load, Name
from graphc.kernel.form import Let
from graphc.ops import scalar

(x,) = scalar.operand_symbols(1)
LOAD = Load("in0", (Affine.axis("i0"),))


def test_importing_ops_needs_no_sympy() -> None:
    code = "import sys, graphc.ops; print(sorted({'sympy', 'numba', 'mpmath'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (scalar.exp, "exp(x)"),
        (scalar.tanh, "1 - tanh(x)**2"),
        (scalar.sigmoid, "(1 - sigmoid(x))*sigmoid(x)"),
        (scalar.softplus, "sigmoid(x)"),
        (scalar.sqrt, "1/(2*sqrt(x))"),
        (scalar.rsqrt, "-rsqrt(x)/(2*x)"),
        (scalar.erf, "2*exp(-x**2)/sqrt(pi)"),
        (scalar.floor, "0"),
        (scalar.sin, "cos(x)"),
        (scalar.cos, "-sin(x)"),
        (lambda z: scalar.pow(z, 3.5), "3.5*pow(x, 2.5)"),
        (lambda z: z * scalar.sigmoid(z), "x*(1 - sigmoid(x))*sigmoid(x) + sigmoid(x)"),
    ],
)
def test_derivatives_keep_the_stable_primitives(function: scalar.Scalar, slope: str) -> None:
    assert str(scalar.derivative(function, 1, 0)) == slope


def test_chain_rule_goes_into_branches() -> None:
    """expm1(z)' is inf at 100, where the other branch is taken: inf * 0 would be NaN."""
    elu = scalar.derivative(lambda z: scalar.where(scalar.gt(z, 0), z, scalar.expm1(z)), 1, 0)
    values = scalar.numpy_value(elu, (x,), [np.array([-1.0, 100.0, 1e4], np.float32)])
    np.testing.assert_allclose(values, [np.exp(-1), 1, 1], rtol=1e-6)


def test_kernel_text_has_typed_constants() -> None:
    value = scalar.fold_shared(1 - x / 2, scalar.KernelTarget(f32), {x: LOAD})
    assert value == Apply("sub", (Const(1.0, f32), Apply("mul", (Const(0.5, f32), LOAD))))
    whole = scalar.fold_shared(2 * x, scalar.KernelTarget(i32), {x: LOAD})
    assert whole == Apply("mul", (Const(2, i32), LOAD))


def test_kernel_lets_hold_what_is_shared() -> None:
    y = scalar.sigmoid(x)
    target = scalar.KernelTarget(f64)
    value = scalar.fold_shared(y * (1 - y), target, {x: LOAD})
    assert target.lets == [Let("t0", Apply("sigmoid", (LOAD,)))]
    assert value == Apply("mul", (Name("t0"), Apply("sub", (Const(1.0, f64), Name("t0")))))


@pytest.mark.parametrize(
    "expr",
    [
        x**2,
        x**3,
        x**7,
        x**-2,
        -x - 3,
        2 - x,
        sympy.Rational(1, 3) * x,
        -2 * (x + 1) * (x - 4),
        x / (x + 1),
        -x / (2 * (x + 1) ** 2),
        sympy.sqrt(x),
        1 / sympy.sqrt(x),
        sympy.sqrt(2) * sympy.pi * x,
        x ** sympy.Rational(5, 3),
        sympy.Integer(3),
        1 / x,
        -1 / x,
        x - (x + 1) ** 2,
    ],
    ids=str,
)
def test_arithmetic_is_printed_as_sympy_means_it(expr: sympy.Expr) -> None:
    value = scalar.numpy_value(expr, (x,), [np.array([0.3, 1.7])])
    expected = [float(expr.subs(x, v)) for v in (0.3, 1.7)]
    np.testing.assert_allclose(np.broadcast_to(value, 2), expected, rtol=1e-14)


def test_numpy_value_keeps_the_dtype() -> None:
    assert scalar.numpy_value(2 * x / 3 + 1, (x,), [np.array(1.5, np.float32)]).dtype == np.float32


def test_unknown_function_is_named() -> None:
    with pytest.raises(DefinitionError, match=r"gamma\(x\) has no scalar primitive"):
        scalar.numpy_value(sympy.gamma(x), (x,), [np.array(1.0)])


def test_gradient_nodes_read_the_output() -> None:
    """The backward graph of sigmoid holds no second sigmoid, that of relu only its output."""
    b = Builder()
    operand, cotangent = Value(tensor("f32", ("N",)), name="x"), Value(tensor("f32", ("N",)), name="g")
    for op in (OPS[name] for name in ("sigmoid", "tanh", "exp", "relu", "reciprocal", "tan", "elu", "selu")):
        output = b.apply(op, [operand], {})
        (slope,) = op.gradient(output.producer, [cotangent], b)
        nodes = topological([slope])
        assert [n.op.name for n in nodes].count(op.name) == 1
        assert not any(operand in n.inputs for n in nodes if n is not output.producer)


def test_gradient_without_an_op_for_a_primitive_is_an_error() -> None:
    node = Builder().exp(Value(tensor("f32"), name="x")).producer
    fma = scalar.Primitive("product", lambda y, a: (scalar.Primitive("fma", lambda y, a: (0,), "", 1)(a),), "")
    with pytest.raises(GradientError, match="no op is called 'fma'"):
        scalar.gradient_nodes(node, fma, Value(tensor("f32"), name="g"), Builder())


def test_latex_of_derivatives() -> None:
    assert scalar.latex(scalar.derivative(scalar.tanh, 1, 0)) == r"1 - \left(\tanh\left(x\right)\right)^{2}"
