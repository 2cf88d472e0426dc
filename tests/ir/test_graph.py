"""Values, nodes and graphs: order, structural equality, rebuilding."""

from __future__ import annotations

import numpy as np
import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.errors import DTypeError
from graphc.ir.builder import Builder
from graphc.ir.graph import NOWHERE, Graph, Literal, Origin, Value, reached_from, rebuild, topological, with_inputs
from graphc.ir.types import tensor

b = Builder()


def vector(name: str) -> Value:
    return Value(tensor("f32", ("N",)), name=name)


def test_nodes_come_after_their_operands_in_a_fixed_order() -> None:
    x, y = vector("x"), vector("y")
    e, s = b.exp(x), b.add(x, y)
    graph = Graph("g", (x, y), (b.mul(b.neg(s), e), s))
    assert [n.op.name for n in graph.nodes] == ["add", "neg", "exp", "mul"]
    seen = set(graph.inputs)
    for node in graph.nodes:
        assert set(node.inputs) <= seen
        seen.update(node.outputs)


def test_depth_is_no_limit() -> None:
    x = vector("x")
    value = x
    for _ in range(20_000):
        value = b.neg(value)
    graph = Graph("deep", (x,), (value,))
    assert len(graph.nodes) == 20_000
    assert graph == rebuild(graph, lambda node, inputs: with_inputs(node, inputs).outputs)


def test_readers_count_each_operand() -> None:
    x = vector("x")
    square = b.mul(x, x)
    graph = Graph("g", (x,), (square, b.exp(square)))
    assert [n.op.name for n in graph.readers[x]] == ["mul", "mul"]
    assert [n.op.name for n in graph.readers[square]] == ["exp"]


def test_equality_is_structure_not_origin() -> None:
    def build(name: str, swap: bool = False, axes: tuple[int, ...] = (0,), origin: Origin = NOWHERE) -> Graph:
        x, y = vector("x"), vector(name)
        builder = Builder(origin)
        return Graph("g", (x, y), (builder.sum(builder.sub(*((y, x) if swap else (x, y))), axes=axes),))

    assert build("y") == build("y", origin=Origin("fc", "a.py", 3))
    assert hash(build("y")) == hash(build("y", origin=Origin("fc", "a.py", 3)))
    assert build("y") != build("z")
    assert build("y") != build("y", swap=True)
    assert build("y") != build("y", axes=())
    assert build("y") != "a graph"


def test_reached_from() -> None:
    x, y = vector("x"), vector("y")
    e, s = b.exp(x), b.neg(y)
    total = b.add(e, s)
    graph = Graph("g", (x, y), (total,))
    assert reached_from([x], graph.nodes) == {x, e, total}


def test_rebuild_keeps_untouched_nodes_and_replaces_others() -> None:
    x = vector("x")
    e = b.exp(x)
    graph = Graph("g", (x,), (b.neg(b.log(e)),))
    after = rebuild(graph, lambda node, inputs: (b.expm1(*inputs),) if node.op.name == "log" else None)
    assert [n.op.name for n in after.nodes] == ["exp", "expm1", "neg"]
    assert after.nodes[0] is e.producer
    assert topological(graph.outputs) == graph.nodes and len(graph.nodes) == 3


@pytest.mark.parametrize("array", [np.float32(0.1), np.arange(6).reshape(2, 3).T, np.zeros((0, 2)), [True, False]])
def test_a_literal_holds_the_array(array) -> None:
    literal = Literal.of(array)
    np.testing.assert_array_equal(literal.array, array)
    assert literal.array.dtype == np.asarray(array).dtype
    assert literal == Literal.of(np.array(array)) and hash(literal) == hash(Literal.of(np.array(array)))
    with pytest.raises(ValueError, match="read-only"):
        literal.array[...] = 0


def test_a_literal_of_foreign_byte_order_keeps_its_values() -> None:
    np.testing.assert_array_equal(Literal.of(np.array([1.5, -2.0], ">f4")).array, np.array([1.5, -2.0], np.float32))


def test_a_literal_of_an_unsupported_dtype_is_an_error() -> None:
    with pytest.raises(DTypeError, match="complex"):
        Literal.of(1j)


def test_origins_read_as_places() -> None:
    assert str(Origin("encoder.fc", "train.py", 12)) == "encoder.fc  train.py:12"
    assert str(Origin(file="a.py", line=3)) == "a.py:3" and str(NOWHERE) == "" and NOWHERE.place == ""
