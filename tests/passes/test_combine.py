"""Kernels that share work become one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.dsl.collect import collect
from graphc.ir.graph import Graph
from graphc.ir.text import parse
from graphc.passes import combine as combining
from graphc.passes.combine import Combine
from graphc.passes.manager import run
from graphc.passes.pipeline import default_pipeline


def optimised(inputs: list[Any], outputs: list[Any]) -> tuple[Graph, tuple[str, ...]]:
    """The graph after the pipeline, verified after each pass, and what `combine` remarked."""
    graph, stages = run(collect(inputs, outputs, {}).graph, default_pipeline({}), verify=True)
    return graph, next(s.remarks for s in stages if s.name == "combine")


def kernels(graph: Graph) -> list[str]:
    return [n.attributes["body"].name if n.op.name == "fusion" else n.op.name for n in graph.nodes]


def test_a_loss_and_its_gradient_share_one_reduction(rewrites_to: Callable) -> None:
    result = rewrites_to(
        Combine(),
        """graph g(%z: f32[N,4], %t: i32[N]) -> (f32[N], f32[N,4]) {
          %0 = cross_entropy(%z, %t)
          %1 = fusion(%z, body=graph log_softmax_exp(%p0: f32[N,4]) -> f32[N,4] {
            %0 = log_softmax(%p0)
            %1 = exp(%0)
            return %1
          })
          return %0, %1
        }""",
        """graph g(%z: f32[N,4], %t: i32[N]) -> (f32[N], f32[N,4]) {
          %0, %1 = fusion(%z, %t, body=graph cross_entropy_and_log_softmax_exp(
            %p0: f32[N,4], %p1: i32[N]) -> (f32[N], f32[N,4]) {
            %0 = cross_entropy(%p0, %p1)
            %1 = log_softmax(%p0)
            %2 = exp(%1)
            return %0, %2
          }, anchors=[0,1])
          return %0, %1
        }""",
    )
    assert [r.why for r in result.rewrites] == ["both need the same reduction"]


def test_a_difference_of_products_is_one_sum(rewrites_to: Callable) -> None:
    rewrites_to(
        Combine(),
        """graph g(%x: f32[N,4], %h: f32[N,3], %y: f32[N,4], %k: f32[N,3]) -> f32[4,3] {
          %0 = matmul(%x, %h, transpose_a=true)
          %1 = fusion(%y, %k, %0, body=graph matmul_sub(%p0: f32[N,4], %p1: f32[N,3], %p2: f32[4,3]) -> f32[4,3] {
            %0 = matmul(%p0, %p1, transpose_a=true)
            %1 = sub(%p2, %0)
            return %1
          })
          return %1
        }""",
        """graph g(%x: f32[N,4], %h: f32[N,3], %y: f32[N,4], %k: f32[N,3]) -> f32[4,3] {
          %0 = fusion(%x, %h, %y, %k, body=graph matmul_and_matmul_sub(
            %p0: f32[N,4], %p1: f32[N,3], %p2: f32[N,4], %p3: f32[N,3]) -> f32[4,3] {
            %0 = matmul(%p0, %p1, transpose_a=true)
            %1 = matmul(%p2, %p3, transpose_a=true)
            %2 = sub(%0, %1)
            return %2
          }, anchors=[0,1])
          return %0
        }""",
    )


def test_a_product_that_others_read_too_stays() -> None:
    x, h, y, k = (gc.input(n, ("N", c)) for n, c in (("x", 4), ("h", 3), ("y", 4), ("k", 3)))
    first = x.T @ h
    graph, _ = optimised([x, h, y, k], [first - y.T @ k, first])
    assert kernels(graph) == ["matmul", "matmul_sub"]


def test_sums_over_other_points_stay() -> None:
    x, y = gc.input("x", ("N", 2)), gc.input("y", ("M", 2))
    graph, _ = optimised([x, y], [gc.sum(x) - gc.sum(y)])
    assert kernels(graph) == ["sum", "sum_sub"]


def test_mean_and_greatest_element_are_one_walk() -> None:
    x = gc.input("x", ("N", 40))
    graph, _ = optimised([x], [x.mean(1), x.max(1), gc.sum(x * x)])
    assert kernels(graph) == ["mean_and_max", "sum"]


def test_kernels_with_a_third_between_them_stay_apart_with_a_remark() -> None:
    x = gc.input("x", ("N", 8))
    total = x.sum(1)
    shifted = gc.exp(x - total.reshape(("N", 1)))
    graph, remarks = optimised([x], [shifted, (shifted @ gc.param("W", (8, 8))).sum(1) + x.max(1)])
    assert "sum" in kernels(graph)[0]
    declared = parse("""graph g(%x: f32[N,4]) -> f32[N] {
      %0 = sum(%x, axes=[1])
      %1 = exp(%0)
      %2 = fusion(%x, %1, body=graph max_add(%p0: f32[N,4], %p1: f32[N]) -> f32[N] {
        %0 = max(%p0, axes=[1])
        %1 = add(%0, %p1)
        return %1
      })
      return %2
    }""")
    result = Combine()(declared)
    assert result.graph is declared and "a third kernel lies between" in result.remarks[0]


@pytest.mark.parametrize("without", [(), ("combine",)])
def test_values_do_not_depend_on_the_pass(without: tuple[str, ...]) -> None:
    z, t = gc.input("z", ("N", 7)), gc.input("t", ("N",), dtype="int32")
    loss = gc.cross_entropy(z, t)
    outputs = [loss, gc.grad(loss, z)]
    step = gc.compile([z, t], outputs, dims={"N": 6}, without=without, cache=False)
    assert len(step.kernels) == (2 if not without else 3)
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((5, 7)), rng.integers(0, 7, 5)
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    value, gradient = step(scores, labels)
    np.testing.assert_allclose(value, -np.log(p[np.arange(5), labels]).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient, (p - np.eye(7)[labels]) / 5, atol=1e-6)


def test_sums_over_different_ranges_stay_apart() -> None:
    shapes = {"w": (3, 3), "u": (2, 3), "x": (4, 2), "h": (4, 3)}
    w, u, x, h = (gc.input(name, shape) for name, shape in shapes.items())
    y = gc.tanh(x @ u + h @ w + 1.0)
    arrays = [np.linspace(-1, 1, int(np.prod(s)), dtype=np.float32).reshape(s) for s in shapes.values()]
    (found,) = gc.compile([w, u, x, h], [y], cache=False)(*arrays)
    a, b, c, d = arrays
    np.testing.assert_allclose(found, np.tanh(c @ b + d @ a + 1), rtol=1e-5)


def test_a_unit_is_composed_once_however_many_it_is_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deep networks have many kernels over the same points; composing both of each pair made compiling quadratic."""
    composed: list[Any] = []
    original = combining.fused_form
    monkeypatch.setattr(combining, "fused_form", lambda node, names: composed.append(node) or original(node, names))
    x = gc.input("x", ("N", 8))
    h, values = x, []
    for k in range(12):
        h = gc.tanh(h @ gc.param(f"W{k}", (8, 8)) + gc.param(f"b{k}", (8,)))
        values.append(h)
    graph, _ = optimised([x], values)
    assert len(kernels(graph)) == 12 and len(composed) == len(set(composed))
