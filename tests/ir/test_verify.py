"""The verifier: good graphs pass, each way of being wrong is found and shown."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest

import graphc.ops  # noqa: F401  (fills the registry)
from graphc.errors import VerifyError
from graphc.ir.builder import Builder
from graphc.ir.graph import Graph, Literal, Node, Value
from graphc.ir.op import OPS, Attribute, Op
from graphc.ir.text import parse
from graphc.ir.types import f32, tensor
from graphc.ir.verify import verify

F32 = tensor("f32", ("N",))


def value(name: str = "x") -> Value:
    return Value(F32, name=name)


def node(op: str, inputs: tuple[Value, ...], types: tuple[Any, ...] = (F32,), **attributes: Any) -> Node:
    """A node that nothing has checked."""
    return Node(OPS[op], inputs, MappingProxyType(attributes), types)


def error_of(graph: Graph, **options: Any) -> str:
    with pytest.raises(VerifyError) as error:
        verify(graph, **options)
    return str(error.value)


def marked(message: str) -> str:
    """The line that the marker points to."""
    (line,) = [text for text in message.split("\n") if text.startswith("--> ")]
    return line.removeprefix("--> ").strip()


def test_good_graphs_pass() -> None:
    x = value()
    b = Builder()
    loss = b.mean(b.mul(x, x), axes=(0,))
    graph = Graph("g", (x,), (loss, b.grad(loss, x)))
    verify(graph)
    verify(Graph("identity", (x,), (x,)), allow_expanded=False)
    verify(parse("graph empty() -> () { return }"))


def test_expanded_ops_need_leave() -> None:
    x = value()
    loss = Builder().sum(x, axes=(0,))
    message = error_of(Graph("g", (x,), (Builder().grad(loss, x),)), allow_expanded=False)
    assert "op 'grad' must have been replaced by a pass before this point" in message
    assert marked(message) == "%1 = grad(%0, %x) : f32[N]"


def test_types_are_inferred_again() -> None:
    x = value()
    graph = Graph("g", (x,), (node("exp", (x,), (tensor("f64", ("N",)),)).output,))
    message = error_of(graph)
    assert "graph 'g': exp gives f32[N] for its operands, the node says f64[N]" in message
    assert marked(message) == "%0 = exp(%x) : f64[N]"
    message = error_of(Graph("g", (x,), (node("add", (x, Value(tensor("f32", (3,)), name="y"))).output,)))
    assert "is not defined in this graph" in message
    y = Value(tensor("f32", (3,)), name="y")
    assert "add: operands have shapes [N] and [3]" in error_of(Graph("g", (x, y), (node("add", (x, y)).output,)))


def test_operands_must_be_defined() -> None:
    x, stray = value(), value("stray")
    message = error_of(Graph("g", (x,), (node("add", (x, stray)).output,)))
    assert "operand 1 of add (Value(stray: f32[N])) is not defined in this graph" in message
    assert marked(message) == "%0 = add(%x, %?stray) : f32[N]"
    message = error_of(Graph("g", (x,), (stray,)))
    assert "output 0" in message and marked(message) == "return %?stray"


def test_a_value_that_its_producer_does_not_have() -> None:
    x = value()
    real = node("exp", (x,))
    fake = Value(F32, real, 0)
    assert "is not defined in this graph" in error_of(Graph("g", (x,), (node("neg", (fake,)).output,)))


@pytest.mark.parametrize("name", ["", "a\nb", "\x00"])
def test_input_names_must_be_legal(name: str) -> None:
    x = value(name)
    message = error_of(Graph("g", (x,), (x,)))
    assert f"input name {name!r} is not legal" in message
    assert marked(message).startswith("graph g(")


def test_input_names_must_be_unique() -> None:
    assert "two inputs are called 'x'" in error_of(Graph("g", (value(), value()), ()))


def test_inputs_are_no_outputs_of_nodes() -> None:
    x = value()
    made = Value(F32, node("exp", (x,)), 0, "y")
    assert "input 'y' is the output of a node" in error_of(Graph("g", (x, made), ()))


def test_a_graph_has_a_name() -> None:
    assert "the graph has no name" in error_of(Graph("", (), ()))


@pytest.mark.parametrize(
    ("op", "attributes", "problem"),
    [
        ("sum", {"axes": (0,)}, "sum has the attributes axes; it must have, in order: axes, keepdims"),
        ("sum", {"keepdims": False, "axes": (0,)}, "it must have, in order"),
        ("exp", {"fast": True}, "exp has the attributes fast; it must have, in order: none"),
        ("sum", {"axes": [0], "keepdims": False}, "attribute 'axes' of sum is [0], not of kind 'ints'"),
        ("sum", {"axes": (0,), "keepdims": 1}, "attribute 'keepdims' of sum is 1, not of kind 'bool'"),
        ("max", {"axes": (0,), "keepdims": False, "ties": 0}, "attribute 'ties' of max is 0, not of kind 'str'"),
        ("cast", {"dtype": "f32"}, "attribute 'dtype' of cast is 'f32', not of kind 'dtype'"),
        ("argmax", {"axis": True}, "attribute 'axis' of argmax is True, not of kind 'int'"),
        ("argmax", {"axis": None}, "attribute 'axis' of argmax is None, not of kind 'int'"),
        ("reshape", {"shape": ("N",)}, "attribute 'shape' of reshape is ('N',), not of kind 'shape'"),
        ("reshape", {"shape": (-1,)}, "attribute 'shape' of reshape is (-1,), not of kind 'shape'"),
        ("one_hot", {"depth": 2.0, "dtype": f32}, "attribute 'depth' of one_hot is 2.0, not of kind 'dim'"),
        ("constant", {"value": 1.0}, "attribute 'value' of constant is 1.0, not of kind 'literal'"),
        ("constant", {"value": Literal("f32", (2,), b"abcdefgh")}, ""),
    ],
)
def test_attributes_are_complete_and_of_their_kinds(op: str, attributes: dict[str, Any], problem: str) -> None:
    x = value()
    inputs = () if op == "constant" else (x,)
    culprit = node(op, inputs, (tensor("f32", (2,)) if op == "constant" else F32,), **attributes)
    graph = Graph("g", (x,), (node("neg", (culprit.output,), culprit.output_types).output,))
    if problem:
        message = error_of(graph)
        assert problem in message and marked(message).startswith(f"%0 = {op}(")
    else:
        verify(graph)


def test_float_attributes_take_integers_but_no_truth_values() -> None:
    op = Op("probe", "d", "l", infer=lambda types, attributes: (F32,), attributes={"a": Attribute("float", "an a")})
    OPS["probe"] = op
    try:
        verify(Graph("g", (), (node("probe", (), a=1).output,)))
        verify(Graph("g", (), (node("probe", (), a=float("nan")).output,)))
        assert "not of kind 'float'" in error_of(Graph("g", (), (node("probe", (), a=True).output,)))
    finally:
        del OPS["probe"]


def test_ops_come_from_the_registry() -> None:
    foreign = Op("exp", "d", "l", infer=lambda types, attributes: tuple(types))
    x = value()
    assert "op 'exp' is not in the registry" in error_of(
        Graph("g", (x,), (Node(foreign, (x,), MappingProxyType({}), (F32,)).output,))
    )


def test_nested_graphs_are_verified() -> None:
    x, a = value(), value("a")
    body = Graph("inside", (a,), (node("exp", (a,), (tensor("f64", ("N",)),)).output,))
    outer = Graph("g", (x,), (node("fusion", (x,), (tensor("f64", ("N",)),), body=body, anchors=(0,)).output,))
    message = error_of(outer)
    assert "graph 'inside': exp gives f32[N]" in message and marked(message) == "%0 = exp(%a) : f64[N]"


def test_long_graphs_are_shown_around_the_culprit() -> None:
    x = value()
    chain = x
    for position in range(200):
        types = (tensor("f64", ("N",)),) if position == 100 else (F32,)
        chain = node("exp" if position == 100 else "neg", (chain,), types).output
    message = error_of(Graph("long", (x,), (chain,)))
    assert marked(message) == "%100 = exp(%99) : f64[N]"
    assert message.count("\n    ...") == 2 and len(message.split("\n")) < 60
