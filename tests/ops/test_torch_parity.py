"""Values and gradients of the spine ops against PyTorch, ties, zeros and infinities included."""

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
from graphc.ir.types import TensorType, as_dtype

torch: Any = pytest.importorskip("torch", reason="parity with PyTorch needs torch")

WIDE = np.array([-1e4, -90.0, -2.0, -0.5, -0.0, 0.0, 0.3, 1.0, 5.0, 90.0, 1e4])
TIES = (np.array([1.0, 2.0, -3.0, 0.0, np.inf]), np.array([1.0, -2.0, -3.0, 0.5, np.inf]))
GRID = np.sin(np.arange(24.0) * 1.7).reshape(2, 3, 4)
EVEN = np.array([[2.0, 2.0, 1.0, 2.0], [-1.0, -3.0, -3.0, -1.0]])
LOGITS = np.array([[1.0, 2.0, 0.5], [100.0, -100.0, 3.0], [1e4, 1e4, -1e4]])
LABELS = np.array([2, 1, 0], np.int64)
INF, NAN = np.inf, np.nan

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any], Callable[..., Any]]] = [
    *(
        (name, (WIDE,), {}, lambda x, name=name: getattr(torch, name)(x))
        for name in ("exp", "expm1", "tanh", "sigmoid")
    ),
    *((name, (WIDE,), {}, lambda x, name=name: getattr(torch, name)(x)) for name in ("abs", "relu", "neg", "sign")),
    *(
        (name, (np.abs(WIDE) + 0.1,), {}, lambda x, name=name: getattr(torch, name)(x))
        for name in ("log", "sqrt", "log1p")
    ),
    ("relu", (np.array([NAN, INF, -INF]),), {}, lambda x: torch.relu(x)),
    ("softplus", (WIDE,), {}, lambda x: torch.nn.functional.softplus(x)),
    ("add", TIES, {}, lambda a, b: a + b),
    ("sub", TIES, {}, lambda a, b: a - b),
    ("mul", (TIES[0], TIES[1][::-1].copy()), {}, lambda a, b: a * b),
    ("div", (TIES[0], TIES[1]), {}, lambda a, b: a / b),
    ("maximum", TIES, {}, lambda a, b: torch.maximum(a, b)),
    ("minimum", TIES, {}, lambda a, b: torch.minimum(a, b)),
    ("where", (TIES[0] > 0.5, *TIES), {}, lambda c, a, b: torch.where(c, a, b)),
    ("sum", (GRID,), {"axes": (0, -1)}, lambda x: x.sum((0, -1))),
    ("mean", (GRID,), {"axes": (1,), "keepdims": True}, lambda x: x.mean(1, keepdim=True)),
    ("max", (EVEN,), {"axes": (1,)}, lambda x: x.amax(1)),
    ("min", (EVEN,), {"axes": (0, 1)}, lambda x: x.amin((0, 1))),
    ("max", (EVEN,), {"axes": (1,), "ties": "first"}, lambda x: x.max(1).values),
    ("min", (EVEN,), {"axes": (1,), "ties": "first"}, lambda x: x.min(1).values),
    ("max", (GRID,), {"axes": (0,), "ties": "first", "keepdims": True}, lambda x: x.max(0, keepdim=True).values),
    ("matmul", (GRID[0], GRID[1].T.copy()), {}, lambda a, b: a @ b),
    ("matmul", (GRID, GRID), {"transpose_b": True}, lambda a, b: a @ b.transpose(1, 2)),
    ("reshape", (GRID,), {"shape": (4, 6)}, lambda x: x.reshape(4, 6)),
    ("transpose", (GRID,), {"permutation": (2, 0, 1)}, lambda x: x.permute(2, 0, 1)),
    ("broadcast_to", (GRID[:, :1],), {"shape": (5, 2, 3, 4)}, lambda x: x.broadcast_to(5, 2, 3, 4)),
    ("gather", (LOGITS, LABELS), {}, lambda x, i: x.gather(1, i[:, None])[:, 0]),
    ("log_softmax", (LOGITS,), {}, lambda x: torch.log_softmax(x, -1)),
    ("log_softmax", (np.array([[0.5, -INF, 1.0]]),), {}, lambda x: torch.log_softmax(x, -1)),
    ("cross_entropy", (LOGITS, LABELS), {}, lambda x, i: torch.nn.functional.cross_entropy(x, i, reduction="none")),
    ("stop_gradient", (GRID,), {}, lambda x: x.detach() + 0 * x),
]


def both(name: str, arrays: tuple[Any, ...], attributes: dict[str, Any]) -> tuple[np.ndarray, list[np.ndarray]]:
    """graphc's value, and its gradients by the float operands for a cotangent of 1, 2, 3, ..."""
    values = tuple(Value(TensorType(as_dtype(a.dtype), a.shape), name=f"x{k}") for k, a in enumerate(arrays))
    b = Builder()
    output = getattr(b, name)(*values, **attributes)
    wrt = [v for v in values if v.type.dtype.is_float]
    size = int(np.prod(output.type.shape))
    cotangent = b.constant(np.arange(1.0, size + 1).reshape(output.type.shape))
    found = [
        b.full(0, v.type) if g is None else g
        for v, g in zip(wrt, gradients([output], [cotangent], wrt, b), strict=True)
    ]
    value, *slopes = evaluate(
        Graph(name, values, (output, *found)), {v.name: a for v, a in zip(values, arrays, strict=True)}
    )
    return value, slopes


@pytest.mark.parametrize(
    ("name", "arrays", "attributes", "reference"), CASES, ids=[f"{c[0]}-{k}" for k, c in enumerate(CASES)]
)
def test_value_and_gradient(
    name: str, arrays: tuple[Any, ...], attributes: dict[str, Any], reference: Callable[..., Any], torch_calls: Any
) -> None:
    value, slopes = both(name, arrays, attributes)
    operands = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    with torch_calls():
        expected = reference(*operands)
    expected.backward(torch.arange(1.0, expected.numel() + 1, dtype=torch.float64).reshape(expected.shape))

    np.testing.assert_allclose(value, expected.detach().numpy(), rtol=1e-12, atol=1e-15)
    for slope, operand in zip(slopes, [o for o in operands if o.requires_grad], strict=True):
        np.testing.assert_allclose(slope, operand.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["lt", "le", "gt", "ge", "eq", "ne"])
def test_comparisons(name: str) -> None:
    a, b = np.append(TIES[0], [NAN, 1.0]), np.append(TIES[1], [NAN, NAN])
    values = tuple(Value(TensorType(as_dtype(v.dtype), v.shape), name=n) for n, v in (("a", a), ("b", b)))
    found = evaluate(Graph(name, values, (getattr(Builder(), name)(*values),)), {"a": a, "b": b})[0]
    np.testing.assert_array_equal(found, getattr(torch, name)(torch.tensor(a), torch.tensor(b)).numpy())


def test_argmax_with_ties_and_nan() -> None:
    x = np.array([[1.0, 3.0, 3.0], [NAN, 5.0, NAN]])
    value = Value(TensorType(as_dtype(x.dtype), x.shape), name="x")
    found = evaluate(Graph("argmax", (value,), (Builder().argmax(value, axis=1),)), {"x": x})[0]
    np.testing.assert_array_equal(found, torch.tensor(x).argmax(1).numpy())
