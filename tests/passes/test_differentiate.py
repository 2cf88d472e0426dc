"""The pass that expands `grad` nodes (reverse mode itself is tested in tests/autodiff)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.errors import GradientError
from graphc.interpret import evaluate
from graphc.ir.graph import Origin
from graphc.ir.text import parse
from graphc.ir.verify import verify
from graphc.passes.differentiate import Differentiate

TEXT = """graph g(%x: f32[N]) -> (f32[], f32[N], f32[N]) {
  %0 = tanh(%x)   # fc  net.py:3
  %1 = sum(%0, axes=[0])   # loss  net.py:4
  %2 = grad(%1, %x)   # step  net.py:5
  %3 = mul(%2, %2)
  %4 = sum(%3, axes=[0])
  %5 = grad(%4, %x)
  return %1, %2, %5
}"""


def test_gradients_of_gradients_become_nodes() -> None:
    graph = parse(TEXT)
    result = Differentiate()(graph)
    verify(result.graph, allow_expanded=False)
    assert [(r.rule, r.before, r.origin.module) for r in result.rewrites] == [
        ("grad", "grad(%sum, %x)", "step"),
        ("grad", "grad(%sum, %x)", ""),
    ]
    x = np.array([-1.0, 0.0, 0.5])
    loss, first, second = evaluate(result.graph, {"x": x})
    y = np.tanh(x)
    np.testing.assert_allclose(loss, y.sum())
    np.testing.assert_allclose(first, 1 - y**2, rtol=1e-12)
    np.testing.assert_allclose(second, -4 * y * (1 - y**2) ** 2, rtol=1e-12)


def test_new_nodes_come_from_the_forward_nodes_places() -> None:
    origins = {node.origin for node in Differentiate()(parse(TEXT)).graph.nodes}
    assert Origin("fc.grad", "net.py", 3) in origins and Origin("fc", "net.py", 3) in origins


def test_a_graph_without_gradients_stays(rewrites_to: Callable) -> None:
    text = "graph g(%x: f32[N]) -> f32[N] { %0 = exp(%x) return %0 }"
    rewrites_to(Differentiate(), text, text)


def test_errors_are_those_of_reverse_mode() -> None:
    text = """graph g(%x: f32[N], %y: f32[N]) -> f32[N] {
      %0 = sum(%x, axes=[0])
      %1 = grad(%0, %y)
      return %1
    }"""
    with pytest.raises(GradientError, match="y"):
        Differentiate()(parse(text))
