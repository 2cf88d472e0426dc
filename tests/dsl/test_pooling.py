"""Pooling against PyTorch: values and gradients with ties, padding and overlaps, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.autodiff.expand import expand_derivatives
from graphc.dsl.symbol import unwrap
from graphc.errors import AttributeValueError, GraphcError, ShapeError
from graphc.interpret import evaluate
from graphc.ir.graph import Graph
from graphc.kernel.interpret import run
from graphc.kernel.verify import verify

torch: Any = pytest.importorskip("torch", reason="parity with PyTorch needs torch")

SPACE = {1: (11,), 2: (9, 7), 3: (5, 4, 6)}


def wave(shape: tuple[int, ...], step: float) -> np.ndarray:
    return np.sin(np.arange(float(np.prod(shape))) * step).reshape(shape)


def ties(shape: tuple[int, ...]) -> np.ndarray:
    return np.round(wave(shape, 1.7))


def check(name: str, array: np.ndarray, options: dict[str, Any]) -> None:
    """Value, gradient of sum(w y^2), and every window kernel against its reference."""
    x = gc.input("x", array.shape, dtype="float64")
    y = getattr(gc, name)(x, **options)
    weights = wave(tuple(map(int, y.shape)), 0.3)
    (gradient,) = gc.grad(gc.sum(y * y * weights + y), [x])
    graph = expand_derivatives(Graph("g", (x.ir,), (unwrap(y), unwrap(gradient))))
    found = evaluate(graph, {"x": array})

    tensor = torch.tensor(array, requires_grad=True)
    expected = getattr(torch.nn.functional, name)(tensor, **options)
    (expected * expected * torch.tensor(weights) + expected).sum().backward()
    for mine, theirs in zip(found, (expected.detach(), tensor.grad), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=1e-10, atol=1e-12)

    values = dict(zip([x.ir], [array], strict=True))
    for node in graph.nodes:
        inputs = [values[v] for v in node.inputs]
        results = node.op.reference(inputs, node.attributes)
        values |= dict(zip(node.outputs, results, strict=True))
        if node.op.name in ("contract", "max_pool", "max_unpool"):
            kernel = node.op.lower(node)
            verify(kernel)
            computed = run(kernel, {f"in{k}": a for k, a in enumerate(inputs)})
            for k, result in enumerate(results):
                np.testing.assert_allclose(computed[f"out{k}"], result, rtol=1e-12, atol=1e-13)


GEOMETRIES: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3},
    {"kernel_size": 3, "stride": 1},
    {"kernel_size": 3, "stride": 2},
    {"kernel_size": 2, "stride": 3},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 2, "stride": 2, "padding": 1},
    {"kernel_size": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 3, "ceil_mode": True},
]


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_max_pooling_is_that_of_torch(options: dict[str, Any], rank: int) -> None:
    for array in (wave((2, 3, *SPACE[rank]), 1.7), ties((1, 2, *SPACE[rank]))):
        check(f"max_pool{rank}d", array, options)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
        {"kernel_size": 2, "stride": 1, "dilation": 2},
        {"kernel_size": 3, "stride": 2, "dilation": (2, 3), "padding": 1},
        {"kernel_size": 3, "stride": 5, "dilation": 2},
        {"kernel_size": (9, 7)},
    ],
    ids=str,
)
def test_max_pooling_with_a_window_for_each_axis(options: dict[str, Any]) -> None:
    check("max_pool2d", ties((2, 3, *SPACE[2])), options)


def test_max_pooling_of_volumes_and_without_a_batch() -> None:
    check("max_pool3d", ties((1, 2, *SPACE[3])), {"kernel_size": (2, 2, 3), "stride": (2, 1, 2)})
    check("max_pool2d", ties((3, 6, 6)), {"kernel_size": 2})
    check("avg_pool2d", wave((3, 6, 6), 1.7), {"kernel_size": 2})
    check("avg_pool3d", wave((1, 2, *SPACE[3]), 1.7), {"kernel_size": 2, "padding": 1, "count_include_pad": False})


def test_nan_and_infinities() -> None:
    array = np.array([[[1.0, np.nan, 3.0, np.inf, -np.inf, -np.inf, 0.0, -0.0]]])
    x = gc.input("x", array.shape, dtype="float64")
    y = gc.max_pool1d(x, 2)
    (g,) = gc.grad(gc.sum(y), [x])
    values, gradient = evaluate(expand_derivatives(Graph("g", (x.ir,), (unwrap(y), unwrap(g)))), {"x": array})
    np.testing.assert_array_equal(values, [[[np.nan, np.inf, -np.inf, 0.0]]])
    np.testing.assert_array_equal(gradient, [[[0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0]]])


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("options", GEOMETRIES, ids=str)
def test_average_pooling_is_that_of_torch(options: dict[str, Any], rank: int) -> None:
    for include in (True, False):
        check(f"avg_pool{rank}d", wave((2, 3, *SPACE[rank]), 1.7), {**options, "count_include_pad": include})


def test_average_pooling_by_a_given_divisor() -> None:
    options = {"kernel_size": (2, 3), "stride": 2, "padding": 1, "divisor_override": 5}
    check("avg_pool2d", wave((2, 3, 9, 7), 1.7), options)


def test_one_kernel_stores_the_greatest_alone_where_no_gradient_needs_the_tap() -> None:
    x = gc.input("x", ("N", 2, 6, 6))
    program = gc.compile([x], [gc.max_pool2d(x, 2)], dims={"N": 3}, cache=False)
    (kernel,) = program.kernels.values()
    assert "max(" in kernel.form and "argmax" not in kernel.form
    array = wave((3, 2, 6, 6), 1.7).astype(np.float32)
    expected = torch.nn.functional.max_pool2d(torch.tensor(array), 2).numpy()
    np.testing.assert_array_equal(program(array)[0], expected)


def test_compiled_pooling_and_gradients_with_a_symbolic_batch() -> None:
    x = gc.input("x", ("N", 2, 7, 6))
    results = []
    for y in (
        gc.relu(gc.max_pool2d(x, 2)),
        gc.max_pool2d(x, 3, stride=1, padding=1),
        gc.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True),
        gc.avg_pool2d(x, 2),
        gc.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False),
    ):
        results += [y, *gc.grad(gc.sum(y * y), [x])]
    program = gc.compile([x], results, dims={"N": 20}, cache=False)
    graph = expand_derivatives(program.graph)
    for batch in (20, 3):
        array = ties((batch, 2, 7, 6)).astype(np.float32)
        for mine, oracle in zip(program(array), evaluate(graph, {"x": array}), strict=True):
            np.testing.assert_allclose(mine, oracle, rtol=1e-5, atol=1e-6)


BAD: list[tuple[str, tuple[int | str, ...], dict[str, Any], type[GraphcError], str]] = [
    ("max_pool2d", (2, 3, 4, 4), {"kernel_size": 5}, ShapeError, r"\(4 \+ 0 \+ 0 - 1\*\(5 - 1\) - 1\) / 5 \+ 1 = 0"),
    ("max_pool2d", (2, 3, 4, 4), {"kernel_size": 2, "padding": 2}, AttributeValueError, "more than half of the"),
    ("max_pool2d", (2, 3, 4, 4), {"kernel_size": 0}, AttributeValueError, "kernel_size=0 must be at least 1"),
    ("max_pool2d", (2, 3, 4, 4), {"kernel_size": (2, 2, 2)}, AttributeValueError, "3 entries, .* 2 axes"),
    ("max_pool2d", (2, 3, 4, 4), {"kernel_size": 2, "stride": 0}, AttributeValueError, "stride=0"),
    ("max_pool2d", (2, 3, 4, 4), {"kernel_size": 2, "padding": "same"}, AttributeValueError, "'same' is not an int"),
    ("max_pool2d", (4, 4), {"kernel_size": 2}, ShapeError, r"2 axes; it must be \[N, C, H, W\], or \[C, H, W\]"),
    ("max_pool1d", (2, 3, 0), {"kernel_size": 1}, ShapeError, "axis of size 0"),
    ("max_pool1d", (2, 3, "L"), {"kernel_size": 2}, ShapeError, "give L as a number"),
    ("avg_pool1d", (2, 3, "L"), {"kernel_size": 3, "stride": 1, "padding": 1, "count_include_pad": False}, ShapeError,
     "different numbers of elements along an axis of size L"),
    ("avg_pool2d", (2, 3, 4, 4), {"kernel_size": 2, "divisor_override": 0}, AttributeValueError, "divides by zero"),
    ("avg_pool2d", (2, 3, 1, 4), {"kernel_size": 2}, ShapeError, "= 0; make the kernel"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "shape", "options", "error", "reason"), BAD)
def test_bad_input_is_refused_with_the_numbers(
    name: str, shape: tuple[int | str, ...], options: dict[str, Any], error: type[GraphcError], reason: str
) -> None:
    with pytest.raises(error, match=reason) as caught:
        getattr(gc, name)(gc.input("x", shape), **options)
    assert str(caught.value).startswith(f"{name}(f32[") and "test_pooling.py" in str(caught.value)


def test_integers_have_a_mean_in_float32() -> None:
    x = gc.input("x", (1, 1, 4), dtype="int32")
    assert gc.avg_pool1d(x, 2).dtype == gc.float32
    (values,) = gc.compile([x], [gc.avg_pool1d(x, 2)], cache=False)(np.array([[[1, 2, 3, 5]]], np.int32))
    np.testing.assert_array_equal(values, [[[1.5, 4.0]]])


def test_means_along_an_axis_of_symbolic_size() -> None:
    x = gc.input("x", (1, 1, "2*L"))
    assert str(gc.avg_pool1d(x, 2).shape) == "(1, 1, L)"
