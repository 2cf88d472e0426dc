"""What the tests of passes share: apply a pass to a text, compare with a text, and the values before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.interpret import evaluate
from graphc.ir.dims import evaluate as size_of
from graphc.ir.graph import Graph
from graphc.ir.text import parse, print_graph
from graphc.ir.verify import verify
from graphc.passes.bind import bind
from graphc.passes.manager import Pass, PassResult

SIZES = {"N": 5, "M": 3, "K": 4}


def random_inputs(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays for a graph: floats in -2 .. 2, integers 0 .. 2; dimension symbols as in SIZES."""
    random = np.random.default_rng(seed)
    arrays = {}
    for value in graph.inputs:
        shape = tuple(size_of(dim, SIZES) for dim in value.type.shape)
        floats = random.uniform(-2, 2, shape) if value.type.dtype.is_float else random.integers(0, 3, shape)
        arrays[value.name] = floats.astype(value.type.dtype.numpy)
    return arrays


def assert_equal_values(before: Graph, after: Graph, inputs: Mapping[str, np.ndarray] | None = None) -> None:
    """Both graphs give the same outputs, in float64."""
    arrays = random_inputs(before) if inputs is None else dict(inputs)
    sizes = dict(SIZES) if inputs is None else {}
    for x, y in zip(evaluate(bind(before, sizes), arrays), evaluate(bind(after, sizes), arrays), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(y, x, rtol=1e-12, atol=1e-13)


@pytest.fixture
def equal_values() -> Callable[..., None]:
    """`assert_equal_values`."""
    return assert_equal_values


@pytest.fixture
def inputs_of() -> Callable[..., dict[str, np.ndarray]]:
    """`random_inputs`."""
    return random_inputs


@pytest.fixture
def rewrites_to() -> Callable[..., PassResult]:
    """`check(pass, before, after)`: the pass turns one text into the other, both valid and of equal values."""

    def check(step: Pass, before: str, after: str, inputs: Mapping[str, np.ndarray] | None = None) -> PassResult:
        graph = parse(before)
        verify(graph)
        result = step(graph)
        verify(result.graph)
        assert print_graph(result.graph, origins=False) == print_graph(parse(after), origins=False)
        assert (result.graph is graph) == (not result.rewrites)
        if not any(node.op.name == "grad" for node in graph.nodes):
            assert_equal_values(graph, result.graph, inputs)
        again = step(result.graph)
        assert again.graph is result.graph and again.rewrites == ()
        return result

    return check
