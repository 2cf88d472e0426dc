"""Binding dimension symbols."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.errors import ShapeError
from graphc.interpret import evaluate
from graphc.ir.graph import Origin
from graphc.ir.text import parse, print_graph
from graphc.ir.verify import verify
from graphc.passes.bind import Bind, bind, graph_symbols

TEXT = """\
graph g(%x: f32[N,M], %w: f32[4]) -> (f32[M*N], f32[N,4]) {
  %0 = reshape(%x, shape=[M*N]) : f32[M*N]
  %1 = size(dim=N) : i64[]                        # rows  a.py:3
  %2 = cast(%1, dtype=f32) : f32[]
  %3 = broadcast_to(%2, shape=[M*N]) : f32[M*N]
  %4 = mul(%0, %3) : f32[M*N]
  %5 = broadcast_to(%w, shape=[N,4]) : f32[N,4]
  return %4, %5
}"""


def test_types_and_attributes_are_bound() -> None:
    graph = parse(TEXT)
    result = Bind((("M", 3), ("N", 5)))(graph)
    verify(result.graph)
    text = print_graph(result.graph)
    assert "graph g(%x: f32[5,3], %w: f32[4]) -> (f32[15], f32[5,4]) {" in text
    assert "reshape(%x, shape=[15])" in text and "size(dim=5)" in text
    assert graph_symbols(result.graph) == frozenset()
    assert [str(r) for r in result.rewrites] == ["bind: M  ->  3", "bind: N  ->  5"]
    x, w = np.arange(15.0).reshape(5, 3), np.arange(4.0)
    for before, after in zip(evaluate(graph, {"x": x, "w": w}), evaluate(result.graph, {"x": x, "w": w}), strict=True):
        np.testing.assert_array_equal(before, after)


def test_symbols_that_are_not_named_stay() -> None:
    result = Bind((("M", 3),))(parse(TEXT))
    verify(result.graph)
    assert graph_symbols(result.graph) == {"N"}
    assert "reshape(%x, shape=[3*N]) : f32[3*N]" in print_graph(result.graph)
    assert result.graph.nodes[1].origin == Origin("rows", "a.py", 3)


def test_nothing_to_bind_changes_nothing() -> None:
    graph = parse(TEXT)
    assert Bind((("K", 3),))(graph).graph is graph
    assert Bind(())(graph).rewrites == ()


def test_nested_graphs_and_dimensions_by_other_dimensions() -> None:
    graph = parse("""graph g(%x: f32[N], %t: i32[N]) -> f32[N,2] {
      %0 = fusion(%x, body=graph body(%a: f32[N]) -> f32[N] {
        %0 = exp(%a)
        return %0
      })
      %1 = reshape(%0, shape=[N,1])
      %2 = broadcast_to(%1, shape=[N,2])
      %3 = one_hot(%t, depth=2)
      %4 = mul(%2, %3)
      return %4
    }""")
    after = bind(graph, {"N": 7})
    verify(after)
    assert graph_symbols(after) == frozenset()
    assert "body=graph body(%a: f32[7]) -> f32[7]" in print_graph(after)


def test_a_negative_size_is_an_error() -> None:
    with pytest.raises(ShapeError, match="'N': -1"):
        Bind((("N", -1),))(parse(TEXT))
