"""Values and gradients of the elementwise ops against PyTorch's function of that name: ties, +-0, infinities, NaN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.autodiff.reverse import gradients
from graphc.interpret import evaluate
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Value
from graphc.ir.op import OPS
from graphc.ir.types import TensorType, as_dtype

torch: Any = pytest.importorskip("torch", reason="parity with PyTorch needs torch")
F: Any = torch.nn.functional

INF, NAN = np.inf, np.nan
EVERYWHERE = np.array([-1e4, -90.0, -4.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.3, 0.5, 1.0, 2.5, 5.0, 90.0, 1e4])
FINITE = EVERYWHERE[2:-2]
EDGES = np.array([INF, -INF, NAN])
ALL = np.concatenate([EVERYWHERE, EDGES])
POSITIVE = np.array([0.0, 1e-3, 0.3, 1.0, 2.0, 90.0, 1e4, INF, NAN, -1.0])
UNIT = np.array([-0.999, -0.5, -0.0, 0.0, 0.3, 0.999])
A, B = (v.ravel() for v in np.meshgrid([-7.5, -2.0, -0.5, 0.0, 0.3, 1.0, 6.0], [-3.0, -0.7, 0.5, 1.0, 2.0]))
TIES = np.array([1.0, 2.0, -3.0, 0.0, INF, NAN, 1.0]), np.array([1.0, -2.0, -3.0, -0.0, INF, 1.0, NAN])
BASES, EXPONENTS = (v.ravel() for v in np.meshgrid([0.0, 0.3, 1.0, 2.5, -1.5], [0.0, 1.0, 2.0, 3.0, 0.5, -1.0, -2.5]))
BOUNDS = (np.array([-2.0, -1.0, 0.3, 1.0, 1.5, 0.0]), np.full(6, -1.0), np.array([1.0, 1.0, 1.0, 1.0, 1.0, -2.0]))


def same(name: str, *arrays: np.ndarray, **attributes: Any) -> Any:
    """A case whose PyTorch function has the op's name."""
    return case(name, getattr(torch, name), *arrays, **attributes)


def heaviside(x: Any, at_zero: float) -> Any:
    """PyTorch's, which has no derivative, with derivative 0."""
    return torch.heaviside(x.detach(), torch.tensor(at_zero, dtype=x.dtype)) + 0 * x


# The sign of NaN, and so the slope of |x| there, is NaN here and 0 in PyTorch.
def case(name: str, reference: Callable[..., Any], *arrays: np.ndarray, **attributes: Any) -> Any:
    label = "-".join([name, str(len(arrays[0])), *attributes])
    return pytest.param(name, arrays, attributes, reference, id=label)


CASES = [
    *(same(name, ALL) for name in ("exp", "expm1", "tanh", "sigmoid", "relu", "neg", "atan", "erf", "square")),
    *(same(name, EVERYWHERE) for name in ("sin", "cos", "abs", "sign", "sinh", "cosh", "reciprocal")),
    *(same(name, np.append(FINITE, EDGES)) for name in ("tan", "reciprocal", "sinh", "cosh")),
    *(same(name, POSITIVE) for name in ("log", "log2", "sqrt", "rsqrt", "log1p")),
    *(same(name, UNIT) for name in ("asin", "acos")),
    *(same(name, np.append(ALL, [-2.5, -1.5, 1.5, 3.5, 2.0**53 - 1])) for name in ("floor", "ceil", "round")),
    *(same(name, *TIES) for name in ("add", "sub", "mul", "maximum", "minimum")),
    case("div", torch.div, TIES[0], np.where(TIES[1] == 0, 2.0, TIES[1])),
    case("mod", torch.remainder, A, B),
    case("mod", torch.remainder, np.array([INF, -1.0, 1.0, NAN]), np.array([2.0, INF, INF, 2.0])),
    case("pow", torch.pow, BASES, EXPONENTS),
    case("clip", torch.clamp, *BOUNDS),
    case("clip", torch.clamp, np.append(EDGES, [-1.0, 1.0]), np.full(5, -1.0), np.full(5, 1.0)),
    case("where", torch.where, TIES[0] > 0.5, *TIES),
    case("heaviside", lambda x: heaviside(x, 1.0), EVERYWHERE),
    case("heaviside", lambda x: heaviside(x, 0.5), EVERYWHERE, at_zero=0.5),
    case("softplus", lambda x: F.softplus(x, threshold=1000.0), np.append(FINITE, [-90.0, 700.0, NAN])),
    case("leaky_relu", F.leaky_relu, ALL),
    case("leaky_relu", lambda x: F.leaky_relu(x, 0.1), ALL, negative_slope=0.1),
    case("elu", F.elu, ALL),
    case("elu", lambda x: F.elu(x, 0.3), ALL, alpha=0.3),
    case("selu", F.selu, ALL),
    case("softsign", F.softsign, EVERYWHERE),
    case("silu", F.silu, EVERYWHERE),
    case("gelu", F.gelu, EVERYWHERE),
    case("gelu", lambda x: F.gelu(x, approximate="tanh"), EVERYWHERE, approximate="tanh"),
    case("hardtanh", F.hardtanh, ALL),
    case("hardtanh", lambda x: F.hardtanh(x, -0.5, 2.5), ALL, min_val=-0.5, max_val=2.5),
    case("hardsigmoid", F.hardsigmoid, np.append(ALL, [-3.0, 3.0])),
    case("gaussian", lambda x: torch.exp(-(x**2)), np.append(EVERYWHERE, NAN)),
    case("prelu", lambda x, a: torch.where(x > 0, x, a * x), EVERYWHERE, np.linspace(-1, 1, len(EVERYWHERE))),
]


def interpreted(name: str, arrays: tuple[Any, ...], attributes: dict[str, Any]) -> list[np.ndarray]:
    """graphc's value, and the gradients by the float operands for a cotangent of 1, 2, 3, ..."""
    values = tuple(Value(TensorType(as_dtype(a.dtype), a.shape), name=f"x{k}") for k, a in enumerate(arrays))
    b = Builder()
    output = b.elementwise(name, *values, **attributes)
    found = []
    if output.type.dtype.is_float:
        wrt = [v for v in values if v.type.dtype.is_float]
        cotangent = b.constant(np.arange(1.0, len(arrays[0]) + 1))
        slopes = gradients([output], [cotangent], wrt, b)
        found = [b.full(0, v.type) if g is None else g for v, g in zip(wrt, slopes, strict=True)]
    inputs = {v.name: a for v, a in zip(values, arrays, strict=True)}
    return evaluate(Graph(name, values, (output, *found)), inputs)


@pytest.mark.parametrize(("name", "arrays", "attributes", "reference"), CASES)
def test_value_and_gradient(
    name: str, arrays: tuple[Any, ...], attributes: dict[str, Any], reference: Callable[..., Any], torch_calls: Any
) -> None:
    value, *slopes = interpreted(name, arrays, attributes)
    operands = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    with torch_calls():
        expected = reference(*operands)
    expected.backward(torch.arange(1.0, expected.numel() + 1, dtype=torch.float64))

    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12, atol=1e-15)
    rtol = 1e-7 if name == "hardsigmoid" else 1e-11  # torch multiplies by 1/6 in float32
    for slope, operand in zip(slopes, [o for o in operands if o.requires_grad], strict=True):
        np.testing.assert_allclose(slope, operand.grad.numpy(), rtol=rtol, atol=1e-14)


def test_floordiv() -> None:
    (value, *_) = interpreted("floordiv", (A, B), {})
    np.testing.assert_array_equal(value, torch.floor_divide(torch.tensor(A), torch.tensor(B)).numpy())


@pytest.mark.parametrize("name", ["isnan", "isinf", "isfinite"])
def test_classification(name: str) -> None:
    (value,) = interpreted(name, (ALL,), {})
    np.testing.assert_array_equal(value, getattr(torch, name)(torch.tensor(ALL)).numpy())


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor", "logical_not"])
def test_logic(name: str) -> None:
    both = np.array([False, False, True, True]), np.array([False, True, False, True])
    arrays = both[:1] if name == "logical_not" else both
    (value,) = interpreted(name, arrays, {})
    np.testing.assert_array_equal(value, getattr(torch, name)(*map(torch.tensor, arrays)).numpy())


@pytest.mark.parametrize("name", ["clip", "maximum", "minimum", "mod", "floordiv", "square", "add", "sub", "mul"])
def test_integers(name: str) -> None:
    a, b = np.array([7, -7, 7, -7, 5]), np.array([3, 3, -3, -3, 5])
    reference = {"clip": "clamp", "mod": "remainder", "floordiv": "floor_divide"}.get(name, name)
    arrays = {"clip": (a, b, b + 2), "square": (a,)}.get(name, (a, b))
    (value,) = interpreted(name, arrays, {})
    assert value.dtype == np.int64
    np.testing.assert_array_equal(value, getattr(torch, reference)(*map(torch.tensor, arrays)).numpy())


def test_every_elementwise_op_is_compared() -> None:
    """Those missing here are compared in test_torch_parity.py, or have no PyTorch function."""
    here = {case.values[0] for case in CASES} | {"isnan", "isinf", "isfinite", "floordiv"}
    there = {"lt", "le", "gt", "ge", "eq", "ne", "logical_and", "logical_or", "logical_xor", "logical_not"}
    assert {op.name for op in OPS.values() if op.scalar} - here - there <= {"scalar_function"}


def test_how_many_functions(torch_calls: Any) -> None:
    """Distinct functions of PyTorch; those of arrays are in tests/dsl/test_array_parity.py."""
    with torch_calls() as names:
        for _, arrays, _, reference in (case.values for case in CASES):
            reference(*map(torch.tensor, arrays))
    assert len(names) >= 45, sorted(names)
